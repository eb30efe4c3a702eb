# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ship a file of requests to the host that replays them; the module of the same name puts the gates there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.controller import inventory_folder
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.shipping import ship

MODULE = "modelfleet.onprem.model_probe"


class ActionModule(ActionBase):
    """Without a file of requests that is to be replayed it is the module alone."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        gates = arguments.get("gates") or {}
        replay = gates.get("replay") or {}
        if replay.get("requests") and replay.get("mode") != "off":
            path = inventory_folder(task_vars or {}) / Path(replay["requests"]).expanduser()
            if not path.is_file():
                raise AnsibleActionFail(
                    f"gates.replay.requests: expected a file on the controller at {path}, found none"
                )
            arguments["gates"] = {**gates, "replay": {**replay, "requests": ship(self, path)}}
        return self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
