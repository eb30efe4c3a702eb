# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a program: a function of rows and an array, each by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Operation = Callable[[Array, Array], Array]
Steps = list[tuple[Operation, Array]]


def narrowed(rows: Array, dtype: np.dtype[Any] | type[Any]) -> Array:
    """Rows in another dtype; a ValueError if a number is too large for it, as scikit-learn raises it."""
    try:
        with np.errstate(over="raise"):
            return rows.astype(dtype, copy=False)
    except FloatingPointError:
        raise ValueError("a value is too large for the model") from None


def _finite(rows: Array, _nothing: Array) -> Array:
    """Rows as they are; a ValueError if a value is infinite, as scikit-learn raises it."""
    if np.isinf(rows).any():
        raise ValueError("a value is too large for the model")
    return rows


OPERATIONS: dict[str, Operation] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.true_divide,
    "at_least": np.maximum,
    "at_most": np.minimum,
    "fill": lambda rows, values: np.where(np.isnan(rows), values, rows),
    "columns": lambda rows, chosen: rows[:, chosen],
    "finite": _finite,
    # Transposed as scikit-learn does, so that BLAS adds in the same order.
    "product": lambda rows, coefficients: rows @ coefficients.T,
}


def read_steps(steps: list[dict[str, str]], arrays: Mapping[str, Array]) -> Steps:
    """What ``Writer.operation`` wrote."""
    return [(OPERATIONS[step["operation"]], arrays[step["array"]]) for step in steps]
