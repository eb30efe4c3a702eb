# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""rollout_gates: what the gates of a rollout found, in one result."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.action import rollout_gates
from ansible_collections.modelfleet.onprem.plugins.module_utils._verdict import ADVICE
from ansible_collections.modelfleet.onprem.plugins.plugin_utils import verdicts
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.policy import parse_policy


def answers(value: int) -> dict[str, Any]:
    return {"predictions": [value], "probabilities": None, "tolerance": {"relative": 0.0, "absolute": 0.0}}


def given(policy: Any, controller: Any = (), **found: Any) -> dict[str, Any]:
    """The arguments for one service; ``found`` has the result of model_probe by host."""
    return {
        "parts": {"tumour": {"policy": parse_policy(policy), "overrides": [], "verdicts": list(controller)}},
        "plans": [{"service": "tumour", "verdicts": []}],
        "found": {host: {"tumour": {"gated": result}} for host, result in found.items()},
    }


@pytest.mark.parametrize("check_mode", [False, True], ids=["run", "check mode"])
def test_verdicts_of_controller_and_hosts_are_one_table(act_here: Callable[..., Any], check_mode: bool) -> None:
    verdict = {"gate": "ready", "where": "127.0.0.1:1", "verdict": "pass", "expected": "x", "found": "x", "seconds": 0}
    of_controller = [{**verdict, "gate": "contract", "where": "controller"}]
    of_host = {"gates": [verdict]}
    result = act_here(rollout_gates, check_mode=check_mode, **given({}, of_controller, m1=of_host, m2=of_host))
    assert (result["changed"], result["disagreement"]) == (False, None)
    assert [each["gate"] for each in result["verdicts"]] == ["signature", "contract", "ready", "ready", "replay"]
    assert "ready        m1, m2      enforce  pass     x         x      0.00" in result["table"]


@pytest.mark.parametrize(
    ("mode", "disagreement"),
    [
        (
            "enforce",
            "gate golden: expected the same answers on m1, m2, "
            f"found m2: row 0: expected 1, found 0 (expected as on m1): {ADVICE['golden']}",
        ),
        ("warn", None),
        ("off", None),
    ],
)
def test_hosts_that_answer_differently_end_a_rollout_where_golden_is_enforced(
    act_here: Callable[..., Any], mode: str, disagreement: str | None
) -> None:
    found = {host: {"golden_answers": answers(value)} for host, value in (("m1", 1), ("m2", 0))}
    result = act_here(rollout_gates, **given({"golden": mode}, **found))
    assert result["disagreement"] == disagreement


def test_the_seconds_of_the_comparison_are_measured(
    act_here: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "time", SimpleNamespace(monotonic=iter([5.0, 5.25]).__next__))
    found = {host: {"golden_answers": answers(1)} for host in ("m1", "m2")}
    result = act_here(rollout_gates, **given({"golden": "enforce"}, **found))
    assert [each["seconds"] for each in result["verdicts"] if each["gate"] == "golden"] == [0.25]


@pytest.mark.parametrize("show", [True, False])
def test_the_table_is_printed_where_that_is_asked_for(
    act_here: Callable[..., Any], capsys: pytest.CaptureFixture[str], show: bool
) -> None:
    table = act_here(rollout_gates, **given({}), show=show)["table"]
    assert capsys.readouterr().out == ("\n".join(table) + "\n" if show else "")


def test_before_there_is_a_plan_there_are_the_controllers_verdicts(act_here: Callable[..., Any]) -> None:
    verdict = {"gate": "digest", "where": "controller", "verdict": "fail", "expected": "x", "found": "y", "seconds": 0}
    arguments = {name: value for name, value in given({}, [verdict]).items() if name != "plans"}
    result = act_here(rollout_gates, **arguments)
    assert (result["verdicts"][0]["gate"], result["verdicts"][0]["verdict"]) == ("digest", "fail")
    assert result["table"][1].split()[:4] == ["digest", "controller", "enforce", "fail"]


def test_several_services_have_a_table_each_and_verdicts_that_name_them(act_here: Callable[..., Any]) -> None:
    verdict = {"gate": "ready", "where": "127.0.0.1:1", "verdict": "pass", "expected": "x", "found": "x", "seconds": 0}
    part = {"policy": parse_policy({}), "overrides": [], "verdicts": []}
    result = act_here(
        rollout_gates,
        parts={"tumour": part, "prices": part},
        plans=[{"service": name, "verdicts": []} for name in ("prices", "tumour")],
        found={"m1": {"prices": {"gated": {"gates": [verdict]}}}},
    )
    assert [row for row in result["table"] if row.endswith(":")] == ["prices:", "tumour:"]
    assert [each["service"] for each in result["verdicts"] if each["gate"] == "ready"] == ["prices"]
