# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks while one of two balancers is down, or does not answer Ansible alone."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.controller import name_process

from tests.unit.playbooks.test_interrupted import DIED, begun, says, steps
from tests.unit.plugins.states import ONE, TWO, balancer_state, host_state, slot_state

BOTH = ("lb1", "lb2")
COLD = {"cold": {"tumour": {"release": ONE.name, "reason": "cold"}}, "rolled_back": {}, "revisions": {}, "clock": 0}
WARM = {**COLD, "cold": {}, "rolled_back": {"tumour": {"from": TWO.name, "to": ONE.name, "slot": "blue"}}}


SERVICE_OUT = {"state": "on"}
HOST_OUT = {"state": "on", "host": "m1", "service": None}
VERBS = [
    ("maintenance", SERVICE_OUT, [("lb_maintenance", "present")]),
    ("maintenance", {"state": "off"}, [("lb_maintenance", "absent")]),
    ("maintenance", HOST_OUT, [("lb_server", "maint")]),
    ("maintenance", {**HOST_OUT, "state": "off"}, [("lb_server", "ready"), ("lb_server", "ready")]),
    ("pause", {}, [("lb_control", "pause")]),
    ("pause", {"state": "off"}, [("lb_control", "go")]),
    ("promote", {}, [("lb_control", "promote")]),
]
"""What an operator tells balancers, and what each of them is told then."""


