# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator tells a canary that runs, from another terminal: a small file a service on each balancer.

Beside it is a file that whoever watches the canary touches, so that a word is not left where nobody reads it.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

from ._files import make_folder, write_file
from ._layout import check_service

WORDS = ("go", "pause", "promote", "abort")

WATCHED_WITHIN = 60.0
"""Seconds after which a canary that nobody has looked at counts as left alone: between two looks some tasks run."""


@dataclass(frozen=True)
class Control:
    """The last word, and who said it. ``go`` is what a canary does that was told nothing."""

    word: str = "go"
    by: str = ""

    def __post_init__(self) -> None:
        if self.word not in WORDS:
            raise ValueError(f"control: expected one of {', '.join(WORDS)}, found {self.word!r}")


class ControlError(ValueError):
    """A canary that may not go on, in one line."""


class ControlFile:
    """The two files of ``service`` in ``folder``."""

    def __init__(self, folder: str, service: str) -> None:
        self._service = service
        self._path = Path(folder) / f"{check_service(service)}.control"
        self._watched = Path(folder) / f"{service}.watched"

    def read(self) -> Control:
        """The last word. ValueError for a file that has none."""
        try:
            document = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Control()
        except ValueError as error:
            raise ValueError(f"{self._path}: expected a word and who said it, found: {error}") from error
        if not isinstance(document, dict) or set(document) != {"word", "by"}:
            raise ValueError(f"{self._path}: expected a word and who said it, found {document!r}")
        return Control(str(document["word"]), str(document["by"]))

    def write(self, control: Control) -> None:
        make_folder(self._path.parent)
        write_file(self._path, json.dumps(asdict(control)) + "\n")

    def check_goes_on(self) -> None:
        """ControlError if the last word was to end the canary."""
        control = self.read()
        if control.word == "abort":
            raise ControlError(f"{self._service}: expected a canary that goes on, found it aborted by {control.by}")

    def touch(self) -> None:
        """Say that the canary is watched."""
        make_folder(self._watched.parent)
        self._watched.touch()

    def seconds_unwatched(self) -> Optional[float]:
        """How long ago it was last watched; None if it never was."""
        try:
            return max(0.0, time.time() - self._watched.stat().st_mtime)
        except FileNotFoundError:
            return None

    def is_watched(self) -> bool:
        seconds = self.seconds_unwatched()
        return seconds is not None and seconds <= WATCHED_WITHIN
