# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks after a controller has died: a deploy with the idle slot started on both hosts, and nothing moved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.plugins.states import ONE, TWO, balancer_state, host_state, slot_state

DIED: dict[str, Any] = {
    "id": "20260102T030400Z-00000009",
    "action": "deploy",
    "who": "bob",
    "from": "elsewhere",
    "strategy": "blue_green",
    "verdict": "running",
    "held": True,
    "by": "bob",
    "since": "2026-01-02T03:04:00Z",
    "step": "start",
    "reason": "",
    "services": {
        "tumour": {
            "release": TWO.name,
            "digest": TWO.digest,
            "slot": "green",
            "bundle": "/gone/2",
            "was": {"release": ONE.name, "slot": "blue"},
        }
    },
}

GATED = [(module, "") for module in ("model_load", "model_slot", "model_probe") for _host in range(2)]
"""What a release is put through on two hosts before it serves."""


def says() -> dict[str, Any]:
    balancer = balancer_state(blue=ONE)
    balancer["services"]["tumour"] |= {"rollout": DIED, "revision": "r1"}
    host = host_state(ONE, TWO, blue=slot_state(ONE), green=slot_state(TWO, "green"))
    return {"lb_info": {"load_balancer": balancer}, "model_info": {"model_host": host}}


def steps(run: Any) -> list[tuple[str, str]]:
    """What was told to whom changes something, in order."""
    print(run.output)
    return [
        (step["module"], step.get("state") or step.get("targets", {}).get("tumour", {}).get("slot") or "")
        for step in run.told
        if step["module"] not in ("lb_info", "model_info")
    ]


def begun(run: Any) -> Any:
    return next(step["rollout"] for step in run.told if step.get("state") == "begun")


def test_resume_moves_the_route_and_ends_without_the_bundle(command: Callable[..., Any]) -> None:
    run = command("resume", says())
    assert steps(run) == [("lb_rollout", "begun"), *GATED, ("lb_route", ""), ("lb_rollout", "ended")]
    assert run.code == 0
    rollout = begun(run)
    assert (rollout["takes_over"], rollout["undoes"], rollout["action"]) == ([DIED["id"]], None, "deploy")
    [route] = [step for step in run.told if step["module"] == "lb_route"]
    assert (route["services"], route["rollout"]) == ({"tumour": {"slot": "green", "release": TWO.name}}, rollout["id"])
    assert f"tumour serves {TWO.name} from green" in run.output


@pytest.mark.parametrize("name", ["retire", "resume"])
def test_a_slot_is_retired_while_its_service_is_held(command: Callable[..., Any], name: str) -> None:
    balancer = balancer_state(blue=TWO, green=ONE, history=[ONE])
    meant = {**DIED["services"]["tumour"], "slot": "blue", "was": {"release": TWO.name, "slot": "blue"}}
    died = {**DIED, "action": "retire", "strategy": None, "services": {"tumour": meant}}
    balancer["services"]["tumour"] |= {"rollout": died if name == "resume" else None, "revision": "r1"}
    host = host_state(ONE, TWO, blue=slot_state(TWO), green=slot_state(ONE, "green"))
    hooks = {"before_deploy": ["webhook"], "after_deploy": ["webhook"]}
    run = command(
        name, {"lb_info": {"load_balancer": balancer}, "model_info": {"model_host": host}}, modelfleet_hooks=hooks
    )
    assert steps(run) == [
        ("lb_rollout", "begun"),
        ("lb_server", "drain"),
        *[("model_slot", "stopped")] * 2,
        ("lb_server", "ready"),
        ("lb_rollout", "ended"),
    ]
    assert run.code == 0
    assert (begun(run)["action"], [step["slot"] for step in run.told if step["module"] == "model_slot"]) == (
        "retire",
        ["green"] * 2,
    )


def test_what_is_started_listens_where_its_host_is_reached(command: Callable[..., Any]) -> None:
    run = command("resume", says(), modelfleet_address="fd00::1")
    assert run.code == 0
    binds = {step["settings"]["BIND"] for step in run.told if step["module"] == "model_slot"}
    assert binds == {"[::]:8102"}


