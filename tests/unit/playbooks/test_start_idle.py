# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting the idle slot: one that fails on a host is stopped on all, and the run ends with one line that says why."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.modelfleet.onprem.plugins.module_utils._verdict import ADVICE

from tests.unit.playbooks.conftest import POLICY, golden

PLAN = {
    "service": "tumour",
    "slot": "green",
    "release": {"name": "2-bbbbbbbbbbbb", "version": "2", "digest": "b" * 64},
    "idle": ["m1", "m2"],
    "kept": [],
    "unready": ["m2"],
    "settings": {},
    "limits": {},
    "baseline_slot": "blue",
    "verdicts": [],
}
REQUEST = {
    "balancers": ["lb1"],
    "hosts": ["m1", "m2"],
    "ready_timeout": 1,
    "policy": POLICY,
    "overrides": [{"gate": "load", "reason": "it fits"}],
}


# What model_slot returns of a slot that did not start.
NO_START = {
    "log": ["division by zero"],
    "gates": [
        {
            "gate": "ready",
            "where": "model-server@tumour-green.service",
            "mode": "enforce",
            "verdict": "fail",
            "expected": "it to start",
            "found": "its process ended",
            "seconds": 2.0,
        }
    ],
}


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
    hosts = [(module, "") for module in ("model_load", "model_probe", "model_slot") for _host in range(2)]
    assert steps(run) == [("lb_server", "ready"), *hosts]


