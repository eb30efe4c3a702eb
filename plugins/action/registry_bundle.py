# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the controller: see the module of the same name for its documentation."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.modelfleet.onprem.plugins.module_utils._registry import RegistryError
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.controller import Groups, inventory_folder, work_here
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.registry import publish_bundle

ARGUMENTS = {
    "bundle": {"type": "path"},
    "registry": {"type": "str"},
    "inventory_registry": {"type": "str"},
    "key": {"type": "path"},
    "alias": {"type": "str"},
}


class ActionModule(ActionBase):
    """Puts a bundle into a registry."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        work = partial(_work, inventory_folder(task_vars or {}), self._task.check_mode)
        return work_here(self, tmp, task_vars, ARGUMENTS, work)


def _work(folder: Path, check_mode: bool, arguments: dict[str, Any], _groups: Groups) -> dict[str, Any]:
    if not arguments["bundle"]:
        raise RegistryError("bundle: expected -e bundle=PATH of a bundle or its .tar, found nothing")
    # A path is meant from where the command was given, unless it is the inventory that has it.
    place = arguments["registry"] or arguments["inventory_registry"]
    folder = Path.cwd() if arguments["registry"] else folder
    if not place:
        raise RegistryError(
            "registry: expected -e registry=PLACE or modelfleet_registry in the inventory, found neither"
        )
    key = Path(arguments["key"]).absolute() if arguments["key"] else None
    bundle = Path(arguments["bundle"]).absolute()
    done = publish_bundle(bundle, place, folder, key, arguments["alias"], check_mode)
    return {
        "changed": done.changed,
        "name": done.manifest.name,
        "release": done.manifest.release,
        "digest": done.manifest.digest,
        "address": done.address,
        "signature": done.signed,
    }
