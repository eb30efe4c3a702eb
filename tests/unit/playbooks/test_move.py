# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moving the route: one that does not move ends the run, after what the gates found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.playbooks.conftest import POLICY

PLAN = {
    "service": "tumour",
    "slot": "green",
    "release": {"name": "2-bbbbbbbbbbbb", "version": "2", "digest": "b" * 64},
    "record": ["lb1", "lb2"],
    "in_place": [],
    "verdicts": [],
    "rollout": {"id": "20260102T030405Z-0a1b2c3d"},
}
REQUEST = {
    "action": "deploy",
    "hosts": ["m1"],
    "ready_timeout": 1,
    "max_fail_percentage": 0,
    "policy": POLICY,
    "overrides": [],
}


def test_every_balancer_moves(play: Callable[..., Any]) -> None:
    run = play("move", REQUEST, PLAN)
    assert (run.code, [step["module"] for step in run.told]) == (0, 4 * ["lb_route"])
    assert [step.get("staged", False) for step in run.told] == [True, True, False, False]


def test_balancers_that_are_ready_move_at_the_same_moment(play: Callable[..., Any]) -> None:
    run = play("move", REQUEST, PLAN, answering={"lb_route": [{"clock": 1000.5}, {"clock": 1001.0}]})
    assert [step["at"] for step in run.told[2:]] == [1002.5, 1002.5]


@pytest.mark.parametrize("record", [["lb1", "lb2"], ["lb2", "lb1"]])
def test_where_one_is_not_ready_none_moves_and_the_run_ends(play: Callable[..., Any], record: list[str]) -> None:
    plan = {**PLAN, "record": record, "begin": record}
    run = play(["move", "end"], REQUEST, plan, gone=["lb2"], answering={"lb_route": [{"clock": 1000.5}]})
    assert run.code != 0
    # The one that answers notes why the rollout is left; it holds the service.
    assert [(step["module"], step.get("state", step.get("staged"))) for step in run.told] == [
        ("lb_route", True),
        ("lb_rollout", "left"),
    ]
    assert "lb2: Task failed: " in run.output
    assert "; resume.yml finishes the rollout, rollback.yml undoes it" in run.output


def test_a_balancer_alone_is_not_asked_first(play: Callable[..., Any]) -> None:
    run = play("move", REQUEST, {**PLAN, "record": ["lb1"]})
    assert [(step.get("staged", False), step["at"]) for step in run.told] == [(False, 0)]


def test_a_route_that_does_not_move_ends_the_run_and_is_said(play: Callable[..., Any]) -> None:
    run = play("move", REQUEST, PLAN, failing={"lb_route": "expected 2 servers to be UP, found 1"})
    assert run.code != 0
    assert (
        '"msg": "lb1: expected 2 servers to be UP, found 1; lb2: expected 2 servers to be UP, found 1; '
        'resume.yml finishes the rollout, rollback.yml undoes it"' in run.output
    )
    assert run.output.index("\ngolden ") < run.output.index('"msg": "lb1: ')


def test_a_balancer_that_is_gone_ends_the_run(play: Callable[..., Any]) -> None:
    run = play("move", REQUEST, PLAN, gone=["lb2"])
    assert run.code != 0
    assert "UNREACHABLE" in run.output
