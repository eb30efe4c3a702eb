# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting the idle slot: one that fails on a host is stopped on all, and the run ends with one line that says why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

PLAN = {
    "service": "tumour",
    "slot": "green",
    "release": {"name": "2-bbbbbbbbbbbb", "version": "2", "digest": "b" * 64},
    "idle": ["m1", "m2"],
    "unready": ["m2"],
    "settings": {},
    "limits": {},
}
REQUEST = {"balancers": ["lb1"], "ready_timeout": 1, "gates": ["ready"], "max_latency_ms": None}


@pytest.fixture
def start(play: Callable[..., Any]) -> Callable[..., Any]:
    def run(**options: Any) -> Any:
        return play("start_idle", REQUEST, PLAN, **options)

    return run


def steps(run: Any) -> list[tuple[str, str]]:
    return sorted((step["module"], step.get("state", "")) for step in run.told)


def test_slots_are_started_put_to_their_gates_and_brought_back(start: Callable[..., Any]) -> None:
    run = start()
    assert run.code == 0
    assert steps(run) == [("lb_server", "ready"), *2 * [("model_probe", "")], *2 * [("model_slot", "")]]


@pytest.mark.parametrize(
    ("options", "stopped", "said"),
    [
        ({"failing": {"model_slot": "it crashed"}}, 2, "m1, m2: it crashed"),
        ({"failing": {"model_probe": "gate golden: found 1"}}, 2, "m1, m2: gate golden: found 1"),
        (
            {"gone": ["m2"]},
            1,
            "m2: expected an answer until the release had passed its gates, found the host unreachable",
        ),
        (
            {"gone": ["m2"], "failing": {"model_slot": "it crashed"}},
            1,
            "m2: expected an answer until the release had passed its gates, found the host unreachable; m1: it crashed",
        ),
    ],
    ids=["no start", "a gate", "a host is gone", "a host is gone and no start"],
)
def test_a_failure_stops_the_release_on_every_host_and_is_said_once(
    start: Callable[..., Any], options: Mapping[str, Any], stopped: int, said: str
) -> None:
    run = start(**options)
    assert run.code != 0
    assert (steps(run).count(("model_slot", "stopped")), ("lb_server", "ready") in steps(run)) == (stopped, False)
    assert run.output.count(f'"msg": "{said}; no request was sent to 2-bbbbbbbbbbbb"') == 1