@pytest.mark.parametrize("unit", ["active", "failed"], ids=["answers wrongly", "crashed"])
@pytest.mark.parametrize(("strategy", "out"), [("rolling", ["m1"]), ("basic", ["m1", "m2"])])
def test_resume_in_place_puts_back_what_served_before_the_rollout_that_died(
    command: Callable[..., Any], tmp_path: Path, strategy: str, out: list[str], unit: str
) -> None:
    (tmp_path / "model_probe").write_text("gate golden: expected the answers to 20 golden rows, found row 0")
    left = slot_state(TWO, unit=unit, ready=unit == "active")
    balancer = balancer_state(blue=ONE, admin={("blue", host): "maint" for host in out})
    meant = {**DIED["services"]["tumour"], "slot": "blue"}
    died = {**DIED, "strategy": strategy, "services": {"tumour": meant}}
    balancer["services"]["tumour"] |= {"rollout": died, "revision": "r1"}
    host = host_state(ONE, TWO, blue=left)
    run = command("resume", {"lb_info": {"load_balancer": balancer}, "model_info": {"model_host": host}})
    replaced = steps(run)
    assert run.code != 0
    assert replaced[1] == ("lb_server", "maint")
    # The other host may serve the release already, and then nothing has ended.
    is_half_done = strategy == "rolling" and unit == "active"
    assert replaced[-2:] == [("lb_server", "ready"), ("lb_rollout", "left" if is_half_done else "ended")]
    batch = len(next(step["servers"] for step in run.told if step["module"] == "lb_server"))
    slots = [(step.get("release"), step.get("state")) for step in run.told if step["module"] == "model_slot"]
    assert slots == [(TWO.name, None)] * batch + [(ONE.name, "started")] * batch


def test_resume_after_the_move_restarts_nothing_for_other_settings(command: Callable[..., Any]) -> None:
    state = says()
    host = host_state(ONE, TWO, blue=slot_state(ONE), green=slot_state(TWO, "green", limits={"memory_max": "1G"}))
    state["model_info"]["model_host"] = host
    service = state["lb_info"]["load_balancer"]["services"]["tumour"]
    service["slot"] = "green"
    service["pools"]["green"]["release"] = TWO.name
    run = command("resume", state)
    assert steps(run) == [("lb_rollout", "begun"), ("lb_route", ""), ("lb_rollout", "ended")]
    assert run.code == 0


@pytest.mark.parametrize("playbook", ["resume", "rollback"])
def test_a_rollout_that_moved_one_balancer_is_held_until_it_comes_to_an_end(
    command: Callable[..., Any], tmp_path: Path, playbook: str
) -> None:
    (tmp_path / "model_probe").write_text("gate golden: expected the answers to 20 golden rows, found row 0")
    state = says()
    # A host of each slot has crashed since.
    crashed = {"unit": "failed", "ready": False}
    slots = {"blue": slot_state(ONE, **crashed), "green": slot_state(TWO, "green", **crashed)}
    state["model_info"]["model_host"] = host_state(ONE, TWO, **slots)
    service = state["lb_info"]["load_balancer"]["services"]["tumour"]
    service["slot"] = "green"
    service["pools"]["green"]["release"] = TWO.name
    cold = {"cold": {"tumour": {"release": None, "reason": "held"}}, "rolled_back": {}, "revisions": {}}
    run = command(playbook, {**state, "lb_rollback": cold})
    assert run.code != 0
    assert steps(run)[-1] == ("lb_rollout", "left")
    assert "; resume.yml finishes the rollout, rollback.yml undoes it" in " ".join(run.output.split())


