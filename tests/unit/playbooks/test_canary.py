# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking a canary through its steps: it ends on every balancer at once, is stopped after that, and a line says why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.canary import parse_canary

from tests.unit.playbooks.conftest import SIDE, WATCHED

CANARY = parse_canary("canary", {"steps": [{"share": 1, "for": 1}, {"share": 5, "for": 1}, {"share": 100}]}).plan()
PLAN = {
    "service": "tumour",
    "slot": "green",
    "release": {"name": "2-bbbbbbbbbbbb", "version": "2", "digest": "b" * 64},
    "was": {"release": "1-aaaaaaaaaaaa", "slot": "blue"},
    "envs": {"m1": "e1", "m2": "e1"},
    "share": ["lb1", "lb2"],
    "steps": CANARY["steps"],
    "begin": ["lb1", "lb2"],
    "rollout": {"id": "20260102T030405Z-00000001"},
}
REQUEST = {
    "balancers": ["lb1", "lb2"],
    "ready_timeout": 1,
    "drain_timeout": 1,
    "canary": {**CANARY, "metrics_ports": {"blue": 8101, "green": 8102}},
}
AS_BEFORE = "all requests go to 1-aaaaaaaaaaaa as before"


@pytest.fixture
def canary(play: Callable[..., Any]) -> Callable[..., Any]:
    def run(**options: Any) -> Any:
        return play("canary", REQUEST, PLAN, **options)

    return run


def shares(run: Any) -> list[int]:
    """The shares that the balancers were told, in their order."""
    return [step["services"]["tumour"]["share"] for step in run.told if step["module"] == "lb_canary"]


def ends(run: Any) -> list[Any]:
    """How the rollout ended, on each balancer."""
    return [step for step in run.told if step["module"] == "lb_rollout" and step["state"] == "ended"]


def stopped(run: Any) -> int:
    return sum(step["module"] == "model_slot" and step["state"] == "stopped" for step in run.told)


def test_a_canary_that_does_as_well_gets_every_step_and_goes_on(canary: Callable[..., Any]) -> None:
    run = canary()
    assert (run.code, shares(run), stopped(run)) == (0, [100, 100, 500, 500], 0)
    assert [step["word"] for step in run.told if step["module"] == "lb_control"] == ["go", "go"]
    assert sum(step["module"] == "lb_watch" for step in run.told) == 4
    assert {step["rollout"] for step in run.told if step["module"] == "lb_canary"} == {PLAN["rollout"]["id"]}
    assert ends(run) == []


@pytest.mark.parametrize(
    ("options", "told", "stops", "said"),
    [
        (
            {"failing": {"lb_watch": "it is gone"}},
            [100, 100, 0, 0],
            2,
            f"it is gone; {AS_BEFORE}",
        ),
        (
            {"gone": ["lb2"]},
            [100, 0],
            0,
            "expected every balancer to send 1 % of the users to 2-bbbbbbbbbbbb, found that it does not: lb2; "
            "2-bbbbbbbbbbbb may still get its share of the requests on lb2, which could not be told: run abort.yml",
        ),
        (
            {"failing": {"lb_canary": "no server"}},
            [100, 100, 0, 0],
            0,
            "no server; 2-bbbbbbbbbbbb may still get its share of the requests on lb1, lb2, which could not be told: "
            "run abort.yml",
        ),
        ({"gone": ["m2"], "failing": {"lb_watch": "x"}}, [100, 100, 0, 0], 1, None),
    ],
    ids=["no figures", "a balancer is gone", "no share", "a host is gone"],
)
def test_a_canary_that_cannot_go_on_ends_at_once_and_is_stopped_where_it_gets_no_request(
    canary: Callable[..., Any], options: Mapping[str, Any], told: list[int], stops: int, said: str | None
) -> None:
    run = canary(**options)
    assert run.code != 0
    assert (shares(run), stopped(run)) == (told, stops)
    if said:
        assert f'"msg": "{said}"' in run.output
    # Where a balancer may still give it its share, abort.yml is to find a rollout to undo.
    ended = ends(run) if options.get("gone") != ["lb2"] and "lb_canary" not in options.get("failing", {}) else []
    assert [end["verdict"] for end in ends(run)] == ["failed"] * len(ended)
    assert all(AS_BEFORE in end["reason"] for end in ended)


def test_the_journal_and_the_table_have_what_the_judge_found(canary: Callable[..., Any]) -> None:
    worse = {**WATCHED, "sides": {**WATCHED["sides"], "canary": {**SIDE, "errors": 4000}}}
    run = canary(answering={"lb_watch": [worse, worse]})
    assert (run.code, shares(run), stopped(run)) == (2, [100, 100, 0, 0], 2)
    for end in ends(run)[:2]:
        assert end["verdict"] == "failed"
        assert end["reason"].startswith("judge, at 1 %: errors: fail: canary 8000 of 18000")
        judged = end["gates"][-1]
        assert (judged["gate"], judged["verdict"]) == ("judge", "fail")
        assert judged["details"]["sides"]["canary"]["errors"] == 8000
    assert "judge" in run.output
