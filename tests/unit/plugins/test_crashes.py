# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller that dies after any write of a rollout, on a fleet that is only modelled: two balancers and three hosts.

Plans are the real ones and so are the writes of journals and routes; what a playbook does in between is modelled as the
steps that it takes, one after the other. Whichever was the last, finishing and undoing both end in a whole fleet.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils import _journal
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal import Journal, read_rollout, show_rollout
from ansible_collections.modelfleet.onprem.plugins.module_utils._route import (
    Canary,
    Record,
    State,
    Target,
    give,
    move,
    move_back,
    other,
    pool_of,
    shares_meanwhile,
)
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.interrupted import (
    begin_rollout,
    check_same,
    find_died_of_all,
)
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.rollout import (
    Plan,
    plan_back,
    plan_deploy,
    together,
)
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.service import Service, ServiceError, parse_services

from tests.unit.plugins.states import ONE, THREE, TWO, host_state

HOSTS = ("m1", "m2", "m3")
GROUPS = {"model_hosts": list(HOSTS)}
RELEASES = {it.name: it for it in (ONE, TWO, THREE)}
AT = "2026-01-02T03:04:05Z"

CANARY = {"steps": [{"share": 20, "for": 1}, {"share": 50, "for": 1}]}

Write = Callable[[], None]


