# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""rollout_judge: what balancers have seen becomes a verdict as gates give them, with the figures of both sides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.action import rollout_judge
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.canary import parse_canary

CANARY = parse_canary("canary", {"steps": [{"share": 5, "for": 1}]}).plan()
GOOD = {"requests": 9000, "errors": 0, "latency": {"0.01": 9000, "+Inf": 9000}, "predictions": {"0": 9000}}
BAD = {**GOOD, "errors": 900}
SKIPPED = {"skipped": True, "changed": False}


@pytest.fixture
def decide(act_here: Callable[..., Any]) -> Callable[..., Any]:
    def run(canary: Any, held: Any = SKIPPED, **said: Any) -> Any:
        sides = {"baseline": GOOD, "canary": canary}
        watched = {"control": "go", "by": "", "failing": "", "sides": sides, **said}
        step = CANARY["steps"][0]
        return act_here(rollout_judge, canary=CANARY, step=step, window=0, watched={"lb1": watched}, held={"lb1": held})

    return run


def test_a_canary_that_does_as_well_passes(decide: Callable[..., Any]) -> None:
    found = decide(GOOD)
    assert (found["outcome"], found["next"], found["verdict"]["verdict"]) == ("pass", 1, "pass")
    assert "failed" not in found


def test_one_that_does_worse_fails_with_the_figures_of_both_sides(decide: Callable[..., Any]) -> None:
    found = decide(BAD)
    assert found["failed"]
    assert found["msg"].startswith("judge, at 5 %: errors: fail: canary 900 of 9000 (10.00%) against 0 of 9000 (0.00%)")
    verdict = found["verdict"]
    assert (verdict["gate"], verdict["where"], verdict["mode"], verdict["verdict"]) == (
        "judge",
        "controller",
        "enforce",
        "fail",
    )
    assert verdict["details"]["sides"] == {"baseline": GOOD, "canary": BAD}
    assert [finding["name"] for finding in verdict["details"]["findings"]] == ["errors", "latency", "predictions"]


def test_what_is_said_while_it_is_held_goes_before_what_was_said_before(decide: Callable[..., Any]) -> None:
    held = {"control": "promote", "by": "kim", "failing": ""}
    assert decide(GOOD, held, control="pause", by="joe")["outcome"] == "promote"
    assert decide(GOOD, {**held, "failing": "it burns"}, control="pause")["msg"] == "judge, at 5 %: lb1: it burns"


def test_a_balancer_that_fails_while_it_is_held_has_no_figures(decide: Callable[..., Any]) -> None:
    found = decide(GOOD, {"failed": True, "msg": "it is gone"}, control="pause")
    assert found["msg"] == ("judge, at 5 %: expected figures of every balancer, found none of lb1 (it is gone)")
