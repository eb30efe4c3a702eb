# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the controller: see the module of the same name for its documentation."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.modelfleet.onprem.plugins.module_utils._env import env_name
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.controller import Groups, work_here
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.rollout import (
    HostState,
    Plan,
    Release,
    check_reached,
    plan_deploy,
    plan_retire,
    plan_rollback,
)
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.service import find_service, parse_services

ARGUMENTS = {
    "services": {"type": "raw", "required": True},
    "request": {"type": "dict", "required": True},
    "hosts": {"type": "dict", "required": True},
    "balancers": {"type": "dict", "required": True},
    "to": {"type": "str"},
}


class ActionModule(ActionBase):
    """Works out the steps of a rollout from the state that was read; changes nothing."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        return work_here(self, tmp, task_vars, ARGUMENTS, _work)


def _work(arguments: dict[str, Any], groups: Groups) -> dict[str, Any]:
    return {"plan": _plan(arguments, groups).as_dict()}


def _plan(arguments: dict[str, Any], groups: Groups) -> Plan:
    request, hosts, balancers = arguments["request"], arguments["hosts"], arguments["balancers"]
    service = find_service(parse_services(arguments["services"], groups), request["service"])
    check_reached(request["balancers"], balancers)
    if request["action"] == "rollback":
        return plan_rollback(service, arguments["to"], hosts, balancers)
    check_reached(service.hosts, hosts)
    if request["action"] == "retire":
        return plan_retire(service, hosts, balancers)

    def env_of(state: HostState) -> str:
        python = state["python"]
        return env_name(request["lock"], request["server"]["sha256"], python["tag"], python["machine"])

    return plan_deploy(service, request["strategy"], Release(**request["release"]), hosts, balancers, env_of)
