# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a body was not scored."""

from __future__ import annotations

import json
import math
import re
from typing import Any


class ScoringError(ValueError):
    """The message is one line for the client; ``details`` are its parts (row, column, expected, found)."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details


class BodyError(ScoringError):
    """The body is no JSON document of the form that is asked for."""


class ContractError(ScoringError):
    """The body's rows are not what the contract says."""


def column_is_missing(what: str, name: str, **details: Any) -> ContractError:
    """For the column ``name`` of the contract; ``what`` says where it is not."""
    return ContractError(
        f"{what} {name!r} is missing", **details, column=name, expected=f"column {name!r}", found="none"
    )


class RefusedError(ScoringError):
    """The model has no answer to values that its contract allows: it raised a ValueError, or gave infinity."""


class ModelError(ScoringError):
    """The model failed, or gave what JSON cannot hold, on rows that its contract allows."""


_LARGEST = 1e38
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def line_of(error: BaseException) -> str:
    """An error in one line, the same in each process: without the addresses of objects."""
    return _ADDRESS.sub("", " ".join(f"{type(error).__name__}: {error}".split()))


def shown(value: object) -> str:
    """What the contract has, or a name in a request (of a column, a key), as a message shows it: never much of it."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    # JSON may have half of a surrogate pair, which is no character: no answer could say it as it is.
    text = json.dumps(value, ensure_ascii=False, default=str).encode(errors="backslashreplace").decode()
    return text if len(text) <= 60 else f"{text[:57]}..."


def kind_of(value: object) -> str:
    """What a message says of a value in a request: what kind it is of. The value itself is nobody else's to read."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, (int, float)):
        return _kind_of_number(value)
    for kind, name, empty in ((str, "text", "empty text"), (list, "a list", "an empty list")):
        if isinstance(value, kind):
            return name if value else empty
    return "an object"


def _kind_of_number(value: float) -> str:
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if abs(value) > _LARGEST:
        return "a number too large"
    if value != int(value):
        return "a number with a fraction"
    digits = len(str(abs(int(value))))
    return f"a {'negative ' if value < 0 else ''}whole number of {digits} digit{'s' if digits > 1 else ''}"