@pytest.fixture
def served() -> Iterator[int]:
    """A port that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def serving() -> dict[str, Any]:
    """Both hosts run release 2, which serves from green, and release 1 beside it."""
    balancer = balancer_state("green", blue=ONE, green=TWO)
    balancer["services"]["tumour"] |= {"rollout": None, "revision": "r1", "history": [ONE.name]}
    host = host_state(ONE, TWO, blue=slot_state(ONE), green=slot_state(TWO, "green"))
    return {"lb_info": {"load_balancer": balancer}, "model_info": {"model_host": host}}


def test_a_rollout_goes_on_without_a_balancer_that_is_down(command: Callable[..., Any]) -> None:
    run = command("resume", says(), balancers=BOTH, gone=["lb2"])
    assert [step for step in steps(run) if step[0].startswith("lb_")] == [
        ("lb_rollout", "begun"),
        ("lb_route", ""),
        ("lb_rollout", "ended"),
    ]
    assert run.code == 0
    said = " ".join(run.output.split())
    assert "lb2: down, so it is left out; before it takes requests again it takes over the state of lb1" in said


def test_it_waits_for_one_that_takes_requests_and_cannot_be_told(command: Callable[..., Any], served: int) -> None:
    run = command("resume", says(), balancers=BOTH, gone=["lb2"], bind=served)
    assert (run.code, steps(run)) == (2, [])
    said = " ".join(run.output.split())
    assert "lb2: expected every balancer that takes requests to answer over SSH, found that it does not" in said


def test_nothing_goes_on_where_no_balancer_answers(command: Callable[..., Any]) -> None:
    run = command("resume", says(), balancers=BOTH, gone=BOTH)
    assert (run.code, steps(run)) == (2, [])


def test_what_a_balancer_that_is_down_may_know_is_not_stopped(command: Callable[..., Any]) -> None:
    found = command("rollback", {**says(), "lb_rollback": COLD}, balancers=BOTH, gone=["lb2"])
    print(found.output)
    assert found.code == 0
    assert begun(found)["action"] == "rollback"
    assert "model_slot" not in [step["module"] for step in found.told]


@pytest.mark.parametrize(
    ("gone", "expected"),
    [
        # Each is asked, the first one is where it begins, each is told, and it ends when all have moved.
        ([], ["lb_rollback"] * 5 + ["lb_rollout"] * 2),
        # The plan finds out that it is down, and then the other one goes back alone.
        (["lb2"], ["lb_rollback", "model_info", "model_info", "lb_info", "lb_rollout", "lb_rollback", "lb_rollout"]),
    ],
    ids=["both answer", "one is down"],
)
def test_a_warm_rollback_does_not_wait_for_a_balancer_that_is_down(
    command: Callable[..., Any], gone: list[str], expected: list[str]
) -> None:
    run = command("rollback", {**serving(), "lb_rollback": {**WARM, "changed": True}}, balancers=BOTH, gone=gone)
    print(run.output)
    assert run.code == 0
    assert sorted(step["module"] for step in run.told) == sorted(expected)
    assert f"tumour went back from {TWO.name} to {ONE.name} in blue" in run.output


def test_a_warm_rollback_that_one_balancer_did_not_make_stays_open(command: Callable[..., Any], tmp_path: Any) -> None:
    went = {**WARM, "changed": True}
    for number, answer in enumerate([went, went, went, went, {"failed": True, "msg": "tumour_blue: found it DOWN"}]):
        (tmp_path / f"lb_rollback.answer.{number}").write_text(json.dumps(answer))
    run = command("rollback", serving(), balancers=BOTH)
    assert (run.code, [step["module"] for step in run.told]) == (2, ["lb_rollback"] * 5)
    assert [step.get("hold", False) for step in run.told[3:]] == [True, True]


def test_a_warm_rollback_that_another_one_came_before_asks_no_other_balancer_to_move(
    command: Callable[..., Any], tmp_path: Any
) -> None:
    held = {**COLD, "cold": {"tumour": {"release": None, "reason": "held"}}, "held": ["tumour"]}
    for number, answer in enumerate([WARM, WARM, held]):
        (tmp_path / f"lb_rollback.answer.{number}").write_text(json.dumps(answer))
    balancer = serving()["lb_info"]["load_balancer"]
    alive = {**DIED, "from": socket.gethostname(), "process": name_process(os.getpid())}
    balancer["services"]["tumour"]["rollout"] = alive
    run = command("rollback", {**serving(), "lb_info": {"load_balancer": balancer}}, balancers=BOTH)
    told = [step for step in run.told if step["module"] == "lb_rollback"]
    assert (run.code, [step.get("staged", False) for step in told]) == (2, [False, False, True])
    assert f"runs still as process {os.getpid()}" in " ".join(run.output.split())


def test_a_rollback_that_one_balancer_refuses_moves_none(command: Callable[..., Any], tmp_path: Any) -> None:
    (tmp_path / "lb_rollback").write_text("active.map: expected a service and a pool")
    run = command("rollback", serving(), balancers=BOTH)
    assert (run.code, {step["module"] for step in run.told}) == (2, {"lb_rollback"})
    assert all(step["_ansible_check_mode"] for step in run.told)


def told(run: Any) -> list[tuple[str, str]]:
    """What balancers were told besides being read."""
    changes = [step for step in run.told if step["module"].startswith("lb_") and step["module"] != "lb_info"]
    return [(step["module"], step.get("word") or step.get("state") or "") for step in changes]


@pytest.mark.parametrize(("verb", "given", "expected"), VERBS)
def test_an_operator_tells_those_that_live(
    command: Callable[..., Any], verb: str, given: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    run = command(verb, serving(), balancers=BOTH, gone=["lb2"], **given)
    print(run.output)
    assert (run.code, told(run)) == (0, expected)
    assert "lb2: down, so it is left out" in " ".join(run.output.split())


def test_a_host_comes_back_from_maintenance_where_it_serves_what_is_recorded(command: Callable[..., Any]) -> None:
    run = command("maintenance", serving(), state="off", host="m1", service=None)
    asked = {step["servers"][0]: step.get("recorded", False) for step in run.told if step["module"] == "lb_server"}
    active = serving()["lb_info"]["load_balancer"]["services"]["tumour"]["slot"]
    assert (run.code, asked) == (0, {f"tumour_{slot}/m1": slot == active for slot in ("blue", "green")})


@pytest.mark.parametrize(("verb", "given"), [("maintenance", SERVICE_OUT), ("maintenance", HOST_OUT), ("promote", {})])
def test_an_operator_is_refused_where_one_takes_requests_and_cannot_be_told(
    command: Callable[..., Any], served: int, verb: str, given: dict[str, Any]
) -> None:
    run = command(verb, serving(), balancers=BOTH, gone=["lb2"], bind=served, **given)
    assert (run.code, told(run)) == (2, [])
    assert "found that it does not, so it cannot be told where to send them; nothing was changed" in " ".join(
        run.output.split()
    )


@pytest.mark.parametrize(("verb", "given"), [("maintenance", SERVICE_OUT), ("maintenance", HOST_OUT), ("pause", {})])
def test_an_operator_is_told_where_no_balancer_answers(
    command: Callable[..., Any], verb: str, given: dict[str, Any]
) -> None:
    run = command(verb, serving(), balancers=BOTH, gone=BOTH, **given)
    print(run.output)
    assert (run.code != 0, told(run)) == (True, [])


def test_a_word_is_left_where_somebody_reads_it(command: Callable[..., Any], tmp_path: Any) -> None:
    """One of two balancers came back in the midst of a canary whose deploy had left it out."""
    for place, watched in enumerate([True, False]):
        state = balancer_state("green", blue=ONE, green=TWO, share=500)
        state["services"]["tumour"] |= {"watched": watched}
        (tmp_path / f"lb_info.answer.{place}").write_text(json.dumps({"load_balancer": state}))
    run = command("pause", {}, balancers=BOTH)
    print(run.output)
    assert (run.code, told(run)) == (0, [("lb_control", "pause")])


def aborting() -> dict[str, Any]:
    """A canary that somebody else's deploy goes on with."""
    return {**serving(), "lb_canary": {"shares": {"tumour": {"before": 500, "after": 0}}}}


def test_an_abort_ends_with_those_that_live(command: Callable[..., Any]) -> None:
    run = command("abort", aborting(), balancers=BOTH, gone=["lb2"])
    print(run.output)
    assert (run.code, told(run)) == (0, [("lb_control", "abort"), ("lb_canary", "")])
    assert "lb2: down, so it is left out" in " ".join(run.output.split())


def test_an_abort_ends_the_canary_where_it_can_and_is_to_be_run_again(command: Callable[..., Any], served: int) -> None:
    run = command("abort", aborting(), balancers=BOTH, gone=["lb2"], bind=served)
    print(run.output)
    assert (run.code, told(run)) == (2, [("lb_control", "abort"), ("lb_canary", "")])
    assert "cannot be told where to send them; run abort.yml again once it does" in " ".join(run.output.split())
