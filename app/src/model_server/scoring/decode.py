# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a request's bytes to what the model takes: an array or a DataFrame that fits the contract."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, NoReturn

import numpy as np

from model_server.bundle.contract import FLOATS, INTEGERS, Contract, Input
from model_server.scoring.errors import BodyError, ContractError, shown


@dataclass(frozen=True)
class Request:
    """``rows`` is an array or a DataFrame, as the model's contract says, with ``count`` rows."""

    rows: Any
    count: int
    probabilities: bool


def decode(body: bytes, contract: Contract) -> Request:
    """Parse ``{"instances": [[...], ...]}`` or ``{"instances": [{"column": value}, ...]}`` and check every value.

    Each column becomes an array of its dtype. Null is the missing value, in nullable columns alone.
    """
    try:
        document = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BodyError(f"the body is not valid JSON: {error}") from None
    if not isinstance(document, dict) or "instances" not in document:
        raise BodyError('expected an object with "instances", a list of rows')
    if unknown := sorted(document.keys() - {"instances", "probabilities"}):
        raise BodyError(f'expected "instances" and "probabilities" alone, found {shown(unknown[0])}')
    probabilities = document.get("probabilities", False)
    if not isinstance(probabilities, bool):
        raise BodyError(f'"probabilities": expected true or false, found {shown(probabilities)}')
    if probabilities and not contract.has_probabilities:
        raise ContractError('"probabilities": this model gives none')
    instances = document["instances"]
    if not isinstance(instances, list) or not instances:
        raise BodyError('"instances": expected a list of at least one row')
    return Request(to_model_input(instances, contract), len(instances), probabilities)


def to_model_input(instances: list[Any], contract: Contract) -> Any:
    """The rows as the model takes them. Every error names row and column, both counted as the body has them, from 0."""
    table = _float_table(instances, contract)
    if table is None:
        values = _columns_of_records if isinstance(instances[0], dict) else _columns_of_rows
        arrays = [
            _convert(column, list(found))
            for column, found in zip(contract.inputs, values(instances, contract), strict=True)
        ]
        table = _table(arrays, contract)
    if not contract.columns:
        return table
    import pandas as pd  # Only models that take a DataFrame bring pandas with them.

    if isinstance(table, np.ndarray):
        return pd.DataFrame(table, columns=list(contract.names))
    return pd.DataFrame({name: _series(pd, column, table[name]) for name, column in _by_name(contract).items()})


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value; null is a missing value")


def _by_name(contract: Contract) -> dict[str, Input]:
    return {column.name: column for column in contract.inputs}


def _float_table(instances: list[Any], contract: Contract) -> Any:
    """Rows of nothing but finite float64 in one step, as most requests have them; None if they need a closer look."""
    if any(column.dtype != "float64" for column in contract.inputs) or set(map(type, instances)) != {list}:
        return None
    if set(map(len, instances)) != {len(contract.inputs)}:
        return None
    if not set(map(type, chain.from_iterable(instances))) <= {float, int}:
        return None
    try:
        table = np.array(instances, dtype=np.float64)
    except OverflowError:
        return None
    return table if np.isfinite(table).all() else None


def _columns_of_rows(instances: list[Any], contract: Contract) -> Any:
    for row, instance in enumerate(instances):
        if not isinstance(instance, list):
            raise _error(f"row {row}", "a list, as row 0 is one", instance, row=row)
        if len(instance) != len(contract.inputs):
            raise ContractError(
                f"row {row}: expected {len(contract.inputs)} values, found {len(instance)}",
                row=row, expected=len(contract.inputs), found=len(instance),
            )  # fmt: skip
    return zip(*instances, strict=True)


def _columns_of_records(instances: list[Any], contract: Contract) -> Any:
    names = contract.names
    expected = set(names)
    for row, instance in enumerate(instances):
        if not isinstance(instance, dict):
            raise _error(f"row {row}", "an object, as row 0 is one", instance, row=row)
        if instance.keys() != expected:
            for name in names:
                if name not in instance:
                    raise ContractError(f"row {row}: column {name!r} is missing", row=row, column=name)
            name = min(instance.keys() - expected)
            raise ContractError(f"row {row}: column {shown(name)} is not in the contract", row=row)
    return ([instance[name] for instance in instances] for name in names)


def _convert(column: Input, values: list[Any]) -> Any:
    """The values of one column as an array of its dtype; missing ones as NaN."""
    check, expected = _rule(column)
    for row, value in enumerate(values):
        if not (check(value) if value is not None else column.nullable):
            wanted = f"{expected} or null" if column.nullable else expected
            raise _error(f"row {row}, column {column.name!r}", wanted, value, row=row, column=column.name)
    if column.dtype in INTEGERS:
        return np.array([int(value) for value in values], dtype=column.dtype)
    if column.dtype in FLOATS or (column.dtype == "bool" and None not in values):
        return np.array(values, dtype=column.dtype)
    # What scikit-learn takes for missing in text is NaN, as pandas has it.
    objects = np.empty(len(values), dtype=object)
    objects[:] = [np.nan if value is None else value for value in values]
    return objects


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _rule(column: Input) -> tuple[Callable[[Any], bool], str]:
    """What a value of the column must be: a check, and the words for it."""
    if column.dtype in FLOATS:
        largest = float(np.finfo(column.dtype).max)
        return lambda value: _is_number(value) and abs(value) <= largest, "a number"
    if column.dtype in INTEGERS:
        limits = np.iinfo(column.dtype)
        low, high = int(limits.min), int(limits.max)
        return (
            lambda value: _is_number(value) and low <= value <= high and value == int(value),
            f"a whole number from {low} to {high}",
        )
    if column.dtype == "bool":
        return _is_bool, "true or false"
    if column.dtype == "string":
        return lambda value: isinstance(value, str), "text"
    # With their types, for 1, 1.0 and true are equal.
    categories = {(type(category), category) for category in column.categories or ()}
    listed = ", ".join(shown(category) for category in (column.categories or ())[:5])
    more = ", ..." if len(categories) > 5 else ""
    return (
        lambda value: type(value) in (bool, int, float, str) and (type(value), value) in categories,
        f"one of {listed}{more}",
    )


def _table(arrays: list[Any], contract: Contract) -> Any:
    """One array if the columns have one dtype or the model takes an array; else the columns by name."""
    dtypes = {array.dtype for array in arrays}
    categorical = any(column.dtype == "category" for column in contract.inputs)
    if not contract.columns:
        numeric = not dtypes & {np.dtype(object)}
        dtype = np.result_type(*dtypes) if numeric else np.dtype(object)
        return np.stack([array.astype(dtype) for array in arrays], axis=1)
    if len(dtypes) == 1 and not categorical:
        return np.stack(arrays, axis=1)
    return dict(zip(contract.names, arrays, strict=True))


def _series(pd: Any, column: Input, values: Any) -> Any:
    if column.dtype == "category":
        return pd.Categorical(values, categories=list(column.categories or ()), ordered=bool(column.ordered))
    return pd.Series(values)


def _error(where: str, expected: str, value: object, **details: Any) -> ContractError:
    found = shown(value)
    return ContractError(f"{where}: expected {expected}, found {found}", **details, expected=expected, found=found)