class Fleet:
    """Release 1 was before, release 2 serves from blue; release 1 is warm in green, where it can be.

    ``several`` has two services that are deployed together. What runs, and what is out of rotation, is by their pools.
    The second of them was never deployed before, where it is ``new``.
    """

    def __init__(self, strategy: Any, keep_warm: bool, several: bool = False, new: bool = False) -> None:
        definition = {"port": 8101, "batches": [1, "100%"], "strategy": strategy, "keep_warm": keep_warm}
        definition["canary"] = CANARY
        definitions = {"tumour": definition, **({"prices": {**definition, "port": 8201}} if several else {})}
        self.services = parse_services(definitions, GROUPS)
        self.strategy = strategy
        self.placed = {host: {service: [ONE, TWO] for service in self.services} for host in HOSTS}
        warm = ONE.name if strategy != "rolling" and keep_warm else None
        ran = {
            pool_of(service, slot): name
            for service in self.services
            for slot, name in (("blue", TWO.name), ("green", warm))
        }
        self.runs = {host: dict(ran) for host in HOSTS}
        slots = {"blue": TWO.name, **({"green": warm} if warm else {})}
        entries = tuple((service, pool_of(service, "blue")) for service in self.services)
        records = {service: Record(slots, (TWO.name, ONE.name)) for service in self.services}
        self.served = [service for service in self.services if not (new and service == "prices")]
        for service in set(self.services) - set(self.served):
            records.pop(service)
            for host in HOSTS:
                self.placed[host][service] = []
                self.runs[host].update({pool_of(service, slot): None for slot in ("blue", "green")})
        self.routes = {name: State(entries, entries, records) for name in ("lb1", "lb2")}
        self.out: dict[str, set[tuple[str, str]]] = {name: set() for name in self.routes}
        self.journals = {name: Journal() for name in self.routes}
        self.number = 0

    def host(self, name: str) -> dict[str, Any]:
        def slot(service: Service, color: Any) -> Any:
            running = self.runs[name][pool_of(service.name, color)]
            if running is None:
                return None
            found = {"release": running, "env": "e1"}
            settings, limits = service.settings(color), service.limits()
            return {**found, "settings": settings, "limits": limits, "unit": "active", "ready": True, "started": found}

        found: dict[str, Any] = {}
        # The first service has releases on every host, and so the host has their environment.
        for service in reversed(self.services.values()):
            placed = self.placed[name][service.name]
            state = host_state(*placed, blue=slot(service, "blue"), green=slot(service, "green"))
            found[service.name] = state["services"]["tumour"]
        return {**state, "services": found}

    def balancer(self, name: str) -> dict[str, Any]:
        return {"services": {service: self.of_balancer(name, service) for service in self.services}}

    def of_balancer(self, name: str, service: str) -> dict[str, Any]:
        state, journal = self.routes[name], self.journals[name]
        record, slot, last = state.record(service), state.slot(service), journal.last(service)

        def pool(color: str) -> dict[str, Any]:
            out = {host for label, host in self.out[name] if label == pool_of(service, color)}
            up = {host for host in HOSTS if self.runs[host][pool_of(service, color)]}
            servers = {
                host: {"admin": "maint" if host in out else "ready", "status": "UP" if host in up else "DOWN"}
                for host in HOSTS
            }
            return {"release": record.active(color), "servers": servers}

        held = {**show_rollout(last), "held": journal.holder(service) is not None} if last else None
        pools = {color: pool(color) for color in ("blue", "green")}
        found = {"slot": slot, "history": list(record.earlier(slot)), "pools": pools, "rollout": held}
        return {**found, "share": state.share(service)}

    def plan(self, command: str) -> tuple[list[Plan], dict[str, Any]] | None:
        """What a command would do, and what it writes into journals; None where a rollback finds nothing to undo."""
        hosts = {name: self.host(name) for name in HOSTS}
        balancers = {name: self.balancer(name) for name in self.routes}
        died = find_died_of_all(list(self.services), balancers, "ops1", lambda _process: False)
        back = command == "rollback" or (command == "resume" and died and died.action == "rollback")
        if back and died is None:
            return None
        plans = []
        for name, service in self.services.items():
            if back and died:
                undo = died.action == "deploy"
                stop = undo or bool(died.undoes)
                plans.append(plan_back(service, self.strategy, died.services[name], undo, stop, hosts, balancers))
                continue
            check_same(name, died, THREE.digest)
            meant = died.services[name] if died else None
            beside = len(self.services) > 1
            plans.append(
                plan_deploy(service, self.strategy, THREE, hosts, balancers, lambda _host: "e1", meant, beside)
            )
        self.number += 1
        request = {"strategy": self.strategy, "rollout": {"id": f"20260102T030405Z-{self.number:08x}", "from": "ops1"}}
        request["parts"] = {name: {} for name in self.services}
        return plans, begin_rollout(plans, request, "rollback" if back else "deploy", died, balancers)

    # What follows are the steps, each a sequence of writes that a crash can come between.

    def carry_out(self, plans: list[Plan], begun: dict[str, Any]) -> Iterator[Write]:
        whole = together(plans, list(self.routes) if begun else [], begun)
        for name in whole["begin"]:
            rollout = read_rollout(begun, "plan")
            yield from self.journal(name, lambda it, new=rollout: _journal.begin(it, new, AT))
        for plan in plans:
            for host in plan.stage:
                yield lambda plan=plan, host=host: self.placed[host][plan.service].append(THREE)
        for plan in plans:
            for name in plan.unshare:
                yield from self.give(plan, begun, name, 0)
        for plan in plans:
            for batch in [plan.in_place[:1], plan.in_place[1:]] if plan.in_place else []:
                yield from self.rotate(plan, begun, batch, False)
                yield from self.start(plan, batch)
                yield from self.rotate(plan, begun, batch, True)
        for plan in plans:
            yield from self.start(plan, plan.idle)
            for host in plan.unready if plan.idle else []:
                for name in self.routes:
                    place = (pool_of(plan.service, plan.slot), host)
                    yield lambda name=name, place=place: self.out[name].discard(place)
        for plan in plans:
            for step in plan.steps:
                for name in plan.share:
                    yield from self.give(plan, begun, name, step["share"])
        for name in whole["record"]:
            yield from self.move(whole["to"], begun, name)
        for plan in plans:
            for host in plan.stop:
                stopped = {pool_of(plan.service, plan.stop_slot): None}
                yield lambda host=host, stopped=stopped: self.runs[host].update(stopped)
        for name in whole["begin"]:
            yield from self.journal(name, lambda it: _journal.end(it, begun["id"], "done", AT))

    def journal(self, name: str, change: Callable[[Journal], list[_journal.Write]]) -> Iterator[Write]:
        for write in change(self.journals[name]):
            yield lambda write=write: self.journals.update({name: self.journals[name].after([write])})

    def rotate(self, plan: Plan, begun: dict[str, Any], batch: list[str], back: bool) -> Iterator[Write]:
        identity, pool = begun["id"], pool_of(plan.service, plan.slot)
        for name in self.routes:
            if not back:
                yield from self.journal(name, lambda it: _journal.start_step(it, identity, "replace", batch, AT))
            for host in batch:
                change = self.out[name].discard if back else self.out[name].add
                yield lambda change=change, host=host: change((pool, host))
            if back:
                yield from self.journal(name, lambda it: _journal.finish_step(it, identity, AT))

    def start(self, plan: Plan, hosts: list[str]) -> Iterator[Write]:
        assert plan.release or not hosts
        pool = pool_of(plan.service, plan.slot)
        for host in hosts:
            if self.runs[host][pool] != (plan.release and plan.release.name):
                yield lambda host=host: self.runs[host].update({pool: None})
                yield lambda host=host: self.runs[host].update({pool: plan.release.name})

    def move(self, to: dict[str, Any], begun: dict[str, Any], name: str) -> Iterator[Write]:
        targets = [
            Target(
                service,
                target["slot"],
                target["release"],
                Record(**{**target["record"], "history": tuple(target["record"]["history"])})
                if "record" in target
                else None,
            )
            for service, target in to.items()
        ]
        yield from self.journal(name, lambda it: _journal.start_step(it, begun["id"], "move", [], AT))
        change = move_back if begun["action"] == "rollback" else move
        yield from self.commit(name, change(self.routes[name], targets))
        yield from self.journal(name, lambda it: _journal.finish_step(it, begun["id"], AT))

    def give(self, plan: Plan, begun: dict[str, Any], name: str, share: int) -> Iterator[Write]:
        step = f"canary {share}"
        yield from self.journal(name, lambda it: _journal.start_step(it, begun["id"], step, [], AT))
        canary = Canary(plan.service, share, plan.release.name if plan.release and share else None)
        yield from self.commit(name, give(self.routes[name], [canary]))

    def commit(self, name: str, after: State) -> Iterator[Write]:
        """As Balancer.commit does: the record, the files, the running maps."""
        before = self.routes[name]
        file = shares_meanwhile(before.file, before.file_shares, after.file, after.file_shares)
        live = shares_meanwhile(before.live, before.live_shares, after.live, after.live_shares)
        changes: list[dict[str, Any]] = [
            {"records": after.records},
            {"file_shares": file},
            {"file": after.file},
            {"live_shares": live},
            {"live": after.live},
            {"live_shares": after.live_shares},
            {"file_shares": after.file_shares},
        ]
        for change in changes:
            if replace(self.routes[name], **change) != self.routes[name]:
                yield lambda change=change: self.routes.update({name: replace(self.routes[name], **change)})

    def active(self, name: str, service: str) -> str:
        """The pool that a balancer sends the requests of a service to."""
        return pool_of(service, self.routes[name].slot(service) or "")

    def serves(self) -> bool:
        """Whether each balancer has a server that answers, for each service that had one before."""
        return all(
            any(self.runs[host][pool] and (pool, host) not in self.out[name] for host in HOSTS)
            for name in self.routes
            for pool in (self.active(name, service) for service in self.served)
        )

    def held(self) -> bool:
        return any(journal.holder(service) for journal in self.journals.values() for service in self.services)


