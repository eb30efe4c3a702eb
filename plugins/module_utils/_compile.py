# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Byte-compile a folder of packages with all processors, without their tests.

The tests of scipy and scikit-learn are two fifths of all files, and nothing that serves a model imports them.
An environment's own interpreter runs this file's text as a script, so it needs the standard library alone.
"""

from __future__ import annotations

import gc
import importlib.util
import marshal
import os
import struct
import sys
from collections.abc import Iterator, Sequence

_NOT_SERVED = {"__pycache__", "test", "tests"}


def sources(root: str) -> list[str]:
    """The Python files below ``root`` to compile, the largest first so that the work divides evenly."""
    return [path for _size, path in sorted(_sized(root), reverse=True)]


def _sized(root: str) -> Iterator[tuple[int, str]]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _NOT_SERVED]
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                yield os.stat(path).st_size, path


def compile_file(path: str) -> bool:
    """Write the ``.pyc`` of ``path`` where Python looks for it; False if it is not valid Python for this version.

    The format is that of PEP 552: magic number, flags, modification time and size of the source, code.
    """
    found = os.stat(path)
    with open(path, "rb") as stream:
        source = stream.read()
    try:
        code = compile(source, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    target = importlib.util.cache_from_source(path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    header = struct.pack("<4sLLL", importlib.util.MAGIC_NUMBER, 0, int(found.st_mtime) & 0xFFFFFFFF, found.st_size)
    with open(target, "wb") as stream:
        stream.write(header + marshal.dumps(code))
    return True


def main(arguments: Sequence[str]) -> int:
    """Compile below the folder in ``arguments``; the exit status says whether all of it could be written."""
    paths = sources(arguments[0])
    workers = len(os.sched_getaffinity(0))
    # A compiler makes much garbage in no cycles; collecting it takes a third of the time.
    gc.disable()
    children = []
    for worker in range(workers):
        child = os.fork()
        if not child:
            os._exit(_compile_all(paths[worker::workers]))
        children.append(child)
    return max(os.waitpid(child, 0)[1] for child in children) and 1


def _compile_all(paths: Sequence[str]) -> int:
    try:
        for path in paths:
            compile_file(path)
    except OSError as error:
        os.write(2, f"{error.filename}: {error.strerror}\n".encode())
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
