# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""model_env, with wheels made on the spot."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils import _env
from ansible_collections.modelfleet.onprem.plugins.module_utils._env import env_name, read_python, read_wheelhouse
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import Layout, list_envs
from ansible_collections.modelfleet.onprem.plugins.modules import model_env


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder of wheels, as the controller gathers it."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / "env.lock").write_text("demo==1.0\n")
    _write_wheel(folder / "modelfleet_model_server-0.1.0-py3-none-any.whl", "served.py", "answer = 42\n")
    _write_wheel(folder / "demo-1.0-py3-none-any.whl", "demo/tests/test_it.py", "answer = 43\n")
    return folder


def _write_wheel(path: Path, name: str, text: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, text)


@pytest.fixture
def name(wheels: Path) -> str:
    house, python = read_wheelhouse(wheels), read_python(sys.executable)
    return env_name(house.lock_text, house.server_sha256, python.tag, python.machine)


@pytest.fixture
def build(run_module: Callable[..., Any], wheels: Path, name: str, tmp_path: Path) -> Callable[..., Any]:
    """Run model_env with the wheels packed as the action plugin ships them."""

    def run(check_mode: bool = False, **options: Any) -> Any:
        archive = tmp_path / "wheels.tar"
        with tarfile.open(archive, "w") as tar:
            for path in sorted(wheels.iterdir()):
                tar.add(path, path.name)
        checksum = hashlib.sha256(archive.read_bytes()).hexdigest()
        params = {"name": name, "wheels": str(archive), "checksum": checksum, "python": sys.executable}
        return run_module(model_env, {**params, **options}, check_mode)

    return run


def test_an_environment_is_built_and_byte_compiled(build: Callable[..., Any], layout: Layout, name: str) -> None:
    result = build()
    assert (result["changed"], result["built"]) == (True, True)
    packages = next(layout.env(name).glob("lib/python3.*/site-packages"))
    assert (packages / f"__pycache__/served.{sys.implementation.cache_tag}.pyc").is_file()
    assert not (packages / "demo/tests/__pycache__").exists()
    python = [layout.env(name) / "bin/python", "-I", "-c", "import served; print(served.answer)"]
    assert subprocess.run(python, capture_output=True, text=True, check=True).stdout == "42\n"
    assert os.listdir(layout.envs) == [name]


def test_an_environment_is_built_once(build: Callable[..., Any], layout: Layout, name: str) -> None:
    build()
    made = (layout.env(name) / "env.json").stat().st_mtime_ns
    result = build()
    assert (result["changed"], result["built"]) == (False, True)
    assert (layout.env(name) / "env.json").stat().st_mtime_ns == made


def test_a_half_built_environment_is_built_again(build: Callable[..., Any], layout: Layout, name: str) -> None:
    layout.env(name).mkdir(parents=True)
    (layout.envs / ".partial-left-by-a-kill").mkdir()
    assert build()["changed"]
    assert os.listdir(layout.envs) == [name]
    assert list_envs(layout) == [name]


def test_check_mode_says_that_it_would_be_built(build: Callable[..., Any], layout: Layout) -> None:
    result = build(check_mode=True)
    assert (result["changed"], result["built"]) == (True, False)
    assert not layout.envs.exists()


def test_without_wheels_a_missing_environment_is_reported_as_not_built(build: Callable[..., Any]) -> None:
    result = build(wheels=None)
    assert (result["changed"], result["built"]) == (False, False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "fedcba9876543210"}, "expected what the environment fedcba9876543210 was named for, found cp3"),
        ({"name": "../../etc"}, "env: expected 16 hexadecimal digits, found '../../etc'"),
        ({"checksum": "0" * 64}, "expected wheels with sha256 000"),
        ({"python": "/nonexistent/python3"}, "/nonexistent/python3: expected a program that runs, found: No such file"),
        ({"size": 10**18}, "MB free for the environment"),
    ],
)
def test_what_cannot_be_built_leaves_nothing_behind(
    build: Callable[..., Any], layout: Layout, options: dict[str, Any], message: str
) -> None:
    assert message in build(**options)["msg"]
    assert not layout.envs.exists() or os.listdir(layout.envs) == []


def test_a_wheel_that_is_broken_is_named(build: Callable[..., Any], layout: Layout, wheels: Path) -> None:
    (wheels / "demo-1.0-py3-none-any.whl").write_text("no wheel")
    assert "demo-1.0-py3-none-any.whl: expected a wheel, found: File is not a zip file" in build()["msg"]
    assert os.listdir(layout.envs) == []


def test_wheels_for_another_python_are_refused(build: Callable[..., Any], layout: Layout, wheels: Path) -> None:
    (wheels / "demo-1.0-py3-none-any.whl").rename(wheels / "demo-1.0-cp27-cp27m-win32.whl")
    message = build()["msg"]
    assert f"{sys.executable}: expected wheels for cp3" in message
    assert message.endswith(", found demo-1.0-cp27-cp27m-win32.whl")
    assert os.listdir(layout.envs) == []


def test_an_environment_is_on_the_disk_before_it_is_in_its_place(
    build: Callable[..., Any], layout: Layout, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []

    def run(command: list[str], seconds: float) -> str:
        steps.append((Path(command[0]).name, (layout.env(name)).exists(), list(layout.envs.rglob("env.json"))))
        return _env.run(command, seconds)

    monkeypatch.setattr(model_env, "run", run)
    assert build()["built"]
    assert steps[-1] == ("sync", False, [])
    assert (layout.env(name) / "env.json").is_file()


@pytest.mark.parametrize("missing", ["env.lock", "modelfleet_model_server-*", "demo-*"])
def test_a_folder_that_lacks_something_is_refused(build: Callable[..., Any], wheels: Path, missing: str) -> None:
    next(wheels.glob(missing)).unlink()
    assert f" {missing.split('-')[0]}" in build()["msg"]


def test_an_environment_in_use_is_not_removed(build: Callable[..., Any], layout: Layout, name: str) -> None:
    build()
    release = layout.release("tumour", "3-0a1b2c3d4e5f")
    release.mkdir(parents=True)
    (release / "env").symlink_to(layout.env(name))
    assert "expected nothing that uses it, found tumour 3-0a1b2c3d4e5f" in build(state="absent")["msg"]
    (release / "env").unlink()
    assert build(state="absent", check_mode=True)["changed"]
    assert build(state="absent")["changed"]
    assert list_envs(layout) == []
    assert not build(state="absent")["changed"]
