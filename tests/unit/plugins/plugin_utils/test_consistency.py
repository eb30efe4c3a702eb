# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet in which everything agrees has no problems; each thing that is changed is said in a line."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.consistency import find_problems

from tests.unit.plugins.states import ONE, SERVICE, TWO, balancer_state, host_state, slot_state

Change = Callable[[dict[str, Any], dict[str, Any]], None]


def fleet() -> tuple[dict[str, Any], dict[str, Any]]:
    """Two hosts with release 2 in green, which serves, and release 1 warm in blue; two balancers."""
    host = host_state(ONE, TWO, blue=slot_state(ONE), green=slot_state(TWO, "green"), problems=[])
    balancer = balancer_state("green", history=[ONE], blue=ONE, green=TWO)
    balancer["services"]["tumour"]["persisted"] = True
    return {"m1": deepcopy(host), "m2": deepcopy(host)}, {"lb1": deepcopy(balancer), "lb2": deepcopy(balancer)}


def test_a_fleet_that_agrees_has_no_problems() -> None:
    assert find_problems({"tumour": SERVICE}, *fleet()) == []


def test_a_service_that_was_never_deployed_has_no_problems() -> None:
    hosts, balancers = {"m1": host_state(), "m2": host_state()}, {"lb1": balancer_state()}
    balancers["lb1"]["services"]["tumour"]["persisted"] = True
    assert find_problems({"tumour": SERVICE}, hosts, balancers) == []


def test_a_slot_that_is_not_kept_warm_must_be_stopped() -> None:
    cold = {"tumour": replace(SERVICE, keep_warm=False)}
    assert find_problems(cold, *fleet()) == [
        "tumour: expected nothing in the idle slot blue, found it running on m1, m2"
    ]


def _slot(host: str, slot: str, **changed: Any) -> Change:
    def change(hosts: dict[str, Any], _balancers: dict[str, Any]) -> None:
        hosts[host]["services"]["tumour"]["slots"][slot].update(changed)

    return change


def _idle_runs(release: str) -> Change:
    def change(hosts: dict[str, Any], balancers: dict[str, Any]) -> None:
        for host in hosts:
            _slot(host, "blue", started={"release": release, "env": "e1"})(hosts, balancers)

    return change


def _server(balancer: str, slot: str, host: str, **changed: Any) -> Change:
    def change(_hosts: dict[str, Any], balancers: dict[str, Any]) -> None:
        balancers[balancer]["services"]["tumour"]["pools"][slot]["servers"][host].update(changed)

    return change


def _service(balancer: str, **changed: Any) -> Change:
    def change(_hosts: dict[str, Any], balancers: dict[str, Any]) -> None:
        balancers[balancer]["services"]["tumour"].update(changed)

    return change


def _gone(hosts: dict[str, Any], _balancers: dict[str, Any]) -> None:
    del hosts["m2"]


def _damaged(hosts: dict[str, Any], _balancers: dict[str, Any]) -> None:
    hosts["m1"]["problems"] = ["model.pkl: expected sha256 1, found 2"]


def _trial(hosts: dict[str, Any], _balancers: dict[str, Any]) -> None:
    hosts["m1"]["trials"] = ["tumour"]


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        (
            _service("lb2", maintenance={"retry_after": 60, "detail": "Back at noon."}),
            ["tumour: expected all balancers to agree on maintenance, found lb1 none; lb2 says 'Back at noon.'"],
        ),
        (_trial, ["m1: expected no trial of tumour without a rollout, found one running"]),
        (_gone, ["m2: expected an answer, found none"]),
        (_damaged, ["m1: model.pkl: expected sha256 1, found 2"]),
        (
            _service("lb2", persisted=False),
            ["lb2: expected the map files to route tumour as HAProxy does, found another entry"],
        ),
        (
            _service("lb2", history=[]),
            [
                "tumour: expected all balancers to agree, found lb1 has green, 1-aaaaaaaaaaaa/2-bbbbbbbbbbbb, before "
                "it 1-aaaaaaaaaaaa; lb2 has green, 1-aaaaaaaaaaaa/2-bbbbbbbbbbbb, before it none"
            ],
        ),
        (
            _server("lb1", "green", "m1", status="DOWN"),
            ["lb1: expected tumour_green/m1 to be UP and ready, found DOWN and ready"],
        ),
        (
            _server("lb1", "green", "m1", admin="maint"),
            ["lb1: expected tumour_green/m1 to be UP and ready, found UP and maint"],
        ),
        (
            _server("lb2", "blue", "m2", admin="drain"),
            ["lb2: expected tumour_blue/m2 to be ready for its next start, found it in drain"],
        ),
        (
            _service("lb1", rollout={"id": "r1", "held": True, "step": "start"}),
            [
                "lb1: expected no unfinished rollout of tumour, found r1 at start: resume.yml finishes it, "
                "rollback.yml undoes it"
            ],
        ),
        (_service("lb1", rollout={"id": "r1", "held": False}), []),
        (
            _service("lb2", share=500),
            [
                "tumour: expected all balancers to agree, found lb1 has green, 1-aaaaaaaaaaaa/2-bbbbbbbbbbbb, before "
                "it 1-aaaaaaaaaaaa; lb2 has green, 1-aaaaaaaaaaaa/2-bbbbbbbbbbbb, before it 1-aaaaaaaaaaaa, "
                "and 5 % of the requests beside it",
                "lb2: expected no share of tumour beside green without a rollout, found 5 %: abort.yml takes it away",
            ],
        ),
        (
            _slot("m1", "green", started={"release": ONE.name, "env": "e1"}),
            ["m1: expected tumour green to run 2-bbbbbbbbbbbb, found 1-aaaaaaaaaaaa"],
        ),
        (
            _slot("m2", "green", unit="failed"),
            ["m2: expected tumour green to run 2-bbbbbbbbbbbb, found nothing"],
        ),
        (_slot("m2", "green", ready=False), ["m2: expected tumour green to be ready, found that it is not"]),
        (
            _slot("m2", "blue", ready=False),
            ["m2: expected tumour blue to be ready or stopped, found it running and not ready"],
        ),
        (_slot("m2", "blue", unit="inactive", ready=False), []),
        (
            _slot("m2", "blue", unit="failed", ready=False),
            ["m2: expected tumour blue to be active or inactive, found it failed"],
        ),
        (
            _slot("m1", "blue", started={"release": TWO.name, "env": "e1"}),
            [
                "tumour: expected 1-aaaaaaaaaaaa in the idle slot blue, found 2-bbbbbbbbbbbb on m1, "
                "1-aaaaaaaaaaaa on m2",
            ],
        ),
        (
            _idle_runs(TWO.name),
            ["tumour: expected 1-aaaaaaaaaaaa in the idle slot blue, found 2-bbbbbbbbbbbb on m1, 2-bbbbbbbbbbbb on m2"],
        ),
    ],
)
def test_what_does_not_agree_is_said(change: Change, problems: list[str]) -> None:
    hosts, balancers = fleet()
    change(hosts, balancers)
    assert find_problems({"tumour": SERVICE}, hosts, balancers) == problems


