# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a model host needs to build an environment without a package index, gathered on the controller.

The server's wheel is built from its source (or taken as it is), the bundle's lock and the server's own lock become one
lock, and the wheels of that lock are fetched for the Python of the host, which need not be the controller's. All of it
is kept under one cache folder by what it was made from, so that a second deploy gathers nothing.

``uv`` builds the server's wheel and, through ``uv tool run pip``, fetches the others: pip is the one tool that
downloads wheels for another Python and platform, and uv brings it where Ansible was installed without one.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path

from ansible_collections.modelfleet.onprem.plugins.module_utils._env import platforms_of

_PIP = "pip==26.3"
_LOCK_IN_WHEEL = "model_server/requirements.lock"
_NOT_SOURCE = {"__pycache__", "tests", "dist", ".venv"}


class WheelhouseError(ValueError):
    """Wheels could not be gathered, in one line."""


@dataclass(frozen=True)
class Server:
    """The model server as a wheel: where it is, its sha256 in hexadecimal and the lock it carries."""

    wheel: Path
    sha256: str
    lock: str


@dataclass(frozen=True)
class Target:
    """The Python that wheels are for: its tag (``cp311``), the machine (``x86_64``) and the C library (``2.36``)."""

    tag: str
    machine: str
    glibc: str

    @property
    def python(self) -> str:
        """``3.11`` for ``cp311``."""
        return f"{self.tag[2]}.{self.tag[3:]}"

    def platforms(self) -> list[str]:
        """The wheel platforms that run there, newest first."""
        return platforms_of(self.machine, self.glibc)


def cache_folder() -> Path:
    """Where the controller keeps what it gathered: ``$XDG_CACHE_HOME/modelfleet`` or ``~/.cache/modelfleet``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelfleet"


def find_server(source: Path, cache: Path) -> Server:
    """The server's wheel: ``source`` itself when it is one, else built from the folder ``source``, once."""
    if source.suffix == ".whl" and source.is_file():
        return _read_server(source)
    if not (source / "pyproject.toml").is_file():
        raise WheelhouseError(f"server: expected a wheel or the model server's source folder, found {source}")
    kept = cache / "server" / _source_digest(source)
    with _locked(kept):
        if not list(kept.glob("*.whl")):
            _build_wheel(source, kept)
    return _read_server(next(kept.glob("*.whl")))


def merge_locks(bundle_lock: str, server_lock: str) -> str:
    """One lock for an environment: what the bundle pins, and what the server pins of the rest; a line each, sorted."""
    pins: dict[str, str] = {}
    for line in (*server_lock.splitlines(), *bundle_lock.splitlines()):
        requirement = line.split("#")[0].strip()
        if requirement:
            pins[_canonical(re.split(r"[=<>!~;\[ ]", requirement)[0])] = requirement
    return "".join(f"{pins[name]}\n" for name in sorted(pins))


def gather(env: str, lock: str, server: Server, target: Target, cache: Path) -> Path:
    """The folder of wheels for ``env``: those of ``lock``, the server's, and ``env.lock`` itself."""
    # The name of an env has all but the C library, which decides what wheels run there.
    kept = cache / "wheels" / f"{env}-glibc{target.glibc}"
    with _locked(kept):
        if not (kept / "env.lock").is_file():
            with tempfile.TemporaryDirectory(dir=cache) as name:
                made = Path(name) / "wheels"
                made.mkdir()
                _download(lock, target, made)
                shutil.copy(server.wheel, made)
                (made / "env.lock").write_text(lock)
                shutil.rmtree(kept, ignore_errors=True)
                made.rename(kept)
    return kept


def installed_size(folder: Path) -> int:
    """The bytes needed to build an environment: the wheels, what is in them, and half as much again of byte code."""
    total = 0
    for path in folder.glob("*.whl"):
        try:
            with zipfile.ZipFile(path) as archive:
                total += path.stat().st_size + sum(entry.file_size for entry in archive.infolist()) * 3 // 2
        except zipfile.BadZipFile as error:
            raise WheelhouseError(f"{path}: expected a wheel, found: {error}") from error
    return total


def _canonical(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _source_digest(source: Path) -> str:
    """sha256 over the names and bytes of what the wheel is built from."""
    digest = hashlib.sha256()
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source)
        if path.is_file() and not _NOT_SOURCE & set(inside.parts) and not path.name.endswith(".pyc"):
            content = path.read_bytes()
            digest.update(f"{inside}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _read_server(wheel: Path) -> Server:
    content = wheel.read_bytes()
    try:
        with zipfile.ZipFile(wheel) as archive:
            lock = archive.read(_LOCK_IN_WHEEL).decode()
    except (KeyError, zipfile.BadZipFile) as error:
        raise WheelhouseError(f"server: expected a wheel with {_LOCK_IN_WHEEL}, found {wheel} ({error})") from error
    return Server(wheel, hashlib.sha256(content).hexdigest(), lock)


def _build_wheel(source: Path, into: Path) -> None:
    # Built from a copy: an installed collection may be read-only, and a build must not leave files in it.
    with tempfile.TemporaryDirectory(dir=into.parent) as name:
        copy = Path(name) / "source"
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns(*_NOT_SOURCE))
        _run([_uv(), "build", "--quiet", "--wheel", "--out-dir", str(Path(name) / "made"), str(copy)])
        into.mkdir(exist_ok=True)
        for wheel in (Path(name) / "made").glob("*.whl"):
            wheel.rename(into / wheel.name)


def _download(lock: str, target: Target, into: Path) -> None:
    requirements = into.parent / "requirements.txt"
    requirements.write_text(lock)
    platforms = [word for platform in target.platforms() for word in ("--platform", platform)]
    pip = [_uv(), "tool", "run", "--quiet", "--from", _PIP, "pip"]
    python = ["--implementation", "cp", "--python-version", target.python]
    tags = ["--abi", target.tag, "--abi", "abi3", "--abi", "none", *platforms]
    what = ["--no-deps", "--only-binary=:all:", "--requirement", str(requirements)]
    _run([*pip, "download", "--quiet", "--disable-pip-version-check", *python, *tags, *what, "--dest", str(into)])


def _uv() -> str:
    """uv beside the Python that runs Ansible, else on the path."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if not found:
        raise WheelhouseError(f"controller: expected uv beside {sys.executable} or on the path, found none")
    return found


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()] or lines or ["no output"]
        what = " ".join(Path(word).name for word in command[:3])
        raise WheelhouseError(f"controller: {what} ended with {done.returncode}: {'; '.join(errors[-3:])}")


@contextmanager
def _locked(kept: Path) -> Iterator[None]:
    """Two rollouts at once gather the same thing once."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with open(kept.with_name(f".{kept.name}.lock"), "w") as lock:
        flock(lock, LOCK_EX)
        yield
