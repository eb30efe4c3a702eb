# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""rollout_plan: a request and the state of the fleet become the steps of a rollout."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.action import rollout_plan
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import verify
from ansible_collections.modelfleet.onprem.plugins.module_utils._env import env_name
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal import read_rollout, refusal
from ansible_collections.modelfleet.onprem.plugins.module_utils._verdict import ADVICE
from ansible_collections.modelfleet.onprem.plugins.plugin_utils import verdicts
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.controller import name_process
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.policy import override, parse_policy

from tests.unit.plugins.states import GROUPS, ONE, TWO, balancer_state, host_state, slot_state

COLUMN = {"name": "age", "dtype": "int64", "minimum": 18, "maximum": 80}
CONTRACT = {"columns": True, "inputs": [COLUMN], "outputs": [{"name": "predictions", "dtype": "int64", "shape": [-1]}]}
HOST = host_state(ONE, blue=slot_state(ONE, contract=CONTRACT))
BOTH = host_state(ONE, TWO, blue=slot_state(TWO), green=slot_state(ONE, "green"))
REQUEST = {
    "service": "tumour",
    "balancers": ["lb1"],
    "strategy": "blue_green",
    "release": asdict(TWO),
    "lock": "flask==3.1.3\n",
    "server": {"wheel": "/server.whl", "sha256": "c" * 64},
    "policy": parse_policy({}),
    "rollout": {"id": "20260102T030405Z-0a1b2c3d", "who": "anna", "from": "ops1", "process": None},
}


@pytest.fixture
def plan(act_here: Callable[..., Any], make_bundle: Callable[..., Path]) -> Callable[..., Any]:
    """Run rollout_plan for the service on two hosts behind one balancer, and a bundle with a contract."""

    bundles: dict[str, Path] = {}

    def bundle_with(contract: Any) -> Path:
        text = json.dumps(contract)
        if text not in bundles:
            bundles[text] = make_bundle("2", contract=text.encode())
        return bundles[text]

    def run(action: str, host: Any = HOST, balancer: Any = None, **arguments: Any) -> Any:
        bundle = bundle_with(arguments.pop("contract", CONTRACT))
        request = {**REQUEST, "action": action, "bundle": str(bundle), **arguments.pop("request", {})}
        request["release"] = {**asdict(TWO), "digest": arguments.pop("digest", verify(bundle).digest)}
        given = {
            "services": {"tumour": {"port": 8101}},
            "request": {**request, "services": ["tumour"], "parts": {"tumour": request}},
            "hosts": {"m1": host, "m2": host},
            "balancers": {"lb1": balancer or balancer_state(blue=ONE)},
            **arguments,
        }
        return act_here(rollout_plan, GROUPS, **given)

    return run


@pytest.mark.parametrize("check_mode", [False, True], ids=["run", "check mode"])
def test_a_deploy_names_the_hosts_of_each_step(plan: Callable[..., Any], check_mode: bool) -> None:
    result = plan("deploy", check_mode=check_mode)
    steps = result["plan"]
    assert (result["changed"], steps["unchanged"]) == (False, False)
    assert (steps["slot"], steps["stage"], steps["idle"]) == ("green", ["m1", "m2"], ["m1", "m2"])
    assert (steps["record"], steps["in_place"], steps["stop"]) == (["lb1"], [], [])
    assert steps["release"]["name"] == TWO.name


def test_slots_listen_on_addresses_of_both_kinds_where_a_host_has_one_of_ipv6(plan: Callable[..., Any]) -> None:
    hostvars = {"m1": {"ansible_host": "10.0.0.1"}, "m2": {"modelfleet_address": "fd00::2"}}
    for given, bind in (({}, "0.0.0.0:8102"), ({"hostvars": hostvars}, "[::]:8102")):
        assert plan("deploy", **given)["plan"]["settings"]["BIND"] == bind


def test_the_environment_is_named_for_the_lock_the_server_and_the_hosts_python(plan: Callable[..., Any]) -> None:
    name = env_name("flask==3.1.3\n", "c" * 64, "cp311", "x86_64")
    steps = plan("deploy")["plan"]
    assert steps["envs"] == {"m1": name, "m2": name}
    assert steps["wheels"] == [{"service": "tumour", "env": name, "tag": "cp311", "machine": "x86_64", "glibc": "2.36"}]


@pytest.mark.parametrize("to", [None, "1", ONE.name])
def test_a_rollback_names_what_it_goes_back_to(plan: Callable[..., Any], to: str | None) -> None:
    balancer = balancer_state(blue=TWO, green=ONE, history=[ONE])
    steps = plan("rollback", BOTH, balancer, to=to)["plan"]
    assert (steps["release"], steps["slot"], steps["record"]) == (asdict(ONE), "green", ["lb1"])
    assert (steps["idle"], steps["was"]) == ([], {"release": TWO.name, "slot": "blue"})


