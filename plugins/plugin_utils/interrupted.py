# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the balancers' journals say of rollouts that hold a service, and what a new rollout writes there: pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.modelfleet.onprem.plugins.module_utils._journal import (
    Rollout,
    merge,
    read_rollout,
    refusal,
)
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.rollout import BalancerState, Plan
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.service import ServiceError


def find_holders(service: str, balancers: Mapping[str, BalancerState]) -> list[Rollout]:
    """The rollouts that hold the service on any balancer, the latest last.

    Balancers may name different ones after a crash: the latest was taking the others over, so it says what is meant.
    """
    last = [state["services"].get(service, {}).get("rollout") for state in balancers.values()]
    return merge(found for found in last if found and found["held"])


def find_died(
    service: str, balancers: Mapping[str, BalancerState], where: str, runs: Callable[[str], bool]
) -> Rollout | None:
    """The rollout that holds the service, None if it is free. ServiceError while it is known to run still."""
    holders = find_holders(service, balancers)
    if not holders:
        return None
    last = holders[-1]
    alive = why_alive(last, service, balancers, where, runs)
    if alive:
        raise ServiceError(
            f"{service}: expected no other rollout to run, found {last.describe(service)}, which {alive}: "
            "wait for its end, or end it and run this again"
        )
    return last


def has_ended(service: str, balancers: Mapping[str, BalancerState], where: str, runs: Callable[[str], bool]) -> bool:
    """Whether a rollout that was told to end has done so, or runs still and will."""
    holders = find_holders(service, balancers)
    return not holders or bool(why_alive(holders[-1], service, balancers, where, runs))


def why_alive(
    rollout: Rollout,
    service: str,
    balancers: Mapping[str, BalancerState],
    where: str,
    runs: Callable[[str], bool],
) -> str:
    """How it is known that a rollout runs still; nothing, where it is not.

    The processes of ``where`` can be looked for. Of others it is known only while they watch a canary.
    """
    if rollout.where == where and rollout.process:
        return f"runs still as process {rollout.process.partition('-')[0]}" if runs(rollout.process) else ""
    watched = any(state["services"].get(service, {}).get("watched") for state in balancers.values())
    return "watches its canary still" if watched and rollout.strategy == "canary" else ""


def check_same(service: str, died: Rollout | None, digest: str) -> None:
    """ServiceError unless a deploy of ``digest`` may go on where ``died`` ended."""
    if died and (died.action != "deploy" or died.services[service].get("digest") != digest):
        raise ServiceError(refusal(service, died))


def check_target(to: str | None, plan: Plan) -> None:
    """ServiceError if ``to`` is not where a rollout that died goes back to."""
    names = (plan.release.name, plan.release.version) if plan.release else ()
    if to and to not in names:
        wanted = names[0] if names else "nothing"
        raise ServiceError(
            f"to: expected {wanted}, which {plan.service} served before a rollout that died, found {to!r}: "
            f"rollback.yml -e service={plan.service} goes back to it, then again to another one"
        )


def begin_rollout(
    plans: Sequence[Plan],
    request: Mapping[str, Any],
    action: str,
    died: Rollout | None,
    balancers: Mapping[str, BalancerState],
) -> dict[str, Any]:
    """What a run of ``plans`` writes into the journals as it begins; nothing, if it finds nothing to do."""
    held = list(dict.fromkeys(holder.id for plan in plans for holder in find_holders(plan.service, balancers)))
    if all(plan.unchanged for plan in plans) and not held:
        return {}
    # A warm rollback that one of several balancers could not make goes on as one that is cold.
    taken = [name for name in held if name != request["rollout"]["id"]]
    first = next(
        (
            (name, hosts)
            for name, step in (("stage", "stage"), ("start", "idle"))
            if (hosts := list(dict.fromkeys(host for plan in plans for host in getattr(plan, step))))
        ),
        None,
    )
    undoes = died.undoes or (died.id if died.action == "deploy" else None) if died and action == "rollback" else None
    rollout = {
        **request["rollout"],
        "action": action,
        "strategy": request.get("strategy"),
        "services": {
            plan.service: {
                "release": plan.release.name if plan.release else None,
                "digest": plan.release.digest if plan.release else None,
                "bundle": request["parts"][plan.service].get("bundle"),
                "slot": plan.slot,
                "was": dict(plan.was),
            }
            for plan in plans
        },
        "overrides": {each["gate"]: each["reason"] for each in request.get("overrides", ())},
        "takes_over": taken,
        "undoes": undoes,
        "steps": [{"name": first[0], "hosts": first[1], "state": "started"}] if first else [],
    }
    read_rollout(rollout, "rollout")
    return rollout


def refused_rollout(request: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a request whose bundles are not trusted: what was asked for, and nothing that a bundle says."""
    nothing = {"release": None, "slot": None}
    return {
        **request["rollout"],
        "action": request["action"],
        "strategy": request.get("strategy"),
        "services": {
            name: {**nothing, "digest": None, "bundle": part["bundle"], "was": nothing}
            for name, part in request["parts"].items()
        },
        "overrides": {each["gate"]: each["reason"] for each in request["overrides"]},
    }


def find_died_of_all(
    services: Sequence[str], balancers: Mapping[str, BalancerState], where: str, runs: Callable[[str], bool]
) -> Rollout | None:
    """The rollout that died and holds any of ``services``; ServiceError if that is more than one."""
    found = {service: find_died(service, balancers, where, runs) for service in services}
    held = {died.id: died for died in found.values() if died}
    if len(held) > 1:
        told = "; ".join(died.describe(service) for service, died in found.items() if died)
        raise ServiceError(f"services: expected one rollout that was cut short, found {told}: take them one at a time")
    return next(iter(held.values()), None)
