# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""rollout_plan: a request and the state of the fleet become the steps of a rollout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.action import rollout_plan
from ansible_collections.modelfleet.onprem.plugins.module_utils._env import env_name

from tests.unit.plugins.states import GROUPS, ONE, TWO, balancer_state, host_state, slot_state

HOST = host_state(ONE, blue=slot_state(ONE))
BOTH = host_state(ONE, TWO, blue=slot_state(TWO), green=slot_state(ONE, "green"))
REQUEST = {
    "service": "tumour",
    "balancers": ["lb1"],
    "strategy": "blue_green",
    "release": asdict(TWO),
    "lock": "flask==3.1.3\n",
    "server": {"wheel": "/server.whl", "sha256": "c" * 64},
}


@pytest.fixture
def plan(act_here: Callable[..., Any]) -> Callable[..., Any]:
    """Run rollout_plan for the service on two hosts behind one balancer."""

    def run(action: str, host: Any = HOST, balancer: Any = None, **arguments: Any) -> Any:
        given = {
            "services": {"tumour": {"port": 8101}},
            "request": {**REQUEST, "action": action},
            "hosts": {"m1": host, "m2": host},
            "balancers": {"lb1": balancer or balancer_state(blue=ONE)},
            **arguments,
        }
        return act_here(rollout_plan, GROUPS, **given)

    return run


@pytest.mark.parametrize("check_mode", [False, True], ids=["run", "check mode"])
def test_a_deploy_names_the_hosts_of_each_step(plan: Callable[..., Any], check_mode: bool) -> None:
    result = plan("deploy", check_mode=check_mode)
    steps = result["plan"]
    assert (result["changed"], steps["unchanged"]) == (False, False)
    assert (steps["slot"], steps["stage"], steps["idle"]) == ("green", ["m1", "m2"], ["m1", "m2"])
    assert (steps["record"], steps["in_place"], steps["stop"]) == (["lb1"], [], [])
    assert steps["release"] == asdict(TWO)


def test_the_environment_is_named_for_the_lock_the_server_and_the_hosts_python(plan: Callable[..., Any]) -> None:
    name = env_name("flask==3.1.3\n", "c" * 64, "cp311", "x86_64")
    steps = plan("deploy")["plan"]
    assert steps["envs"] == {"m1": name, "m2": name}
    assert steps["wheels"] == [{"env": name, "tag": "cp311", "machine": "x86_64", "glibc": "2.36"}]


@pytest.mark.parametrize("to", [None, "1", ONE.name])
def test_a_rollback_names_what_it_goes_back_to(plan: Callable[..., Any], to: str | None) -> None:
    balancer = balancer_state(blue=TWO, green=ONE, history=[ONE])
    steps = plan("rollback", BOTH, balancer, to=to)["plan"]
    assert (steps["release"], steps["slot"], steps["record"]) == (asdict(ONE), "green", ["lb1"])
    assert (steps["idle"], steps["was"]) == ([], {"release": TWO.name, "slot": "blue"})


def test_a_rollback_goes_past_a_host_that_did_not_answer(plan: Callable[..., Any]) -> None:
    balancer = balancer_state(blue=TWO, history=[ONE])
    steps = plan("rollback", hosts={"m1": host_state(ONE, TWO, blue=slot_state(TWO))}, balancer=balancer)["plan"]
    assert (steps["idle"], steps["record"]) == (["m1"], ["lb1"])


def test_retiring_stops_the_slot_beside(plan: Callable[..., Any]) -> None:
    steps = plan("retire", BOTH, balancer_state(blue=TWO, green=ONE))["plan"]
    assert (steps["stop"], steps["stop_slot"], steps["record"]) == (["m1", "m2"], "green", [])


@pytest.mark.parametrize(
    ("action", "arguments", "message"),
    [
        (
            "deploy",
            {"hosts": {"m1": HOST}},
            "expected every machine to answer before anything is changed, found none from m2",
        ),
        (
            "retire",
            {"hosts": {"m2": HOST}},
            "expected every machine to answer before anything is changed, found none from m1",
        ),
        (
            "rollback",
            {"balancers": {}},
            "expected every machine to answer before anything is changed, found none from lb1",
        ),
        ("rollback", {}, "tumour: expected an earlier release in the balancers' history, found none"),
        (
            "deploy",
            {"balancers": {"lb1": {"services": {}}}},
            "lb1: expected pools for tumour, found none: run provision.yml first",
        ),
        (
            "deploy",
            {"services": {"prices": {"port": 8101}}},
            "service: expected one of prices, found 'tumour'",
        ),
    ],
)
def test_what_cannot_be_planned_is_one_line(
    plan: Callable[..., Any], action: str, arguments: dict[str, Any], message: str
) -> None:
    result = plan(action, **arguments)
    assert (result["failed"], result["msg"], "plan" in result) == (True, message, False)
