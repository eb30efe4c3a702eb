# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a model gives to a response's bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from model_server.scoring.errors import ModelError, RefusedError

_encode = msgspec.json.Encoder().encode


def encode(outputs: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """The JSON document of ``outputs``: the name of each output with its array, a row of it for each row asked."""
    try:
        if all(array.dtype.kind in "biufU" for array in outputs.values()):
            body = _encode({name: array.tolist() for name, array in outputs.items()})
            # It writes null for NaN, which is right, and for infinity, which is not.
            if b"null" not in body:
                return body
        return _encode({name: to_json(array, name) for name, array in outputs.items()})
    except UnicodeEncodeError:
        # Half of a surrogate pair, which a value of a request may have and a model may give back.
        raise RefusedError("the model answers with text that is no Unicode to these values") from None


def to_json(array: Any, name: str) -> Any:
    """``array`` as JSON has it: NaN is null, and infinity a RefusedError, for JSON has none."""
    found = np.asarray(array)
    if found.dtype.kind == "f":
        if not np.isfinite(found).all():
            if np.isinf(found).any():
                row = int(np.argwhere(np.isinf(found))[0][0])
                raise RefusedError(
                    f"row {row}, output {name!r}: expected a finite number, found infinity:"
                    " the values of the row are too large for the model",
                    row=row, output=name, expected="a finite number", found="infinity",
                )  # fmt: skip
            nullable = found.astype(object)
            nullable[np.isnan(found)] = None
            return nullable.tolist()
    elif found.dtype.kind == "O":
        return [_plain(value) for value in found.flat] if found.ndim == 1 else [to_json(row, name) for row in found]
    elif found.dtype.kind not in "biuU":
        raise ModelError(f"{name}: expected numbers, text or booleans, found {found.dtype}")
    return found.tolist()


def _plain(value: Any) -> Any:
    """A value of an array of objects, which can be anything."""
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, (bool, int, str)) or plain is None or (isinstance(plain, float) and np.isfinite(plain)):
        return plain
    raise ModelError(f"the model gave what JSON cannot hold: {type(value).__name__}")
