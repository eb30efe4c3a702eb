# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Byte code that Python itself takes for its own."""

from __future__ import annotations

import importlib.util
import py_compile
from pathlib import Path

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils import _compile
from ansible_collections.modelfleet.onprem.plugins.module_utils._env import env_name


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    for name in ("pkg/a.py", "pkg/sub/b.py", "pkg/tests/test_a.py", "pkg/sub/test/c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"name = {name!r}\n")
    return tmp_path


def test_tests_are_left_out(packages: Path) -> None:
    found = {str(Path(path).relative_to(packages)) for path in _compile.sources(str(packages))}
    assert found == {"pkg/a.py", "pkg/sub/b.py"}


def test_byte_code_is_what_python_writes(packages: Path, tmp_path: Path) -> None:
    source = packages / "pkg/a.py"
    assert _compile.compile_file(str(source))
    written = Path(importlib.util.cache_from_source(str(source))).read_bytes()
    expected = py_compile.compile(
        str(source), cfile=str(tmp_path / "a.pyc"), invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP
    )
    assert written == Path(str(expected)).read_bytes()


def test_a_file_for_another_python_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text("print 'hello'\n")
    assert not _compile.compile_file(str(tmp_path / "old.py"))


@pytest.mark.parametrize(
    "other",
    [
        ("b==1\n", "0" * 64, "cp311", "x86_64"),
        ("a==1\n", "1" * 64, "cp311", "x86_64"),
        ("a==1\n", "0" * 64, "cp313", "x86_64"),
        ("a==1\n", "0" * 64, "cp311", "aarch64"),
    ],
    ids=["lock", "server", "Python", "machine"],
)
def test_whatever_goes_into_an_environment_changes_its_name(other: tuple[str, str, str, str]) -> None:
    name = env_name("a==1\n", "0" * 64, "cp311", "x86_64")
    assert name == "41548e693c6edbdb"
    assert env_name(*other) != name
