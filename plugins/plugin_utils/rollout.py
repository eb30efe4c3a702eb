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
from functools import partial
from typing import Any, Literal

from ansible_collections.modelfleet.onprem.plugins.module_utils._route import show_share
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.canary import Canary
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.contract import Contract, parse_contract
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.service import (
    SLOTS,
    Service,
    ServiceError,
    Slot,
    Strategy,
    other,
)
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.verdicts import (
    Verdict,
    align,
    failure,
    judge_contracts,
    verdict_lines,
    verdict_of,
)

# What model_slot adds to a slot's settings by itself: where the release and its environment are, which bundle that is,
# and a host's own key.
_DERIVED = {"GATE_KEY_SHA256", "MODEL_BUNDLE", "MODEL_DIGEST", "MODEL_ENV"}

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
    ``in_place``: hosts of the active slot to restart, in ``batches``; ``put_back``: what each of them runs again if the
    release fails there, its release, settings and limits. ``idle``: hosts of the other slot to start before the
    balancers move. ``kept``: those of them that run something already in a slot that a balancer routes to, so that
    nothing may stop it. ``running``: hosts of ``slot`` that run the release already. ``unready``: hosts of the slot
    that a run that was cut short left out of rotation. ``unshare``: balancers on which a canary must end before
    anything is restarted. ``share``: those on which this one goes through ``steps``; it had ``reached`` a share when it
    was cut short. ``record``: balancers that are to serve ``release`` from ``slot``; ``recorded`` is what all of them
    know then, where they may know different things. ``out``: hosts that leave the rotation of ``slot`` before that
    until a deploy brings them back, and why. ``stop``: hosts whose ``stop_slot`` is to stop, since it is not kept warm.
    ``baseline_slot``: the slot that the release before answers from on the same hosts while this one starts, empty
    where there is none. ``replaces``: the release before, which gates compare with; empty where there is none, and to
    go back. ``half_done``: whether the rollout that died, which this one takes over, left the service neither on what
    was before nor on what it meant, so that this one must not let go of it if it fails, too. ``verdicts``: what the
    controller's gates found that need the state of the fleet.
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
    put_back: dict[str, dict[str, Any]] = field(default_factory=dict)
    idle: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    unready: list[str] = field(default_factory=list)
    unshare: list[str] = field(default_factory=list)
    share: list[str] = field(default_factory=list)
    reached: int = 0
    steps: list[dict[str, Any]] = field(default_factory=list)
    record: list[str] = field(default_factory=list)
    recorded: dict[str, Any] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)
    stop: list[str] = field(default_factory=list)
    stop_slot: Slot = "green"
    settings: dict[str, str] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)
    baseline_slot: Slot | Literal[""] = ""
    replaces: str = ""
    half_done: bool = False
    verdicts: list[Verdict] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a playbook.

        With ``unchanged`` where there is nothing to do, the steps as ``lines`` for people, and why the rollout is
        ``refused``, None where it is not.
        """
        return {
            **asdict(self),
            "unchanged": self.unchanged,
            "lines": plan_lines(self),
            "refused": failure(self.verdicts),
        }

    @property
    def unchanged(self) -> bool:
        steps = (self.stage, self.unshare, self.in_place, self.idle, self.share, self.record, self.stop)
        return not any(steps)


def together(plans: Sequence[Plan], begin: Sequence[str], rollout: Mapping[str, Any]) -> dict[str, Any]:
    """The plans of one run as plain data: each of them in ``plans``, and what all of them come to.

    Of one service that is its plan itself. Of several it has the hosts of each step together; none of them has a step
    ``in_place`` or ``share``. ``begin`` are the balancers whose journal the rollout is written to, and ``rollout`` is
    what is written there as it begins. ``to`` says for each service where its requests are to go, ``back`` where they
    went before, if that was another slot with a release, and ``undo`` what is to be stopped once they are back there.
    ``up`` says for each service how many hosts can answer there, which those that were passed over need not, and
    ``left_out`` has a line for each host that stays out of rotation.
    """
    each = [plan.as_dict() for plan in plans]
    whole = {
        "plans": each,
        "wheels": _together(wheel for plan in each for wheel in plan["wheels"]),
        "begin": list(begin),
        "rollout": dict(rollout),
        "to": {
            plan.service: {
                "slot": plan.slot,
                "release": plan.release.name,
                **({"record": plan.recorded} if plan.recorded else {}),
            }
            for plan in plans
            if plan.record and plan.release
        },
        "back": {plan.service: dict(plan.was) for plan in plans if plan.record and _moves(plan)},
        "up": {plan.service: len(plan.envs) for plan in plans if plan.record and plan.release},
        "left_out": [
            f"{host}: {plan.service} stays out of rotation: {why}" for plan in plans for host, why in plan.out.items()
        ],
        "undo": [
            {"service": plan.service, "stop": list(plan.envs), "stop_slot": plan.slot} for plan in plans if _moves(plan)
        ],
    }
    if len(plans) == 1:
        return {**each[0], **whole}
    return {
        **asdict(Plan(service=", ".join(plan.service for plan in plans), slot="blue")),
        **{
            step: list(dict.fromkeys(host for plan in plans for host in getattr(plan, step)))
            for step in ("stage", "idle", "running", "unshare", "record", "stop")
        },
        "unchanged": all(plan.unchanged for plan in plans),
        "half_done": any(plan.half_done for plan in plans),
        "lines": [line for plan in each for line in plan["lines"]],
        "refused": "; ".join(f"{plan['service']}: {plan['refused']}" for plan in each if plan["refused"]) or None,
        **whole,
    }


def _moves(plan: Plan) -> bool:
    """Whether there is a slot that requests can be sent back to at once."""
    return bool(plan.was.get("release")) and plan.was.get("slot") != plan.slot


def _together(wheels: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """An entry for each environment, for the oldest C library that it has to do with."""
    found: dict[str, dict[str, str]] = {}
    for entry in wheels:
        known = found.setdefault(entry["env"], entry)
        if _version(entry["glibc"]) < _version(known["glibc"]):
            found[entry["env"]] = entry
    return list(found.values())


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
    env_of: Callable[[HostState], str] | None,
    died: Mapping[str, Any] | None = None,
    beside: bool = False,
) -> Plan:
    """How ``release`` comes to serve ``service`` by ``strategy``.

    ``hosts`` and ``balancers`` are what ``model_info`` and ``lb_info`` found, by name. ``env_of`` names the environment
    that the release needs on a host; the one that it has there, when None. ``died`` is what a rollout of that release
    meant for the service, which this one goes on with: it says where the release was to serve and what was before.
    A service that moves together with others starts ``beside`` what serves even if that is nothing.
    """
    if died:
        slot: Slot = died["slot"]
        active = slot_before(died, beside)
        serving = died["was"]["release"]
        in_place = slot == active
    else:
        active = active_slot(service, balancers)
        _check_recorded(service, active, balancers)
        serving = _recorded(service, active, balancers)
        # A first deploy has nothing to protect, and one of what serves already as it is to only mends: both stay in the
        # active slot.
        in_place = (
            strategy in ("basic", "rolling")
            or (serving is None and not beside)
            or (serving == release.name and not _serves_otherwise(service, active, release, env_of, hosts, balancers))
        )
        slot = active if in_place else other(active)
    if env_of is None:
        envs = _envs_held(service, release, slot, hosts)
    else:
        envs = {host: env_of(hosts[host]) for host in service.slot_hosts[slot]}
    plan = _plan(service, release, slot, serving, active, envs, hosts, balancers, in_place, strategy)
    if died and not in_place and _has_moved(service, slot, balancers):
        # What requests go to is not restarted for other settings: the next deploy starts those beside it.
        idle = _to_start(service, plan, release.name, hosts)
        running = [host for host in service.slot_hosts[slot] if host not in idle]
        plan = replace(plan, idle=idle, running=running, kept=_kept(service, slot, idle, hosts, balancers))
    if serving and serving != release.name:
        # Two host groups hold one release each: there is nothing beside the new one to compare it with.
        beside_it = not in_place and _shares_hosts(service)
        # A deploy alone compares: going back must not be refused for answers that differ from those of a bad release.
        plan = replace(plan, replaces=serving, baseline_slot=active if beside_it else "")
    if env_of is not None:
        # What does not run may be damaged: its bytes are compared with the bundle's again, and put right.
        doubtful = [host for host in service.slot_hosts[slot] if _rests(service, slot, release, hosts[host])]
        plan = replace(plan, stage=[host for host in service.slot_hosts[slot] if host in (*plan.stage, *doubtful)])
    if beside and plan.in_place:
        raise ServiceError(
            f"{service.name}: expected {release.name}, which serves already, as it was deployed, found it otherwise on "
            f"{', '.join(plan.in_place)}: deploy it alone first"
        )
    # Users of a canary get another release: one that only differs in its settings has nothing to be judged by.
    if strategy == "canary" and service.canary and not in_place and serving != release.name:
        plan = _gradually(plan, service, release, balancers, service.canary)
    if died:
        # One that died in the midst of a move left what only the balancer itself can compare and put right.
        half_done = bool(plan.reached) or _is_half_done(
            service, plan, release.name, serving, in_place, hosts, balancers
        )
        plan = replace(plan, record=list(balancers), half_done=half_done)
    if plan.record and not (in_place or plan.reached or _has_moved(service, slot, balancers)):
        # A release that waits there, warm, passed its gates beside another one, or with other requests to replay.
        plan = replace(plan, idle=list(service.slot_hosts[slot]))
    return replace(plan, put_back=_put_back(service, plan, serving, hosts))


def _serves_otherwise(
    service: Service,
    slot: Slot,
    release: Release,
    env_of: Callable[[HostState], str] | None,
    hosts: Mapping[str, HostState],
    balancers: Mapping[str, BalancerState],
) -> bool:
    """Whether a host that gets requests runs the release with other settings or limits, or in another environment."""
    settings, limits = service.settings(slot), service.limits()
    envs = {
        host: env_of(hosts[host]) if env_of else str(_release_on(service, release.name, hosts[host]).get("env"))
        for host in service.slot_hosts[slot]
    }
    return any(
        _in_rotation(service, slot, host, balancers)
        and _runs(service, slot, release.name, hosts[host])
        and not _as_wanted(service, slot, release, env, settings, limits, hosts[host])
        for host, env in envs.items()
    )


def _put_back(
    service: Service, plan: Plan, before: str | None, hosts: Mapping[str, HostState]
) -> dict[str, dict[str, Any]]:
    """What hosts that are replaced in place run again if the release fails there. One without it stays out of rotation.

    What a host in rotation runs is that. What another one runs may be what a rollout left there, of whose gates nobody
    knows: so that is ``before``, the release that served before the rollout, with the settings that hosts in rotation
    run it with, or else those of now. Where there is no other release ``before`` it is nothing.
    """
    states = {host: _slot_state(service, plan.slot, hosts[host]) for host in service.slot_hosts[plan.slot]}
    running = {
        host: {key: state[key] for key in ("release", "settings", "limits")}
        for host, state in states.items()
        if state.get("unit") == "active"
    }
    again = {host: found for host, found in running.items() if host not in plan.unready}
    if plan.release and before not in (None, plan.release.name):
        anew: dict[str, Any] = {"release": before, "settings": plan.settings, "limits": plan.limits}
        served = next((found for found in again.values() if found["release"] == before), anew)
        settings = {key: value for key, value in served["settings"].items() if key not in _DERIVED}
        for host in plan.in_place:
            if running.get(host, {}).get("release") == before:
                again[host] = running[host]
            elif host not in again and _staged(service, Release(str(before), "", ""), None, hosts[host]):
                again[host] = {**served, "settings": settings}
    return {host: again[host] for host in plan.in_place if host in again}


def _gradually(
    plan: Plan, service: Service, release: Release, balancers: Mapping[str, BalancerState], canary: Canary
) -> Plan:
    """The plan by way of a canary. One that was cut short goes on at its step, if it can go on as it is."""
    shares = _shares(service, balancers)
    # Once a balancer has moved the judge has said all that there was to say.
    has_moved = _has_moved(service, plan.slot, balancers)
    goes_on = not plan.idle and _recorded(service, plan.slot, balancers) == release.name
    reached = min(shares.values()) if goes_on else 0
    steps = [step for step in canary.plan()["steps"] if step["share"] >= reached]
    return replace(
        plan,
        unshare=[] if reached else plan.unshare,
        share=[] if has_moved else list(balancers),
        steps=[] if has_moved else steps,
        reached=reached,
    )


def _is_half_done(
    service: Service,
    plan: Plan,
    release: str,
    before: str | None,
    in_place: bool,
    hosts: Mapping[str, HostState],
    balancers: Mapping[str, BalancerState],
) -> bool:
    """Whether a rollout that died has moved a balancer, or replaced what another release served from ``before``."""
    if not in_place:
        return _has_moved(service, plan.slot, balancers)
    pools = [state["services"][service.name]["pools"][plan.slot] for state in balancers.values()]
    return before not in (None, release) and any(
        pool["release"] == release
        or any(
            pool["servers"][host]["admin"] == "ready" and _runs(service, plan.slot, release, hosts[host])
            for host in service.slot_hosts[plan.slot]
        )
        for pool in pools
    )


def _has_moved(service: Service, slot: Slot, balancers: Mapping[str, BalancerState]) -> bool:
    return any(state["services"][service.name]["slot"] == slot for state in balancers.values())


def plan_back(
    service: Service,
    strategy: Strategy,
    died: Mapping[str, Any],
    undo: bool,
    stop_left: bool,
    hosts: Mapping[str, HostState],
    balancers: Mapping[str, BalancerState],
) -> Plan:
    """How a rollout that died is undone, or, without ``undo``, how one that was going back comes to its end.

    ``died`` is what it meant for the service. Whatever step it died in, what served before serves again: hosts that run
    something else go back to it, balancers that route elsewhere move back, and with ``stop_left`` what is left is
    stopped. A slot that runs the release is never restarted, with whatever settings it does: it may be serving.
    """
    everywhere, service = service, _reached(service, hosts)
    meant, was = (died["release"], died["slot"]), (died["was"]["release"], died["was"]["slot"] or died["slot"])
    (to, slot), (left, left_slot) = (was, meant) if undo else (meant, was)
    stop = [
        host
        for host in service.slot_hosts[left_slot]
        if _slot_state(service, left_slot, hosts[host]).get("release") == left
        and _slot_state(service, left_slot, hosts[host])["unit"] != "inactive"
    ]
    if to is None:
        if any(state["services"][service.name]["pools"][left_slot]["release"] == left for state in balancers.values()):
            raise ServiceError(
                f"{service.name}: expected a release before {left} to go back to, found that it is the first, and "
                f"serves: resume.yml -e service={service.name} finishes it"
            )
        return Plan(
            service=service.name,
            slot=left_slot,
            was={"release": left, "slot": left_slot},
            unshare=[name for name, share in _shares(service, balancers).items() if share],
            stop=stop,
            stop_slot=left_slot,
            half_done=True,
        )
    in_place = slot == left_slot
    release = _find_release(service, to, slot, hosts)
    envs = _envs_held(service, release, slot, hosts)
    plan = _plan(service, release, slot, left, left_slot, envs, hosts, balancers, in_place, strategy)
    start = _to_start(service, plan, to, hosts)
    plan = replace(
        plan,
        in_place=start if in_place else [],
        idle=[] if in_place else start,
        kept=[] if in_place else _kept(service, slot, start, hosts, balancers),
        record=list(balancers),
        recorded=_recorded_after(service, (slot, to), (left_slot, left), balancers),
        out=_leaving(everywhere, slot, to, in_place, hosts, balancers),
        stop=stop if stop_left and not in_place else plan.stop,
        # A rollback of its own that died before it moved has changed nothing that serves.
        half_done=undo or stop_left or _has_moved(service, slot, balancers),
    )
    # What was before is what it goes back to: there is nothing else that is known to have passed its gates.
    return replace(plan, put_back=_put_back(service, plan, None, hosts))


def _leaving(
    service: Service,
    slot: Slot,
    release: str,
    in_place: bool,
    hosts: Mapping[str, HostState],
    balancers: Mapping[str, BalancerState],
) -> dict[str, str]:
    """Hosts that leave the rotation of a slot that goes back to ``release``, each with why.

    They are those that did not answer. In place they may run what is left as well as what was before, or will once they
    are up again; in another slot they run what was recorded there last.
    """
    if not in_place and _recorded(service, slot, balancers) == release:
        return {}
    pools = [state["services"][service.name]["pools"][slot]["servers"] for state in balancers.values()]
    silent = [
        host
        for host in service.slot_hosts[slot]
        if host not in hosts and any(servers[host]["admin"] == "ready" for servers in pools if host in servers)
    ]
    return dict.fromkeys(silent, f"expected {release} to run again, found the host unreachable")


def _recorded_after(
    service: Service, to: tuple[Slot, str], left: tuple[Slot, str | None], balancers: Mapping[str, BalancerState]
) -> dict[str, Any]:
    """What every balancer is to know once a rollout that died is undone, or has gone back: its slots and its history.

    Some may have moved and others not. One that serves ``to`` has the right history; else what came after it goes. What
    was started in the slot that is ``left`` lies there, wherever a balancer has come to know it.
    """
    known = [state["services"][service.name] for state in balancers.values()]
    right = [it for it in known if it["slot"] == to[0] and it["pools"][to[0]]["release"] == to[1]]
    one = (right or known)[0]
    history = list(one["history"])
    if not right and to[1] in history:
        history = history[: len(history) - history[::-1].index(to[1]) - 1]
    slots = {slot: pool["release"] for slot, pool in one["pools"].items() if pool["release"]}
    if any(it["pools"][left[0]]["release"] == left[1] for it in known) and left[1]:
        slots[left[0]] = left[1]
    # As where a route moves back: right before it does, and after.
    return {"slots": {**slots, to[0]: to[1]}, "history": [*history, to[1]]}


def _to_start(service: Service, plan: Plan, release: str, hosts: Mapping[str, HostState]) -> list[str]:
    """The hosts of a plan that do not run the release at all, and those that are out of rotation."""
    return [
        host
        for host in (plan.in_place or plan.idle)
        if host in plan.unready or not _runs(service, plan.slot, release, hosts[host])
    ]


def _kept(
    service: Service,
    slot: Slot,
    idle: Sequence[str],
    hosts: Mapping[str, HostState],
    balancers: Mapping[str, BalancerState],
) -> list[str]:
    """The hosts of ``idle`` that run something which a balancer routes to."""
    if not _has_moved(service, slot, balancers):
        return []
    return [host for host in idle if _slot_state(service, slot, hosts[host]).get("unit") == "active"]


def plan_rollback(
    service: Service,
    to: str | None,
    hosts: Mapping[str, HostState],
    balancers: Mapping[str, BalancerState],
    beside: bool = False,
) -> Plan:
    """How ``service`` goes back to ``to`` (a version or a release; the release before this one, when None).

    A host that is not in ``hosts`` did not answer. It is passed over: going back must not wait for it to be mended. If
    its slot may run another release, it gets no requests.
    Of two host groups the active one goes back in place, in batches, where it alone holds the release; a service that
    moves together with others goes back ``beside`` what serves or not at all.
    """
    everywhere, service = service, _reached(service, hosts)
    active = active_slot(service, balancers)
    serving = _recorded(service, active, balancers)
    wanted = to or _previous(service, balancers)
    in_place = not beside and _holds_alone(service, active, wanted, hosts)
    slot = active if in_place else other(active)
    release = _find_release(service, wanted, slot, hosts)
    if release.name == serving:
        raise ServiceError(f"{service.name}: expected another release to go back to, found {serving}, which serves now")
    envs = _envs_held(service, release, slot, hosts)
    # All at once would lose requests, which going back never does.
    strategy = "rolling" if in_place else service.strategy
    plan = _plan(service, release, slot, serving, active, envs, hosts, balancers, in_place, strategy)
    return replace(
        plan,
        put_back=_put_back(service, plan, serving, hosts),
        out=_leaving(everywhere, slot, release.name, in_place, hosts, balancers),
    )


def _holds_alone(service: Service, active: Slot, wanted: str, hosts: Mapping[str, HostState]) -> bool:
    """Whether only the active one of two host groups holds a release, as after a rollout in place there.

    One host is not enough: there would be no other that takes its requests while it goes back.
    """

    def holds(slot: Slot) -> bool:
        releases = [it for host in service.slot_hosts[slot] for it in _of_service(service, hosts[host])["releases"]]
        return any(wanted in (it["release"], it["version"]) for it in releases)

    return len(service.slot_hosts[active]) > 1 and holds(active) and not holds(other(active))


def plan_retire(service: Service, hosts: Mapping[str, HostState], balancers: Mapping[str, BalancerState]) -> Plan:
    """Stop the slot that no balancer routes to, on the hosts where it still runs. What serves stays as it is."""
    active = active_slot(service, balancers)
    idle, serving = other(active), _recorded(service, active, balancers)
    shares = _shares(service, balancers)
    if any(shares.values()):
        raise ServiceError(
            f"{service.name}: expected no requests to go to {idle} any more, found a canary that has "
            f"{show_share(max(shares.values()))}: run abort.yml"
        )
    stop = [
        host for host in service.slot_hosts[idle] if _slot_state(service, idle, hosts[host]).get("unit") == "active"
    ]
    release = Release(serving, serving.rpartition("-")[0], "") if serving else None
    was = {"release": serving, "slot": active}
    return Plan(service=service.name, slot=active, release=release, was=was, stop=stop, stop_slot=idle)


def slot_before(died: Mapping[str, Any], beside: bool) -> Slot:
    """The slot that requests went to before a rollout that died, by what it meant for the service.

    What had no slot was to start in place; one that moves together with others starts ``beside`` it.
    """
    slot: Slot = died["slot"]
    was: Slot | None = died["was"]["slot"]
    return was or (other(slot) if beside else slot)


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
    replaced = [
        host
        for host in service.slot_hosts[slot]
        if host not in unready and not _as_wanted(service, slot, release, envs[host], settings, limits, hosts[host])
    ]
    # Those that serve nobody, out of rotation or down, come first, and all at once: the others must not leave too.
    first = unready + [host for host in replaced if not _is_up(service, slot, host, balancers)]
    start = first + [host for host in replaced if host not in first]
    all_at_once = strategy == "basic" or serving is None
    stage = [host for host in service.slot_hosts[slot] if not _staged(service, release, envs[host], hosts[host])]
    record = [
        name
        for name in balancers
        if balancers[name]["services"][service.name]["slot"] != slot
        or _recorded(service, slot, {name: balancers[name]}) != release.name
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
        wheels=_wheels(service, [host for host in stage if envs[host] not in hosts[host]["envs"]], envs, hosts),
        in_place=start if in_place else [],
        # Nothing serves yet in a first deploy, so nothing is gained by going slowly.
        batches=["100%"] if all_at_once else [*([len(first)] if first else []), *service.batches],
        idle=[] if in_place else start,
        running=[host for host in service.slot_hosts[slot] if host not in start],
        unready=unready,
        unshare=[name for name, share in _shares(service, balancers).items() if share],
        record=record,
        stop=[] if keep_warm else list(service.slot_hosts[active]),
        stop_slot=active,
        settings=settings,
        limits=limits,
    )


def _shares_hosts(service: Service) -> bool:
    return service.slot_hosts["blue"] == service.slot_hosts["green"]


def judge_contract(
    service: Service,
    policy: Mapping[str, Any],
    release: Release,
    read_new: Callable[[], Contract],
    active: Slot,
    hosts: Mapping[str, HostState],
    balancers: Mapping[str, BalancerState],
) -> list[Verdict]:
    """The verdict on the contract of ``release``: compared with that of each release that serves now.

    What serves is what is in the ``active`` slot, once a balancer has recorded a release there: after a run that was
    cut short hosts have more than one, or already have the new one. ``read_new`` is called where there is one to
    compare, and ``policy`` is that of the gate.
    """
    mode = policy["mode"]
    if mode == "off":
        return []
    slots = {host: _slot_state(service, active, hosts[host]) for host in service.slot_hosts[active]}
    served = any(_recorded(service, active, {name: balancers[name]}) for name in balancers)
    serving = {host: str(slot["release"]) for host, slot in slots.items() if served and slot.get("release")}
    others = sorted(set(serving.values()) - {release.name})
    if not others:
        found = f"{release.name} itself serves" if serving else "nothing serves yet"
        return [verdict_of("contract", mode, True, "the contract of what serves, or a compatible one", found)]
    contracts: dict[str, Contract] = {}
    for host, name in serving.items():
        document = slots[host].get("contract")
        if name in others and document is not None:
            contracts.setdefault(name, parse_contract(document, host))
    lacking = [name for name in others if name not in contracts]
    if lacking:
        places = ", ".join(host for host, name in serving.items() if name == lacking[0])
        expected = f"the contract of {lacking[0]}, which serves"
        return [verdict_of("contract", mode, False, expected, f"none that is as it was built on {places}")]
    return [judge_contracts(policy, contracts, read_new())]


def plan_lines(plan: Plan) -> list[str]:
    """The steps of a plan, for people: what happens, and where. Steps with nothing to do are left out."""
    release = plan.release.name if plan.release else "nothing"
    was = plan.was.get("release")
    steps = (
        ("place the release", plan.stage),
        (f"replace what runs in {plan.slot}, in batches of {', '.join(map(str, plan.batches))}", plan.in_place),
        (f"start it in {plan.slot}, beside what serves", plan.idle),
        ("send nobody to a canary any more", plan.unshare),
        (f"send {', then '.join(step['shown'] for step in plan.steps)} of the users to it, and judge", plan.share),
        (f"leave out of rotation in {plan.slot}", list(plan.out)),
        (f"send the requests to {plan.slot}", plan.record),
        (f"stop {plan.stop_slot}", plan.stop),
    )
    rows = [(f"  {what}", ", ".join(hosts)) for what, hosts in steps if hosts]
    now = f"{was} in {plan.was['slot']}" if was else "nothing"
    heading = f"{plan.service}: {release} in {plan.slot}; now {now} serves"
    return [heading, *(align(rows) if rows else ["  nothing to do"])]


def _reached(service: Service, hosts: Mapping[str, HostState]) -> Service:
    """The service without the hosts that did not answer."""
    reached = {slot: tuple(host for host in names if host in hosts) for slot, names in service.slot_hosts.items()}
    return replace(service, slot_hosts=reached)


def _envs_held(service: Service, release: Release, slot: Slot, hosts: Mapping[str, HostState]) -> dict[str, str]:
    """The environments that the release has on the slot's hosts, each of which must hold it."""
    places = service.slot_hosts[slot]
    lacking = [host for host in places if not _staged(service, release, None, hosts[host])]
    if lacking:
        raise ServiceError(
            f"{service.name}: expected {release.name} with its environment on every host, found it missing on "
            f"{', '.join(lacking)}: deploy its bundle again"
        )
    return {host: str(_release_on(service, release.name, hosts[host])["env"]) for host in places}


