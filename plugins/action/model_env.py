# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ship wheels to a host that lacks an environment; the module of the same name builds it there."""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.modelfleet.onprem.plugins.module_utils._env import EnvError, Wheelhouse, read_wheelhouse
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.shipping import ship
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.wheelhouse import WheelhouseError, installed_size

MODULE = "modelfleet.onprem.model_env"


class ActionModule(ActionBase):
    """Asks the host first: an environment that is there costs one short run of the module."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        folder = arguments.pop("wheels", None)
        if arguments.get("state", "present") == "absent":
            return self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        wheels = Path(self._loader.path_dwim(folder)) if folder else None
        if wheels:
            arguments["size"] = _size(wheels)
        found = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        if found.get("failed") or found.get("changed") or found.get("built", True):
            return found
        if not wheels:
            raise AnsibleActionFail(f"wheels: expected a folder, for the host lacks {found['name']}, found none")
        with tempfile.TemporaryDirectory() as temporary:
            archive = Path(temporary) / "wheels.tar"
            _pack(read_wheelhouse(wheels), archive)
            arguments["checksum"] = _sha256(archive)
            arguments["wheels"] = ship(self, archive)
        return self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)


def _size(wheels: Path) -> int:
    try:
        read_wheelhouse(wheels)
        return installed_size(wheels)
    except (EnvError, OSError, WheelhouseError) as error:
        raise AnsibleActionFail(str(error)) from error


def _pack(house: Wheelhouse, archive: Path) -> None:
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
        for path in (house.lock, *house.wheels):
            tar.add(path, path.name)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
