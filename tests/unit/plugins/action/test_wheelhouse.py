# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""wheelhouse: the wheels of an environment, in the controller's cache."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.action import wheelhouse

EMPTY_ZIP = r"PK\5\6" + r"\0" * 18
# Stands for uv, whose pip downloads what the requirements name: a wheel for each line, with nothing in it.
FAKE_UV = f"""#!/bin/sh
while [ "$1" != --requirement ]; do shift; done
while read -r line; do printf '{EMPTY_ZIP}' > "$4/$line.whl"; done < "$2"
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the Python that runs Ansible, and the whole of the path."""
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "sh").symlink_to(shutil.which("sh") or "sh")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    return folder


@pytest.fixture
def gather(
    act_here: Callable[..., Any], server_wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Run wheelhouse with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(check_mode: bool = False, **arguments: Any) -> Any:
        target = {"tag": "cp311", "machine": "x86_64", "glibc": "2.36"}
        given = {"env": "e1", "lock": "flask==3.1.3\n", "server": str(server_wheel), **target, **arguments}
        return act_here(wheelhouse, check_mode=check_mode, **given)

    return run


@pytest.mark.parametrize("check_mode", [False, True], ids=["run", "check mode"])
def test_wheels_are_gathered_in_check_mode_too_and_once(
    gather: Callable[..., Any], tools: Path, server_wheel: Path, tmp_path: Path, check_mode: bool
) -> None:
    (tools / "uv").write_text(FAKE_UV)
    (tools / "uv").chmod(0o755)
    result = gather(check_mode)
    folder = tmp_path / "cache/modelfleet/wheels/e1-glibc2.36"
    # Two wheels, and in the server's a lock of 13 bytes, which count half as much again.
    wheels = sum(path.stat().st_size for path in folder.glob("*.whl"))
    assert result == {"changed": False, "folder": str(folder), "size": wheels + 13 * 3 // 2}
    assert {path.name for path in folder.iterdir()} == {
        "env.lock",
        "flask==3.1.3.whl",
        server_wheel.name,
    }
    (tools / "uv").unlink()
    assert gather(check_mode) == result


def test_hosts_with_another_c_library_get_wheels_of_their_own(gather: Callable[..., Any], tools: Path) -> None:
    (tools / "uv").write_text(FAKE_UV)
    (tools / "uv").chmod(0o755)
    assert gather(glibc="2.28")["folder"] != gather(glibc="2.41")["folder"]


def test_a_controller_without_uv_is_told(gather: Callable[..., Any], tools: Path, tmp_path: Path) -> None:
    result = gather()
    assert (result["failed"], result["msg"]) == (
        True,
        f"controller: expected uv beside {tools / 'python'} or on the path, found none",
    )
    assert not (tmp_path / "cache/modelfleet/wheels/e1-glibc2.36").exists()


def test_what_uv_says_is_passed_on(gather: Callable[..., Any], tools: Path) -> None:
    (tools / "uv").write_text("#!/bin/sh\necho 'ERROR: No matching distribution found for flask==3.1.3' >&2\nexit 1\n")
    (tools / "uv").chmod(0o755)
    assert gather()["msg"] == (
        "controller: uv tool run ended with 1: ERROR: No matching distribution found for flask==3.1.3"
    )


def test_a_server_that_is_none_is_refused(gather: Callable[..., Any], tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere.whl"
    assert gather(server=str(nowhere))["msg"] == (
        f"server: expected a wheel or the model server's source folder, found {nowhere}"
    )


def test_a_wheel_that_is_none_is_said(gather: Callable[..., Any], tools: Path, tmp_path: Path) -> None:
    (tools / "uv").write_text(FAKE_UV.replace("PK", "KP"))
    (tools / "uv").chmod(0o755)
    folder = tmp_path / "cache/modelfleet/wheels/e1-glibc2.36"
    message = gather()["msg"]
    assert message.startswith(f"{folder}/")
    assert message.endswith(".whl: expected a wheel, found: File is not a zip file")
