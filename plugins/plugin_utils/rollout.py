# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout will do, worked out from what is asked for and from what hosts and balancers are now.

Pure: the state that ``model_info`` and ``lb_info`` read goes in, a ``Plan`` comes out, and the playbooks carry it out.
What is already as it should be is not in the plan, so a rollout that finds nothing to do touches nothing, and one that
was cut short goes on where it was when it is run again.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ansible_collections.modelfleet.onprem.plugins.plugin_utils.service import (
    SLOTS,
    Service,
    ServiceError,
    Slot,
    Strategy,
    other,
)

# What model_slot adds to a slot's settings by itself: where the release and its environment are.
_DERIVED = {"MODEL_BUNDLE", "MODEL_ENV"}

HostState = Mapping[str, Any]
BalancerState = Mapping[str, Any]


@dataclass(frozen=True)
class Release:
    """A release that a rollout is about. ``digest`` is the manifest's sha256 in hexadecimal."""

    name: str
    version: str
    digest: str


@dataclass(frozen=True)
class Plan:
    """The steps of one rollout; an empty list of hosts means that the step has nothing to do.

    ``stage``: hosts that lack the release or its environment. ``pinned``: releases that they must not let go for it.
    ``in_place``: hosts of the active slot to restart, in
    ``batches``. ``idle``: hosts of the other slot to start before the balancers move. ``unready``: hosts of the slot
    that a run that was cut short left out of rotation. ``record``: balancers that are to serve ``release`` from
    ``slot``. ``stop``: hosts whose ``stop_slot`` is to stop, since it is not kept warm.
    """

    service: str
    slot: Slot
    release: Release | None = None
    was: dict[str, str | None] = field(default_factory=dict)
    envs: dict[str, str] = field(default_factory=dict)
    stage: list[str] = field(default_factory=list)
    pinned: list[str] = field(default_factory=list)
    wheels: list[dict[str, str]] = field(default_factory=list)
    in_place: list[str] = field(default_factory=list)
    batches: list[int | str] = field(default_factory=lambda: ["100%"])
    idle: list[str] = field(default_factory=list)
    unready: list[str] = field(default_factory=list)
    record: list[str] = field(default_factory=list)
    stop: list[str] = field(default_factory=list)
    stop_slot: Slot = "green"
    settings: dict[str, str] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a playbook, with ``unchanged`` where there is nothing to do."""
        steps = (self.stage, self.in_place, self.idle, self.record, self.stop)
        return {**asdict(self), "unchanged": not any(steps)}


def check_reached(wanted: Iterable[str], found: Container[str]) -> None:
    """Refuse to plan without the state of every machine: what cannot be read cannot be kept right."""
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ServiceError(
            f"expected every machine to answer before anything is changed, found none from {', '.join(missing)}"
        )


def plan_deploy(
    service: Service,
    strategy: Strategy,
    release: Release,
    hosts: Mapping[str, HostState],
    balancers: Mapping[str, BalancerState],
    env_of: Callable[[HostState], str],
) -> Plan:
    """How ``release`` comes to serve ``service`` by ``strategy``.

    ``hosts`` and ``balancers`` are what ``model_info`` and ``lb_info`` found, by name. ``env_of`` names the environment
    that the release needs on a host.
    """
    active = active_slot(service, balancers)
    serving = _recorded(service, active, balancers)
    # A first deploy has nothing to protect, and one of what serves already only mends: both stay in the active slot.
    in_place = strategy in ("basic", "rolling") or serving in (None, release.name)
    slot = active if in_place else other(active)
    envs = {host: env_of(hosts[host]) for host in service.slot_hosts[slot]}
    return _plan(service, release, slot, serving, active, envs, hosts, balancers, in_place, strategy)


def plan_rollback(
    service: Service,
    to: str | None,
    hosts: Mapping[str, HostState],
    balancers: Mapping[str, BalancerState],
) -> Plan:
    """How ``service`` goes back to ``to`` (a version or a release; the release before this one, when None).

    A host that is not in ``hosts`` did not answer. It is passed over: going back must not wait for it to be mended.
    """
    reached = {slot: tuple(host for host in names if host in hosts) for slot, names in service.slot_hosts.items()}
    service = replace(service, slot_hosts=reached)
    active = active_slot(service, balancers)
    slot = other(active)
    serving = _recorded(service, active, balancers)
    wanted = to or _previous(service, balancers)
    release = _find_release(service, wanted, slot, hosts)
    if release.name == serving:
        raise ServiceError(f"{service.name}: expected another release to go back to, found {serving}, which serves now")
    envs = {host: str(_release_on(service, release.name, hosts[host])["env"]) for host in service.slot_hosts[slot]}
    return _plan(service, release, slot, serving, active, envs, hosts, balancers, False, service.strategy)


def plan_retire(service: Service, hosts: Mapping[str, HostState], balancers: Mapping[str, BalancerState]) -> Plan:
    """Stop the slot that no balancer routes to, on the hosts where it still runs."""
    idle = other(active_slot(service, balancers))
    stop = [
        host for host in service.slot_hosts[idle] if _slot_state(service, idle, hosts[host]).get("unit") == "active"
    ]
    return Plan(service=service.name, slot=idle, stop=stop, stop_slot=idle)


def active_slot(service: Service, balancers: Mapping[str, BalancerState]) -> Slot:
    """The slot that every balancer routes to."""
    slots = {}
    for name, state in balancers.items():
        found = state["services"].get(service.name)
        if not found or not found.get("slot"):
            raise ServiceError(f"{name}: expected pools for {service.name}, found none: run provision.yml first")
        slots[name] = found["slot"]
    if len(set(slots.values())) > 1:
        listed = ", ".join(f"{name} {slot}" for name, slot in sorted(slots.items()))
        raise ServiceError(f"{service.name}: expected all balancers to route to the same slot, found {listed}")
    found_slot: Slot = next(iter(slots.values()))
    return found_slot


def _plan(
    service: Service,
    release: Release,
    slot: Slot,
    serving: str | None,
    active: Slot,
    envs: dict[str, str],
    hosts: Mapping[str, HostState],
    balancers: Mapping[str, BalancerState],
    in_place: bool,
    strategy: Strategy,
) -> Plan:
    settings, limits = service.settings(slot), service.limits()
    unready = [host for host in service.slot_hosts[slot] if not _in_rotation(service, slot, host, balancers)]
    start = [
        host
        for host in service.slot_hosts[slot]
        if host in unready or not _as_wanted(service, slot, release, envs[host], settings, limits, hosts[host])
    ]
    stage = [host for host in service.slot_hosts[slot] if not _staged(service, release, envs[host], hosts[host])]
    record = [
        name
        for name in balancers
        if slot != active or _recorded(service, slot, {name: balancers[name]}) != release.name
    ]
    keep_warm = in_place or service.keep_warm
    return Plan(
        service=service.name,
        release=release,
        slot=slot,
        was={"release": serving, "slot": active if serving else None},
        envs=envs,
        stage=stage,
        pinned=_served_last(service, balancers),
        wheels=_wheels([host for host in stage if envs[host] not in hosts[host]["envs"]], envs, hosts),
        in_place=start if in_place else [],
        # Nothing serves yet in a first deploy, so nothing is gained by going slowly.
        batches=["100%"] if strategy == "basic" or serving is None else list(service.batches),
        idle=[] if in_place else start,
        unready=unready,
        record=record,
        stop=[] if keep_warm else list(service.slot_hosts[active]),
        stop_slot=active,
        settings=settings,
        limits=limits,
    )


def _recorded(service: Service, slot: Slot, balancers: Mapping[str, BalancerState]) -> str | None:
    """The release that the balancers last recorded for a slot; None where one of them has none."""
    found = {state["services"][service.name]["pools"][slot]["release"] for state in balancers.values()}
    return found.pop() if len(found) == 1 else None


def _served_last(service: Service, balancers: Mapping[str, BalancerState]) -> list[str]:
    """The releases that served last by any balancer's word, what serves now first.

    They are as many as a host keeps, less the one to come: so releases that never served, since a gate refused them, go
    before any of these. What serves and the one before it are always among them, for that is where a rollback goes.
    """
    kept = max(2, service.keep_releases - 1)
    found: dict[str, None] = {}
    for state in balancers.values():
        balancer = state["services"][service.name]
        served = [balancer["pools"][balancer["slot"]]["release"], *reversed(balancer["history"])]
        found.update(dict.fromkeys(list(dict.fromkeys(filter(None, served)))[:kept]))
    return list(found)


def _previous(service: Service, balancers: Mapping[str, BalancerState]) -> str:
    for state in balancers.values():
        history: Sequence[str] = state["services"][service.name]["history"]
        if history:
            return history[-1]
    raise ServiceError(f"{service.name}: expected an earlier release in the balancers' history, found none")


def _of_service(service: Service, state: HostState) -> Mapping[str, Any]:
    found: Mapping[str, Any] = state["services"].get(service.name) or {"releases": [], "slots": {}}
    return found


def _slot_state(service: Service, slot: Slot, state: HostState) -> Mapping[str, Any]:
    return _of_service(service, state)["slots"].get(slot) or {}


def _release_on(service: Service, name: str, state: HostState) -> Mapping[str, Any]:
    for release in _of_service(service, state)["releases"]:
        if release["release"] == name:
            return dict(release)
    return {}


def _find_release(service: Service, wanted: str, slot: Slot, hosts: Mapping[str, HostState]) -> Release:
    places = service.slot_hosts[slot]
    found = {
        release["release"]: release for host in places for release in _of_service(service, hosts[host])["releases"]
    }
    matching = [name for name in sorted(found) if wanted in (name, found[name]["version"])]
    if not matching:
        kept = ", ".join(sorted(found)) or "none"
        raise ServiceError(f"to: expected a release that the hosts of {service.name} hold ({kept}), found {wanted!r}")
    if len(matching) > 1:
        raise ServiceError(f"to: expected one release of {service.name}, found {wanted!r} for {', '.join(matching)}")
    name = matching[0]
    lacking = [host for host in places if not _staged(service, Release(name, "", ""), None, hosts[host])]
    if lacking:
        raise ServiceError(
            f"to: expected {name} with its environment on every host of {service.name}, found it missing on "
            f"{', '.join(lacking)}: deploy its bundle again"
        )
    return Release(name, str(found[name]["version"]), str(found[name]["digest"]))


def _staged(service: Service, release: Release, env: str | None, state: HostState) -> bool:
    """Whether a host holds the release, bound to the environment (any that exists, when None)."""
    found = _release_on(service, release.name, state)
    return bool(found) and found["env"] in state["envs"] and env in (None, found["env"])


def _as_wanted(
    service: Service,
    slot: Slot,
    release: Release,
    env: str,
    settings: Mapping[str, str],
    limits: Mapping[str, str],
    state: HostState,
) -> bool:
    found = _slot_state(service, slot, state)
    if not found or found["unit"] != "active" or not found["ready"]:
        return False
    started = found["started"] or {}
    wanted = {"release": release.name, "env": env}
    return (
        {key: started.get(key) for key in wanted} == wanted
        and dict(settings) == {key: value for key, value in found["settings"].items() if key not in _DERIVED}
        and dict(limits) == found["limits"]
    )


def _in_rotation(service: Service, slot: Slot, host: str, balancers: Mapping[str, BalancerState]) -> bool:
    """Whether every balancer sends requests to the host, which one that a cut-short run left draining does not."""
    servers = [state["services"][service.name]["pools"][slot]["servers"].get(host) for state in balancers.values()]
    missing = [name for name, server in zip(balancers, servers, strict=True) if server is None]
    if missing:
        raise ServiceError(f"{missing[0]}: expected {host} in the pool {service.name}_{slot}: run provision.yml first")
    return all(server["admin"] == "ready" for server in servers)


def _wheels(lacking: Sequence[str], envs: Mapping[str, str], hosts: Mapping[str, HostState]) -> list[dict[str, str]]:
    """An entry for each environment that a host lacks, for the oldest C library among the hosts that share it."""
    found: dict[str, dict[str, str]] = {}
    for host in lacking:
        python = hosts[host]["python"]
        entry = {"env": envs[host], "tag": python["tag"], "machine": python["machine"], "glibc": python["glibc"]}
        known = found.setdefault(envs[host], entry)
        if _version(entry["glibc"]) < _version(known["glibc"]):
            found[envs[host]] = entry
    return list(found.values())


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def status_lines(
    services: Mapping[str, Service], hosts: Mapping[str, HostState], balancers: Mapping[str, BalancerState]
) -> list[str]:
    """A table for people: a row a service, slot and host."""
    # A machine that did not answer is a row, not an error: that is when the status is asked for.
    rows = [("service", "slot", "route", "host", "release", "unit", "ready", "balancer")]
    for service in services.values():
        routes = {state["services"].get(service.name, {}).get("slot") for state in balancers.values()}
        for slot in SLOTS:
            for host in service.slot_hosts[slot]:
                found = _slot_state(service, slot, hosts[host]) if host in hosts else {}
                rows.append(
                    (
                        service.name,
                        slot,
                        "active" if routes == {slot} else "mixed" if slot in routes else "idle",
                        host,
                        str(found.get("release") or "-"),
                        str(found.get("unit") or "-") if host in hosts else "unreachable",
                        "yes" if found.get("ready") else "no",
                        ", ".join(_seen_by(state, service, slot, host) for state in balancers.values()),
                    )
                )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _seen_by(state: BalancerState, service: Service, slot: Slot, host: str) -> str:
    pools = state["services"].get(service.name, {}).get("pools", {})
    server = pools.get(slot, {}).get("servers", {}).get(host)
    return f"{server['status']}/{server['admin']}" if server else "unknown"
