# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the controller: see the module of the same name for its documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.wheelhouse import (
    Target,
    cache_folder,
    find_server,
    gather,
    installed_size,
)

ARGUMENTS = {
    "env": {"type": "str", "required": True},
    "lock": {"type": "str", "required": True},
    "server": {"type": "path", "required": True},
    "tag": {"type": "str", "required": True},
    "machine": {"type": "str", "required": True},
    "glibc": {"type": "str", "required": True},
}


class ActionModule(ActionBase):
    """Gathers the wheels of one environment in the controller's cache."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, arguments = self.validate_argument_spec(ARGUMENTS)
        cache = cache_folder()
        target = Target(arguments["tag"], arguments["machine"], arguments["glibc"])
        try:
            server = find_server(Path(arguments["server"]), cache)
            folder = gather(arguments["env"], arguments["lock"], server, target, cache)
            size = installed_size(folder)
        except ValueError as error:
            return {**result, "failed": True, "msg": str(error)}
        # The cache is the controller's own, and filled in check mode too: a wheel that is nowhere is a truth to tell.
        return {**result, "changed": False, "folder": str(folder), "size": size}
