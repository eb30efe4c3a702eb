# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether routes, files, hosts and journal agree, as ``fsck`` does for a file system: pure, and nothing is mended.

The state that ``model_info`` (with ``verify``) and ``lb_info`` read goes in; a line for each thing that is not as the
other things say comes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.modelfleet.onprem.plugins.module_utils._journal import KEPT, read_rollout
from ansible_collections.modelfleet.onprem.plugins.module_utils._route import show_share
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.service import SLOTS, Service, Slot, other


def find_problems(
    services: Mapping[str, Service],
    hosts: Mapping[str, Mapping[str, Any]],
    balancers: Mapping[str, Mapping[str, Any]],
    known: Iterable[str] = (),
) -> list[str]:
    """A line for each disagreement about ``services``, and for each machine that did not answer.

    ``known`` are the inventory's balancers, of which ``balancers`` has those that answered.
    """
    wanted = {host for service in services.values() for host in service.hosts}
    silent = [*sorted(set(known) - set(balancers)), *sorted(wanted - set(hosts))]
    lines = [f"{name}: expected an answer, found none" for name in silent]
    lines += [f"{host}: {problem}" for host in sorted(hosts) for problem in hosts[host].get("problems", ())]
    lines += _journals_agree(services, {name: state.get("rollouts", ()) for name, state in balancers.items()})
    for service in services.values():
        lines += _service_problems(service, hosts, balancers)
    return lines


def _journals_agree(services: Iterable[str], journals: Mapping[str, Iterable[Mapping[str, Any]]]) -> Iterator[str]:
    """Every balancer tells of the same rollouts of ``services``, and that they ended the same way.

    What one has let go because it is old it need not know, nor what changed nothing there: a deploy that gates on the
    controller refused, which those balancers keep that answered then, and one that another balancer refused. Of one
    that died each tells what it saw: it may have begun, or ended, on some of them alone before another took it over.
    """
    told = {name: [read_rollout(view, name) for view in views] for name, views in journals.items()}
    kept_since = max((min(it.id for it in known) for known in told.values() if len(known) >= KEPT), default="")
    wanted, died = set(services), {name for known in told.values() for it in known for name in it.takes_over}
    verdicts: dict[str, dict[str, str]] = {}
    for name, known in told.items():
        for it in known:
            exempt = it.id < kept_since or it.id in died or it.changed_nothing or it.verdict == "withdrawn"
            if not exempt and not wanted.isdisjoint(it.services):
                verdicts.setdefault(it.id, {})[name] = it.verdict
    differ = [it for it in sorted(verdicts, reverse=True) if len({verdicts[it].get(name) for name in told}) > 1]
    if differ:
        latest = ", ".join(f"{verdicts[differ[0]].get(name, 'nothing')} on {name}" for name in told)
        others = f", and {len(differ) - 1} before it" if differ[1:] else ""
        yield f"journal: expected all balancers to agree, found {differ[0]} {latest}{others}"


