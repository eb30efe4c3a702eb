# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ship a file of requests to the host that replays them; the module of the same name puts the gates there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.modelfleet.onprem.plugins.module_utils._several import SEVERAL, named
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.controller import inventory_folder
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.shipping import ship

MODULE = "modelfleet.onprem.model_probe"


class ActionModule(ActionBase):
    """Without a file of requests that is to be replayed it is the module alone."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        folder = inventory_folder(task_vars or {})
        shipped: dict[Path, str] = {}

        def ready(options: Any) -> Any:
            """The options for one service, with the file of requests that they name on the host."""
            path = _requests(options, folder)
            if path is None:
                return options
            if path not in shipped:
                shipped[path] = ship(self, path, f"{len(shipped)}-{path.name}")
            gates = options["gates"]
            return {**options, "gates": {**gates, "replay": {**gates["replay"], "requests": shipped[path]}}}

        if isinstance(arguments.get(SEVERAL), list):
            arguments[SEVERAL] = [ready(each) for each in arguments[SEVERAL]]
        result: dict[str, Any] = self._execute_module(
            module_name=MODULE, module_args=ready(arguments), task_vars=task_vars
        )
        return result


def _requests(options: Any, folder: Path) -> Path | None:
    """The file of requests on the controller that ``options`` want replayed, if they do.

    What is wrong with options the module says.
    """
    gates = options.get("gates") if isinstance(options, Mapping) else None
    replay = gates.get("replay") if isinstance(gates, Mapping) else None
    if not isinstance(replay, Mapping) or not replay.get("requests") or replay.get("mode") == "off":
        return None
    if not (options.get("baseline") or options.get("replaces")):
        # There is nothing to compare with, so a file that is gone must not be in the way.
        return None
    path = folder / Path(replay["requests"]).expanduser()
    if not path.is_file():
        message = f"gates.replay.requests: expected a file on the controller at {path}, found none"
        raise AnsibleActionFail(message, result=named(options))
    return path
