# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the controller: see the module of the same name for its documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import (
    LOCK,
    BundleError,
    read_verified,
    verify,
)
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.controller import Groups, work_here
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.service import (
    Service,
    ServiceError,
    check_balancers,
    find_service,
    find_strategy,
    parse_services,
)
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.wheelhouse import cache_folder, find_server, merge_locks

ARGUMENTS = {
    "services": {"type": "raw", "required": True},
    "service": {"type": "str"},
    "bundle": {"type": "path"},
    "strategy": {"type": "str"},
    "server": {"type": "path"},
    "action": {"type": "str", "choices": ["deploy", "rollback", "retire", "status"], "default": "status"},
}
_OWN_SERVER = Path(__file__).resolve().parents[2] / "app"


class ActionModule(ActionBase):
    """Checks a request against the inventory and the bundle; changes nothing."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        return work_here(self, tmp, task_vars, ARGUMENTS, _work)


def _work(arguments: dict[str, Any], groups: Groups) -> dict[str, Any]:
    return {"request": _request(arguments, groups)}


def _request(arguments: dict[str, Any], groups: Groups) -> dict[str, Any]:
    balancers = check_balancers(groups)
    services = parse_services(arguments["services"], groups)
    everything = arguments["action"] == "status" and not arguments["service"]
    wanted = list(services.values()) if everything else [find_service(services, arguments["service"])]
    hosts = tuple(dict.fromkeys(host for service in wanted for host in service.hosts))
    request: dict[str, Any] = {
        "action": arguments["action"],
        "services": [service.name for service in wanted],
        "hosts": list(hosts),
        "balancers": list(balancers),
        "machines": list(dict.fromkeys((*balancers, *hosts))),
    }
    if everything:
        return request
    service = wanted[0]
    request.update(
        service=service.name,
        drain_timeout=service.drain_timeout,
        ready_timeout=service.ready_timeout,
        keep_releases=service.keep_releases,
        max_fail_percentage=service.max_fail_percentage,
        gates=list(service.gates),
        max_latency_ms=service.max_latency_ms,
        ports={slot: service.port_of(slot) for slot in service.slot_hosts},
        slot_hosts={slot: list(names) for slot, names in service.slot_hosts.items()},
    )
    if arguments["action"] == "deploy":
        request["strategy"] = find_strategy(service, arguments["strategy"])
        request.update(_bundle(service, arguments))
    return request


def _bundle(service: Service, arguments: dict[str, Any]) -> dict[str, Any]:
    if not arguments["bundle"]:
        raise ServiceError("bundle: expected -e bundle=PATH of a bundle or its .tar, found nothing")
    # A path is meant from where the command was given, as every command-line tool takes it.
    bundle = Path(arguments["bundle"]).absolute()
    if not bundle.exists():
        raise ServiceError(f"bundle: expected the folder of a bundle or its .tar, found nothing at {bundle}")
    try:
        manifest = verify(bundle)
    except BundleError as error:
        raise ServiceError(f"bundle: {error}") from error
    if manifest.name != service.model:
        raise ServiceError(
            f"bundle: expected one of {service.model} for the service {service.name}, found {manifest.name} in {bundle}"
        )
    server = find_server(Path(arguments["server"] or _OWN_SERVER), cache_folder())
    return {
        "bundle": str(bundle),
        "size": manifest.size,
        "release": {"name": manifest.release, "version": manifest.version, "digest": manifest.digest},
        "lock": merge_locks(read_verified(bundle, LOCK).decode(), server.lock),
        "server": {"wheel": str(server.wheel), "sha256": server.sha256},
    }
