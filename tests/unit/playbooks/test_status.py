# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The status of a fleet, with and without a check that all agree."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.plugins.states import ONE, balancer_state, host_state, slot_state

ID = "20260102T030405Z-0a1b2c3d"
ROLLOUT = {
    "id": ID,
    "action": "deploy",
    "services": {"tumour": {"release": ONE.name, "slot": "blue", "was": {"release": None, "slot": None}}},
    "steps": [{"name": "move", "hosts": [], "state": "done"}],
    "verdict": "done",
}


@pytest.mark.parametrize("verify", [False, True])
def test_journals_are_compared_where_that_is_asked_for(
    command: Callable[..., Any], tmp_path: Path, verify: bool
) -> None:
    """One of two balancers lacks the rollout, in whichever order they are read."""
    for place, rollouts in enumerate([[ROLLOUT], []]):
        state = balancer_state(blue=ONE)
        state["services"]["tumour"] |= {"persisted": True}
        answer = {"load_balancer": {**state, "rollouts": rollouts}}
        (tmp_path / f"lb_info.answer.{place}").write_text(json.dumps(answer))
    says = {"model_info": {"model_host": host_state(ONE, blue=slot_state(ONE))}}
    run = command("status", says, balancers=("lb1", "lb2"), verify=verify)
    print(run.output)
    assert [step["rollouts"] for step in run.told if step["module"] == "lb_info"] == [verify, verify]
    said = f"journal: expected all balancers to agree, found {ID}" in " ".join(run.output.split())
    assert (run.code, said) == ((2, True) if verify else (0, False))
