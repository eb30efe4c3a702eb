# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers that the workers share: each worker counts in a lane of its own, and anyone can add the lanes up.

The memory is anonymous and made before the workers are forked, so there is no file to clean up and nothing that grows.
A lane outlives its worker: the next one goes on counting where it ended.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np


class Lanes:
    """``count`` lanes of ``width`` float64 cells each. Only its own worker writes a lane, so nothing is locked."""

    def __init__(self, count: int, width: int) -> None:
        self._memory = mmap.mmap(-1, max(1, count * width) * 8)
        self._all: np.ndarray[Any, Any] = np.frombuffer(self._memory, dtype=np.float64).reshape(count, width)

    def __len__(self) -> int:
        return len(self._all)

    def cells(self, lane: int) -> memoryview[float]:
        """The cells of ``lane``, for single numbers."""
        return memoryview(self._all[lane]).cast("B").cast("d")

    def array(self, lane: int) -> np.ndarray[Any, Any]:
        """The same cells, for many numbers at once."""
        found: np.ndarray[Any, Any] = self._all[lane]
        return found

    def total(self) -> list[float]:
        """Each cell's sum over the lanes."""
        found: list[float] = self._all.sum(axis=0).tolist()
        return found