def test_a_balancer_without_the_service_is_said() -> None:
    hosts, balancers = fleet()
    balancers["lb2"]["services"] = {}
    assert find_problems({"tumour": SERVICE}, hosts, balancers) == ["lb2: expected pools for tumour, found none"]


def test_a_balancer_that_does_not_answer_is_said() -> None:
    hosts, balancers = fleet()
    del balancers["lb2"]
    found = find_problems({"tumour": SERVICE}, hosts, balancers, ["lb1", "lb2"])
    assert found == ["lb2: expected an answer, found none"]
    assert find_problems({"tumour": SERVICE}, hosts, {}, ["lb1", "lb2"])[0] == "lb1: expected an answer, found none"


def test_a_trial_that_a_rollout_makes_is_no_problem() -> None:
    hosts, balancers = fleet()
    _trial(hosts, balancers)
    for balancer in balancers.values():
        balancer["services"]["tumour"]["rollout"] = {"id": "r1", "held": True, "step": "stage"}
    assert not [line for line in find_problems({"tumour": SERVICE}, hosts, balancers) if "trial" in line]


def rollout(day: int, verdict: str = "done", service: str = "tumour") -> dict[str, Any]:
    step = {"name": "move", "hosts": [], "state": "done"}
    meant = {service: {"release": ONE.name, "slot": "blue", "was": {"release": None, "slot": None}}}
    name = f"{20260100 + day}T000000Z-0a1b2c3d"
    return {"id": name, "action": "deploy", "services": meant, "verdict": verdict, "steps": [step]}


TAKES_OVER = {**rollout(2), "takes_over": [rollout(1)["id"]]}
DISAGREE = "journal: expected all balancers to agree, found "


@pytest.mark.parametrize(
    ("first", "second", "problems"),
    [
        ([rollout(1), rollout(2)], [rollout(1), rollout(2)], []),
        ([rollout(1)], [], [f"{DISAGREE}20260101T000000Z-0a1b2c3d done on lb1, nothing on lb2"]),
        (
            [rollout(1), rollout(2), rollout(3)],
            [rollout(2), rollout(3, "rolled_back")],
            [f"{DISAGREE}20260103T000000Z-0a1b2c3d done on lb1, rolled_back on lb2, and 1 before it"],
        ),
        ([rollout(day) for day in range(1, 52)], [rollout(day) for day in range(2, 52)], []),
        ([{**rollout(1, "failed"), "steps": []}], [], []),
        ([rollout(1, "withdrawn")], [], []),
        (
            [rollout(1, "withdrawn")],
            [rollout(1)],
            [f"{DISAGREE}20260101T000000Z-0a1b2c3d nothing on lb1, done on lb2"],
        ),
        ([rollout(1, service="prices")], [], []),
        ([rollout(1), TAKES_OVER], [rollout(1, "resumed"), TAKES_OVER], []),
        ([rollout(1, "rolled_back"), TAKES_OVER], [TAKES_OVER], []),
    ],
    ids=[
        *("the same", "one is missing", "another verdict", "an old one is let go", "refused by a gate"),
        *("refused by a balancer", "refused by one balancer alone", "of another service"),
        *("died when it ended", "died when it began"),
    ],
)
def test_journals_that_tell_the_same_rollouts_apart_are_said(
    first: list[Any], second: list[Any], problems: list[str]
) -> None:
    hosts, balancers = fleet()
    balancers["lb1"]["rollouts"], balancers["lb2"]["rollouts"] = first, second
    assert find_problems({"tumour": SERVICE}, hosts, balancers) == problems
