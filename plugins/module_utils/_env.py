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

_PIN = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+_-]+)")


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
    """What an environment is built from, and what its name depends on. ``wheels`` are the server's and the lock's."""

    lock: Path
    lock_text: str
    server: Path
    server_sha256: str
    wheels: tuple[Path, ...]


def read_wheelhouse(folder: Path) -> Wheelhouse:
    """Find the lock, the model server's wheel and one for each line of the lock in ``folder``; EnvError without."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if LOCK not in names:
        raise EnvError(f"{folder}: expected a folder of wheels with {LOCK} in it, found none")
    wheels = [name for name in names if name.endswith(".whl")]
    server = folder / _only(folder, wheels, SERVER_WHEEL)
    lock_text = (folder / LOCK).read_text(encoding="utf-8")
    locked = [folder / _pinned(folder, wheels, line) for line in lock_text.splitlines()]
    return Wheelhouse(
        lock=folder / LOCK,
        lock_text=lock_text,
        server=server,
        server_sha256=hashlib.sha256(server.read_bytes()).hexdigest(),
        wheels=(*locked, server),
    )


def _pinned(folder: Path, wheels: Iterable[str], line: str) -> str:
    pin = _PIN.fullmatch(line)
    if not pin:
        raise EnvError(f"{folder / LOCK}: expected lines like flask==3.1.3, found {line!r}")
    project, version = pin.groups()
    wheel = _only(folder, wheels, project)
    if _comparable(wheel.split("-")[1]) != _comparable(version):
        raise EnvError(f"{folder}: expected a wheel of {line}, found {wheel}")
    return wheel


def _only(folder: Path, wheels: Iterable[str], project: str) -> str:
    found = [name for name in wheels if _comparable(name.split("-")[0]) == _comparable(project)]
    if len(found) != 1:
        raise EnvError(f"{folder}: expected one wheel of {project}, found {', '.join(found) or 'none'}")
    return found[0]


def _comparable(text: str) -> str:
    """A project's name (PEP 503) or version so that two ways to write the same one are equal: 2026.01.0 is 2026.1."""
    lowered = re.sub(r"[-_.]+", "-", text.lower())
    return re.sub(r"(-0)+$", "", re.sub(r"(?<![0-9a-z])0+(?=[0-9])", "", lowered))


@dataclass(frozen=True)
class Python:
    """A host's interpreter: tag (``cp311``), version (``3.11.2``), machine (``x86_64``) and C library (``2.36``)."""

    tag: str
    version: str
    machine: str
    glibc: str

    def takes(self, wheel: str) -> bool:
        """Whether the tags in the file name of a ``wheel`` are for this interpreter (PEP 425)."""
        pythons, abis, platforms = (tags.split(".") for tags in wheel[: -len(".whl")].split("-")[-3:])
        own = self.tag in pythons
        fits = {
            self.tag: own,
            "abi3": any(re.fullmatch(r"cp3\d+", tag) and int(tag[3:]) <= int(self.tag[3:]) for tag in pythons),
            "none": own or "py3" in pythons or f"py{self.tag[2:]}" in pythons,
        }
        there = {"any", *platforms_of(self.machine, self.glibc)}
        return any(fits.get(abi) for abi in abis) and not there.isdisjoint(platforms)


def platforms_of(machine: str, glibc: str) -> list[str]:
    """The wheel platforms that run on ``machine``, newest first (PEP 600, and the older names that still occur)."""
    older = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
    names = []
    for version in range(int(glibc.split(".")[1]), 4, -1):
        names.append(f"manylinux_2_{version}_{machine}")
        if version in older:
            names.append(f"{older[version]}_{machine}")
    return [*names, f"linux_{machine}"]


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
        found = (line.strip() for line in (done.stderr or done.stdout).splitlines())
        lines = list(dict.fromkeys(line for line in found if line))
        raise EnvError(f"{' '.join(command[:3])} ended with {done.returncode}: {' / '.join(lines[-5:])}")
    return done.stdout
