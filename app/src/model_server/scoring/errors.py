# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a body was not scored."""

from __future__ import annotations

import json
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


class ModelError(ScoringError):
    """The model failed, or gave what JSON cannot hold, on rows that its contract allows."""


def shown(value: object) -> str:
    """A value of a request as a message shows it: never much of it, whatever was sent."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
