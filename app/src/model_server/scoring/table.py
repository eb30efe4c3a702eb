# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows as arrays that fit a contract, and what the model takes made of them.

Every protocol ends here: its values become columns, each checked against the contract, and the columns a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec
import numpy as np

from model_server.bundle.contract import DATES, FLOATS, INTEGERS, Contract, Input
from model_server.scoring.errors import ContractError, column_is_missing, kind_of, shown

Table = np.ndarray[Any, Any] | tuple[np.ndarray[Any, Any], ...]
"""A float64 array of rows and columns where float64 holds every value exactly; else an array for each column.

A missing value is NaN, of a date NaT. A column has the dtype that the contract says, text and categories are objects.
"""

EXACT = 1 << 53
"""Up to here float64 holds every whole number."""


class Request(msgspec.Struct, frozen=True):
    """What is asked of a model: ``count`` rows that fit its contract, and whether probabilities are wanted too."""

    table: Table
    count: int
    probabilities: bool = False


def is_nan(value: Any) -> bool:
    """Whether ``value``, which may be anything, is a number that is none."""
    return isinstance(value, (float, np.floating)) and math.isnan(value)


def is_numeric(contract: Contract) -> bool:
    """Whether every column is a number or a boolean, so that a table can be one array."""
    return all(
        column.dtype in INTEGERS + FLOATS or (column.dtype == "bool" and not column.nullable)
        for column in contract.inputs
    )


def table_of_columns(arrays: Sequence[np.ndarray[Any, Any]], contract: Contract) -> Table:
    """The table of one array for each column of the contract, as ``column_array`` makes them."""
    wide = (array for array in arrays if array.dtype.kind in "iu" and array.dtype.itemsize == 8)
    if is_numeric(contract) and not any((array > EXACT).any() or (array < -EXACT).any() for array in wide):
        return np.stack(arrays, axis=1, dtype=np.float64, casting="unsafe")
    return tuple(arrays)


def table_of_instances(instances: list[Any], contract: Contract) -> Table:
    """The table of rows as JSON has them, all lists or all objects.

    Every error names row and column, both counted as the body has them, from 0.
    """
    values = _columns_of_records if isinstance(instances[0], dict) else _columns_of_rows
    found = zip(contract.inputs, values(instances, contract), strict=True)
    return table_of_columns([column_array(column, list(column_values)) for column, column_values in found], contract)


def column_array(column: Input, values: list[Any]) -> np.ndarray[Any, Any]:
    """The values of one column, as JSON has them, as an array of its dtype; missing ones as NaN."""
    check, expected = _rule(column)
    for row, value in enumerate(values):
        if not (check(value) if value is not None else column.nullable):
            wanted = f"{expected} or null" if column.nullable else expected
            raise _error(f"row {row}, column {column.name!r}", wanted, value, row=row, column=column.name)
    if column.dtype in INTEGERS:
        return np.array([int(value) for value in values], dtype=column.dtype)
    if column.dtype in FLOATS or (column.dtype == "bool" and None not in values):
        return np.array(values, dtype=column.dtype)
    if column.dtype in DATES:
        dates = [None if value is None else datetime.fromisoformat(value) for value in values]
        return np.array(dates, dtype="datetime64[us]").astype(column.dtype)
    # What scikit-learn takes for missing in text is NaN, as pandas has it.
    objects = np.empty(len(values), dtype=object)
    objects[:] = [np.nan if value is None else value for value in values]
    return objects


def model_input(table: Table, contract: Contract) -> Any:
    """The rows as the model was fitted with: a DataFrame if the contract has columns, else an array of one dtype."""
    if contract.series:
        return table[0]
    if contract.columns:
        return _frame(table, contract)
    if isinstance(table, np.ndarray):
        return table.astype(np.result_type(*(np.dtype(column.dtype) for column in contract.inputs)), copy=False)
    dtypes = {array.dtype for array in table}
    dtype = np.dtype(object) if np.dtype(object) in dtypes else np.result_type(*dtypes)
    return np.stack([array.astype(dtype) for array in table], axis=1)


def matrix(table: Table) -> np.ndarray[Any, Any]:
    """A table of numbers as one float64 array."""
    return table if isinstance(table, np.ndarray) else np.stack(table, axis=1, dtype=np.float64, casting="unsafe")


def _frame(table: Table, contract: Contract) -> Any:
    import pandas as pd  # Only models that take a DataFrame bring pandas with them.

    dtypes = {column.dtype for column in contract.inputs}
    if isinstance(table, np.ndarray):
        if len(dtypes) == 1:
            return pd.DataFrame(table.astype(dtypes.pop(), copy=False), columns=list(contract.names))
        table = tuple(values.astype(column.dtype) for column, values in zip(contract.inputs, table.T, strict=True))
    columns = zip(contract.inputs, table, strict=True)
    return pd.DataFrame({column.name: _series(pd, column, values) for column, values in columns})


def _series(pd: Any, column: Input, values: Any) -> Any:
    if column.dtype == "category":
        return pd.Categorical(values, categories=list(column.categories or ()), ordered=bool(column.ordered))
    return pd.Series(values)


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
                    raise column_is_missing(f"row {row}: column", name, row=row)
            found = f"column {shown(min(instance.keys() - expected))}"
            raise ContractError(
                f"row {row}: {found} is not in the contract",
                row=row, expected="columns of the contract alone", found=found,
            )  # fmt: skip
    return ([instance[name] for instance in instances] for name in names)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_date(value: Any, first: int, last: int) -> bool:
    try:
        date = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return False
    return date is not None and date.tzinfo is None and first <= date.year <= last


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
    if column.dtype in DATES:
        # In nanoseconds, 64 bits hold these whole years; what is beyond them would become another date.
        first, last = (1678, 2261) if column.dtype == "datetime64[ns]" else (1, 9999)
        return (
            lambda value: _is_date(value, first, last),
            f"a date as in 2026-05-31 or 2026-05-31T18:30:00, from {first} to {last}",
        )
    if column.categories is None:
        return lambda value: isinstance(value, str), "text"
    # With their types, for 1, 1.0 and true are equal.
    categories = {(type(category), category) for category in column.categories}
    listed = ", ".join(shown(category) for category in column.categories[:5])
    more = ", ..." if len(categories) > 5 else ""
    return (
        lambda value: type(value) in (bool, int, float, str) and (type(value), value) in categories,
        f"one of {listed}{more}",
    )


def _error(where: str, expected: str, value: object, **details: Any) -> ContractError:
    found = kind_of(value)
    return ContractError(f"{where}: expected {expected}, found {found}", **details, expected=expected, found=found)