def test_rollback_stops_what_was_started_and_ends(command: Callable[..., Any]) -> None:
    cold = {"cold": {"tumour": {"release": None, "reason": "held"}}, "rolled_back": {}, "revisions": {}}
    run = command("rollback", {**says(), "lb_rollback": cold})
    assert steps(run) == [
        ("lb_rollback", ""),
        ("lb_rollout", "begun"),
        ("lb_rollback", "blue"),
        ("lb_server", "drain"),
        *[("model_slot", "stopped")] * 2,
        ("lb_server", "ready"),
        ("lb_rollout", "ended"),
    ]
    assert run.code == 0
    assert (begun(run)["undoes"], begun(run)["action"]) == (DIED["id"], "rollback")
    assert f"tumour went back from {TWO.name} to {ONE.name} in blue" in run.output


def test_a_warm_rollback_is_one_task_on_the_balancers(command: Callable[..., Any]) -> None:
    moved = {"cold": {}, "rolled_back": {"tumour": {"from": TWO.name, "to": ONE.name, "slot": "blue"}}}
    run = command("rollback", {"lb_rollback": {**moved, "revisions": {}}})
    assert (run.code, [step["module"] for step in run.told]) == (0, ["lb_rollback"])
    assert {"id", "who", "from", "process"} == set(run.told[0]["begin"])


def cold_says() -> dict[str, Any]:
    """Two serves from green, and one, which it came after, lies on the hosts and runs nowhere."""
    balancer = balancer_state("green", history=[ONE], green=TWO)
    balancer["services"]["tumour"] |= {"rollout": None, "revision": "r1"}
    host = host_state(ONE, TWO, green=slot_state(TWO, "green"))
    cold = {"cold": {"tumour": {"release": ONE.name, "reason": "no server is UP"}}, "rolled_back": {}, "revisions": {}}
    return {"lb_info": {"load_balancer": balancer}, "model_info": {"model_host": host}, "lb_rollback": cold}


def test_a_cold_rollback_moves_once_the_release_was_started_and_gated(command: Callable[..., Any]) -> None:
    run = command("rollback", cold_says())
    assert run.code == 0
    assert steps(run) == [
        ("lb_rollback", ""),
        ("lb_rollout", "begun"),
        *GATED,
        ("lb_rollback", "blue"),
        ("lb_rollout", "ended"),
    ]
    asked, moved = [step for step in run.told if step["module"] == "lb_rollback"]
    assert ("targets" in asked, moved["targets"], moved["cold_ok"]) == (
        False,
        {"tumour": {"slot": "blue", "release": ONE.name}},
        False,
    )
    assert {(step["slot"], step["release"]) for step in run.told if step["module"] == "model_slot"} == {
        ("blue", ONE.name)
    }


def test_a_cold_rollback_whose_release_fails_a_gate_moves_nothing(command: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "model_probe").write_text("gate golden: expected the answers to 20 golden rows, found row 0")
    run = command("rollback", cold_says())
    assert run.code != 0
    assert steps(run) == [
        ("lb_rollback", ""),
        ("lb_rollout", "begun"),
        *GATED,
        *[("model_slot", "stopped")] * 2,
        ("lb_rollout", "ended"),
    ]
    assert (
        "m1, m2: gate golden: expected the answers to 20 golden rows, found row 0; no request was sent to"
        in " ".join(run.output.split())
    )
    assert [step["verdict"] for step in run.told if step.get("state") == "ended"] == ["failed"]


def in_place_says() -> dict[str, Any]:
    """Two serves from the blue group, where it replaced one in batches; nobody knows what the green group has."""
    state = cold_says()
    balancer = balancer_state(history=[ONE], blue=TWO)
    balancer["services"]["tumour"] |= {"rollout": None, "revision": "r1"}
    host = host_state(ONE, TWO, blue=slot_state(TWO))
    return {**state, "lb_info": {"load_balancer": balancer}, "model_info": {"model_host": host}}


