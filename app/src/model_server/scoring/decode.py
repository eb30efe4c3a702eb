# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the bytes of ``{"instances": [[...], ...]}`` or ``{"instances": [{"column": value}, ...]}`` to a request.

Most bodies are right and nothing but numbers: for these msgspec checks and decodes in one step. Every other body takes
the way that can say what is wrong with it. Both ways give the same request.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import msgspec
import numpy as np

from model_server.bundle.contract import INTEGERS, Contract, Input
from model_server.scoring.errors import BodyError, ContractError, kind_of, shown
from model_server.scoring.matrix import array_of_rows
from model_server.scoring.table import EXACT, Request, is_numeric, table_of_instances

# msgspec decodes a name that is none of a structure's, to say so; such a name may be no UTF-8.
_NOT_THESE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def decoder(contract: Contract) -> Callable[[bytes], Request]:
    """The function that decodes bodies for ``contract``: what ``decode`` gives and raises, sooner."""
    if not is_numeric(contract):
        return lambda body: decode(body, contract)
    rows, records = _rows_decoder(contract), _records_decoder(contract)
    float32 = [place for place, column in enumerate(contract.inputs) if column.dtype == "float32"]
    largest = float(np.finfo(np.float32).max)
    has_probabilities = contract.has_probabilities
    width = len(contract.inputs)

    def fast(body: bytes) -> Request:
        try:
            found = rows(body)
            instances = found.instances
        except _NOT_THESE:
            if records is None:
                return decode(body, contract)
            try:
                found = records(body)
            except _NOT_THESE:
                return decode(body, contract)
            instances = [msgspec.structs.astuple(record) for record in found.instances]
        if not instances or (found.probabilities and not has_probabilities):
            return decode(body, contract)
        table = array_of_rows(instances, width)
        if float32:
            narrow = table[:, float32]
            if (np.abs(narrow) > largest).any():
                return decode(body, contract)
            table[:, float32] = narrow.astype(np.float32)
        return Request(table, len(instances), found.probabilities)

    return fast


def decode(body: bytes, contract: Contract) -> Request:
    """Parse the body and check every value. Null is the missing value, in nullable columns alone."""
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
        raise BodyError(f'"probabilities": expected true or false, found {kind_of(probabilities)}')
    if probabilities and not contract.has_probabilities:
        raise ContractError('"probabilities": this model gives none')
    instances = document["instances"]
    if not isinstance(instances, list) or not instances:
        raise BodyError('"instances": expected a list of at least one row')
    return Request(table_of_instances(instances, contract), len(instances), probabilities)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value; null is a missing value")


def _rows_decoder(contract: Contract) -> Callable[[bytes], Any]:
    row: Any = tuple.__class_getitem__(tuple(map(_type, contract.inputs)))
    return _body_decoder(row)


def _records_decoder(contract: Contract) -> Callable[[bytes], Any] | None:
    """None where a column has a name that msgspec takes for no field, as with a quote or a line's end in it."""
    # A column can have any name, a field of a class cannot.
    fields = {f"column_{place}": column for place, column in enumerate(contract.inputs)}
    try:
        record = msgspec.defstruct(
            "Record",
            [(field, _type(column)) for field, column in fields.items()],
            rename={field: column.name for field, column in fields.items()},
            forbid_unknown_fields=True,
            gc=False,
        )
    except ValueError:
        return None
    return _body_decoder(record)


def _body_decoder(instance: Any) -> Callable[[bytes], Any]:
    body = msgspec.defstruct(
        "Body",
        [("instances", list[instance]), ("probabilities", bool, False)],
        forbid_unknown_fields=True,
        gc=False,
    )
    return msgspec.json.Decoder(body).decode


def _type(column: Input) -> Any:
    """What msgspec shall take for a value of a numeric column."""
    if column.dtype == "bool":
        return bool
    if column.dtype in INTEGERS:
        limits = np.iinfo(column.dtype)
        return Annotated[int, msgspec.Meta(ge=max(int(limits.min), -EXACT), le=min(int(limits.max), EXACT))]
    return float | None if column.nullable else float
