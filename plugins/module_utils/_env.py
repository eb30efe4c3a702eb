# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What names a Python environment, and what it is built from."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SERVER_WHEEL = "modelfleet_model_server"
LOCK = "env.lock"


class EnvError(ValueError):
    """An environment cannot be built or used, in one line: where, what was expected, what was found."""


def env_name(lock_text: str, server_sha256: str, python_tag: str, machine: str) -> str:
    """Sixteen hexadecimal digits that stand for an environment: the same inputs give the same name on any machine.

    ``lock_text`` is the whole text of ``env.lock``, ``server_sha256`` is of the model server's wheel, ``python_tag`` is
    like ``cp311`` and ``machine`` like ``x86_64``.
    """
    inputs = json.dumps([lock_text, server_sha256, python_tag, machine])
    return hashlib.sha256(inputs.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Wheelhouse:
    """The parts of a folder of wheels that an environment's name and its building depend on."""

    lock: Path
    lock_text: str
    server: Path
    server_sha256: str
    uv: Path


def read_wheelhouse(folder: Path) -> Wheelhouse:
    """Find the lock, the model server's wheel and uv's in ``folder``; EnvError if one is missing or there twice."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if LOCK not in names:
        raise EnvError(f"{folder}: expected a folder of wheels with {LOCK} in it, found none")
    server = folder / _only(folder, names, SERVER_WHEEL)
    return Wheelhouse(
        lock=folder / LOCK,
        lock_text=(folder / LOCK).read_text(encoding="utf-8"),
        server=server,
        server_sha256=hashlib.sha256(server.read_bytes()).hexdigest(),
        uv=folder / _only(folder, names, "uv"),
    )


def _only(folder: Path, names: Iterable[str], project: str) -> str:
    found = [name for name in names if re.fullmatch(re.escape(project) + r"-[^-]+-.*\.whl", name)]
    if len(found) != 1:
        raise EnvError(f"{folder}: expected one wheel of {project}, found {', '.join(found) or 'none'}")
    return found[0]


@dataclass(frozen=True)
class Python:
    """A host's interpreter: tag (``cp311``), version (``3.11.2``), machine (``x86_64``) and C library (``2.36``)."""

    tag: str
    version: str
    machine: str
    glibc: str


_DESCRIBE = """
import json, os, platform, sys
print(json.dumps({
    "tag": "cp%d%d" % sys.version_info[:2],
    "version": platform.python_version(),
    "machine": platform.machine(),
    "glibc": os.confstr("CS_GNU_LIBC_VERSION").split()[-1],
}))
"""


def read_python(path: str) -> Python:
    """What the interpreter ``path`` is; EnvError if it does not run."""
    return Python(**json.loads(run([path, "-I", "-S", "-c", _DESCRIBE], 30)))


def run(command: list[str], seconds: float, environment: dict[str, str] | None = None) -> str:
    """The output of ``command``; EnvError with its last lines if it fails or takes longer than ``seconds``."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, env=environment, umask=0o022, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise EnvError(f"{command[0]}: expected an end within {seconds:g} s, found it still running") from error
    except OSError as error:
        raise EnvError(f"{command[0]}: expected a program that runs, found: {error.strerror}") from error
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise EnvError(f"{' '.join(command[:3])} ended with {done.returncode}: {' / '.join(lines[-5:])}")
    return done.stdout