def _service_problems(
    service: Service, hosts: Mapping[str, Mapping[str, Any]], balancers: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    found = {name: state["services"].get(service.name) for name, state in balancers.items()}
    for name in [name for name, state in found.items() if not state]:
        yield f"{name}: expected pools for {service.name}, found none"
    states = {name: state for name, state in found.items() if state}
    yield from _balancers_agree(service, states)
    yield from _maintenance_agrees(service, states)
    for name, state in states.items():
        yield from _balancer_problems(name, service, state)
    if not any((state.get("rollout") or {}).get("held") for state in states.values()):
        yield from _trial_problems(service, hosts)
    for state in list(states.values())[:1]:
        active: Slot = state["slot"]
        pools = state["pools"]
        yield from _active_problems(service, active, pools[active]["release"], hosts)
        yield from _idle_problems(service, other(active), pools[other(active)]["release"], hosts)


def _balancers_agree(service: Service, states: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Every balancer says the same of where requests go, of what each slot was given and of what served before."""
    views = {
        name: (
            state["slot"],
            tuple(state["pools"][slot]["release"] for slot in SLOTS),
            tuple(state["history"]),
            state["share"],
        )
        for name, state in states.items()
    }
    if len(set(views.values())) > 1:
        said = "; ".join(
            f"{name} has {slot}, {'/'.join(map(str, releases))}, before it {', '.join(history) or 'none'}"
            + (f", and {show_share(share)} of the requests beside it" if share else "")
            for name, (slot, releases, history, share) in views.items()
        )
        yield f"{service.name}: expected all balancers to agree, found {said}"


def _maintenance_agrees(service: Service, states: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    notices = {name: state.get("maintenance") for name, state in states.items()}
    said = [f"{name} says {notice['detail']!r}" if notice else f"{name} none" for name, notice in notices.items()]
    found = list(notices.values())
    if any(notice != found[0] for notice in found):
        yield f"{service.name}: expected all balancers to agree on maintenance, found {'; '.join(said)}"


def _trial_problems(service: Service, hosts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for host in service.hosts:
        if service.name in hosts.get(host, {}).get("trials", ()):
            yield f"{host}: expected no trial of {service.name} without a rollout, found one running"


def _balancer_problems(name: str, service: Service, state: Mapping[str, Any]) -> Iterator[str]:
    if not state["persisted"]:
        yield f"{name}: expected the map files to route {service.name} as HAProxy does, found another entry"
    active = state["slot"]
    for host, server in state["pools"][active]["servers"].items():
        if (server["status"], server["admin"]) != ("UP", "ready"):
            label = f"{service.name}_{active}/{host}"
            yield f"{name}: expected {label} to be UP and ready, found {server['status']} and {server['admin']}"
    for host, server in state["pools"][other(active)]["servers"].items():
        if server["admin"] != "ready":
            label = f"{service.name}_{other(active)}/{host}"
            yield f"{name}: expected {label} to be ready for its next start, found it in {server['admin']}"
    rollout = state.get("rollout") or {}
    if state["share"] and not rollout.get("held"):
        yield (
            f"{name}: expected no share of {service.name} beside {active} without a rollout, found "
            f"{show_share(state['share'])}: abort.yml takes it away"
        )
    if rollout.get("held"):
        at = f"{rollout['id']} at {rollout.get('step')}"
        yield (
            f"{name}: expected no unfinished rollout of {service.name}, found {at}: resume.yml finishes it, "
            "rollback.yml undoes it"
        )


def _slot(service: Service, slot: Slot, state: Mapping[str, Any]) -> Mapping[str, Any]:
    found = state["services"].get(service.name) or {"slots": {}}
    return found["slots"].get(slot) or {}


def _active_problems(
    service: Service, slot: Slot, release: str | None, hosts: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """Each host of the active slot runs what the balancers say, and answers; a service never deployed has none."""
    for host in service.slot_hosts[slot]:
        if host not in hosts:
            continue
        state = _slot(service, slot, hosts[host])
        running = (state.get("started") or {}).get("release") if state.get("unit") == "active" else None
        if running != release:
            yield f"{host}: expected {service.name} {slot} to run {release or 'nothing'}, found {running or 'nothing'}"
        elif release and not state.get("ready"):
            yield f"{host}: expected {service.name} {slot} to be ready, found that it is not"


def _idle_problems(
    service: Service, slot: Slot, release: str | None, hosts: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """What is kept warm is ready and what the balancers say; where nothing is kept warm, nothing runs."""
    running = {}
    for host in service.slot_hosts[slot]:
        state = _slot(service, slot, hosts[host]) if host in hosts else {}
        if state.get("unit") == "active":
            running[host] = str((state.get("started") or {}).get("release"))
            if not state.get("ready"):
                yield f"{host}: expected {service.name} {slot} to be ready or stopped, found it running and not ready"
        elif state.get("unit") not in (None, "inactive"):
            yield f"{host}: expected {service.name} {slot} to be active or inactive, found it {state['unit']}"
    if running and not service.keep_warm:
        yield f"{service.name}: expected nothing in the idle slot {slot}, found it running on {', '.join(running)}"
    if set(running.values()) - {release}:
        said = ", ".join(f"{found} on {host}" for host, found in running.items())
        yield f"{service.name}: expected {release or 'nothing'} in the idle slot {slot}, found {said}"
