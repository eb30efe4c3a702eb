# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a Python environment out of wheels, with all processors.

Most of the time goes into byte code. So each source is compiled from memory as it is written, and what no server
imports is left out. It also means that a host needs no installer, and that none has to travel with the wheels.
The interpreter that the environment is for runs this file's text as a script: it needs the standard library alone.
"""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import importlib.util
import marshal
import os
import re
import shutil
import struct
import sys
import venv
import zipfile
import zlib
from collections.abc import Iterable, Sequence

# Found by serving models: a test does so, and looks that all that was imported has byte code.
_NOT_SERVED = re.compile(
    r"(^|/)tests?/|^gunicorn/(ctl|dirty)/|^narwhals/_(dask|duckdb|ibis|spark_like|sql)/|^numpy/distutils/"
)
# Finds the Python beside the program, for an environment is moved to its place once it is whole.
_BESIDE = b"""#!/bin/sh
'''exec' "$(dirname "$(realpath "$0")")/python" "$0" "$@"
' '''
"""
# Measured: a byte of Python takes so many times as long as another, which is only unzipped and written, and a file as
# long as so many bytes.
_COMPILING, _OPENING = 12, 15_000
_LARGE = 1 << 18


def is_compiled(name: str) -> bool:
    """Whether the file ``name``, a path below ``site-packages``, gets byte code."""
    return name.endswith(".py") and not _NOT_SERVED.search(name)


def place(name: str, packages: str) -> str:
    """Where in an environment the file ``name`` of a wheel goes (PEP 427); ValueError if that is not in it.

    ``packages`` is the environment's ``site-packages``. Both it and the answer are relative to the environment.
    """
    top, _slash, rest = name.partition("/")
    kind, _slash, inside = rest.partition("/") if top.endswith(".data") else ("purelib", "/", name)
    headers = f"include/site/{packages.split('/')[1]}/{top.partition('-')[0]}"
    folders = {"purelib": packages, "platlib": packages, "scripts": "bin", "data": ".", "headers": headers}
    if kind not in folders or name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"expected the name of a file in an environment, found {name}")
    return os.path.normpath(f"{folders[kind]}/{inside}")


def contents(wheels: Iterable[str], packages: str) -> list[tuple[str, zipfile.ZipFile, zipfile.ZipInfo]]:
    """Each file of an environment: its place, its wheel and its entry there. What takes longest to write is first.

    Of two wheels with a file of the same place the later one's is taken. ValueError for what is not a wheel.
    """
    found = {}
    for wheel in wheels:
        try:
            archive = zipfile.ZipFile(wheel)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{wheel}: expected a wheel, found: {error}") from error
        for entry in archive.infolist():
            if not entry.is_dir():
                found[place(entry.filename, packages)] = (archive, entry)
    files = [(target, archive, entry) for target, (archive, entry) in found.items()]
    return sorted(files, key=lambda file: (_effort(file[2]), file[0]), reverse=True)


def shares(efforts: Sequence[int], workers: int) -> list[list[int]]:
    """Which of ``efforts``, the largest first, each worker gets, by number: the next goes to who has least to do."""
    given: list[list[int]] = [[] for _worker in range(workers)]
    loads = [0] * workers
    for number, effort in enumerate(efforts):
        worker = loads.index(min(loads))
        loads[worker] += effort
        given[worker].append(number)
    return given


def _effort(entry: zipfile.ZipInfo) -> int:
    return _OPENING + entry.file_size * (_COMPILING if is_compiled(entry.filename) else 1)


def write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, env: str, target: str) -> None:
    """Write the file ``entry`` of a wheel to its place ``target`` in ``env``, with the byte code that it is to have."""
    path, is_program = f"{env}/{target}", target.startswith("bin/")
    _make_folder(os.path.dirname(path))
    content = None
    with archive.open(entry) as source, open(path, "wb") as stream:
        if is_program:
            stream.write(re.sub(rb"\A#!python.*\n", _BESIDE, source.read()))
        elif is_compiled(entry.filename):
            content = source.read()
            stream.write(content)
        else:
            shutil.copyfileobj(source, stream, 1 << 20)
            if entry.file_size >= _LARGE:
                # The disk begins now, while the processors compile: what is dirty is not dropped by this but written.
                stream.flush()
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        # The upper half of these bits is the file's mode.
        if is_program or entry.external_attr >> 16 & 0o111:
            os.fchmod(stream.fileno(), 0o755)
    if content is not None:
        write_byte_code(content, path)


def write_byte_code(source: bytes, path: str) -> None:
    """Write the byte code of ``path``, which holds ``source``, where Python looks for it.

    The format is that of PEP 552: magic number, flags, modification time and size of the source, code. What is not
    Python for this version gets none.
    """
    try:
        code = compile(source, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return
    modified = int(os.stat(path).st_mtime) & 0xFFFFFFFF
    header = struct.pack("<4sLLL", importlib.util.MAGIC_NUMBER, 0, modified, len(source))
    target = importlib.util.cache_from_source(path)
    _make_folder(os.path.dirname(target))
    with open(target, "wb") as stream:
        stream.write(header + marshal.dumps(code))


@functools.cache
def _make_folder(path: str) -> None:
    os.makedirs(path, exist_ok=True)


def write_programs(env: str, packages: str) -> None:
    """Write the programs that the installed packages declare as entry points."""
    for package in importlib.metadata.distributions(path=[f"{env}/{packages}"]):
        for entry in package.entry_points:
            if entry.group in ("console_scripts", "gui_scripts"):
                path = f"{env}/{place(f'.data/scripts/{entry.name}', packages)}"
                first = entry.attr.partition(".")[0]
                text = f"import sys\n\nfrom {entry.module} import {first}\n\nsys.exit({entry.attr}())\n"
                with open(path, "wb") as stream:
                    stream.write(_BESIDE + text.encode())
                    os.fchmod(stream.fileno(), 0o755)


def make_venv(env: str) -> None:
    """Make an environment of this interpreter's, without the shell scripts, which would name where it is now."""
    builder = venv.EnvBuilder(symlinks=True)
    context = builder.ensure_directories(env)
    builder.create_configuration(context)
    builder.setup_python(context)


def main(arguments: Sequence[str]) -> int:
    """Make the environment that ``arguments`` begin with out of the wheels that follow; 1 if some cannot be used."""
    env, *wheels = arguments
    packages = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    make_venv(env)
    workers = len(os.sched_getaffinity(0))
    # A compiler makes much garbage in no cycles; collecting it takes a third of the time.
    gc.disable()
    children = []
    for worker in range(workers):
        child = os.fork()
        if not child:
            os._exit(_write_share(env, packages, wheels, worker, workers))
        children.append(child)
    if max(os.waitpid(child, 0)[1] for child in children):
        return 1
    write_programs(env, packages)
    return 0


def _write_share(env: str, packages: str, wheels: Sequence[str], worker: int, workers: int) -> int:
    try:
        # Each worker opens the wheels itself, for processes share the position in a file that was open at the fork.
        files = contents(wheels, packages)
        for number in shares([_effort(entry) for _target, _archive, entry in files], workers)[worker]:
            target, archive, entry = files[number]
            try:
                write(archive, entry, env, target)
            # NotImplementedError is what zipfile raises where an entry names a compression that it does not know.
            except (EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
                raise ValueError(f"{archive.filename}: expected a whole wheel, found: {error}") from error
    except (OSError, ValueError) as error:
        os.write(2, f"{error}\n".encode())
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