def run(fleet: Fleet, command: str, writes: int | None = None) -> bool:
    """Run a command; at most so many writes of it. Whether it came to its end."""
    if command == "abort":
        # First of all nobody gets a canary any more, whoever holds the service.
        for name in fleet.routes:
            for write in fleet.commit(name, give(fleet.routes[name], [Canary(each, 0) for each in fleet.services])):
                write()
        command = "rollback"
    planned = fleet.plan(command)
    if planned is None:
        return True
    for done, write in enumerate(fleet.carry_out(*planned)):
        if done == writes:
            return False
        write()
        assert fleet.serves()
        # Nothing is sent to a server that runs nothing.
        for name, state in fleet.routes.items():
            for service in fleet.served:
                pool, beside = fleet.active(name, service), pool_of(service, other(state.slot(service) or ""))
                assert all(fleet.runs[host][pool] or (pool, host) in fleet.out[name] for host in HOSTS)
                assert not state.share(service) or all(fleet.runs[host][beside] == THREE.name for host in HOSTS)
            # Several services move in one step: a client meets the new release of all, or of none.
            assert len({state.slot(service) for service in fleet.services}) == 1
    return True


def check_whole(fleet: Fleet, before: Fleet, release: str, undone: bool) -> None:
    slots = {state.slot(service) for state in fleet.routes.values() for service in fleet.services}
    assert len(slots) == 1
    slot = slots.pop() or ""
    for name, state in fleet.routes.items():
        assert state.live == state.file
        assert state.live_shares == state.file_shares == ()
        assert fleet.out[name] == set()
        for service in fleet.services:
            assert state.record(service).active(slot) == release
            assert fleet.journals[name].holder(service) is None
            history = state.record(service).earlier(slot)
            earlier = before.routes[name].record(service).earlier("blue")
            assert history == (earlier if undone else (*earlier, TWO.name))
    for service in fleet.services:
        # What a balancer does not send requests to it may ask, too: all of them know the same of it.
        assert len({frozenset(state.record(service).slots.items()) for state in fleet.routes.values()}) == 1
    assert {fleet.runs[host][pool_of(service, slot)] for host in HOSTS for service in fleet.services} == {release}
    if undone:
        assert all(THREE.name not in fleet.runs[host].values() for host in HOSTS)


CASES = [
    *(("blue_green", True), ("blue_green", False), ("rolling", True), ("canary", True), ("canary", False)),
    *(("blue_green", True, True), ("blue_green", False, True)),
]
NAMES = ["blue_green", "cold", "rolling", "canary", "cold canary", "several", "several cold"]