def test_a_host_group_goes_back_in_place_in_batches(command: Callable[..., Any]) -> None:
    run = command("rollback", in_place_says(), beside="m3", gone=["m3"])
    batch = [("lb_server", "maint"), *GATED[::2], ("lb_server", "ready")]
    assert steps(run) == [
        ("lb_rollback", ""),
        ("lb_rollout", "begun"),
        *batch * 2,
        ("lb_rollback", "blue"),
        ("lb_rollout", "ended"),
    ]
    assert run.code == 0
    assert [step["servers"] for step in run.told if step["module"] == "lb_server"] == [
        *[["tumour_blue/m1"]] * 2,
        *[["tumour_blue/m2"]] * 2,
    ]
    assert {step["release"] for step in run.told if step["module"] == "model_slot"} == {ONE.name}


def test_a_host_group_that_goes_back_in_place_and_fails_there_runs_again_what_served(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "model_probe").write_text("gate golden: expected the answers to 20 golden rows, found row 0")
    run = command("rollback", in_place_says(), beside="m3", gone=["m3"])
    assert run.code != 0
    assert steps(run)[-3:] == [("model_slot", "started"), ("lb_server", "ready"), ("lb_rollout", "ended")]
    assert [step["release"] for step in run.told if step["module"] == "model_slot"] == [ONE.name, TWO.name]


def test_what_is_to_come_before_traffic_comes_before_a_batch_goes_back(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    hook = tmp_path / "hook.yml"
    hook.write_text("- ansible.builtin.fail: {msg: not on a Friday}")
    hooks = {"before_traffic": [str(hook)]}
    run = command("rollback", in_place_says(), beside="m3", gone=["m3"], modelfleet_hooks=hooks)
    assert run.code != 0
    assert steps(run) == [("lb_rollback", ""), ("lb_rollout", "begun"), ("lb_rollout", "ended")]
    assert "hook before_traffic: not on a Friday" in run.output


CANARY = {**DIED, "strategy": "canary", "step": "canary 5 % started"}


def canary_says(**changed: Any) -> dict[str, Any]:
    """As ``says``, of a canary whose share has been taken away just now."""
    state = says()
    service = state["lb_info"]["load_balancer"]["services"]["tumour"]
    service |= {"rollout": CANARY, **changed}
    service["pools"]["green"]["release"] = TWO.name
    ended = {"ended": {"tumour": {"share": 500}}, "cold": {}, "rolled_back": {}, "revisions": {}}
    given = {"shares": {"tumour": {"before": 500, "after": 0}}}
    return {**state, "lb_rollback": ended, "lb_canary": given}


UNDO = [
    ("lb_rollout", "begun"),
    ("lb_rollback", "blue"),
    ("lb_server", "drain"),
    *[("model_slot", "stopped")] * 2,
    ("lb_server", "ready"),
    ("lb_rollout", "ended"),
]


@pytest.mark.parametrize(
    ("playbook", "first"), [("rollback", [("lb_rollback", "")]), ("abort", [("lb_control", ""), ("lb_canary", "")])]
)
@pytest.mark.parametrize("alive", [False, True], ids=["dead", "alive"])
def test_a_canary_ends_and_is_undone_if_its_deploy_has_died(
    command: Callable[..., Any], playbook: str, first: list[Any], alive: bool
) -> None:
    run = command(playbook, canary_says(watched=alive))
    assert (run.code, steps(run)) == (0, first if alive else [*first, *UNDO])
    said = {
        ("rollback", True): "tumour sends nobody to the canary any more, which its deploy stops",
        ("rollback", False): f"tumour went back from {TWO.name} to {ONE.name} in blue",
        ("abort", True): "canary any more, which had 5.0 %; its deploy stops it",
        ("abort", False): "canary any more, which had 5.0 %; its deploy was cut short and is undone",
    }
    assert said[playbook, alive] in " ".join(run.output.split())
    if not alive:
        assert (begun(run)["undoes"], begun(run)["action"]) == (CANARY["id"], "rollback")


@pytest.mark.parametrize("playbook", ["rollback", "abort"])
def test_a_canary_whose_deploy_has_ended_meanwhile_is_not_gone_back_from_further(
    command: Callable[..., Any], playbook: str
) -> None:
    run = command(playbook, canary_says(rollout={**CANARY, "held": False}))
    assert run.code == 0
    assert [step for step in steps(run) if step[0] in ("lb_rollout", "model_slot") or step[1]] == []


def test_a_canary_that_is_watched_from_elsewhere_is_not_resumed(command: Callable[..., Any]) -> None:
    run = command("resume", canary_says(watched=True))
    assert run.code != 0
    assert "which watches its canary still" in run.output


def test_a_service_that_nothing_holds_cannot_be_resumed(command: Callable[..., Any]) -> None:
    state = says()
    state["lb_info"]["load_balancer"]["services"]["tumour"]["rollout"] = None
    run = command("resume", state)
    assert run.code != 0
    assert "tumour: expected a rollout that was cut short, found none in the journals" in run.output


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("on", [("maint", ["tumour_blue/m1", "tumour_green/m1"])]),
        ("off", [("ready", ["tumour_blue/m1"]), ("ready", ["tumour_green/m1"])]),
    ],
)
def test_a_host_is_taken_out_of_all_its_pools_and_brought_back(
    command: Callable[..., Any], state: str, told: list[tuple[str, list[str]]]
) -> None:
    seen = says()
    seen["lb_info"]["load_balancer"]["services"]["tumour"]["rollout"] = None
    run = command("maintenance", seen, service=None, host="m1", state=state)
    changes = [(step["state"], step["servers"]) for step in run.told if step["module"] == "lb_server"]
    assert (run.code, changes) == (0, told)