@pytest.mark.parametrize(
    ("options", "stopped", "said"),
    [
        ({"failing": {"model_load": "gate load: found 1"}}, 2, "m1, m2: gate load: found 1"),
        ({"failing": {"model_slot": "it crashed"}}, 2, "m1, m2: it crashed"),
        (
            {"failing": {"model_slot": "it crashed"}, "answering": {"model_slot": 2 * [NO_START]}},
            2,
            "m1, m2: gate start: it crashed; its log ends: division by zero",
        ),
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
    ids=["not loaded", "no start", "no start with its log", "a gate", "a host is gone", "a host is gone and no start"],
)
def test_a_failure_stops_the_release_on_every_host_and_is_said_once(
    start: Callable[..., Any], options: Mapping[str, Any], stopped: int, said: str
) -> None:
    run = start(**options)
    assert run.code != 0
    assert (steps(run).count(("model_slot", "stopped")), ("lb_server", "ready") in steps(run)) == (stopped, False)
    assert run.output.count(f'"msg": "{said}; no request was sent to 2-bbbbbbbbbbbb"') == 1
    assert run.output.count("\nload was overridden: it fits\n") == 1


def test_what_the_gates_found_is_in_the_journal_before_requests_go_there(play: Callable[..., Any]) -> None:
    plan = {**PLAN, "record": ["lb1"], "in_place": [], "rollout": {"id": "20260102T030405Z-0a1b2c3d"}}
    found = {**NO_START["gates"][0], "gate": "golden", "verdict": "pass"}
    answers = {"model_probe": 2 * [{"gates": [found]}]}
    request = {**REQUEST, "action": "deploy", "max_fail_percentage": 0}
    run = play(["start_idle", "move"], request, plan, answering=answers)
    [moved] = [step for step in run.told if step["module"] == "lb_route"]
    assert {each.get("host") for each in moved["gates"] if each["gate"] == "golden"} == {"m1", "m2"}


def test_each_module_that_puts_gates_has_the_whole_policy(start: Callable[..., Any]) -> None:
    put = {step["module"]: step["gates"] for step in start().told if "gates" in step}
    assert put == {"model_load": POLICY, "model_probe": POLICY}


def test_hosts_that_answer_alike_go_on(start: Callable[..., Any]) -> None:
    assert start(answering={"model_probe": [golden(1), golden(1)]}).code == 0


def test_hosts_that_answer_differently_stop_the_release_everywhere(start: Callable[..., Any]) -> None:
    run = start(answering={"model_probe": [golden(1), golden(0)]})
    assert run.code != 0
    assert (steps(run).count(("model_slot", "stopped")), ("lb_server", "ready") in steps(run)) == (2, False)
    said = re.search(r'"msg": "(gate golden: .*; no request was sent to 2-bbbbbbbbbbbb)"', run.output)
    assert said
    assert re.fullmatch(
        r"gate golden: expected the same answers on m1, m2, found m2: row 0: expected [01], found [01] "
        rf"\(expected as on m1\): {re.escape(ADVICE['golden'])}; no request was sent to 2-bbbbbbbbbbbb",
        said[1],
    )
    assert re.search(r"\ngolden +controller +enforce +fail +the same answers on m1, m2", run.output)


def test_several_services_are_one_run_of_each_module_and_stop_together(play: Callable[..., Any]) -> None:
    prices = {**PLAN, "service": "prices", "slot": "blue", "idle": ["m1"], "unready": [], "baseline_slot": "green"}
    prices["release"] = {"name": "1-aaaaaaaaaaaa", "version": "1", "digest": "a" * 64}
    plan = {**PLAN, "service": "tumour, prices", "plans": [PLAN, prices]}
    parts = {"tumour": REQUEST, "prices": {**REQUEST, "overrides": []}}
    run = play("start_idle", {**REQUEST, "parts": parts}, plan, failing={"model_probe": "gate golden: found 1"})
    told = [(step["module"], step.get("state", ""), step["service"]) for step in run.told if "service" in step]
    for step in (("model_load", ""), ("model_slot", ""), ("model_probe", ""), ("model_slot", "stopped")):
        assert (told.count((*step, "tumour")), told.count((*step, "prices"))) == (2, 1)
        # On the host that both are about one run was told of both, in their order.
        assert told[told.index((*step, "prices")) - 1] == (*step, "tumour")
    assert '"msg": "m1, m2: gate golden: found 1; no request was sent to 2-bbbbbbbbbbbb, 1-aaaaaaaaaaaa"' in run.output


JOURNAL = {"begin": ["lb1"], "rollout": {"id": "20260102T030405Z-0a1b2c3d"}}


def test_the_step_and_a_failure_are_written_into_the_journal(play: Callable[..., Any]) -> None:
    plan = {**PLAN, **JOURNAL, "stage": ["m1"]}
    run = play("start_idle", REQUEST, plan, failing={"model_probe": "gate golden: found 1"})
    noted = [
        (step["state"], step.get("step"), step.get("verdict")) for step in run.told if step["module"] == "lb_rollout"
    ]
    assert (run.code != 0, noted) == (True, [("step", "start", None), ("ended", None, "failed")])
    [ended] = [step for step in run.told if step.get("state") == "ended"]
    assert ended["id"] == JOURNAL["rollout"]["id"]
    assert ended["reason"].startswith("m1, m2: gate golden: found 1; no request was sent to 2-bbbbbbbbbbbb")


def test_one_that_took_over_what_is_half_done_is_left_to_whoever_goes_on(play: Callable[..., Any]) -> None:
    plan = {**PLAN, **JOURNAL, "half_done": True}
    run = play("start_idle", REQUEST, plan, failing={"model_probe": "gate golden: found 1"})
    [left] = [step for step in run.told if step["module"] == "lb_rollout"]
    assert (run.code != 0, left["state"]) == (True, "left")
    assert left["reason"] == "m1, m2: gate golden: found 1; the rollout is unfinished"
    assert f'"msg": "{left["reason"]}; resume.yml finishes the rollout, rollback.yml undoes it"' in run.output
    assert run.output.count("\nload was overridden: it fits\n") == 1


def test_what_a_balancer_routes_to_is_not_stopped(play: Callable[..., Any]) -> None:
    plan = {**PLAN, **JOURNAL, "half_done": True, "kept": ["m1"]}
    run = play("start_idle", REQUEST, plan, failing={"model_probe": "gate golden: found 1"})
    # The other host ran nothing before.
    assert (run.code != 0, steps(run).count(("model_slot", "stopped"))) == (True, 1)
    assert ("lb_rollout", "left") in steps(run)


def test_what_has_failed_and_went_back_ends_though_it_took_over_what_is_half_done(play: Callable[..., Any]) -> None:
    undone = {"plan": {"plans": [], "stop": [], "failed": "tumour: no server is UP", "ended": True}}
    run = play("undo", REQUEST, {**PLAN, **JOURNAL, "half_done": True}, facts={"undone": undone})
    assert [step["state"] for step in run.told if step["module"] == "lb_rollout"] == ["ended"]


def test_a_slot_that_does_not_start_is_a_line_of_the_table_and_in_the_journal(play: Callable[..., Any]) -> None:
    answering = {"model_slot": 2 * [NO_START]}
    run = play("start_idle", REQUEST, {**PLAN, **JOURNAL}, failing={"model_slot": "it crashed"}, answering=answering)
    assert re.search(r"\nready +m1, m2 +enforce +fail +it to start +its process ended +2\.00\n", run.output)
    [ended] = [step for step in run.told if step.get("state") == "ended"]
    kept = [(each["host"], each["verdict"]) for each in ended["gates"] if each["gate"] == "ready"]
    assert kept == [("m1", "fail"), ("m2", "fail")]


def test_a_hook_on_failure_has_the_facts_and_cannot_fail_more(play: Callable[..., Any], tmp_path: Path) -> None:
    hook = tmp_path / "hook.yml"
    facts = "{{ rollout.service }} {{ rollout.verdict }} {{ rollout.release }}: {{ rollout.reason }}"
    tasks = [
        {"ansible.builtin.copy": {"content": facts, "dest": str(tmp_path / "hooked"), "mode": "0600"}},
        {"ansible.builtin.fail": {"msg": "no chat"}},
    ]
    hook.write_text(yaml.safe_dump(tasks))
    meant = {"tumour": {"release": "2-bbbbbbbbbbbb", "slot": "green", "was": {"release": None, "slot": None}}}
    rollout = {**JOURNAL["rollout"], "services": meant, "action": "deploy", "strategy": "blue_green", "who": "anna"}
    request = {**REQUEST, "hooks": {"on_failure": [str(hook)]}, "hosts": ["m1", "m2"]}
    run = play("start_idle", request, {**PLAN, **JOURNAL, "rollout": rollout}, failing={"model_slot": "it crashed"})
    assert run.code != 0
    assert (tmp_path / "hooked").read_text().startswith("tumour failed 2-bbbbbbbbbbbb: m1, m2: it crashed")
    assert "hook on_failure: no chat" in run.output
    assert '"msg": "m1, m2: it crashed; no request was sent to 2-bbbbbbbbbbbb"' in run.output