def test_a_rollback_goes_past_a_host_that_did_not_answer(plan: Callable[..., Any]) -> None:
    balancer = balancer_state(blue=TWO, history=[ONE])
    steps = plan("rollback", hosts={"m1": host_state(ONE, TWO, blue=slot_state(TWO))}, balancer=balancer)["plan"]
    assert (steps["idle"], steps["record"]) == (["m1"], ["lb1"])


def test_retiring_stops_the_slot_beside(plan: Callable[..., Any]) -> None:
    steps = plan("retire", BOTH, balancer_state(blue=TWO, green=ONE))["plan"]
    assert (steps["stop"], steps["stop_slot"], steps["record"]) == (["m1", "m2"], "green", [])


@pytest.mark.parametrize(
    ("action", "arguments", "message"),
    [
        (
            "deploy",
            {"hosts": {"m1": HOST}},
            "expected every machine to answer before anything is changed, found none from m2",
        ),
        (
            "retire",
            {"hosts": {"m2": HOST}},
            "expected every machine to answer before anything is changed, found none from m1",
        ),
        (
            "rollback",
            {"balancers": {}},
            "expected every machine to answer before anything is changed, found none from lb1",
        ),
        ("rollback", {}, "tumour: expected an earlier release in the balancers' history, found none"),
        (
            "deploy",
            {"balancers": {"lb1": {"services": {}}}},
            "lb1: expected pools for tumour, found none: run provision.yml first",
        ),
        (
            "deploy",
            {"services": {"prices": {"port": 8101}}},
            "service: expected one of prices, found 'tumour'",
        ),
    ],
)
def test_what_cannot_be_planned_is_one_line(
    plan: Callable[..., Any], action: str, arguments: dict[str, Any], message: str
) -> None:
    result = plan(action, **arguments)
    assert (result["failed"], result["msg"], "plan" in result) == (True, message, False)


RENAMED = {**CONTRACT, "inputs": [{**COLUMN, "name": "years"}]}
RANGE = {**CONTRACT, "inputs": [{**COLUMN, "maximum": 70}]}
BREAKING = "breaking: column 'age': renamed, as it seems, to 'years': requests name it as before"


@pytest.mark.parametrize(
    ("contract", "verdict", "found"),
    [
        (CONTRACT, "pass", "identical"),
        (
            RANGE,
            "pass",
            "compatible: column 'age': range 18 to 70, was 18 to 80 "
            "(a range describes the training data and refuses no request)",
        ),
        (RENAMED, "fail", BREAKING),
    ],
    ids=["identical", "compatible", "breaking"],
)
def test_the_contract_is_compared_with_that_of_what_serves(
    plan: Callable[..., Any], contract: Any, verdict: str, found: str
) -> None:
    steps = plan("deploy", contract=contract)["plan"]
    expected = f"the contract of {ONE.name}, or a compatible one"
    (judged,) = steps["verdicts"]
    assert (judged["gate"], judged["where"], judged["mode"]) == ("contract", "controller", "enforce")
    assert (judged["verdict"], judged["expected"], judged["found"]) == (verdict, expected, found)
    refused = f"gate contract: expected {expected}, found {found}: {ADVICE['contract']}" if verdict == "fail" else None
    assert steps["refused"] == refused


def test_a_narrower_range_is_breaking_where_the_policy_says_so(plan: Callable[..., Any]) -> None:
    policy = parse_policy({"contract": {"ranges": "breaking"}})
    steps = plan("deploy", contract=RANGE, request={"policy": policy})["plan"]
    (judged,) = steps["verdicts"]
    assert (judged["verdict"], judged["found"]) == (
        "fail",
        "breaking: column 'age': range 18 to 70, was 18 to 80: values that the model knew are new to it",
    )


def test_the_seconds_of_the_contract_are_measured(plan: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "time", SimpleNamespace(monotonic=iter([5.0, 5.25]).__next__))
    (judged,) = plan("deploy")["plan"]["verdicts"]
    assert (judged["gate"], judged["seconds"]) == ("contract", 0.25)


def test_a_breaking_contract_that_only_warns_refuses_nothing(plan: Callable[..., Any]) -> None:
    policy = parse_policy({"contract": "warn"})
    steps = plan("deploy", contract=RENAMED, request={"policy": policy})["plan"]
    assert [(each["verdict"], each["found"]) for each in steps["verdicts"]] == [("warn", BREAKING)]
    assert steps["refused"] is None


