# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stopping the idle slot: whatever fails, the balancers' servers are as a later start expects them, and it is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.unit.playbooks.conftest import POLICY

SERVERS = ["tumour_blue/m1", "tumour_blue/m2"]


@pytest.fixture
def stop(play: Callable[..., Any]) -> Callable[..., Any]:
    """Stop the blue slot on two hosts behind the balancers."""

    def run(balancers: Sequence[str] = ("lb1",), **options: Any) -> Any:
        plan = {"service": "tumour", "slot": "green", "stop": ["m1", "m2"], "stop_slot": "blue"}
        return play("stop", {"balancers": list(balancers), "drain_timeout": 1}, plan, **options)

    return run


def states(run: Any) -> list[str]:
    """What balancers were told of the servers, in order."""
    told = [step for step in run.told if step["module"] == "lb_server"]
    assert [step["servers"] for step in told] == [SERVERS] * len(told)
    return [step["state"] for step in told]


def stopped(run: Any) -> int:
    return sum(step["module"] == "model_slot" for step in run.told)


def test_servers_are_drained_stopped_and_ready_for_a_later_start(stop: Callable[..., Any]) -> None:
    run = stop(["lb1", "lb2"])
    assert (run.code, states(run), stopped(run)) == (0, ["drain", "drain", "ready", "ready"], 2)


@pytest.mark.parametrize(
    ("options", "states_after"),
    [({}, ["drain", "ready"]), ({"failing": {"model_slot-stopped": "it still stops"}}, ["drain"])],
    ids=["it stops", "it runs on"],
)
def test_a_first_release_that_is_undone_is_where_requests_would_go(
    play: Callable[..., Any], options: Any, states_after: list[str]
) -> None:
    plan = {"service": "tumour", "slot": "blue", "stop": ["m1", "m2"], "stop_slot": "blue", "release": None}
    plan["was"] = {"release": "1-aaaaaaaaaaaa", "slot": "blue"}
    run = play("stop", {"balancers": ["lb1"], "drain_timeout": 1, "hosts": [], "parts": {}}, plan, **options)
    print(run.output)
    told = [step for step in run.told if step["module"] == "lb_server"]
    assert [step["state"] for step in told] == states_after
    assert told[0]["idle"] is False


@pytest.mark.parametrize(
    ("options", "states_after", "units", "said"),
    [
        (
            {"gone": ["m1"]},
            ["drain", "ready"],
            1,
            "m1: expected tumour to be stopped in blue, found the host unreachable: run retire.yml once it answers",
        ),
        (
            {"gone": ["m1", "m2"]},
            ["drain", "ready"],
            0,
            "m2: expected tumour to be stopped in blue, found the host unreachable: run retire.yml once it answers",
        ),
        ({"failing": {"model_slot-stopped": "it still stops"}}, ["drain", "ready"], 2, "m2: it still stops"),
        ({"failing": {"lb_server-drain": "1 in flight"}}, ["drain", "ready"], 0, "m1: 1 in flight"),
        (
            {"gone": ["lb2"], "balancers": ["lb1", "lb2"]},
            ["drain", "ready"],
            0,
            "fatal: [m1 -> {{ balancer }}]: UNREACHABLE!",
        ),
    ],
    ids=["a host is gone", "all hosts are gone", "units go on", "requests go on", "a balancer is gone"],
)
def test_whatever_fails_servers_are_ready_again_and_it_is_said(
    stop: Callable[..., Any], options: dict[str, Any], states_after: list[str], units: int, said: str
) -> None:
    run = stop(**options)
    assert run.code != 0
    assert (states(run), stopped(run)) == (states_after, units)
    assert said in " ".join(run.output.split())


def test_a_slot_that_is_not_stopped_ends_a_rollout_that_is_done(play: Callable[..., Any]) -> None:
    plan = {
        "service": "tumour",
        "slot": "green",
        "stop": ["m1", "m2"],
        "stop_slot": "blue",
        "begin": ["lb1"],
        "rollout": {"id": "20260102T030405Z-0a1b2c3d"},
    }
    failing = {"model_slot-stopped": "it still stops"}
    run = play("stop", {"balancers": ["lb1"], "drain_timeout": 1}, plan, failing=failing)
    [ended] = [step for step in run.told if step["module"] == "lb_rollout"]
    assert (run.code != 0, ended["verdict"], ended["reason"]) == (True, "done", "blue was not stopped on every host")


def test_several_services_are_drained_and_stopped_together(play: Callable[..., Any]) -> None:
    each = [
        {"service": "tumour", "slot": "green", "stop": ["m1", "m2"], "stop_slot": "blue", "verdicts": []},
        {"service": "prices", "slot": "blue", "stop": ["m2"], "stop_slot": "green", "verdicts": []},
    ]
    plan = {"service": "tumour, prices", "plans": each, "stop": ["m1", "m2"]}
    parts = {plan["service"]: {"policy": POLICY, "overrides": []} for plan in each}
    run = play("stop", {"balancers": ["lb1"], "drain_timeout": 1, "parts": parts}, plan, gone=["m2"])
    servers = [step["servers"] for step in run.told if step["module"] == "lb_server"]
    assert servers == 2 * [[*SERVERS, "prices_green/m2"]]
    assert [step["service"] for step in run.told if step["module"] == "model_slot"] == ["tumour"]
    said = "m2: expected tumour, prices to be stopped in blue and green, found the host unreachable: run retire.yml"
    assert said in " ".join(run.output.split())
