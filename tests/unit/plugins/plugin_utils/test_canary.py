# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A canary as the inventory defines it, and what follows from what was seen of it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.canary import (
    LONGEST_WINDOW,
    Canary,
    Step,
    add_up,
    decide,
    make_policy,
    parse_canary,
)


def test_a_canary_needs_to_say_nothing() -> None:
    assert parse_canary("canary", {}) == Canary()


def test_a_canary_may_say_everything() -> None:
    found = parse_canary(
        "canary",
        {
            "steps": [
                {"share": 0.01, "for": "90s"},
                {"share": 5, "for": "2m"},
                {"share": 25.5, "for": 3600},
                {"share": 100},
            ],
            "by": "cookie:session",
            "without_key": "chance",
            "only": ["kim@example.org", 7],
            "force_header": "X-Canary",
            "extend": 1,
            "inconclusive": "pass",
            "judge": {"errors": {"margin": 0.01}, "confidence": 0.9},
        },
    )
    assert found.steps == (Step(1, 90), Step(500, 120), Step(2550, 3600))
    assert (found.by, found.name, found.without_key, found.only) == (
        "cookie",
        "session",
        "chance",
        ("kim@example.org", "7"),
    )
    assert (found.force_header, found.extend, found.inconclusive, found.looks) == ("X-Canary", 1, "pass", 6)
    assert (found.policy.errors.margin, found.policy.errors.level, found.policy.confidence) == (0.01, 0.014, 0.9)
    assert make_policy(found.plan()["policy"]) == found.policy


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("steps", [], "canary.steps: expected a list such as [{share: 1, for: 60s}, {share: 100}], found []"),
        ("steps", [5], "canary.steps, step 1: expected a share and how long it is held, found 5"),
        ("steps", [{"share": 0.001, "for": 1}], "expected a share from 0.01 to 100 percent in hundredths, found 0.001"),
        ("steps", [{"share": 0.015, "for": 1}], "found 0.015"),
        ("steps", [{"share": 5}], "canary.steps, step 1: expected for in seconds, or as 60s, 2m or 1h, found None"),
        ("steps", [{"share": 5, "for": "1d"}], "found '1d'"),
        ("steps", [{"share": 5, "while": 1}], "canary.steps, step 1: expected the keys share, for, found 'while'"),
        ("steps", [{"share": 5, "for": 1}, {"share": 5, "for": 1}], "step 2: expected more than 5 %, found 5 %"),
        ("steps", [{"share": 100}], "step 1: expected 100 % at the end of other steps alone, and without for"),
        ("steps", [{"share": 5, "for": 1}, {"share": 100, "for": 1}], "step 2: expected 100 % at the end"),
        ("by", "header", "canary.by: expected header:NAME, cookie:NAME or address, found 'header'"),
        ("by", "header:a b", "found 'header:a b'"),
        ("without_key", "maybe", "canary.without_key: expected chance or never, found 'maybe'"),
        ("only", [], "canary.only: expected a list of 1 to 1000 users, found []"),
        ("only", ["a b"], "canary.only: expected users of letters, digits and @._:+=/-, found 'a b'"),
        ("force_header", "a b", "canary.force_header: expected the name of a header or null, found 'a b'"),
        ("extend", -1, "canary.extend: expected a whole number from 0 to 20, found -1"),
        ("inconclusive", "retry", "canary.inconclusive: expected pass or fail, found 'retry'"),
        (
            "judge",
            {"speed": {}},
            "canary.judge: expected the keys errors, latency, predictions, confidence, found 'speed'",
        ),
        ("judge", {"errors": {"level": "low"}}, "canary.judge: expected a number, found 'low'"),
        ("judge", {"errors": {"level": 2}}, "canary.judge: level: expected a number between 0 and 0.5, found 2.0"),
        ("colour", "red", "canary: expected the keys steps, by, .*, found 'colour'"),
    ],
)
def test_what_cannot_be_is_refused(key: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message if ".*" in message else None) as refused:
        parse_canary("canary", {key: value})
    assert ".*" in message or message in str(refused.value)


def test_a_long_step_has_several_windows_and_is_judged_at_the_end_of_each_time() -> None:
    windows = Canary(extend=1).windows(Step(100, 2 * LONGEST_WINDOW + 1))
    assert [window["seconds"] for window in windows] == 2 * [81, 80, 80]
    assert [window["judged"] for window in windows] == 2 * [False, False, True]
    assert [window["last"] for window in windows] == [False] * 5 + [True]


