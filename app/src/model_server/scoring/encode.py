# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a model gives to a response's bytes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from model_server.scoring.errors import ModelError


def encode(outputs: dict[str, Any]) -> bytes:
    """The JSON document of ``outputs``: the name of each output with its array, a row of it for each row asked."""
    document = {name: to_json(array, name) for name, array in outputs.items()}
    try:
        return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ModelError(f"the model gave what JSON cannot hold: {error}") from None


def to_json(array: Any, name: str) -> Any:
    """``array`` as JSON has it: NaN is null, and infinity is an error, for JSON has none."""
    found = np.asarray(array)
    if found.dtype.kind == "f":
        if not np.isfinite(found).all():
            if np.isinf(found).any():
                row = int(np.argwhere(np.isinf(found))[0][0])
                raise ModelError(f"{name}: row {row}: expected a finite number, found infinity", row=row)
            nullable = found.astype(object)
            nullable[np.isnan(found)] = None
            return nullable.tolist()
    elif found.dtype.kind not in "biuUO":
        raise ModelError(f"{name}: expected numbers, text or booleans, found {found.dtype}")
    return found.tolist()
