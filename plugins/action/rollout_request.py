# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the controller: see the module of the same name for its documentation."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import (
    LOCK,
    BundleError,
    Manifest,
    read_verified,
    verify,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._registry import is_address
from ansible_collections.modelfleet.onprem.plugins.module_utils._signature import (
    read_allowed_signers,
    read_revoked_keys,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._trust import TrustError, check_bundle, trust_of
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.controller import (
    Groups,
    inventory_folder,
    new_rollout,
    still_runs,
    work_here,
)
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.interrupted import find_died_of_all, refused_rollout
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.policy import check_override, override
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.registry import UntrueError, fetch_bundle
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.service import (
    Service,
    ServiceError,
    check_balancers,
    find_asked,
    find_hooks,
    find_service,
    find_strategy,
    order_services,
    parse_services,
)
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.wheelhouse import cache_folder, find_server, merge_locks

ARGUMENTS = {
    "services": {"type": "raw", "required": True},
    "service": {"type": "str"},
    "several": {"type": "raw"},
    "bundle": {"type": "path"},
    "version": {"type": "str"},
    "registry": {"type": "str"},
    "strategy": {"type": "str"},
    "server": {"type": "path"},
    "override": {"type": "list", "elements": "str", "default": []},
    "override_reason": {"type": "str"},
    "action": {
        "type": "str",
        "choices": ["deploy", "rollback", "resume", "retire", "canary", "status"],
        "default": "status",
    },
    "balancers": {"type": "dict"},
    "hooks": {"type": "raw"},
}
_KEYS = re.compile(r"(^|\s)(sk-)?(ssh|ecdsa)-\S+\s+AAAA|^U1NIS1JM")
_OWN_SERVER = Path(__file__).resolve().parents[2] / "app"


class ActionModule(ActionBase):
    """Checks a request against the inventory and the bundle; changes nothing."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        return work_here(self, tmp, task_vars, ARGUMENTS, partial(_work, inventory_folder(task_vars or {})))


def _work(folder: Path, arguments: dict[str, Any], groups: Groups) -> dict[str, Any]:
    request = _request(arguments, groups, folder)
    reasons = [part["refused"] for part in request.get("parts", {}).values() if "refused" in part]
    if not reasons:
        return {"request": request}
    reason = "; ".join(reasons)
    refused = {"reason": reason, "rollout": refused_rollout(request)}
    return {"failed": True, "msg": reason, "request": request, "refused": refused}


def _request(arguments: dict[str, Any], groups: Groups, folder: Path) -> dict[str, Any]:
    balancers = check_balancers(groups)
    services = parse_services(arguments["services"], groups)
    action = arguments["action"]
    if action == "status" and not arguments["service"]:
        return _common(action, list(services.values()), balancers)
    source = {key: arguments[key] for key in ("bundle", "version")}
    asked = find_asked(services, arguments["several"], arguments["service"], source)
    died = None
    if arguments["balancers"] is not None:
        died = find_died_of_all(list(asked), arguments["balancers"], socket.gethostname(), still_runs)
        if died is None and action == "resume":
            raise ServiceError(f"{', '.join(asked)}: expected a rollout that was cut short, found none in the journals")
    names = list(died.services if died else asked)
    wanted = order_services([find_service(services, name) for name in names])
    action = died.action if died and action == "resume" else action
    request = _common(action, wanted, balancers)
    if action in ("deploy", "rollback", "resume", "retire"):
        request["rollout"] = new_rollout()
        request["hooks"] = find_hooks(wanted, arguments["hooks"]) if action != "retire" else {}
        # What a controller had begun on a host when it died goes on there, and is gone on with, or undone, as it ends.
        request["settle"] = died is not None or action == "rollback"
    if action == "deploy":
        request["strategy"] = _strategy(wanted, died.strategy if died else arguments["strategy"])
    elif died:
        request["strategy"] = died.strategy
    overridden, reason = list(dict.fromkeys(arguments["override"])), (arguments["override_reason"] or "").strip()
    if died:
        # What was overridden when it began may not be enforced any more, and then needs no override.
        overridden, reason = list(died.overrides), "; ".join(dict.fromkeys(died.overrides.values()))
    else:
        check_override([service.gates for service in wanted], overridden, reason)
    parts = {}
    for service in wanted:
        parts[service.name] = _part(service, overridden, reason)
        if action == "deploy" and died:
            parts[service.name].update(_meant(service, died.services[service.name], arguments, folder))
        elif action == "deploy":
            parts[service.name].update(_bundle(service, asked[service.name], arguments, folder))
    overrides = [{"gate": name, "reason": reason} for name in overridden]
    return {**request, **_together(parts), "overrides": overrides, "parts": parts}


def _common(action: str, services: Sequence[Service], balancers: Sequence[str]) -> dict[str, Any]:
    """What a request says of all of its services together."""
    hosts = tuple(dict.fromkeys(host for service in services for host in service.hosts))
    return {
        "action": action,
        "services": [service.name for service in services],
        "hosts": list(hosts),
        "balancers": list(balancers),
        "machines": list(dict.fromkeys((*balancers, *hosts))),
    }


def _together(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What plays ask of a request as a whole: all there is to one service, or the most patient of several."""
    if len(parts) == 1:
        return dict(next(iter(parts.values())))
    return {
        "service": ", ".join(parts),
        "max_fail_percentage": 0,
        **{key: max(part[key] for part in parts.values()) for key in ("drain_timeout", "ready_timeout", "watch")},
    }


def _part(service: Service, overridden: Sequence[str], reason: str) -> dict[str, Any]:
    """What a request says of one of its services, whatever it asks for."""
    policy, overrides = override(service.gates, overridden, reason)
    part: dict[str, Any] = {
        "service": service.name,
        "drain_timeout": service.drain_timeout,
        "ready_timeout": service.ready_timeout,
        "watch": service.watch,
        "keep_releases": service.keep_releases,
        "max_fail_percentage": service.max_fail_percentage,
        "policy": policy,
        "overrides": overrides,
        "ports": {slot: service.port_of(slot) for slot in service.slot_hosts},
        "slot_hosts": {slot: list(names) for slot, names in service.slot_hosts.items()},
    }
    if service.canary:
        ports = {slot: service.ports_of(slot)[-1] for slot in service.slot_hosts}
        part["canary"] = {**service.canary.plan(), "metrics_ports": ports}
    return part


def _strategy(services: Sequence[Service], asked: str | None) -> str | None:
    """The strategy of the rollout. Several services move together, so they start beside what serves."""
    if len(services) == 1:
        return find_strategy(services[0], asked)
    if asked not in (None, "blue_green"):
        raise ServiceError(f"strategy: expected blue_green for several services, found {asked!r}")
    return "blue_green"


def _meant(service: Service, meant: Mapping[str, Any], arguments: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What the rollout that died meant to deploy, as the journals have it."""
    bundle = Path(meant["bundle"] or "")
    if meant["bundle"] and bundle.exists() and _verify(bundle).digest == meant["digest"]:
        return _bundle(service, {"bundle": str(bundle)}, arguments, folder)
    # The hosts may hold the release already, and then need no bundle.
    version = meant["release"].rpartition("-")[0]
    release = {"name": meant["release"], "version": version, "digest": meant["digest"]}
    return {"bundle": meant["bundle"], "size": 0, "release": release, "lock": None, "server": None}


def _verify(bundle: Path) -> Manifest:
    try:
        return verify(bundle)
    except BundleError as error:
        raise ServiceError(f"bundle: {error}") from error


def _bundle(service: Service, source: Mapping[str, str], arguments: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What a request says of a service's bundle; of one that is not trusted, why it is ``refused``."""
    try:
        found = _found(service, {**source, "registry": arguments["registry"]}, folder)
    except UntrueError as error:
        return {"bundle": error.address, "verdicts": error.verdicts, "refused": f"bundle: {error}"}
    bundle = found["bundle"]
    trust = _trust(service, folder)
    try:
        signers = trust_of(trust["allowed_signers"], trust["revoked_keys"], trust["signers"])
        mode = trust["gates"]["signature"]["mode"]
        manifest, verdicts = check_bundle(Path(bundle), found["digest"], signers, mode)
    except TrustError as error:
        return {"bundle": bundle, "verdicts": error.verdicts, "refused": f"bundle: {error}"}
    if manifest.name != service.model:
        raise ServiceError(
            f"bundle: expected one of {service.model} for the service {service.name}, found {manifest.name} in {bundle}"
        )
    server = find_server(Path(arguments["server"] or _OWN_SERVER), cache_folder())
    return {
        "bundle": bundle,
        "source": found["source"],
        "url": found["url"],
        "trust": trust,
        "verdicts": verdicts,
        "size": manifest.size,
        "release": {"name": manifest.release, "version": manifest.version, "digest": manifest.digest},
        "lock": merge_locks(read_verified(Path(bundle), LOCK, manifest).decode(), server.lock),
        "server": {"wheel": str(server.wheel), "sha256": server.sha256},
    }


def _found(service: Service, source: Mapping[str, str | None], folder: Path) -> dict[str, Any]:
    """The bundle that is asked for and its digest, if a registry says one; ``url`` is where hosts are to fetch it."""
    place = service.registry or source["registry"] or ""
    asked, version = source.get("bundle"), source.get("version")
    if service.pull and not is_address(place):
        raise ServiceError(
            f"modelfleet_services.{service.name}.pull: expected a registry with an http(s) address, found "
            f"{place or 'none'}"
        )
    if asked and version:
        raise ServiceError("bundle: expected either -e bundle=PATH or -e version=VERSION, found both")
    if version:
        if not place:
            raise ServiceError(
                "registry: expected modelfleet_registry in the inventory, or the key registry of "
                f"{service.name}, for -e version={version}, found neither"
            )
        fetched = fetch_bundle(place, folder, service.model, version, cache_folder())
        url = fetched.address if service.pull else ""
        return {
            "bundle": str(fetched.tar),
            "digest": fetched.entry.digest,
            "source": {"registry": place, "asked": version},
            "url": url,
        }
    if not asked:
        raise ServiceError(
            "bundle: expected -e bundle=PATH of a bundle or its .tar, or -e version=VERSION of one in the registry, "
            "found nothing"
        )
    # A path is meant from where the command was given, as every command-line tool takes it.
    bundle = Path(asked).absolute()
    if not bundle.exists():
        raise ServiceError(f"bundle: expected the folder of a bundle or its .tar, found nothing at {bundle}")
    return {"bundle": str(bundle), "digest": None, "source": {}, "url": ""}


def _trust(service: Service, folder: Path) -> dict[str, Any]:
    """Whose signatures count, as the hosts need it: contents of files, not their paths."""
    return {
        "gates": {gate: service.gates[gate] for gate in ("digest", "signature")},
        "allowed_signers": _content(service.allowed_signers, folder, read_allowed_signers),
        "revoked_keys": _content(service.revoked_keys, folder, read_revoked_keys),
        "signers": list(service.signers),
    }


def _content(value: str, folder: Path, read: Callable[[Path], str]) -> str:
    """The keys in ``value``, or in the file that it is the path of."""
    return read(folder / Path(value).expanduser()) if value and not _KEYS.search(value) else value