def test_a_gate_that_is_overridden_is_in_what_the_journal_keeps_with_its_reason(plan: Callable[..., Any]) -> None:
    policy, overrides = override(parse_policy({}), ["contract"], "clients send years since Monday")
    steps = plan("deploy", contract=RENAMED, request={"policy": policy, "overrides": overrides})["plan"]
    assert ([each["verdict"] for each in steps["verdicts"]], steps["refused"]) == (["warn"], None)
    assert steps["rollout"]["overrides"] == {"contract": "clients send years since Monday"}


def test_a_contract_that_is_not_asked_about_is_not_compared(plan: Callable[..., Any]) -> None:
    policy = parse_policy({"contract": "off"})
    assert plan("deploy", contract=RENAMED, request={"policy": policy})["plan"]["verdicts"] == []


def test_a_bundle_that_changed_since_it_was_checked_is_refused(plan: Callable[..., Any]) -> None:
    result = plan("deploy", digest="b" * 64)
    assert (result["failed"], "expected the bundle 2-bbbbbbbbbbbb, found 2-" in result["msg"]) == (True, True)


def died(action: str, release: Any, slot: str, was: Any, was_slot: str, **changed: Any) -> dict[str, Any]:
    meant = {"release": release.name, "digest": release.digest, "slot": slot, "bundle": "/bundles/2"}
    services = {"tumour": {**meant, "was": {"release": was and was.name, "slot": was_slot}}}
    identity = {"id": "20260102T030400Z-00000009", "action": action, "who": "bob", "from": "elsewhere"}
    return {**identity, "strategy": "blue_green", "services": services, "held": True, **changed}


# A request of the very release that a journal names; no bundle of that digest could be made.
AS_MEANT = {"digest": TWO.digest, "request": {"bundle": None, "policy": parse_policy({"contract": "off"})}}


def held(state: dict[str, Any], rollout: dict[str, Any]) -> dict[str, Any]:
    state["services"]["tumour"]["rollout"] = rollout
    return state


def test_a_deploy_writes_what_it_means_into_the_journal_as_it_begins(plan: Callable[..., Any]) -> None:
    steps = plan("deploy", **AS_MEANT)["plan"]
    assert steps["begin"] == ["lb1"]
    assert steps["rollout"] == {
        **REQUEST["rollout"],
        "action": "deploy",
        "strategy": "blue_green",
        "overrides": {},
        "takes_over": [],
        "undoes": None,
        "services": {
            "tumour": {
                "release": TWO.name,
                "digest": TWO.digest,
                "bundle": None,
                "slot": "green",
                "was": {"release": ONE.name, "slot": "blue"},
            }
        },
        "steps": [{"name": "stage", "hosts": ["m1", "m2"], "state": "started"}],
    }


def test_a_deploy_of_another_bundle_is_refused_while_a_rollout_holds_the_service(plan: Callable[..., Any]) -> None:
    other = died("deploy", replace(TWO, digest="f" * 64), "green", ONE, "blue")
    result = plan("deploy", balancer=held(balancer_state(blue=ONE), other))
    assert result["msg"].startswith(
        f"tumour: expected no other rollout to hold it, found deploy {other['id']} of {TWO.name} by bob from elsewhere"
    )
    retired = plan("retire", balancer=held(balancer_state(blue=ONE), other))
    assert retired["msg"] == result["msg"]


def test_retiring_holds_the_service_and_serves_the_same_from_the_same_slot(plan: Callable[..., Any]) -> None:
    steps = plan("retire", BOTH, balancer_state(blue=TWO, green=ONE))["plan"]
    meant = steps["rollout"]["services"]["tumour"]
    assert (steps["begin"], steps["rollout"]["action"]) == (["lb1"], "retire")
    assert (meant["release"], meant["slot"], meant["was"]) == (TWO.name, "blue", {"release": TWO.name, "slot": "blue"})
    nothing = plan("retire", host_state(TWO, blue=slot_state(TWO)), balancer_state(blue=TWO, green=ONE))["plan"]
    assert (nothing["begin"], nothing["unchanged"]) == ([], True)


def test_a_rollout_that_retires_has_nothing_to_undo() -> None:
    retiring = read_rollout(died("retire", TWO, "blue", TWO, "blue"), "test")
    assert refusal("tumour", retiring).endswith("; resume.yml -e service=tumour finishes it")


@pytest.mark.parametrize("action", ["retire", "rollback", "deploy"])
def test_one_that_died_while_it_retired_is_taken_over_by_any(plan: Callable[..., Any], action: str) -> None:
    retiring = {**died("retire", TWO, "blue", TWO, "blue"), "strategy": None}
    state = held(balancer_state(blue=TWO, green=ONE, history=[ONE]), retiring)
    given = AS_MEANT if action == "deploy" else {}
    steps = plan(action, BOTH, state, **given)["plan"]
    assert steps["begin"] == ["lb1"]
    assert (steps["rollout"]["takes_over"], steps["rollout"]["undoes"]) == ([retiring["id"]], None)


