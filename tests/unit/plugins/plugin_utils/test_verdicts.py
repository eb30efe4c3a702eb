# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts of gates: collected over hosts, compared between them, and laid out."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._verdict import ADVICE
from ansible_collections.modelfleet.onprem.plugins.plugin_utils import verdicts
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.contract import Column, Contract, Output
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.policy import GATES, parse_policy
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.verdicts import (
    collect,
    compare_answers,
    failure,
    judge_contracts,
    timed,
    verdict_lines,
    verdict_of,
)

POLICY = parse_policy({})


def on_host(gate: str, verdict: str = "pass", found: str = "the same", **more: Any) -> dict[str, Any]:
    return {
        "gate": gate,
        "where": f"127.0.0.1:8102/{gate}",
        "verdict": verdict,
        "expected": f"a good {gate}",
        "found": found,
        "seconds": 0.25,
        **more,
    }


def answers(*predictions: Any, probabilities: Any = None) -> dict[str, Any]:
    tolerance = {"relative": 0.0, "absolute": 0.1}
    return {"predictions": list(predictions), "probabilities": probabilities, "tolerance": tolerance}


def test_what_the_controller_took_is_in_its_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "time", SimpleNamespace(monotonic=iter([5.0, 5.25]).__next__))
    (found,) = timed(lambda: [verdict_of("contract", "enforce", True, "a", "b")])
    assert (found["gate"], found["seconds"]) == ("contract", 0.25)


def test_verdicts_are_in_the_order_of_the_gates_with_their_hosts_and_modes() -> None:
    hosts = [{"m1": [on_host("digest")]}, {"m1": [on_host("golden", mode="warn")], "m2": [on_host("ready")]}]
    found = collect(POLICY, [verdict_of("contract", "enforce", True, "a", "b")], hosts)
    assert [(each["gate"], each.get("host"), each["mode"], each["verdict"]) for each in found] == [
        ("digest", "m1", "enforce", "pass"),
        ("signature", None, "off", "off"),
        ("contract", None, "enforce", "pass"),
        ("ready", "m2", "enforce", "pass"),
        ("golden", "m1", "warn", "pass"),
        ("replay", None, "off", "off"),
    ]


def test_the_judge_comes_after_the_gates_and_keeps_its_figures() -> None:
    judge = {**verdict_of("judge", "enforce", False, "no worse", "worse"), "details": {"share": 500}}
    found = collect(POLICY, [judge], [{"m1": [on_host("golden")]}])
    assert [each["gate"] for each in found] == ["signature", "golden", "replay", "judge"]
    assert found[-1] == judge
    assert verdict_lines(found)[-1].split()[:4] == ["judge", "controller", "enforce", "fail"]


def test_a_gate_that_was_not_put_is_no_verdict() -> None:
    found = collect(POLICY, [], [{"m1": [on_host("ready", "fail"), on_host("golden", "not run")]}])
    assert [each["gate"] for each in found] == ["signature", "ready", "replay"]


@pytest.mark.parametrize(("mode", "verdict"), [("enforce", "fail"), ("warn", "warn")])
def test_what_does_not_pass_fails_only_where_it_is_enforced(mode: str, verdict: str) -> None:
    assert verdict_of("contract", mode, False, "a", "b")["verdict"] == verdict
    assert verdict_of("contract", mode, True, "a", "b")["verdict"] == "pass"


def test_every_gate_says_what_may_be_done_when_it_refuses_a_release() -> None:
    # What may be done about a signature differs with what is wrong with it, and it says so itself.
    assert [*ADVICE, "signature"] == sorted(GATES, key=lambda gate: gate == "signature")


def test_a_failure_is_one_line_of_all_that_failed() -> None:
    verdicts = [on_host("ready"), on_host("golden", "fail", "1"), on_host("latency", "warn"), on_host("load", "fail")]
    assert failure(verdicts) == (
        f"gate golden: 127.0.0.1:8102/golden: expected a good golden, found 1: {ADVICE['golden']}; "
        f"gate load: 127.0.0.1:8102/load: expected a good load, found the same: {ADVICE['load']}"
    )
    assert failure(verdicts[:1]) is None