def side(requests: int, errors: int = 0, ones: float = 0.5, slow: int = 0) -> dict[str, Any]:
    counts = {"1": int(ones * requests), "0": requests - int(ones * requests)}
    latency = {"0.01": requests - slow, "0.1": requests - slow // 2, "+Inf": requests}
    return {"requests": requests, "errors": errors, "latency": latency, "predictions": counts}


def seen(canary: Any = None, baseline: Any = None, **said: Any) -> dict[str, Any]:
    sides = {"baseline": baseline or side(20_000), "canary": canary or side(20_000)}
    return {"control": "go", "by": "", "failing": "", "sides": sides, **said}


PLAN = parse_canary("canary", {"steps": [{"share": 5, "for": 1}]}).plan()
FIRST, LAST = PLAN["steps"][0]["windows"][0], PLAN["steps"][0]["windows"][-1]


@pytest.mark.parametrize(
    ("watched", "window", "outcome", "line"),
    [
        ({"lb1": seen()}, FIRST, "pass", "errors: pass: canary 0 of 20000"),
        ({"lb1": seen()}, {**FIRST, "judged": False}, "wait", "the step goes on"),
        ({"lb1": seen(side(20))}, FIRST, "wait", "errors: inconclusive: canary 0 of 20 "),
        ({"lb1": seen(side(20))}, LAST, "fail", "errors: inconclusive: canary 0 of 20 "),
        ({"lb1": seen(side(0))}, LAST, "fail", "errors: inconclusive: canary 0 of 0 "),
        ({"lb1": seen(side(5000, errors=150))}, FIRST, "fail", "errors: fail: canary 150 of 5000 (3.00%)"),
        ({"lb1": seen(side(5000, ones=0.9))}, FIRST, "fail", "predictions: fail: canary 1: 4500 of 5000 (90.00%)"),
        ({"lb1": seen(side(5000, slow=3000))}, FIRST, "fail", "latency: fail: "),
        ({"lb1": seen(), "lb2": seen(control="abort", by="kim")}, FIRST, "fail", "aborted by kim"),
        ({"lb1": seen(control="promote", by="kim")}, FIRST, "promote", "promoted by kim"),
        ({"lb1": seen(control="promote", by="kim", failing="it burns")}, FIRST, "fail", "lb1: it burns"),
        ({"lb1": seen(control="pause", by="kim")}, FIRST, "pass", "errors: pass"),
    ],
)
def test_what_follows_from_a_window(watched: Any, window: Any, outcome: str, line: str) -> None:
    found = decide(PLAN, window, watched)
    assert found.outcome == outcome
    assert found.line.startswith(line)


def test_a_policy_may_pass_what_the_judge_cannot_tell() -> None:
    assert decide({**PLAN, "inconclusive": "pass"}, LAST, {"lb1": seen(side(20))}).outcome == "pass"


def test_the_figures_of_a_step_add_up_until_they_tell() -> None:
    before: dict[str, Any] = {}
    outcomes = []
    for _window in range(8):
        found = decide(PLAN, FIRST, {"lb1": seen(side(700), side(700))}, before)
        before = dict(found.figures)
        outcomes.append(found.outcome)
    assert outcomes[0] == "wait"
    assert outcomes[-1] == "pass"
    assert before["canary"]["latency"]["+Inf"] == 8 * 700


def test_balancers_add_up_and_model_servers_do_not() -> None:
    """Each balancer counts what it sent, and has read the same model servers as the others."""
    found = decide(PLAN, {**FIRST, "judged": False}, {"lb1": seen(side(600)), "lb2": seen(side(600))})
    assert (found.figures["canary"]["requests"], found.figures["canary"]["latency"]["+Inf"]) == (1200, 600)


def test_without_the_figures_of_a_balancer_nothing_is_decided() -> None:
    with pytest.raises(ValueError, match=r"expected figures of every balancer, found none of lb2 \(it is gone\)"):
        decide(PLAN, FIRST, {"lb1": seen(), "lb2": {"msg": "it is gone"}})


def test_answers_without_metrics_are_not_judged() -> None:
    with pytest.raises(ValueError, match=r"found none of those that gave 700 answers: with API keys a service needs m"):
        decide(PLAN, FIRST, {"lb1": seen({**side(700), "latency": {}})})


def test_a_service_without_counted_predictions_is_judged_by_the_rest() -> None:
    bare = {**side(20_000), "predictions": {}}
    assert decide(PLAN, FIRST, {"lb1": seen(bare, bare)}).outcome == "pass"


def test_adding_nothing_up_is_nothing() -> None:
    assert add_up([]) == {}