def _runs(service: Service, slot: Slot, release: str, state: HostState) -> bool:
    """Whether a slot runs the release and is ready, with whatever settings."""
    found = _slot_state(service, slot, state)
    started = found.get("started") or {}
    return found.get("unit") == "active" and bool(found.get("ready")) and started.get("release") == release


def _recorded(service: Service, slot: Slot, balancers: Mapping[str, BalancerState]) -> str | None:
    """The release that the balancers last recorded for a slot; None where one of them has none."""
    found = {state["services"][service.name]["pools"][slot]["release"] for state in balancers.values()}
    return found.pop() if len(found) == 1 else None


def _check_recorded(service: Service, slot: Slot, balancers: Mapping[str, BalancerState]) -> None:
    """Balancers may lack the record of what serves, but not have two: one was cut off while the others moved on."""
    found = {name: state["services"][service.name]["pools"][slot]["release"] for name, state in balancers.items()}
    if len(set(filter(None, found.values()))) > 1:
        said = ", ".join(f"{release or 'nothing'} on {name}" for name, release in found.items())
        raise ServiceError(
            f"{service.name}: expected all balancers to know the same release in {slot}, found {said}: provision.yml "
            "has the one that was cut off take over what the others know"
        )


def _shares(service: Service, balancers: Mapping[str, BalancerState]) -> dict[str, int]:
    """The share of the slot beside the active one by each balancer, in hundredths of a percent."""
    return {name: int(state["services"][service.name]["share"]) for name, state in balancers.items()}


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


