# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Beginning a rollout: the first balancer decides, a refusal ends the run, and what was taken is let go of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

STATE = {"balancer_state": {"load_balancer": {"services": {"tumour": {"revision": "r1"}}}}}


@pytest.fixture
def begin(play: Callable[..., Any]) -> Callable[..., Any]:
    def run(balancers: list[str], takes_over: list[str] | None = None, **options: Any) -> Any:
        rollout = {"id": "20260102T030405Z-0a1b2c3d", "takes_over": takes_over or [], "services": {"tumour": {}}}
        plan = {"service": "tumour", "begin": balancers, "rollout": rollout}
        return play("begin", {"balancers": balancers}, plan, variables=STATE, **options)

    return run


def states(run: Any) -> list[str]:
    return [step["state"] for step in run.told]


def test_every_balancer_is_asked_with_what_was_read_of_it(begin: Callable[..., Any]) -> None:
    run = begin(["lb1", "lb2"])
    assert (run.code, states(run)) == (0, ["begun", "begun"])
    assert [step["revisions"] for step in run.told] == [{"tumour": "r1"}] * 2


def test_who_is_refused_by_the_first_balancer_asks_no_other(begin: Callable[..., Any]) -> None:
    run = begin(["lb1", "lb2"], failing={"lb_rollout-begun": "tumour: held"})
    assert (run.code != 0, states(run)) == (True, ["begun"])
    assert '"msg": "tumour: held"' in run.output


def test_nothing_to_do_asks_nobody(begin: Callable[..., Any]) -> None:
    run = begin([])
    assert (run.code, states(run)) == (0, [])


@pytest.mark.parametrize(("takes_over", "released"), [([], 1), (["20260102T030405Z-00000000"], 0)])
def test_what_was_taken_is_let_go_of_when_another_balancer_refuses(
    begin: Callable[..., Any], takes_over: list[str], released: int
) -> None:
    run = begin(["lb1", "lb2"], takes_over, gone=["lb2"])
    assert run.code != 0
    # The one that is gone cannot be told; the one that began is.
    assert states(run) == ["begun", *["ended"] * released]


@pytest.mark.parametrize(
    ("name", "hook", "half_done", "told", "said"),
    [
        (
            "begin",
            "before_deploy",
            True,
            ["begun", "left"],
            "hook before_deploy: not on a Friday; resume.yml finishes the rollout, rollback.yml undoes it",
        ),
        (
            "before_traffic",
            "before_traffic",
            True,
            ["left"],
            "hook before_traffic: not on a Friday; resume.yml finishes the rollout, rollback.yml undoes it",
        ),
        (
            "begin",
            "before_deploy",
            False,
            ["begun", "ended"],
            "hook before_deploy: not on a Friday; nothing was changed",
        ),
        (
            "before_traffic",
            "before_traffic",
            False,
            ["stopped", "stopped", "ended"],
            "hook before_traffic: not on a Friday; no request was sent to 2-bbbbbbbbbbbb",
        ),
    ],
)
def test_a_hook_that_fails_ends_the_rollout_unless_that_took_over_what_is_half_done(
    play: Callable[..., Any], tmp_path: Path, name: str, hook: str, half_done: bool, told: list[str], said: str
) -> None:
    file = tmp_path / "hook.yml"
    file.write_text(yaml.safe_dump([{"ansible.builtin.fail": {"msg": "not on a Friday"}}]))
    meant = {"tumour": {"release": "2-bbbbbbbbbbbb", "slot": "green", "was": {"release": None, "slot": None}}}
    rollout = {
        "id": "20260102T030405Z-0a1b2c3d",
        "services": meant,
        "takes_over": [],
        "action": "deploy",
        "strategy": "blue_green",
        "who": "anna",
    }
    plan = {"service": "tumour", "slot": "green", "release": {"name": "2-bbbbbbbbbbbb"}, "begin": ["lb1"]}
    request = {"hooks": {hook: [str(file)]}, "hosts": ["m1", "m2"]}
    steps = {
        **plan,
        "half_done": half_done,
        "rollout": rollout,
        "idle": ["m1", "m2"],
        "in_place": [],
        "record": ["lb1"],
    }
    run = play(name, request, steps, variables=STATE, extra={"hook_due": True})
    assert (run.code != 0, [step["state"] for step in run.told]) == (True, told)
    assert f'"msg": "{said}"' in run.output
    assert (run.told[-1].get("verdict"), run.told[-1]["reason"]) == (
        None if half_done else "failed",
        f"hook {hook}: not on a Friday",
    )