def test_a_host_of_a_service_that_a_rollout_holds_stays(command: Callable[..., Any]) -> None:
    run = command("maintenance", says(), service=None, host="m1", state="on")
    assert run.code != 0
    assert f"tumour: expected no rollout to hold it, found {DIED['id']} by bob" in run.output


def test_rollback_takes_out_a_host_that_serves_and_does_not_answer(command: Callable[..., Any]) -> None:
    balancer = balancer_state(blue=ONE)
    meant = {**DIED["services"]["tumour"], "slot": "blue"}
    died = {**DIED, "strategy": "rolling", "services": {"tumour": meant}}
    balancer["services"]["tumour"] |= {"rollout": died, "revision": "r1"}
    cold = {"cold": {"tumour": {"release": None, "reason": "held"}}, "rolled_back": {}, "revisions": {}}
    states = {
        "lb_info": {"load_balancer": balancer},
        "model_info": {"model_host": host_state(ONE, TWO, blue=slot_state(ONE))},
        "lb_rollback": cold,
    }
    run = command("rollback", states, gone=["m1"])
    assert steps(run)[1:] == [
        ("lb_rollout", "begun"),
        ("lb_server", "maint"),
        ("lb_rollback", "blue"),
        ("lb_rollout", "ended"),
    ]
    told = {step["module"]: step for step in run.told}
    assert (told["lb_server"]["servers"], told["lb_server"].get("last")) == (["tumour_blue/m1"], None)
    assert told["lb_rollback"]["up"] == {"tumour": 1}
    line = f"m1: tumour stays out of rotation: expected {ONE.name} to run again, found the host unreachable"
    assert (told["lb_rollout"]["verdict"], told["lb_rollout"]["reason"]) == ("done", line)
    assert line in run.output


@pytest.mark.parametrize(("wanted", "code"), [(DIED["id"], 0), ("nope", 2)])
def test_history_has_one_line_for_a_rollout_that_no_journal_keeps(
    command: Callable[..., Any], wanted: str, code: int
) -> None:
    balancer = {**balancer_state(blue=TWO), "rollouts": [DIED]}
    run = command("history", {"lb_info": {"load_balancer": balancer}}, id=wanted)
    assert run.code == code, run.output
    refused = "id: expected a rollout that the journals keep, found nope: history.yml without id lists them"
    assert (refused in " ".join(run.output.split())) == (code == 2)
    assert "filter plugin" not in run.output
