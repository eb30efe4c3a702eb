# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy of gates: what an inventory may say of them, and what a rollout may override."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.policy import (
    GATES,
    PolicyError,
    check_override,
    override,
    parse_policy,
)

README = (Path(__file__).parents[4] / "README.md").read_text().partition("\n## Gates\n")[2].partition("\n## ")[0]
REPLAY = {
    "rows": 2000,
    "min_rows": 100,
    "max_flip_rate": 0.01,
    "max_change": None,
    "max_p99_change": None,
    "segment": None,
    "requests": None,
    "inconclusive": "pass",
}


def modes(policy: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: gate["mode"] for name, gate in policy.items()}


def test_what_is_not_named_has_its_default() -> None:
    policy = parse_policy({})
    enforced = ("digest", "environment", "load", "ready", "version", "golden")
    assert modes(policy) == {
        **dict.fromkeys(GATES, "enforce"),
        "signature": "off",
        "replay": "off",
        "latency": "warn",
    }
    assert all(policy[name] == {"mode": "enforce"} for name in enforced)
    assert policy["replay"] == {"mode": "off", **REPLAY}
    assert policy["contract"] == {"mode": "enforce", "ranges": "compatible"}
    assert policy["latency"] == {"mode": "warn", "factor": 3, "max_ms": None, "inconclusive": "pass"}


def test_signatures_are_enforced_where_there_are_allowed_signers() -> None:
    assert modes(parse_policy({}, signed=True))["signature"] == "enforce"
    assert modes(parse_policy({"signature": "warn"}, signed=True))["signature"] == "warn"


def test_a_gate_is_given_by_its_mode_or_with_thresholds() -> None:
    policy = parse_policy({"golden": "warn", "replay": {"mode": "enforce", "rows": 50}, "latency": {"max_ms": 50}})
    assert policy["golden"] == {"mode": "warn"}
    assert policy["replay"] == {"mode": "enforce", **REPLAY, "rows": 50}
    assert policy["latency"] == {"mode": "warn", "factor": 3, "max_ms": 50, "inconclusive": "pass"}


def test_a_bare_off_is_off_though_yaml_reads_it_as_false() -> None:
    found = yaml.safe_load("{contract: off, latency: {mode: off}}")
    assert (modes(parse_policy(found))["contract"], modes(parse_policy(found))["latency"]) == ("off", "off")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"speed": "warn"}, f"gates: expected some of {', '.join(GATES)}, found 'speed'"),
        ({"golden": "maybe"}, "gates.golden: expected enforce, warn or off, found 'maybe'"),
        ({"golden": {"mode": "maybe"}}, "gates.golden: expected enforce, warn or off, found 'maybe'"),
        ({"golden": True}, "gates.golden: expected enforce, warn or off, found True"),
        ({"golden": None}, "gates.golden: expected enforce, warn or off, found None"),
        ({"digest": "off"}, "gates.digest: expected enforce, found 'off'"),
        ({"digest": "warn"}, "gates.digest: expected enforce, found 'warn'"),
        ({"golden": {"rows": 5}}, "gates.golden: expected mode, found 'rows'"),
        ({"latency": {"max": 5}}, "gates.latency: expected mode, factor, max_ms or inconclusive, found 'max'"),
        ({"contract": {"ranges": "off"}}, "gates.contract.ranges: expected one of compatible, breaking, found 'off'"),
        ({"latency": {"factor": 0.5}}, "gates.latency.factor: expected a number from 1 to 1000, found 0.5"),
        ({"latency": {"max_ms": "50"}}, "gates.latency.max_ms: expected a number from 0.001 to 3.6e+06, found '50'"),
        ({"replay": {"rows": 1.5}}, "gates.replay.rows: expected a whole number from 1 to 1000000, found 1.5"),
        ({"replay": {"rows": True}}, "gates.replay.rows: expected a whole number from 1 to 1000000, found True"),
        ({"replay": {"max_flip_rate": 1.5}}, "gates.replay.max_flip_rate: expected a number from 0 to 1, found 1.5"),
        ({"replay": {"segment": 3}}, "gates.replay.segment: expected the name of a column, found 3"),
        ({"replay": {"requests": ""}}, "gates.replay.requests: expected the path of a file, found ''"),
        ({"replay": {"inconclusive": "warn"}}, "gates.replay.inconclusive: expected one of pass, fail, found 'warn'"),
    ],
)
def test_a_policy_that_cannot_be_used_is_refused(found: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=f"^{re.escape(message)}$"):
        parse_policy(found)


