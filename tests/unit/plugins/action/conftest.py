# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugins that do their work on the controller, run by a task; and what they are given."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture
def act_here() -> Callable[..., dict[str, Any]]:
    """Run an action plugin that needs no host, with the arguments of a task."""

    def run(
        plugin: Any,
        groups: Mapping[str, list[str]] | None = None,
        check_mode: bool = False,
        inventory: Path | None = None,
        limit: str | None = None,
        hostvars: Mapping[str, Mapping[str, Any]] | None = None,
        **arguments: Any,
    ) -> dict[str, Any]:
        action = object.__new__(plugin.ActionModule)
        action._task = SimpleNamespace(args=arguments, action=plugin.__name__, async_val=0, check_mode=check_mode)
        # It has no host to talk to: anything but the shell's folder is an AttributeError.
        action._connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/unused"))
        sources = [str(inventory)] if inventory else []
        task_vars = {
            "groups": groups or {},
            "hostvars": hostvars or {},
            "ansible_limit": limit,
            "ansible_inventory_sources": sources,
        }
        result: dict[str, Any] = action.run(task_vars=task_vars)
        return result

    return run


@pytest.fixture
def bundle(make_bundle: Callable[..., Path]) -> Path:
    return make_bundle("3")


@pytest.fixture
def server_wheel(tmp_path: Path) -> Path:
    """A wheel of the model server as far as the controller looks into it: with its lock."""
    wheel = tmp_path / "modelfleet_model_server-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("model_server/requirements.lock", "flask==3.1.3\n")
    return wheel