def _rests(service: Service, slot: Slot, release: Release, state: HostState) -> bool:
    """Whether the slot does not run the release, as where a byte that was changed kept it from loading."""
    found = _slot_state(service, slot, state)
    return not found or found.get("release") != release.name or found["unit"] != "active"


def _in_rotation(service: Service, slot: Slot, host: str, balancers: Mapping[str, BalancerState]) -> bool:
    """Whether every balancer sends requests to the host, which one that a cut-short run left draining does not."""
    servers = [state["services"][service.name]["pools"][slot]["servers"].get(host) for state in balancers.values()]
    missing = [name for name, server in zip(balancers, servers, strict=True) if server is None]
    if missing:
        raise ServiceError(f"{missing[0]}: expected {host} in the pool {service.name}_{slot}: run provision.yml first")
    return all(server["admin"] == "ready" for server in servers)


def _is_up(service: Service, slot: Slot, host: str, balancers: Mapping[str, BalancerState]) -> bool:
    """Whether the health checks of every balancer find the host's server up."""
    pools = [state["services"][service.name]["pools"][slot]["servers"] for state in balancers.values()]
    return all(servers[host]["status"] == "UP" for servers in pools)


def _wheels(
    service: Service, lacking: Sequence[str], envs: Mapping[str, str], hosts: Mapping[str, HostState]
) -> list[dict[str, str]]:
    """What each environment that a host lacks is to be built for."""
    pythons = [(envs[host], hosts[host]["python"]) for host in lacking]
    kinds = ("tag", "machine", "glibc")
    return _together(
        {"service": service.name, "env": env, **{kind: python[kind] for kind in kinds}} for env, python in pythons
    )


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
        shares = [state["services"].get(service.name, {}).get("share", 0) for state in balancers.values()]
        beside = show_share(max(shares)) if any(shares) else "idle"
        for slot in SLOTS:
            for host in service.slot_hosts[slot]:
                found = _slot_state(service, slot, hosts[host]) if host in hosts else {}
                rows.append(
                    (
                        service.name,
                        slot,
                        "active" if routes == {slot} else "mixed" if slot in routes else beside,
                        host,
                        str(found.get("release") or "-"),
                        str(found.get("unit") or "-") if host in hosts else "unreachable",
                        "yes" if found.get("ready") else "no",
                        ", ".join(_seen_by(state, service, slot, host) for state in balancers.values()),
                    )
                )
    return [
        *align(rows),
        *(line for name in services for line in _maintenance_lines(name, balancers)),
        *(line for name in services for line in _rollout_lines(name, balancers)),
    ]


