# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs already is asked in check mode alone, for it is the only thing that a check can ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.playbooks.conftest import POLICY

PLAN = {
    "service": "tumour",
    "slot": "green",
    "release": {"name": "2-bbbbbbbbbbbb", "version": "2", "digest": "b" * 64},
    "running": ["m1", "m2"],
    "settings": {},
    "limits": {},
    "baseline_slot": "",
    "verdicts": [],
}
REQUEST = {"hosts": ["m1", "m2"], "ready_timeout": 1, "policy": POLICY, "overrides": []}
UNCHANGED = {"changed": False}


@pytest.mark.parametrize(("check", "probes"), [(True, 2), (False, 0)], ids=["check mode", "run"])
def test_only_a_check_puts_gates_to_what_runs(play: Callable[..., Any], check: bool, probes: int) -> None:
    run = play("ask_running", REQUEST, PLAN, check=check, answering={"model_slot": [UNCHANGED, UNCHANGED]})
    assert run.code == 0
    assert [step["module"] for step in run.told].count("model_probe") == probes


def test_what_fails_there_is_said(play: Callable[..., Any]) -> None:
    failing, unchanged = {"model_probe": "gate golden: found 1"}, {"model_slot": [UNCHANGED, UNCHANGED]}
    run = play("ask_running", REQUEST, PLAN, check=True, failing=failing, answering=unchanged)
    assert run.code != 0
    assert '"msg": "m1, m2: gate golden: found 1; 2-bbbbbbbbbbbb runs in green already"' in run.output
