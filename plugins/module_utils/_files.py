# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changing files so that a crash at any moment leaves the old or the new, and never half of either."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial-"
"""How the names of folders begin that are being made or removed."""


class DiskError(ValueError):
    """A file system does not allow what is to be done, in one line."""


def write_file(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace ``path`` by ``text`` at once, flushed to disk."""
    partial = _beside(path)
    try:
        with open(partial, "w", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def write_link(path: Path, target: str) -> None:
    """Point ``path`` to ``target`` at once."""
    partial = _beside(path)
    try:
        partial.unlink(missing_ok=True)
        partial.symlink_to(target)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def _beside(path: Path) -> Path:
    # A thread's id is another one than that of any process or thread that runs.
    return path.with_name(f".{path.name}.{threading.get_native_id()}")


def flush_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, readable for all, whatever the umask says."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)


def remove_folder(path: Path) -> None:
    """Remove a folder. It is renamed first, so that half of it is never taken for the whole."""
    leaving = path.with_name(f"{PARTIAL}leaving-{path.name}")
    shutil.rmtree(leaving, ignore_errors=True)
    path.rename(leaving)
    shutil.rmtree(leaving)


def remove_partial(folder: Path) -> None:
    """Remove what a run that was killed left in ``folder``. Only for who holds it (``only_one``)."""
    for path in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(path, ignore_errors=True)


def free_bytes(path: Path) -> int:
    """The bytes free for ``path``, which need not exist yet."""
    found = os.statvfs(_existing(path))
    return found.f_bavail * found.f_frsize


def on_one_disk(*paths: Path) -> bool:
    """Whether ``paths``, which need not exist yet, share what is free."""
    return len({os.stat(_existing(path)).st_dev for path in paths}) == 1


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def check_space(path: Path, needed: int, what: str) -> None:
    """DiskError unless ``needed`` bytes are free where ``path`` is or will be."""
    free = free_bytes(path)
    if free < needed:
        raise DiskError(f"{path}: expected {format_size(needed)} free for {what}, found {format_size(free)}")


def format_size(count: int) -> str:
    """Bytes, in words."""
    return f"{count / 1e6:.1f} MB" if count >= 10_000_000 else f"{count // 1000} kB"


@contextmanager
def clear_errors(path: Path, what: str) -> Iterator[None]:
    """Say a full disk in words, whichever call it was that met it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskError(f"{path}: no space left for {what}: {format_size(free_bytes(path))} free") from error
        raise


@contextmanager
def only_one(folder: Path, what: str, seconds: float = 60) -> Iterator[None]:
    """Hold ``folder`` for ``what``. Another run that holds it is waited for, at most ``seconds`` long."""
    deadline = time.monotonic() + seconds
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while not _locked(handle):
            if time.monotonic() >= deadline:
                raise DiskError(f"{folder}: another run has been {what} for more than {seconds:g} s")
            time.sleep(0.1)
        yield
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