def test_the_very_same_deploy_takes_over_and_goes_on(plan: Callable[..., Any]) -> None:
    same = died("deploy", TWO, "green", ONE, "blue")
    # It has moved, but not ended.
    moved = balancer_state("green", blue=ONE, green=TWO, history=[ONE])
    steps = plan("deploy", BOTH, held(moved, same), **AS_MEANT)["plan"]
    assert (steps["slot"], steps["was"]) == ("green", {"release": ONE.name, "slot": "blue"})
    assert (steps["rollout"]["takes_over"], steps["rollout"]["undoes"]) == ([same["id"]], None)


def test_a_deploy_that_died_between_two_balancers_goes_on_and_is_judged_by_what_served_before(
    plan: Callable[..., Any],
) -> None:
    same = {**died("deploy", TWO, "green", ONE, "blue"), "services": plan("deploy")["plan"]["rollout"]["services"]}
    slots = {"blue": slot_state(ONE, contract=CONTRACT), "green": slot_state(TWO, "green", contract=CONTRACT)}
    balancers = {
        "lb1": held(balancer_state("green", blue=ONE, green=TWO, history=[ONE]), same),
        "lb2": held(balancer_state(blue=ONE), same),
    }
    request = {"balancers": ["lb1", "lb2"]}
    steps = plan("deploy", host_state(ONE, TWO, **slots), balancers=balancers, request=request)["plan"]
    assert (steps["slot"], steps["record"]) == ("green", ["lb1", "lb2"])
    assert [(each["verdict"], each["expected"]) for each in steps["verdicts"]] == [
        ("pass", f"the contract of {ONE.name}, or a compatible one")
    ]


def test_a_rollback_undoes_a_deploy_that_died_before_it_moved(plan: Callable[..., Any]) -> None:
    same = died("deploy", TWO, "green", ONE, "blue")
    host = host_state(ONE, TWO, blue=slot_state(ONE), green=slot_state(TWO, "green"))
    balancer = held(balancer_state(blue=ONE), same)
    steps = plan("rollback", host, balancer)["plan"]
    assert (steps["release"]["name"], steps["slot"], steps["idle"], steps["in_place"]) == (ONE.name, "blue", [], [])
    assert (steps["stop"], steps["stop_slot"], steps["rollout"]["undoes"]) == (["m1", "m2"], "green", same["id"])
    refused = plan("rollback", host, balancer, to="7")["msg"]
    assert refused.startswith(f"to: expected {ONE.name}, which tumour served before a rollout that died, found '7'")


def test_a_rollback_undoes_batches_and_what_is_out_comes_back_first(
    plan: Callable[..., Any],
) -> None:
    same = died("deploy", TWO, "blue", ONE, "blue", strategy="rolling")
    hosts = {"m1": host_state(ONE, TWO, blue=slot_state(TWO)), "m2": host_state(ONE, TWO, blue=slot_state(ONE))}
    balancer = held(balancer_state(blue=ONE, admin={("blue", "m2"): "maint"}), same)
    steps = plan("rollback", balancer=balancer, hosts=hosts)["plan"]
    assert (steps["in_place"], steps["batches"][0], steps["stop"]) == (["m2", "m1"], 1, [])
    assert steps["release"]["name"] == ONE.name


def test_the_first_deploy_is_undone_until_it_serves(plan: Callable[..., Any]) -> None:
    first = died("deploy", ONE, "blue", None, "blue")
    first["services"]["tumour"]["was"]["slot"] = None
    steps = plan("rollback", HOST, held(balancer_state(), first))["plan"]
    assert (steps["stop"], steps["release"], steps["record"]) == (["m1", "m2"], None, [])
    assert plan("rollback", HOST, held(balancer_state(blue=ONE), first))["msg"] == (
        f"tumour: expected a release before {ONE.name} to go back to, found that it is the first, and serves: "
        "resume.yml -e service=tumour finishes it"
    )


def test_nothing_goes_on_while_the_holders_process_runs_here(plan: Callable[..., Any]) -> None:
    runs = died("deploy", TWO, "green", ONE, "blue", process=name_process(os.getpid()))
    runs["from"] = socket.gethostname()
    for action in ("deploy", "rollback"):
        said = plan(action, BOTH, held(balancer_state(blue=ONE), runs))["msg"]
        assert said.startswith(f"tumour: expected no other rollout to run, found deploy {runs['id']} of {TWO.name}")
        assert said.endswith(
            f"which runs still as process {os.getpid()}: wait for its end, or end it and run this again"
        )
