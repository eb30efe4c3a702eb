# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Placing the release: no host is restarted before every one has it, and what gates found is said first."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.unit.playbooks.conftest import POLICY

PLAN = {
    "service": "tumour",
    "slot": "green",
    "release": {"name": "2-bbbbbbbbbbbb", "version": "2", "digest": "b" * 64},
    "stage": ["m1", "m2"],
    "envs": {"m1": "e1", "m2": "e1"},
    "pinned": [],
    "verdicts": [],
}
REQUEST = {
    "hosts": ["m1", "m2"],
    "bundle": "/bundle",
    "keep_releases": 5,
    "policy": POLICY,
    "overrides": [],
    "url": "",
    "trust": {},
}
PLACED = {"release": "2-bbbbbbbbbbbb"}
DIGEST = {"gate": "digest", "where": "bundle", "verdict": "fail", "expected": "a", "found": "b", "seconds": 0}
MISSING = "expected 2-bbbbbbbbbbbb on every host before any is restarted, found it missing on"


@pytest.fixture
def stage(play: Callable[..., Any]) -> Callable[..., Any]:
    def run(plan: Mapping[str, Any] | None = None, **options: Any) -> Any:
        return play("stage", REQUEST, {**PLAN, **(plan or {})}, facts={"wheelhouses": {"results": []}}, **options)

    return run


def test_hosts_that_all_have_it_go_on(stage: Callable[..., Any]) -> None:
    run = stage(answering={"model_release": [PLACED, PLACED]})
    assert run.code == 0
    assert sorted(step["module"] for step in run.told) == 2 * ["model_env"] + 2 * ["model_release"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gone": ["m2"], "answering": {"model_release": [PLACED]}}, f"{MISSING} m2"),
        (
            {"failing": {"model_release": "gate digest: expected a, found b"}},
            f"m1, m2: gate digest: expected a, found b; {MISSING} m1, m2",
        ),
        ({"failing": {"model_env": "no room"}, "gone": ["m1"]}, f"m2: no room; {MISSING} m1, m2"),
    ],
    ids=["a host is gone", "a gate", "a gate and a host is gone"],
)
def test_one_that_lacks_it_ends_the_run_before_any_is_restarted(
    stage: Callable[..., Any], options: Mapping[str, Any], said: str
) -> None:
    run = stage(**options)
    assert run.code != 0
    assert run.output.count(f'"msg": "{said}"') == 1


def test_what_the_gates_found_is_said_before_the_run_ends(stage: Callable[..., Any]) -> None:
    verdicts = {"gates": [DIGEST]}
    run = stage(failing={"model_release": "bad"}, answering={"model_release": [verdicts, verdicts]})
    assert re.search(r"\ndigest +m1, m2 +enforce +fail +a +b +0.00\n", run.output)
    assert run.output.index("\ndigest ") < run.output.index(MISSING)


@pytest.mark.parametrize(("half_done", "state"), [(False, "ended"), (True, "left")])
def test_one_that_took_over_what_is_half_done_is_left_to_whoever_goes_on(
    stage: Callable[..., Any], half_done: bool, state: str
) -> None:
    plan = {"begin": ["lb1"], "rollout": {"id": "20260102T030405Z-0a1b2c3d"}, "half_done": half_done}
    run = stage(plan, failing={"model_release": "no room"})
    assert run.code != 0
    assert [step["state"] for step in run.told if step["module"] == "lb_rollout"] == [state]
    goes_on = "found it missing on m1, m2; resume.yml finishes the rollout, rollback.yml undoes it"
    assert (goes_on in run.output) is half_done
