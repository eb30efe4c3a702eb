# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare a model's answers with its golden rows.

This file is shared: Ansible modules run it on a host, and the model server has it as ``model_server.bundle.golden``.
So it needs the standard library alone and runs on Python 3.9.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def mismatches(
    expected: Sequence[Any], found: Sequence[Any], tolerance: Mapping[str, float], limit: int = 5
) -> list[str]:
    """One line for each value that differs, at most ``limit`` of them; none when all match.

    ``expected`` and ``found`` are predictions or probabilities as JSON has them: a value or a (nested) list a row.
    Two numbers match if ``abs(expected - found) <= max(relative * abs(expected), absolute)``; whole numbers, text,
    booleans and null match exactly. Rows count from 0, as in the errors of the model server.
    """
    if not isinstance(found, (list, tuple)):
        return [f"expected {len(expected)} rows, found {_shown(found)}"]
    if len(expected) != len(found):
        return [f"expected {len(expected)} rows, found {len(found)}"]
    lines: list[str] = []
    for row, (wanted, got) in enumerate(zip(expected, found)):
        for line in _differences(f"row {row}", wanted, got, tolerance):
            if len(lines) == limit:
                return lines
            lines.append(line)
    return lines


def _differences(where: str, expected: Any, found: Any, tolerance: Mapping[str, float]) -> Iterator[str]:
    if isinstance(expected, (list, tuple)):
        if not isinstance(found, (list, tuple)) or len(expected) != len(found):
            yield f"{where}: expected {_shown(expected)}, found {_shown(found)}"
            return
        for column, (wanted, got) in enumerate(zip(expected, found)):
            yield from _differences(f"{where}, output {column}", wanted, got, tolerance)
    elif _is_number(expected) and _is_number(found):
        if isinstance(expected, int) and isinstance(found, int):
            if expected != found:
                yield f"{where}: expected {expected}, found {found}"
            return
        relative, absolute = tolerance["relative"], tolerance["absolute"]
        if not math.isclose(expected, found, rel_tol=0, abs_tol=max(relative * abs(expected), absolute)):
            allowed = f"tolerance: relative {relative:g}, absolute {absolute:g}"
            yield f"{where}: expected {_shown(expected)}, found {_shown(found)} ({allowed})"
    elif type(expected) is not type(found) or expected != found:
        yield f"{where}: expected {_shown(expected)}, found {_shown(found)}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
