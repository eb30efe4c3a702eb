# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies read, and what gates find as verdicts."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils import _gates
from ansible_collections.modelfleet.onprem.plugins.module_utils._verdict import (
    ADVICE,
    GATES,
    UNDECIDED,
    Finding,
    GateError,
    Put,
    parse_policies,
    put_gates,
)
from ansible_collections.modelfleet.onprem.plugins.modules import model_load
from ansible_collections.modelfleet.onprem.plugins.plugin_utils import policy

OWN = ("load", "golden")
ALL = "digest, signature, contract, environment, load, ready, version, golden, replay, latency"


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        (["load"], f"gates: expected a mapping of some of {ALL}, found ['load']"),
        ({"speed": {"mode": "warn"}}, f"gates: expected some of {ALL}, found 'speed'"),
        ({"load": {"mode": "on"}}, "gates.load: expected a mode, one of enforce, warn, off, found 'on'"),
        ({"load": {}}, "gates.load: expected a mode, one of enforce, warn, off, found None"),
        ({"load": "warn"}, "gates.load: expected a mode, one of enforce, warn, off, found 'warn'"),
    ],
)
def test_what_is_no_policy_is_refused(gates: object, message: str) -> None:
    with pytest.raises(GateError) as error:
        parse_policies(gates, OWN)
    assert str(error.value) == message


def test_the_order_is_that_of_the_gates() -> None:
    policies = parse_policies({"golden": {"mode": "warn"}, "load": {"mode": "enforce"}}, OWN)
    assert list(policies) == ["load", "golden"]


def test_of_a_whole_policy_only_the_own_gates_are_put() -> None:
    whole = policy.parse_policy({"golden": {"mode": "warn"}})
    assert parse_policies(whole, OWN) == {"load": whole["load"], "golden": whole["golden"]}
    assert parse_policies({"digest": {"mode": "enforce"}}, OWN) == {}


def test_the_gates_that_there_are_are_those_of_a_policy_and_each_is_put_by_somebody() -> None:
    assert tuple(policy.GATES) == GATES
    by_the_controller_or_at_placing = ("digest", "signature", "contract")
    assert (*by_the_controller_or_at_placing, *model_load.GATES, *_gates.GATES) == GATES


def put(mode: str, passed: bool | None, **thresholds: Any) -> Put:
    policies = {"load": {"mode": mode, **thresholds}, "golden": {"mode": "enforce"}}
    findings = {"load": Finding(passed, "a", "b", seconds=2.0), "golden": Finding(True, "c", "d", {"rows": 1})}
    return put_gates(policies, {"load": "/here", "golden": "there"}, findings.__getitem__)


@pytest.mark.parametrize(
    ("mode", "passed", "thresholds", "verdict", "blocks"),
    [
        ("enforce", True, {}, "pass", False),
        ("enforce", False, {}, "fail", True),
        ("warn", False, {}, "warn", False),
        ("off", False, {}, "off", False),
        ("enforce", None, {}, "inconclusive", False),
        ("enforce", None, {"inconclusive": "fail"}, "inconclusive", True),
        ("warn", None, {"inconclusive": "fail"}, "inconclusive", False),
    ],
)
def test_what_a_gate_finds_is_a_verdict_by_its_mode(
    mode: str, passed: bool | None, thresholds: dict[str, Any], verdict: str, blocks: bool
) -> None:
    found = put(mode, passed, **thresholds)
    assert [each["verdict"] for each in found.verdicts] == [verdict] if blocks else [verdict, "pass"]
    assert found.problem == (f"gate load: /here: expected a, found b: {ADVICE['load']}" if blocks else None)


@pytest.mark.parametrize("gate", ["replay", "latency"])
def test_a_gate_that_could_not_tell_says_what_to_do_about_that(gate: str) -> None:
    policies = {gate: {"mode": "enforce", "inconclusive": "fail"}}
    told = [
        put_gates(policies, {gate: "/here"}, lambda _gate, it=passed: Finding(it, "a", "b")) for passed in (None, False)
    ]
    words = f"gate {gate}: /here: expected a, found b: "
    assert [each.problem for each in told] == [words + UNDECIDED[gate], words + ADVICE[gate]]


def test_a_verdict_is_plain_data() -> None:
    load, golden = put("enforce", True).verdicts
    assert load == {
        "gate": "load",
        "where": "/here",
        "mode": "enforce",
        "verdict": "pass",
        "expected": "a",
        "found": "b",
        "seconds": 2.0,
    }
    assert golden["details"] == {"rows": 1}