@pytest.mark.parametrize("case", CASES, ids=NAMES)
@pytest.mark.parametrize("command", ["deploy", "resume", "rollback", "abort"])
def test_whatever_the_last_write_was_a_rollout_is_finished_or_undone(case: Any, command: str) -> None:
    writes = 0
    ended = False
    while not ended:
        fleet = Fleet(*case)
        before = copy.deepcopy(fleet)
        ended = run(fleet, "deploy", writes)
        held = fleet.held()
        assert run(fleet, command)
        if command in ("deploy", "resume"):
            check_whole(fleet, before, THREE.name, False)
        elif held:
            check_whole(fleet, before, TWO.name, True)
        writes += 1
    assert writes > 20


@pytest.mark.parametrize("command", ["deploy", "resume", "rollback"])
@pytest.mark.parametrize("keep_warm", [True, False], ids=["warm", "cold"])
def test_one_of_several_that_was_never_deployed_is_finished_or_undone_with_them(command: str, keep_warm: bool) -> None:
    writes = 0
    ended = False
    while not ended:
        fleet = Fleet("blue_green", keep_warm, several=True, new=True)
        ended = run(fleet, "deploy", writes)
        held = fleet.held()
        died_ready = held and all(fleet.runs[host]["prices_green"] == THREE.name for host in HOSTS)
        moved = any(state.record("prices").active("green") for state in fleet.routes.values())
        if died_ready and command != "rollback" and not moved:
            planned = fleet.plan(command)
            # Whether its gates were put before the controller died nobody knows.
            assert planned
            assert next(it for it in planned[0] if it.service == "prices").idle == list(HOSTS)
        if command == "rollback" and held and moved:
            with pytest.raises(ServiceError, match="found that it is the first, and serves: resume"):
                run(fleet, command)
            command_after = "resume"
        else:
            command_after = command
        assert run(fleet, command_after)
        assert not fleet.held()
        slots = {state.slot(service) for state in fleet.routes.values() for service in fleet.services}
        assert len(slots) == 1
        running = {host: fleet.runs[host][fleet.active("lb1", "prices")] for host in HOSTS}
        undone = command_after == "rollback" and held
        if undone:
            assert (slots, set(running.values())) == ({"blue"}, {None})
            assert all(THREE.name not in fleet.runs[host].values() for host in HOSTS)
        elif command_after != "rollback":
            assert (slots, set(running.values())) == ({"green"}, {THREE.name})
        writes += 1
    assert writes > 20


@pytest.mark.parametrize("case", CASES, ids=NAMES)
@pytest.mark.parametrize("command", ["deploy", "rollback"])
@pytest.mark.parametrize("again", ["resume", "rollback"])
def test_what_finishes_or_undoes_may_die_as_well(case: Any, command: str, again: str) -> None:
    for first in range(1, 200, 3):
        fleet = Fleet(*case)
        before = copy.deepcopy(fleet)
        if run(fleet, "deploy", first):
            break
        ended = False
        second = 0
        while not ended:
            other = copy.deepcopy(fleet)
            ended = run(other, command, second)
            held = other.held()
            run(other, again)
            if held:
                back = command == "rollback" or again == "rollback"
                died = second == 0 and command == "rollback" and again == "resume"
                untouched = back and not died
                if not (command == "rollback" and again == "resume" and not taken_over(other)):
                    check_whole(other, before, TWO.name if untouched else THREE.name, untouched)
            second += 2


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_what_is_gone_on_with_may_only_end_in_failure_while_nothing_new_serves(case: Any) -> None:
    writes = 0
    ended = False
    found = set()
    while not ended:
        fleet = Fleet(*case)
        ended = run(fleet, "deploy", writes)
        writes += 1
        if not fleet.held():
            continue
        back, on = fleet.plan("rollback"), fleet.plan("resume")
        assert back
        assert on
        assert all(plan.half_done for plan in back[0])
        half_done = any(plan.half_done for plan in on[0])
        found.add(half_done)
        for name, state in fleet.routes.items():
            for service in fleet.services if not half_done else ():
                pool = fleet.active(name, service)
                assert (pool, state.record(service).active("blue")) == (pool_of(service, "blue"), TWO.name)
                assert {fleet.runs[host][pool] for host in HOSTS if (pool, host) not in fleet.out[name]} <= {TWO.name}
    assert found == {False, True}


def taken_over(fleet: Fleet) -> bool:
    """Whether an undoing was written anywhere before it died, so that to resume is to undo."""
    return any(it.undoes for journal in fleet.journals.values() for it in journal.rollouts)


def test_a_plan_that_finds_nothing_to_do_writes_nothing() -> None:
    fleet = Fleet("blue_green", True)
    assert run(fleet, "deploy")
    planned = fleet.plan("deploy")
    assert planned
    plans, begun = planned
    assert (begun, plans[0].record) == ({}, [])
