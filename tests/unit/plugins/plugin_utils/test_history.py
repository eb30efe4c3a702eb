# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journals of several balancers, laid out for people."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.filter import host_servers, rollout_history
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.service import ServiceError

FIRST = "20260102T030405Z-00000001"
SECOND = "20260102T030505Z-00000002"


def record(name: str, **changed: Any) -> dict[str, Any]:
    meant = {"release": "2-bbbbbbbbbbbb", "slot": "green", "was": {"release": "1-aaaaaaaaaaaa", "slot": "blue"}}
    return {
        "id": name,
        "action": "deploy",
        "strategy": "blue_green",
        "who": "anna",
        "from": "ops1",
        "services": {"tumour": meant},
        "begun": "2026-01-02T03:04:05Z",
        "steps": [],
        **changed,
    }


STEPS = [
    {"name": "stage", "hosts": ["m1"], "state": "done", "at": "2026-01-02T03:04:40Z", "begun": "2026-01-02T03:04:06Z"},
    {"name": "move", "hosts": [], "state": "done", "at": "2026-01-02T03:04:50Z"},
]
GATE = {"gate": "golden", "host": "m1", "verdict": "pass", "expected": "20 rows", "found": "20 rows"}
ENDED = record(FIRST, verdict="done", ended="2026-01-02T03:05:00Z", steps=STEPS, gates=[GATE])
BALANCERS = {
    "lb1": {"rollouts": [ENDED, record(SECOND)]},
    "lb2": {"rollouts": [ENDED]},
}


def show(*arguments: Any) -> list[str]:
    lines: list[str] = rollout_history.FilterModule().filters()["rollout_history"](BALANCERS, *arguments)
    return lines


def test_one_that_was_refused_before_it_began_has_no_release() -> None:
    nothing = {"release": None, "slot": None}
    refused = record(SECOND, services={"tumour": {**nothing, "bundle": "/bundles/2", "was": nothing}}, verdict="failed")
    balancers = {"lb1": {"rollouts": [{**refused, "ended": refused["begun"], "reason": "gate signature: no"}]}}
    filters = rollout_history.FilterModule().filters()
    lines = filters["rollout_history"](balancers, ["tumour"], SECOND)
    assert "verdict failed: gate signature: no" in lines
    assert "tumour: from nothing in no slot to nothing in no slot, bundle /bundles/2" in lines


def test_a_table_has_a_row_for_each_rollout_the_latest_last() -> None:
    assert [line.split() for line in show(["tumour"])] == [
        ["id", "when", "who", "action", "service", "from", "to", "strategy", "verdict", "seconds"],
        [
            *[FIRST, "2026-01-02T03:04:05Z", "anna", "deploy", "tumour", "1-aaaaaaaaaaaa", "2-bbbbbbbbbbbb"],
            *["blue_green", "done", "55"],
        ],
        [
            *[SECOND, "2026-01-02T03:04:05Z", "anna", "deploy", "tumour", "1-aaaaaaaaaaaa", "2-bbbbbbbbbbbb"],
            *["blue_green", "running", "-"],
        ],
    ]
    assert len(show(["prices"])) == 1


def test_one_rollout_is_shown_whole() -> None:
    assert show(["tumour"], FIRST) == [
        f"deploy {FIRST}",
        "by anna from ops1, strategy blue_green",
        "begun 2026-01-02T03:04:05Z, ended 2026-01-02T03:05:00Z (55 s)",
        "verdict done",
        "tumour: from 1-aaaaaaaaaaaa in blue to 2-bbbbbbbbbbbb in green, bundle none",
        "step stage (m1) done at 2026-01-02T03:04:40Z, begun at 2026-01-02T03:04:06Z",
        "step move done at 2026-01-02T03:04:50Z",
        "gate golden on m1: pass, expected 20 rows, found 20 rows",
    ]


def test_a_rollout_that_is_not_kept_is_refused() -> None:
    with pytest.raises(ServiceError, match="id: expected a rollout that the journals keep, found 'x'"):
        show(["tumour"], "x")


def service(
    slot: str = "blue", held: bool = False, release: str | None = "1-9c56cc51b374", **admin: str
) -> dict[str, Any]:
    servers = {host: {"status": "UP", "admin": admin.get(host, "ready")} for host in ("m1", "m2")}
    rollout = {"id": FIRST, "by": "anna", "held": held}
    pools = {name: {"release": release if name == slot else None, "servers": servers} for name in ("blue", "green")}
    return {"slot": slot, "rollout": rollout, "pools": pools}


def find(**services: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = host_servers.FilterModule().filters()["host_servers"](services, "m1")
    return found


def test_the_servers_of_a_host_are_told_apart_by_what_their_pool_is() -> None:
    assert find(tumour=service(), prices=service("green")) == {
        "active": ["tumour_blue/m1", "prices_green/m1"],
        "idle": ["tumour_green/m1", "prices_blue/m1"],
        "held": [],
        "alone": [],
    }


def test_a_pool_from_which_nothing_serves_yet_is_idle() -> None:
    assert find(tumour=service(release=None))["active"] == []


def test_why_a_host_may_not_be_taken_out_is_said() -> None:
    assert find(tumour=service(held=True))["held"] == [
        f"tumour: expected no rollout to hold it, found {FIRST} by anna",
    ]
    assert find(tumour=service(m2="maint"))["alone"] == [
        "tumour: expected another server than m1 that takes requests, found none",
    ]
