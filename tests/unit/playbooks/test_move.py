# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moving the route and going back: a balancer that does not do it ends the run, after what the gates found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

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


BACK = {"was": {"release": "1-aaaaaaaaaaaa", "slot": "blue"}, "envs": {"m1": "e1"}}


@pytest.mark.parametrize(
    ("name", "module", "changed"),
    [
        ("move", "lb_route", {}),
        ("go_back", "lb_rollback", {"action": "rollback"}),
        ("end_canary", "lb_canary", {}),
        ("watch", "lb_settle", {"watch": 1}),
    ],
)
def test_what_a_balancer_does_not_do_leaves_the_rollout_and_tells_who_asked_for_it(
    play: Callable[..., Any], tmp_path: Path, name: str, module: str, changed: dict[str, Any]
) -> None:
    hook = tmp_path / "hook.yml"
    content = {
        "content": "{{ rollout.verdict }}: {{ rollout.reason }}",
        "dest": str(tmp_path / "hooked"),
        "mode": "0600",
    }
    hook.write_text(yaml.safe_dump([{"ansible.builtin.copy": content}]))
    rollout = {**PLAN["rollout"], "services": {}, "action": "deploy", "strategy": "canary", "who": "anna"}
    plan = {**PLAN, **BACK, "begin": ["lb1", "lb2"], "unshare": ["lb1", "lb2"], "rollout": rollout}
    request = {**REQUEST, "hooks": {"on_failure": [str(hook)]}, **changed}
    run = play([name, "end"], request, plan, failing={module: "no answer"})
    assert run.code != 0
    left = [step for step in run.told if step["module"] == "lb_rollout"]
    assert [(step["state"], step["reason"]) for step in left] == 2 * [
        ("left", "lb1: no answer; lb2: no answer; the rollout is unfinished")
    ]
    assert (tmp_path / "hooked").read_text() == f"running: {left[0]['reason']}"
    said = '"msg": "lb1: no answer; lb2: no answer; resume.yml finishes the rollout, rollback.yml undoes it"'
    assert run.output.count(said) == 1


@pytest.mark.parametrize(
    ("name", "module", "changed"),
    [
        ("go_back", "lb_rollback", {"action": "rollback"}),
        ("end_canary", "lb_canary", {}),
        ("watch", "lb_settle", {"watch": 1}),
    ],
)
def test_one_balancer_that_is_gone_leaves_the_rollout(
    play: Callable[..., Any], name: str, module: str, changed: dict[str, Any]
) -> None:
    plan = {**PLAN, **BACK, "begin": ["lb1", "lb2"], "unshare": ["lb1", "lb2"]}
    well = {"lb_settle": [{"failing": {}}]}
    run = play([name, "end"], {**REQUEST, **changed}, plan, gone=["lb2"], answering=well)
    assert run.code != 0
    assert [step["module"] for step in run.told] == [module, "lb_rollout"]
    assert (run.told[-1]["state"], run.told[-1]["reason"][:5]) == ("left", "lb2: ")


def test_what_is_watched_goes_back_though_one_balancer_is_gone(play: Callable[..., Any]) -> None:
    plan = {**PLAN, **BACK, "begin": ["lb1", "lb2"]}
    failing = {"failing": {"tumour": "half of its requests fail"}}
    request = {**REQUEST, "watch": 1, "balancers": ["lb1", "lb2"]}
    run = play("watch", request, plan, gone=["lb2"], answering={"lb_settle": [failing]})
    assert run.code != 0
    assert [step["module"] for step in run.told] == ["lb_settle", "lb_rollback", "lb_rollout"]
    assert run.told[-1]["state"] == "left"
    assert "half of its requests fail; requests may go on as they did to tumour on" in run.output
