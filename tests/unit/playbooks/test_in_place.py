# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replacing the active slot: what fails is put back, and a host that nobody knows anything of gets no requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from tests.unit.playbooks.conftest import POLICY, golden

PLAN = {
    "service": "tumour",
    "slot": "blue",
    "release": {"name": "2-bbbbbbbbbbbb", "version": "2", "digest": "b" * 64},
    "in_place": ["m1", "m2"],
    "batches": ["100%"],
    "settings": {},
    "limits": {},
    "baseline_slot": "",
    "verdicts": [],
}
REQUEST = {
    "drain_timeout": 1,
    "ready_timeout": 1,
    "hosts": ["m1", "m2"],
    "policy": POLICY,
    "overrides": [],
    "max_fail_percentage": 0,
}
BEFORE = {"release": "1-aaaaaaaaaaaa", "settings": {}, "limits": {}, "unit": "active"}
VARIABLES = {"host_state": {"model_host": {"services": {"tumour": {"slots": {"blue": BEFORE}}}}}}
BOTH = ["tumour_blue/m1", "tumour_blue/m2"]


@pytest.fixture
def replace(play: Callable[..., Any]) -> Callable[..., Any]:
    """Replace the blue slot of two hosts in one batch."""

    def run(balancers: Sequence[str] = ("lb1",), **options: Any) -> Any:
        request = {**REQUEST, "balancers": list(balancers)}
        return play("in_place", request, PLAN, variables=VARIABLES, **options)

    return run


def rotation(run: Any) -> list[tuple[str, list[str]]]:
    return [(step["state"], sorted(step["servers"])) for step in run.told if step["module"] == "lb_server"]


def started(run: Any) -> list[str]:
    return [step["release"] for step in run.told if step["module"] == "model_slot"]


def test_a_batch_leaves_the_rotation_is_replaced_and_comes_back(replace: Callable[..., Any]) -> None:
    run = replace()
    assert (run.code, rotation(run)) == (0, [("maint", BOTH), ("ready", BOTH)])
    assert started(run) == ["2-bbbbbbbbbbbb"] * 2


@pytest.mark.parametrize(
    ("options", "back", "releases", "said"),
    [
        (
            {"failing": {"model_probe": "gate golden: found 1"}},
            BOTH,
            ["2-bbbbbbbbbbbb"] * 2 + ["1-aaaaaaaaaaaa"] * 2,
            "m2: gate golden: found 1",
        ),
        (
            {"gone": ["m2"]},
            ["tumour_blue/m1"],
            ["2-bbbbbbbbbbbb", "1-aaaaaaaaaaaa"],
            "m2: expected an answer until the release had passed its gates, found the host unreachable",
        ),
        ({"failing": {"lb_server-maint": "1 in flight"}}, BOTH, ["1-aaaaaaaaaaaa"] * 2, "m1: 1 in flight"),
        (
            {"answering": {"model_probe": [golden(1), golden(0)]}},
            BOTH,
            ["2-bbbbbbbbbbbb"] * 2 + ["1-aaaaaaaaaaaa"] * 2,
            "m2: gate golden: expected the same answers on m1, m2, found m2: row 0: ",
        ),
    ],
    ids=["a gate", "a host is gone", "requests go on", "answers differ"],
)
def test_a_batch_that_fails_runs_what_it_ran_before(
    replace: Callable[..., Any], options: Mapping[str, Any], back: list[str], releases: list[str], said: str
) -> None:
    run = replace(**options)
    print(run.output)
    assert run.code != 0
    assert rotation(run) == [("maint", BOTH), ("ready", back)]
    assert started(run) == releases
    assert f'"msg": "{said}' in run.output
    assert run.output.count("\ngate ") == 1


def test_a_balancer_that_is_gone_is_no_reason_to_restart_or_to_leave_servers_out(replace: Callable[..., Any]) -> None:
    run = replace(["lb1", "lb2"], gone=["lb2"])
    assert run.code != 0
    assert (rotation(run), started(run)) == ([("maint", BOTH), ("ready", BOTH)], ["1-aaaaaaaaaaaa"] * 2)
    assert "expected every balancer to take the batch out of rotation, found it still in on lb2" in run.output


def test_the_batch_is_a_step_and_its_failure_the_end(play: Callable[..., Any]) -> None:
    journal = {"begin": ["lb1"], "rollout": {"id": "20260102T030405Z-0a1b2c3d"}}
    request = {**REQUEST, "balancers": ["lb1"]}
    run = play("in_place", request, {**PLAN, **journal}, variables=VARIABLES, failing={"model_probe": "gate golden"})
    told = [step for step in run.told if step["module"] in ("lb_server", "lb_rollout")]
    assert [step["state"] for step in told] == ["maint", "ready", "ended"]
    # Bringing back what failed is not the end of the step: the end of the rollout says that it failed.
    name = journal["rollout"]["id"]
    assert [step.get("rollout") or step.get("id") for step in told] == [name, None, name]
    assert (told[-1]["verdict"], told[-1]["reason"]) == ("failed", "gate golden")
