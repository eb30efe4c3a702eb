# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many numbers at once as a table: what column_array checks value by value, checked for a whole array."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from model_server.bundle.contract import FLOATS, INTEGERS, Contract, Input
from model_server.scoring.table import EXACT, Table, column_array, is_nan, is_numeric, table_of_columns

Array = np.ndarray[Any, Any]


def matrix_reader(contract: Contract) -> Callable[[Array], Table]:
    """The function that makes a table of numbers, of shape (rows, columns of the contract); NaN is a missing value.

    It raises what column_array raises for the first column with a value that does not fit.
    """
    lows, highs = np.array([_limits(column) for column in contract.inputs]).T
    whole = [place for place, column in enumerate(contract.inputs) if column.dtype in INTEGERS]
    float32 = [place for place, column in enumerate(contract.inputs) if column.dtype == "float32"]
    nullable = np.array([column.nullable for column in contract.inputs])
    takes_numbers = is_numeric(contract) and all(column.dtype != "bool" for column in contract.inputs)

    def fits(found: Array) -> bool:
        inside = (found >= lows) & (found <= highs)
        if not inside.all() and not (inside | (np.isnan(found) & nullable)).all():
            return False
        return not whole or bool((found[:, whole] == np.floor(found[:, whole])).all())

    def read(numbers: Array) -> Table:
        found = numbers.astype(np.float64, copy=False)
        if takes_numbers and fits(found) and not (whole and (np.abs(found[:, whole]) >= EXACT).any()):
            if float32:
                found = found.copy()
                found[:, float32] = found[:, float32].astype(np.float32)
            return found
        columns = zip(contract.inputs, numbers.T, strict=True)
        return table_of_columns([number_array(column, values) for column, values in columns], contract)

    return read


def array_of_rows(rows: Sequence[Any], width: int) -> Array:
    """Rows of ``width`` numbers, booleans or, for a missing value, None each, as a float64 array.

    It takes a third of the time of numpy, which looks at every value to find out what it is.
    """
    pack = struct.Struct(f"{width}d").pack
    try:
        # Not bytes, for an array of those cannot be written to.
        packed = bytearray().join([pack(*row) for row in rows])
    except struct.error:
        # There is None.
        return np.array(rows, np.float64)
    return np.frombuffer(packed, np.float64).reshape(len(rows), width)


def number_array(column: Input, numbers: Array) -> Array:
    """Numbers as an array of a column's dtype, as column_array makes it; NaN is a missing value."""
    if column.dtype in FLOATS:
        low, high = _limits(column)
        wide = numbers.astype(np.float64, copy=False)
        inside = (wide >= low) & (wide <= high)
        if inside.all() or (column.nullable and (inside | np.isnan(wide)).all()):
            return wide.astype(column.dtype)
    elif column.dtype in INTEGERS and numbers.dtype.kind in "iu":
        limits = np.iinfo(column.dtype)
        if int(numbers.min()) >= limits.min and int(numbers.max()) <= limits.max:
            return numbers.astype(column.dtype)
    return column_array(column, [None if is_nan(value) else value for value in numbers.tolist()])


def _limits(column: Input) -> tuple[float, float]:
    """The smallest and the largest value of a column's dtype as float64 has them."""
    if column.dtype in FLOATS:
        largest = float(np.finfo(column.dtype).max)
        return -largest, largest
    if column.dtype in INTEGERS:
        limits = np.iinfo(column.dtype)
        return float(limits.min), float(limits.max)
    return 0.0, 0.0
