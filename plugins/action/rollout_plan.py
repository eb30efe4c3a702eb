# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the controller: see the module of the same name for its documentation."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import CONTRACT, read_manifest, read_verified
from ansible_collections.modelfleet.onprem.plugins.module_utils._env import env_name
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal import Rollout, refusal
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.contract import Contract, ContractError, parse_contract
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.controller import Groups, still_runs, work_here
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.interrupted import (
    begin_rollout,
    check_same,
    check_target,
    find_died_of_all,
    has_ended,
)
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.rollout import (
    BalancerState,
    HostState,
    Plan,
    Release,
    active_slot,
    check_reached,
    judge_contract,
    plan_back,
    plan_deploy,
    plan_retire,
    plan_rollback,
    slot_before,
    together,
)
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.service import (
    Service,
    ServiceError,
    Slot,
    find_service,
    find_strategy,
    parse_services,
    reached_by,
)
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.verdicts import timed

ARGUMENTS = {
    "services": {"type": "raw", "required": True},
    "request": {"type": "dict", "required": True},
    "hosts": {"type": "dict", "required": True},
    "balancers": {"type": "dict", "required": True},
    "to": {"type": "str"},
    "only_undo": {"type": "bool", "default": False},
}


class ActionModule(ActionBase):
    """Works out the steps of a rollout from the state that was read; changes nothing."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        hostvars = (task_vars or {}).get("hostvars", {})

        def work(arguments: dict[str, Any], groups: Groups) -> dict[str, Any]:
            return {"plan": _plan(arguments, groups, hostvars)}

        return work_here(self, tmp, task_vars, ARGUMENTS, work)


def _plan(arguments: dict[str, Any], groups: Groups, hostvars: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    request, hosts, balancers = arguments["request"], arguments["hosts"], arguments["balancers"]
    services = parse_services(arguments["services"], groups)
    wanted = [reached_by(find_service(services, name), hostvars) for name in request["services"]]
    check_reached(request["balancers"], balancers)
    here = socket.gethostname()
    if arguments["only_undo"] and all(has_ended(service.name, balancers, here, still_runs) for service in wanted):
        return together([Plan(service=it.name, slot=active_slot(it, balancers)) for it in wanted], [], {})
    died = find_died_of_all(request["services"], balancers, here, still_runs)
    if died and died.action == "retire":
        # What it has stopped another one can begin with as it is.
        died = None
    if died and request["action"] == "retire":
        raise ServiceError(refusal(request["services"][0], died))
    if died and set(died.services) != set(request["services"]):
        raise ServiceError(
            f"{', '.join(request['services'])}: expected a rollout of the same services to be gone on with, found "
            f"{died.id} of {', '.join(died.services)}: resume.yml finishes it, rollback.yml undoes it"
        )
    if request["action"] == "retire":
        for service in wanted:
            check_reached(service.hosts, hosts)
        plans = [plan_retire(service, hosts, balancers) for service in wanted]
    elif request["action"] == "rollback":
        plans = [_back(service, arguments, died) for service in wanted]
    else:
        plans = [_forward(service, arguments, died) for service in wanted]
    if request.get("without") and request["action"] != "retire":
        # Such a balancer takes over the routes before it takes requests; till then nothing that it may know is stopped.
        plans = [replace(plan, stop=[]) for plan in plans]
    rollout = begin_rollout(plans, request, request["action"], died, balancers)
    return together(plans, list(balancers) if rollout else [], rollout)


def _back(service: Service, arguments: Mapping[str, Any], died: Rollout | None) -> Plan:
    """How a service goes back: to what served before ``died``, if that holds it, else to what is asked for."""
    hosts, balancers = arguments["hosts"], arguments["balancers"]
    if died is None:
        beside = len(arguments["request"]["services"]) > 1
        return plan_rollback(service, arguments["to"], hosts, balancers, beside)
    # Going back gives nobody a share: it needs no canary, which the service may have no key for any more.
    strategy = "blue_green" if died.strategy == "canary" else find_strategy(service, died.strategy)
    undo = died.action == "deploy"
    plan = plan_back(service, strategy, died.services[service.name], undo, undo or bool(died.undoes), hosts, balancers)
    check_target(arguments["to"], plan)
    return plan


def _forward(service: Service, arguments: Mapping[str, Any], died: Rollout | None) -> Plan:
    """How a service comes to serve what is asked for, on from where ``died`` ended if that wanted the same."""
    request, hosts, balancers = arguments["request"], arguments["hosts"], arguments["balancers"]
    part = request["parts"][service.name]
    check_reached(service.hosts, hosts)
    check_same(service.name, died, part["release"]["digest"])

    def env_of(state: HostState) -> str:
        python = state["python"]
        return env_name(part["lock"], part["server"]["sha256"], python["tag"], python["machine"])

    release = Release(**part["release"])
    named = env_of if part["lock"] is not None else None
    meant = died.services[service.name] if died else None
    beside = len(request["services"]) > 1
    plan = plan_deploy(service, request["strategy"], release, hosts, balancers, named, meant, beside)
    # A rollout that died in the midst of its move left balancers that route to different slots.
    active = slot_before(meant, beside) if meant else active_slot(service, balancers)
    return _judged(plan, service, release, part, active, hosts, balancers)


def _judged(
    plan: Plan,
    service: Service,
    release: Release,
    part: Mapping[str, Any],
    active: Slot,
    hosts: Mapping[str, HostState],
    balancers: Mapping[str, BalancerState],
) -> Plan:
    """The plan with what the gates of the controller say that need the state of the fleet."""

    def new_contract() -> Contract:
        return _contract(Path(part["bundle"]), release)

    # Without the bundle there is nothing to compare; it was compared when the rollout began that is gone on with.
    policy = part["policy"]["contract"] if part["lock"] is not None else {"mode": "off"}
    verdicts = timed(lambda: judge_contract(service, policy, release, new_contract, active, hosts, balancers))
    return replace(plan, verdicts=verdicts)


def _contract(bundle: Path, release: Release) -> Contract:
    """The contract of the bundle, which must still be the one that was checked."""
    manifest = read_manifest(bundle)
    if manifest.digest != release.digest:
        raise ContractError(f"{bundle}: expected the bundle {release.name}, found {manifest.release}")
    return parse_contract(json.loads(read_verified(bundle, CONTRACT, manifest)), str(bundle))
