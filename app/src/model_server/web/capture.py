# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests and what was predicted for them, kept in a bounded ring of files so that they can be replayed later.

A file is JSON lines, one a request:
``{"time", "id", "service", "version", "digest", "columns", "instances", "outputs"}``. ``columns`` are the names of the
values in each row of ``instances``, without those that are redacted; null is a missing value; ``outputs`` has
``predictions`` and, if they were asked for, ``probabilities``. Names of files sort by their time.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from model_server.bundle.contract import DATES, Input
from model_server.scoring.encode import to_json
from model_server.scoring.scorer import Scored
from model_server.web.protocol import Served

_encode = msgspec.json.Encoder().encode

GATE = "modelfleet-gate"
"""The id of requests that are no client's: what is replayed must not be captured once more."""

PENDING_BYTES = 256 * 1024
"""Written together, or at the next ``write``."""


class Capture:
    """A share of the requests, in files of ``folder`` that have at most ``max_bytes`` together.

    Each of ``writers`` processes has a capture of its own on the same folder, and any of them removes what is oldest.
    """

    def __init__(
        self, served: Served, folder: Path, share: float, max_bytes: int, redacted: Sequence[str], writers: int
    ) -> None:
        contract, manifest = served.scorer.contract, served.scorer.manifest
        unknown = sorted(set(redacted) - set(contract.names))
        if unknown:
            raise ValueError(f"CAPTURE_REDACT: expected columns of the contract, found {unknown[0]!r}")
        folder.mkdir(parents=True, exist_ok=True)
        self._kept = [place for place, name in enumerate(contract.names) if name not in redacted]
        self._columns = [contract.inputs[place] for place in self._kept]
        self._has_bools = any(column.dtype == "bool" for column in self._columns)
        self._head = {
            "service": served.service,
            "version": manifest.version,
            "digest": manifest.digest,
            "columns": [contract.names[place] for place in self._kept],
        }
        self._folder = folder
        self._share = share
        self._debt = 0.0
        # As many files as make each writer's own a small part of the whole.
        self._files = max(8, 4 * writers)
        self._writers = writers
        self._file_bytes = max_bytes // self._files
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        # Of the file that is written: none yet.
        self._path = folder
        self._room = 0

    def take(self, request_id: str, scored: Scored) -> None:
        """Keep this request if it is one of the share. Evenly spread, not at random: 0.1 is every tenth."""
        if request_id == GATE:
            return
        self._debt += self._share
        # Ten times a tenth is a little less than one.
        if self._debt < 1 - 1e-9:
            return
        self._debt -= 1
        document = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "id": request_id,
            **self._head,
            "instances": self._instances(scored),
            "outputs": {name: _answered(array, name) for name, array in scored.outputs.items()},
        }
        line = _encode(document) + b"\n"
        if len(line) > self._file_bytes:
            return
        self._pending.append(line)
        self._pending_bytes += len(line)
        if self._pending_bytes >= PENDING_BYTES:
            self.write()

    def write(self) -> None:
        """Write what is pending. OSError if the folder takes no more."""
        pending, self._pending, self._pending_bytes = self._pending, deque(), 0
        while pending:
            # Another writer may have removed the file, for it was the oldest.
            if not self._has_room(len(pending[0])) or not self._path.exists():
                self._begin_file()
            # What was predicted for whom is nobody else's business.
            with os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as file:
                while pending and self._has_room(len(pending[0])):
                    line = pending.popleft()
                    self._room -= len(line)
                    file.write(line)

    def _instances(self, scored: Scored) -> list[list[object]]:
        table = scored.request.table
        if isinstance(table, np.ndarray):
            kept = table[:, self._kept]
            if not self._has_bools:
                found: list[list[object]] = kept.tolist()
                return found
            arrays = list(kept.T)
        else:
            arrays = [table[place] for place in self._kept]
        return [list(row) for row in zip(*map(_asked, self._columns, arrays), strict=True)]

    def _has_room(self, count: int) -> bool:
        return count <= self._room

    def _begin_file(self) -> None:
        others = sorted(self._folder.glob("*.jsonl"))
        # Each writer may be about to begin one.
        for old in others[: max(0, len(others) - (self._files - self._writers))]:
            old.unlink(missing_ok=True)
        self._path = self._folder / f"{time.time_ns()}-{os.getpid()}.jsonl"
        self._room = self._file_bytes


def _asked(column: Input, values: np.ndarray[Any, Any]) -> list[object]:
    """The values of a column as a body of /predict has them."""
    if column.dtype in DATES:
        # Nanoseconds would become whole numbers. A request has no more digits than these.
        values = values.astype("datetime64[us]")
    elif column.dtype == "bool" and values.dtype.kind == "f":
        values = values != 0
    found: list[object] = values.tolist()
    return found


def _answered(array: np.ndarray[Any, Any], name: str) -> Any:
    return to_json(array, name) if array.dtype.kind == "O" else array.tolist()
