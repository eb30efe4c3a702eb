# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What names an environment, which wheels it is made of, and which Python takes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._env import EnvError, Python, env_name, read_wheelhouse

SERVER = "modelfleet_model_server-0.1.0-py3-none-any.whl"


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def make(lock: str, *wheels: str) -> Path:
        (tmp_path / "env.lock").write_text(lock)
        for name in (SERVER, *wheels):
            (tmp_path / name).touch()
        return tmp_path

    return make


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


@pytest.mark.parametrize(
    ("line", "wheel"),
    [
        ("flask==3.1.3", "flask-3.1.3-py3-none-any.whl"),
        ("prometheus-client==0.26.0", "prometheus_client-0.26.0-py3-none-any.whl"),
        ("markupsafe==3.0.2", "MarkupSafe-3.0.2-cp311-cp311-manylinux_2_17_x86_64.whl"),
        ("certifi==2026.07.04", "certifi-2026.7.4-py3-none-any.whl"),
        ("torch==2.9.0+cpu", "torch-2.9.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"),
        ("demo==1.0", "demo-1-py3-none-any.whl"),
        ("demo==1.10", "demo-1.10-1-py3-none-any.whl"),
    ],
)
def test_a_line_of_the_lock_finds_its_wheel(folder: Callable[..., Path], line: str, wheel: str) -> None:
    house = read_wheelhouse(folder(f"{line}\n", wheel, "flask_sqlalchemy-3.1.3-py3-none-any.whl"))
    assert [path.name for path in house.wheels] == [wheel, SERVER]


@pytest.mark.parametrize(
    ("lock", "wheels", "message"),
    [
        ("flask==3\n", [], "expected one wheel of flask, found none"),
        ("demo==1.10\n", ["demo-1.1-py3-none-any.whl"], "expected a wheel of demo==1.10, found demo-1.1-py3-none-any"),
        ("d==1\n", ["d-1-py3-none-any.whl", "D-2-py3-none-any.whl"], "expected one wheel of d, found D-2-py3-none-any"),
        ("flask>=3\n", [], "env.lock: expected lines like flask==3.1.3, found 'flask>=3'"),
        (
            "",
            ["modelfleet_model_server-0.2.0-py3-none-any.whl"],
            "expected one wheel of modelfleet_model_server, found",
        ),
    ],
)
def test_a_folder_that_does_not_match_its_lock_is_refused(
    folder: Callable[..., Path], lock: str, wheels: list[str], message: str
) -> None:
    with pytest.raises(EnvError, match=re.escape(message)):
        read_wheelhouse(folder(lock, *wheels))


@pytest.mark.parametrize(
    ("tags", "taken"),
    [
        ("py3-none-any", True),
        ("py2.py3-none-any", True),
        ("py311-none-any", True),
        ("py2-none-any", False),
        ("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", True),
        ("cp311-cp311-linux_x86_64", True),
        ("cp311-cp311-manylinux_2_39_x86_64", False),
        ("cp311-cp311-manylinux_2_17_aarch64", False),
        ("cp311-cp311-musllinux_1_2_x86_64", False),
        ("cp313-cp313-manylinux_2_17_x86_64", False),
        ("cp311-none-any", True),
        ("cp313-none-any", False),
        ("cp39-abi3-manylinux_2_17_x86_64", True),
        ("cp312-abi3-manylinux_2_17_x86_64", False),
        ("py3-none-manylinux_2_17_x86_64", True),
    ],
)
def test_wheels_are_taken_by_their_tags(tags: str, taken: bool) -> None:
    assert Python("cp311", "3.11.2", "x86_64", "2.36").takes(f"demo-1.0-{tags}.whl") == taken