def _maintenance_lines(service: str, balancers: Mapping[str, BalancerState]) -> list[str]:
    """Where a service is in maintenance, and what its clients are told: a line each, where balancers differ in it."""
    told: dict[str, list[str]] = {}
    for name, state in balancers.items():
        notice = state["services"].get(service, {}).get("maintenance")
        if notice:
            told.setdefault(f"{notice['detail']} Retry-After: {notice['retry_after']}", []).append(name)
    return [f"{service}: in maintenance on {', '.join(names)}: 503, {words}" for words, names in told.items()]


def _rollout_lines(service: str, balancers: Mapping[str, BalancerState]) -> list[str]:
    """The rollout that holds a service, or else its last one, and what its gates found.

    Balancers that differ in it have a line each; the gates are those of the latest, whose id is the largest, for ids
    begin with the time.
    """
    found = [state["services"].get(service, {}).get("rollout") for state in balancers.values()]
    rollouts = [rollout for rollout in found if rollout]
    if not rollouts:
        return []
    lines = dict.fromkeys(map(partial(_rollout_line, service), rollouts))
    gates = max(rollouts, key=lambda rollout: str(rollout["id"])).get("gates")
    return ["", *lines, *(f"  {line}" for line in (verdict_lines(gates) if gates else []))]


def _rollout_line(service: str, rollout: Mapping[str, Any]) -> str:
    return (
        f"{service}: {rollout['action']} {rollout['id']} by {rollout['by']} since {rollout['since']}: "
        f"{rollout['verdict']}"
        + (f", at {rollout['step']}; unless it runs still, resume.yml or rollback.yml" if rollout["held"] else "")
        + (f", {rollout['reason']}" if rollout["reason"] else "")
    )


def _seen_by(state: BalancerState, service: Service, slot: Slot, host: str) -> str:
    pools = state["services"].get(service.name, {}).get("pools", {})
    server = pools.get(slot, {}).get("servers", {}).get(host)
    return f"{server['status']}/{server['admin']}" if server else "unknown"