@pytest.mark.parametrize(
    ("hosts", "found", "odd"),
    [
        ({"m1": answers(1.0), "m2": answers(1.05), "m3": answers(1.0)}, "the same", None),
        (
            {"m1": answers(5.0), "m2": answers(1.0), "m3": answers(1.05)},
            "m1: row 0: expected 1.0, found 5.0 (tolerance: relative 0, absolute 0.1) (expected as on m2, m3)",
            ["m1"],
        ),
        (
            {"m1": answers("a"), "m2": answers("b")},
            'm2: row 0: expected "a", found "b" (expected as on m1)',
            ["m2"],
        ),
        (
            {
                "m1": answers(1, probabilities=[[0.5]]),
                "m2": answers(1, probabilities=[[0.5]]),
                "m3": answers(1, probabilities=[[0.9]]),
            },
            "m3: probabilities of row 0, output 0: expected 0.5, found 0.9 (tolerance: relative 0, absolute 0.1) "
            "(expected as on m1, m2)",
            ["m3"],
        ),
        (
            {"m1": answers(1, 2), "m2": answers(1), "m3": answers(1, 2)},
            "m2: expected 2 rows, found 1 (expected as on m1, m3)",
            ["m2"],
        ),
    ],
    ids=["within tolerance", "the first", "two hosts", "probabilities", "rows"],
)
def test_a_host_that_answers_unlike_most_others_is_named(hosts: Any, found: str, odd: list[str] | None) -> None:
    (verdict,) = compare_answers("enforce", hosts)
    assert (verdict["gate"], verdict["where"], verdict["found"]) == ("golden", "controller", found)
    assert verdict["expected"] == f"the same answers on {', '.join(hosts)}"
    assert (verdict["verdict"], verdict.get("details")) == ("fail" if odd else "pass", {"hosts": odd} if odd else None)


def test_one_host_or_a_gate_that_is_off_compares_nothing() -> None:
    assert compare_answers("enforce", {"m1": answers(1)}) == []
    assert compare_answers("off", {"m1": answers(1), "m2": answers(2)}) == []
    assert compare_answers("warn", {"m1": answers(1), "m2": answers(2)})[0]["verdict"] == "warn"


def test_hosts_that_found_the_same_are_one_line() -> None:
    names = ("m1", "m2", "m3", "m4", "m5", "m6")
    golden = {name: [on_host("golden", seconds=0.1 * place)] for place, name in enumerate(names[:5])}
    golden["m6"] = [on_host("golden", "fail", found="x" * 100)]
    policy = {"digest": {"mode": "enforce"}, "golden": {"mode": "enforce"}, "replay": {"mode": "off"}}
    overrides = [{"gate": "contract", "reason": "clients know"}]
    assert verdict_lines(collect(policy, [], [golden]), policy, overrides) == [
        f"gate    where                      mode     verdict  expected       found{' ' * 57}seconds",
        f"digest  -                          enforce  not run  -              -{' ' * 61}-",
        f"golden  m1, m2, m3, m4 and 1 more  enforce  pass     a good golden  the same{' ' * 54}0.40",
        f"golden  m6                         enforce  fail     a good golden  {'x' * 59}…  0.25",
        f"replay  -                          off      off      -              -{' ' * 61}-",
        "contract was overridden: clients know",
    ]


def test_without_a_policy_only_verdicts_are_lines() -> None:
    assert [line.split()[0] for line in verdict_lines([on_host("golden", mode="enforce")])] == ["gate", "golden"]
    assert [line.split()[0] for line in verdict_lines([], POLICY)] == ["gate", *GATES]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("c0", r"compatible: (column 'c[0-4]': range none, was 0 to 1 \([^;]*\); ){5}and 3 more that break nothing"),
        ("x", r"breaking: column 'c0': renamed, as it seems, to 'x': [^;]*; and 8 more that break nothing"),
    ],
)
def test_what_breaks_is_told_in_full_and_of_the_rest_how_much_there_is(name: str, found: str) -> None:
    outputs = (Output("predictions", "int64", (-1,)),)
    old = Contract(True, tuple(Column(f"c{place}", "float64", False, 0, 1) for place in range(8)), outputs)
    columns = [Column(f"c{place}", "float64") for place in range(1, 8)]
    verdict = judge_contracts(
        POLICY["contract"], {"1-a": old}, Contract(True, (Column(name, "float64"), *columns), outputs)
    )
    assert re.fullmatch(found, verdict["found"])
    assert len(verdict["details"]["differences"]) == (9 if name == "x" else 8)