def test_an_overridden_gate_warns_and_the_reason_is_kept() -> None:
    policy = parse_policy({})
    overridden, kept = override(policy, ["contract", "golden", "golden"], "clients know")
    assert modes(overridden) == {**modes(policy), "contract": "warn", "golden": "warn"}
    assert kept == [{"gate": "contract", "reason": "clients know"}, {"gate": "golden", "reason": "clients know"}]
    assert modes(policy)["contract"] == "enforce"


def test_nothing_is_overridden_where_nothing_is_asked_for() -> None:
    policy = parse_policy({})
    check_override([policy], [], None)
    assert override(policy, [], "") == (policy, [])


def test_an_override_has_no_effect_where_a_gate_is_not_enforced() -> None:
    enforces, warns = parse_policy({"replay": "enforce"}), parse_policy({"replay": "warn", "golden": "off"})
    check_override([warns, enforces], ["replay", "golden"], "we know")
    overridden, kept = override(warns, ["replay", "golden", "digest", "gone"], "we know")
    assert (overridden, kept) == (warns, [])
    assert override(enforces, ["replay"], "we know")[1] == [{"gate": "replay", "reason": "we know"}]
    message = f"{ABLE.replace('golden, found', 'golden, replay, found')}'latency', which is warn and off already"
    with pytest.raises(PolicyError, match=f"^{re.escape(message)}$"):
        check_override([enforces, {**warns, "latency": {"mode": "off"}}], ["replay", "latency"], "we know")


ABLE = "override: expected one of contract, environment, load, ready, version, golden, found "


@pytest.mark.parametrize(
    ("names", "reason", "message"),
    [
        (["golden"], None, 'override_reason: expected -e override_reason="…" with -e override, found nothing'),
        (["golden"], "  ", 'override_reason: expected -e override_reason="…" with -e override, found nothing'),
        ([], "because", "override: expected -e override=GATE with -e override_reason, found nothing"),
        (["speed"], "because", f"{ABLE}'speed'"),
        (["digest"], "because", f"{ABLE}digest, which cannot be overridden"),
        (["contract", "signature"], "because", f"{ABLE}signature, which cannot be overridden"),
        (["latency"], "because", f"{ABLE}'latency', which is warn already"),
        (["replay"], "because", f"{ABLE}'replay', which is off already"),
    ],
)
def test_an_override_that_cannot_be_is_refused(names: list[str], reason: str | None, message: str) -> None:
    with pytest.raises(PolicyError, match=f"^{re.escape(message)}$"):
        check_override([parse_policy({}, signed=True)], names, reason)


def test_the_readme_has_the_gates_in_their_order_and_the_start_of_the_slot_among_them() -> None:
    gates = list(GATES)
    gates.insert(gates.index("ready"), "start")
    assert re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE) == gates


@pytest.mark.parametrize("gate", GATES)
def test_the_readme_names_each_gate_with_its_thresholds_and_defaults(gate: str) -> None:
    (row,) = re.findall(rf"^\| `{gate}` \|.*$", README, re.MULTILINE)
    for name, threshold in GATES[gate].thresholds.items():
        assert f"`{name}`" in row
        assert threshold.default is None or f"`{name}` ({threshold.default}" in row
