# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal on a balancer's disk: root's alone, every file whole, every write flushed before the next."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ._files import flush_folder, only_one, write_file
from ._journal import (
    Journal,
    JournalError,
    Rollout,
    Write,
    check_holds,
    finish_step,
    format_rollout,
    is_file_of_journal,
    parse_rollout,
    refusal,
    start_step,
)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class JournalFolder:
    """Where the journal's files are. It is made when the first rollout begins."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def read(self) -> Journal:
        names = sorted(os.listdir(self.path)) if self.path.is_dir() else []
        found = {}
        for name in filter(is_file_of_journal, names):
            try:
                found[name] = parse_rollout((self.path / name).read_text(encoding="utf-8"), str(self.path / name))
            except FileNotFoundError:
                # Another rollout has let go of it just now.
                continue
        return Journal(found)

    @contextmanager
    def alone(self) -> Iterator[Journal]:
        """The journal, while no other run changes it."""
        self.path.mkdir(mode=0o700, exist_ok=True)
        with only_one(self.path, "writing the journal"):
            yield self.read()

    def write(self, writes: Iterable[Write]) -> None:
        for write in writes:
            path = self.path / write.name
            if write.rollout is None:
                path.unlink(missing_ok=True)
                flush_folder(self.path)
            elif write.new:
                self._take(path, write.rollout)
            else:
                write_file(path, format_rollout(write.rollout), 0o600)

    @contextmanager
    def holding(self, rollout: str | None) -> Iterator[Rollout | None]:
        """Keep others from taking a rollout over meanwhile, which must hold its services; for no rollout, nothing."""
        if not rollout:
            yield None
            return
        with self.alone() as journal:
            yield check_holds(journal, rollout)

    def start_step(
        self, rollout: str | None, step: str, hosts: Sequence[str] = (), gates: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """A step of a rollout begins, unless there is no rollout."""
        if rollout:
            with self.alone() as journal:
                self.write(start_step(journal, rollout, step, hosts, now(), gates))

    def finish_step(self, rollout: str | None, gates: Sequence[Mapping[str, Any]] = ()) -> None:
        if rollout:
            with self.alone() as journal:
                self.write(finish_step(journal, rollout, now(), gates))

    def _take(self, path: Path, rollout: Rollout) -> None:
        """Make a lock: whole, and only if there is none, whoever else is about to."""
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        write_file(partial, format_rollout(rollout), 0o600)
        try:
            os.link(partial, path)
        except FileExistsError as error:
            holder = parse_rollout(path.read_text(encoding="utf-8"), str(path))
            raise JournalError(refusal(path.stem, holder)) from error
        finally:
            partial.unlink()
        flush_folder(self.path)
