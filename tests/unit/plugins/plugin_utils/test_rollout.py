from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.contract import Column, Contract, Output
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.policy import parse_policy
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.rollout import (
    Plan,
    Release,
    check_reached,
    judge_contract,
    plan_back,
    plan_deploy,
    plan_retire,
    plan_rollback,
    status_lines,
    together,
)
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.service import Service, ServiceError, parse_services
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.verdicts import verdict_of

from tests.unit.plugins.states import (
    GROUPS,
    ONE,
    PYTHON,
    SERVICE,
    THREE,
    TWO,
    balancer_state,
    host_state,
    slot_state,
)


def env_of(state: Any) -> str:
    return "e1" if state["python"]["tag"] == "cp311" else "e2"


def deploy(strategy: Any, release: Release, host: Any, balancer: Any, service: Service = SERVICE) -> Plan:
    hosts = host if isinstance(host, Mapping) and "m1" in host else {"m1": host, "m2": host}
    return plan_deploy(service, strategy, release, hosts, {"lb1": balancer}, env_of)


@pytest.mark.parametrize("strategy", ["basic", "rolling", "blue_green"])
def test_a_first_deploy_starts_the_slot_that_the_route_points_to(strategy: Any) -> None:
    plan = deploy(strategy, ONE, host_state(), balancer_state())
    assert (plan.slot, plan.stage, plan.in_place, plan.idle) == ("blue", ["m1", "m2"], ["m1", "m2"], [])
    assert (plan.record, plan.batches) == (["lb1"], ["100%"])
    assert plan.wheels == [{"service": "tumour", "env": "e1", "tag": "cp311", "machine": "x86_64", "glibc": "2.36"}]


@pytest.mark.parametrize("strategy", ["basic", "rolling", "blue_green"])
def test_a_deploy_of_what_serves_has_nothing_to_do(strategy: Any) -> None:
    plan = deploy(strategy, ONE, host_state(ONE, blue=slot_state(ONE)), balancer_state(blue=ONE))
    assert plan.as_dict()["unchanged"] is True


def test_rolling_restarts_the_active_slot_in_batches() -> None:
    plan = deploy("rolling", TWO, host_state(ONE, blue=slot_state(ONE)), balancer_state(blue=ONE))
    assert (plan.slot, plan.in_place, plan.batches, plan.idle) == ("blue", ["m1", "m2"], [1, "100%"], [])
    assert plan.was == {"release": ONE.name, "slot": "blue"}


def test_a_server_that_is_down_leaves_before_one_that_serves() -> None:
    host = host_state(ONE, blue=slot_state(ONE))
    plan = deploy("rolling", TWO, host, balancer_state(blue=ONE, down=[("blue", "m2")]))
    assert (plan.in_place, plan.batches, plan.unready) == (["m2", "m1"], [1, 1, "100%"], [])


def again(release: Release, **changed: Any) -> dict[str, Any]:
    """What a host runs again that ran ``release`` in the slot blue."""
    return {key: slot_state(release, **changed)[key] for key in ("release", "settings", "limits")}


NINE = {**SERVICE.settings("blue"), "WORKERS": "9"}
BLUE = {"release": ONE.name, "settings": SERVICE.settings("blue"), "limits": SERVICE.limits()}
NOT_RUNNING = {"unit": "failed", "started": None, "ready": False}


@pytest.mark.parametrize(
    ("left", "beside", "back"),
    [
        (slot_state(ONE), slot_state(ONE), again(ONE)),
        (slot_state(TWO), slot_state(ONE), BLUE),
        (slot_state(TWO, **NOT_RUNNING), slot_state(ONE), BLUE),
        (slot_state(ONE, **NOT_RUNNING), slot_state(ONE), BLUE),
        (slot_state(TWO), slot_state(ONE, settings=NINE), {**BLUE, "settings": NINE}),
        (slot_state(THREE), slot_state(ONE), BLUE),
        (None, slot_state(ONE), BLUE),
    ],
    ids=["not begun", "left running", "crashed", "stopped", "settings of the others", "of another rollout", "no slot"],
)
@pytest.mark.parametrize("died", [True, False])
def test_a_host_out_of_rotation_is_put_back_on_what_served_before(
    left: Any, beside: Any, back: Any, died: bool
) -> None:
    hosts = {"m1": host_state(ONE, TWO, blue=left), "m2": host_state(ONE, TWO, blue=beside)}
    balancer = balancer_state(blue=ONE, admin={("blue", "m1"): "maint"})
    meant = {"slot": "blue", "was": {"release": ONE.name, "slot": "blue"}} if died else None
    plan = plan_deploy(SERVICE, "rolling", TWO, hosts, {"lb1": balancer}, env_of, meant)
    own = {key: beside[key] for key in ("release", "settings", "limits")}
    assert (plan.in_place, plan.put_back) == (["m1", "m2"], {"m1": back, "m2": own})


@pytest.mark.parametrize(
    ("hosts", "serving"),
    [(host_state(TWO, blue=slot_state(TWO)), ONE), (host_state(ONE, blue=slot_state(ONE, ready=False)), None)],
    ids=["what served is not there any more", "nothing served"],
)
def test_a_host_out_of_rotation_without_what_served_before_is_put_back_on_nothing(hosts: Any, serving: Any) -> None:
    balancer = balancer_state(
        **({"blue": serving} if serving else {}), admin={("blue", "m1"): "maint", ("blue", "m2"): "maint"}
    )
    assert deploy("rolling", TWO, hosts, balancer).put_back == {}


def test_other_settings_that_a_rollout_left_out_of_rotation_are_not_put_back() -> None:
    hosts = {
        "m1": host_state(ONE, blue=slot_state(ONE)),
        "m2": host_state(ONE, blue=slot_state(ONE, settings=NINE)),
    }
    plan = deploy("rolling", ONE, hosts, balancer_state(blue=ONE, admin={("blue", "m1"): "maint"}))
    assert (plan.in_place, plan.put_back) == (["m1", "m2"], {"m2": again(ONE, settings=NINE)})


def test_what_is_undone_in_place_is_not_put_back_on_what_was_left_out_of_rotation() -> None:
    hosts = {host: host_state(ONE, TWO, blue=slot_state(TWO)) for host in ("m1", "m2")}
    balancers = {"lb1": balancer_state(blue=ONE, admin={("blue", "m1"): "maint"})}
    died = {"slot": "blue", "release": TWO.name, "was": {"release": ONE.name, "slot": "blue"}}
    plan = plan_back(SERVICE, "rolling", died, True, True, hosts, balancers)
    assert (plan.in_place, plan.put_back) == (["m1", "m2"], {"m2": again(TWO)})


def test_basic_restarts_all_hosts_in_one_batch() -> None:
    assert deploy("basic", TWO, host_state(ONE, blue=slot_state(ONE)), balancer_state(blue=ONE)).batches == ["100%"]


def test_blue_green_starts_the_idle_slot_and_then_moves() -> None:
    plan = deploy("blue_green", TWO, host_state(ONE, blue=slot_state(ONE)), balancer_state(blue=ONE))
    assert (plan.slot, plan.in_place, plan.idle, plan.record, plan.stop) == ("green", [], ["m1", "m2"], ["lb1"], [])
    assert plan.settings["BIND"].endswith(":8102")


def test_blue_green_stops_the_old_slot_where_it_is_not_kept_warm() -> None:
    cold = parse_services({"tumour": {"port": 8101, "keep_warm": False}}, GROUPS)["tumour"]
    plan = deploy("blue_green", TWO, host_state(ONE, blue=slot_state(ONE)), balancer_state(blue=ONE), cold)
    assert (plan.stop, plan.stop_slot) == (["m1", "m2"], "blue")


CANARY = parse_services(
    {
        "tumour": {
            "port": 8101,
            "strategy": "canary",
            "canary": {"steps": [{"share": 1, "for": 1}, {"share": 5, "for": 1}]},
        }
    },
    GROUPS,
)["tumour"]


def steps(plan: Plan) -> list[int]:
    return [step["share"] for step in plan.steps]


def test_canary_starts_the_idle_slot_and_gives_it_its_share_before_it_moves() -> None:
    plan = deploy("canary", TWO, host_state(ONE, blue=slot_state(ONE)), balancer_state(blue=ONE), CANARY)
    assert (plan.slot, plan.idle, plan.share, plan.record) == ("green", ["m1", "m2"], ["lb1"], ["lb1"])
    assert (steps(plan), plan.unshare) == ([100, 500], [])


def test_a_first_deploy_has_nothing_beside_which_to_be_a_canary() -> None:
    plan = deploy("canary", ONE, host_state(), balancer_state(), CANARY)
    assert (plan.in_place, plan.share, plan.steps) == (["m1", "m2"], [], [])


def test_a_canary_that_was_cut_short_goes_on_at_the_step_that_it_was_at() -> None:
    host = host_state(ONE, TWO, blue=slot_state(ONE), green=slot_state(TWO, "green"))
    plan = deploy("canary", TWO, host, balancer_state(blue=ONE, green=TWO, share=500), CANARY)
    assert (plan.idle, steps(plan), plan.unshare) == ([], [500], [])


def test_a_canary_that_died_in_the_midst_of_its_move_has_no_step_left() -> None:
    host = host_state(ONE, TWO, blue=slot_state(ONE), green=slot_state(TWO, "green"))
    balancers = {
        "lb1": balancer_state("green", history=[ONE], blue=ONE, green=TWO),
        "lb2": balancer_state(blue=ONE, green=TWO, share=500),
    }
    died = {"slot": "green", "was": {"release": ONE.name, "slot": "blue"}}
    plan = plan_deploy(CANARY, "canary", TWO, {"m1": host, "m2": host}, balancers, lambda _host: "e1", died)
    assert (plan.share, steps(plan), plan.record) == ([], [], ["lb1", "lb2"])


@pytest.mark.parametrize("strategy", ["canary", "blue_green", "rolling"])
def test_a_canary_of_another_release_ends_before_anything_is_restarted(strategy: Any) -> None:
    host = host_state(ONE, TWO, blue=slot_state(ONE), green=slot_state(TWO, "green"))
    plan = deploy(strategy, THREE, host, balancer_state(blue=ONE, green=TWO, share=500), CANARY)
    assert plan.unshare == ["lb1"]
    assert steps(plan) == ([100, 500] if strategy == "canary" else [])


def test_a_slot_that_gets_a_share_is_not_retired() -> None:
    host = host_state(ONE, TWO, blue=slot_state(ONE), green=slot_state(TWO, "green"))
    message = "tumour: expected no requests to go to green any more, found a canary that has 5 %: run abort.yml"
    with pytest.raises(ServiceError, match=message):
        plan_retire(SERVICE, {"m1": host, "m2": host}, {"lb1": balancer_state(share=500)})


def test_the_status_shows_the_share_of_a_canary() -> None:
    host = host_state(ONE, TWO, blue=slot_state(ONE), green=slot_state(TWO, "green"))
    lines = status_lines({"tumour": SERVICE}, {"m1": host, "m2": host}, {"lb1": balancer_state(share=1)})
    assert sum("0.01 %" in line for line in lines) == 2


def test_blue_green_over_host_groups_stages_the_idle_group_alone() -> None:
    groups = parse_services({"tumour": {"port": 8101, "hosts": {"blue": "left", "green": "right"}}}, GROUPS)["tumour"]
    plan = deploy("blue_green", TWO, host_state(ONE, blue=slot_state(ONE)), balancer_state(blue=ONE), groups)
    assert (plan.stage, plan.idle) == (["m2"], ["m2"])


@pytest.mark.parametrize(
    "changed",
    [
        {"ready": False},
        {"started": None},
        {"started": {"release": TWO.name, "env": "e1"}},
    ],
)
def test_a_host_that_does_not_run_what_serves_is_mended_in_place(changed: dict[str, Any]) -> None:
    hosts = {"m1": host_state(ONE, blue=slot_state(ONE)), "m2": host_state(ONE, blue=slot_state(ONE, **changed))}
    plan = deploy("blue_green", ONE, hosts, balancer_state(blue=ONE))
    assert (plan.in_place, plan.stage, plan.record) == (["m2"], [], [])


OTHERWISE: list[dict[str, Any]] = [
    {"started": {"release": ONE.name, "env": "other"}},
    {"limits": {"MemoryMax": "2G", "TasksMax": "256"}},
    {"settings": {**SERVICE.settings("blue"), "WORKERS": "9"}},
    {"settings": {**SERVICE.settings("blue"), "REMOVED": "1"}},
]


@pytest.mark.parametrize("changed", OTHERWISE)
@pytest.mark.parametrize("strategy", ["blue_green", "canary"])
def test_what_serves_with_other_settings_starts_beside_and_the_requests_move(strategy: Any, changed: Any) -> None:
    service = CANARY if strategy == "canary" else SERVICE
    hosts = {"m1": host_state(ONE, blue=slot_state(ONE)), "m2": host_state(ONE, blue=slot_state(ONE, **changed))}
    plan = deploy(strategy, ONE, hosts, balancer_state(blue=ONE), service)
    assert (plan.slot, plan.in_place, plan.idle, plan.record) == ("green", [], ["m1", "m2"], ["lb1"])
    assert (plan.share, plan.steps, plan.was) == ([], [], {"release": ONE.name, "slot": "blue"})
    # Once it has moved, the same deploy finds nothing to do.
    moved = {
        host: host_state(ONE, blue=hosts[host]["services"]["tumour"]["slots"]["blue"], green=slot_state(ONE, "green"))
        for host in hosts
    }
    assert deploy(strategy, ONE, moved, balancer_state("green", blue=ONE, green=ONE), service).unchanged


@pytest.mark.parametrize("changed", OTHERWISE)
@pytest.mark.parametrize("strategy", ["basic", "rolling"])
def test_what_serves_with_other_settings_is_replaced_in_place_where_there_is_no_room_beside(
    strategy: Any, changed: Any
) -> None:
    hosts = {"m1": host_state(ONE, blue=slot_state(ONE)), "m2": host_state(ONE, blue=slot_state(ONE, **changed))}
    plan = deploy(strategy, ONE, hosts, balancer_state(blue=ONE))
    assert (plan.in_place, plan.idle, plan.record) == (["m2"], [], [])


def test_a_move_to_other_settings_that_died_is_gone_on_with_or_undone() -> None:
    old = slot_state(ONE, settings=NINE)
    hosts = dict.fromkeys(("m1", "m2"), host_state(ONE, blue=old, green=slot_state(ONE, "green")))
    balancers = {"lb1": balancer_state(blue=ONE), "lb2": balancer_state("green", blue=ONE, green=ONE)}
    died = {"slot": "green", "release": ONE.name, "was": {"release": ONE.name, "slot": "blue"}}
    on = plan_deploy(SERVICE, "blue_green", ONE, hosts, balancers, None, died)
    assert (on.slot, on.in_place, on.idle, on.record) == ("green", [], [], ["lb1", "lb2"])
    back = plan_back(SERVICE, "blue_green", died, True, True, hosts, balancers)
    assert (back.slot, back.in_place, back.idle, back.record) == ("blue", [], [], ["lb1", "lb2"])
    assert (back.stop, back.stop_slot) == (["m1", "m2"], "green")


def plan_on(strategy: Any, host: Any, was: Release | None = ONE, slot: str = "green", **balancers: Any) -> Plan:
    """How a deploy of the second release that died is gone on with."""
    died = {"slot": slot, "was": {"release": was and was.name, "slot": was and "blue"}}
    return plan_deploy(SERVICE, strategy, TWO, {"m1": host, "m2": host}, balancers, env_of, died)


REPLACED = host_state(ONE, TWO, blue=slot_state(TWO))
STARTED = host_state(ONE, TWO, blue=slot_state(ONE), green=slot_state(TWO, "green"))
MAINT = {("blue", host): "maint" for host in ("m1", "m2")}


@pytest.mark.parametrize(
    ("plan", "half_done"),
    [
        (plan_on("rolling", REPLACED, slot="blue", lb1=balancer_state(blue=ONE)), True),
        (plan_on("rolling", STARTED, slot="blue", lb1=balancer_state(blue=ONE)), False),
        (plan_on("rolling", REPLACED, slot="blue", lb1=balancer_state(blue=ONE, admin=MAINT)), False),
        (
            plan_on(
                "rolling",
                REPLACED,
                slot="blue",
                lb1=balancer_state(blue=ONE),
                lb2=balancer_state(blue=ONE, admin=MAINT),
            ),
            True,
        ),
        (plan_on("rolling", REPLACED, None, slot="blue", lb1=balancer_state()), False),
        (plan_on("rolling", REPLACED, TWO, slot="blue", lb1=balancer_state(blue=TWO)), False),
        (plan_on("rolling", STARTED, slot="blue", lb1=balancer_state(blue=TWO), lb2=balancer_state(blue=ONE)), True),
        (plan_on("blue_green", STARTED, lb1=balancer_state(blue=ONE)), False),
        (
            plan_on(
                "blue_green", STARTED, lb1=balancer_state("green", blue=ONE, green=TWO), lb2=balancer_state(blue=ONE)
            ),
            True,
        ),
        (deploy("rolling", TWO, STARTED, balancer_state(blue=ONE)), False),
    ],
    ids=[
        *("replaced", "nothing replaced", "out of rotation", "back on one balancer"),
        *("a first deploy", "other settings", "a record", "started", "moved", "nothing died"),
    ],
)
def test_a_rollout_that_died_is_half_done_once_something_else_serves(plan: Plan, half_done: bool) -> None:
    assert plan.half_done is half_done
    assert together([plan], [], {})["half_done"] is half_done
    assert together([replace(plan, service="prices", half_done=False), plan], [], {})["half_done"] is half_done


MOVED = {"lb1": balancer_state("green", blue=ONE, green=TWO), "lb2": balancer_state(blue=ONE, green=TWO)}


@pytest.mark.parametrize(
    ("changed", "idle", "kept"),
    [
        ([{}, {"settings": NINE}], [], []),
        ([{"limits": {}}, {"started": {"release": TWO.name, "env": "e9"}}], [], []),
        ([{}, {"unit": "failed", "ready": False}], ["m2"], []),
        ([{"settings": {}}, {"ready": False}], ["m2"], ["m2"]),
    ],
)
def test_what_a_balancer_has_moved_to_is_neither_restarted_for_other_settings_nor_stopped(
    changed: list[dict[str, Any]], idle: list[str], kept: list[str]
) -> None:
    hosts = {
        host: host_state(ONE, TWO, blue=slot_state(ONE), green=slot_state(TWO, "green", **each))
        for host, each in zip(("m1", "m2"), changed, strict=True)
    }
    died = {"slot": "green", "was": {"release": ONE.name, "slot": "blue"}}
    plan = plan_deploy(SERVICE, "blue_green", TWO, hosts, MOVED, env_of, died)
    assert (plan.idle, plan.kept, plan.running) == (idle, kept, [host for host in hosts if host not in idle])


def test_what_is_gone_back_to_and_serves_still_is_not_stopped() -> None:
    slow = host_state(ONE, TWO, blue=slot_state(ONE, ready=False), green=slot_state(TWO, "green"))
    died = {"slot": "green", "release": TWO.name, "was": {"release": ONE.name, "slot": "blue"}}
    plan = plan_back(SERVICE, "blue_green", died, True, True, {"m1": slow, "m2": STARTED}, MOVED)
    assert (plan.idle, plan.kept) == (["m1"], ["m1"])


@pytest.mark.parametrize(
    ("undo", "stop_left", "slot", "half_done"),
    [
        (True, True, "blue", True),
        (False, True, "blue", True),
        (False, False, "blue", False),
        (False, False, "green", True),
    ],
    ids=["undone", "an undoing that died", "a rollback that moved nothing", "a rollback that moved"],
)
def test_what_is_undone_is_half_done_until_it_is(undo: bool, stop_left: bool, slot: str, half_done: bool) -> None:
    died = {"slot": "green", "release": TWO.name, "was": {"release": ONE.name, "slot": "blue"}}
    balancers = {"lb1": balancer_state(slot, blue=ONE, green=TWO)}
    hosts = {"m1": STARTED, "m2": STARTED}
    assert plan_back(SERVICE, "blue_green", died, undo, stop_left, hosts, balancers).half_done is half_done


def test_after_a_move_to_other_settings_a_rollback_goes_to_the_release_before() -> None:
    host = host_state(ONE, TWO, blue=slot_state(TWO, settings=NINE), green=slot_state(TWO, "green"))
    balancers = {"lb1": balancer_state("green", history=[ONE], blue=TWO, green=TWO)}
    plan = plan_rollback(SERVICE, None, {"m1": host, "m2": host}, balancers)
    assert (plan.release, plan.slot, plan.idle) == (ONE, "blue", ["m1", "m2"])


@pytest.mark.parametrize("unit", ["failed", "inactive"])
def test_what_does_not_run_is_compared_with_its_bundle_again(unit: str) -> None:
    hosts = {"m1": host_state(ONE, blue=slot_state(ONE)), "m2": host_state(ONE, blue=slot_state(ONE, unit=unit))}
    plan = deploy("blue_green", ONE, hosts, balancer_state(blue=ONE))
    assert (plan.in_place, plan.stage, plan.wheels) == (["m2"], ["m2"], [])


def test_a_release_that_its_slot_never_ran_is_compared_with_its_bundle_again() -> None:
    # As where a byte was changed before its trial: it is on the host, and the slot has still what it had.
    host = host_state(ONE, TWO, THREE, blue=slot_state(ONE), green=slot_state(THREE, "green"))
    plan = deploy("blue_green", TWO, {"m1": host, "m2": host}, balancer_state(blue=ONE))
    assert (plan.idle, plan.stage, plan.wheels) == (["m1", "m2"], ["m1", "m2"], [])


def test_a_host_that_an_earlier_run_left_out_of_rotation_is_brought_back() -> None:
    balancer = balancer_state(blue=ONE, admin={("blue", "m1"): "maint"})
    plan = deploy("rolling", ONE, host_state(ONE, blue=slot_state(ONE)), balancer)
    assert plan.in_place == ["m1"]


def test_a_host_left_out_of_the_idle_pool_is_brought_back_before_the_route_moves() -> None:
    state = host_state(ONE, TWO, blue=slot_state(ONE), green=slot_state(TWO, "green"))
    plan = deploy("blue_green", TWO, state, balancer_state(blue=ONE, admin={("green", "m2"): "maint"}))
    assert (plan.idle, plan.unready) == (["m1", "m2"], ["m2"])


def test_what_is_warm_in_the_idle_slot_passes_its_gates_again_before_the_balancer_moves() -> None:
    state = host_state(ONE, TWO, blue=slot_state(ONE), green=slot_state(TWO, "green"))
    plan = deploy("blue_green", TWO, state, balancer_state(blue=ONE))
    assert (plan.stage, plan.idle, plan.record) == ([], ["m1", "m2"], ["lb1"])


def test_a_service_that_moves_with_others_starts_beside_what_serves_even_if_nothing_does() -> None:
    balancers = {"lb1": balancer_state()}
    hosts = dict.fromkeys(("m1", "m2"), host_state())
    plan = plan_deploy(SERVICE, "blue_green", ONE, hosts, balancers, lambda _host: "e1", beside=True)
    assert (plan.slot, plan.idle, plan.in_place, plan.was["release"]) == ("green", ["m1", "m2"], [], None)


def test_a_service_that_serves_it_with_other_settings_moves_with_others() -> None:
    state = host_state(ONE, blue=slot_state(ONE, settings=NINE))
    hosts, balancers = dict.fromkeys(("m1", "m2"), state), {"lb1": balancer_state(blue=ONE)}
    plan = plan_deploy(SERVICE, "blue_green", ONE, hosts, balancers, lambda _host: "e1", beside=True)
    assert (plan.slot, plan.idle, plan.in_place) == ("green", ["m1", "m2"], [])


def test_a_service_that_serves_it_already_moves_with_others_only_if_it_needs_no_mending() -> None:
    def beside(**changed: Any) -> Plan:
        state = host_state(ONE, blue=slot_state(ONE, **changed))
        hosts, balancers = dict.fromkeys(("m1", "m2"), state), {"lb1": balancer_state(blue=ONE)}
        return plan_deploy(SERVICE, "blue_green", ONE, hosts, balancers, lambda _host: "e1", beside=True)

    assert beside().unchanged
    with pytest.raises(ServiceError, match="tumour: expected 1-aaaaaaaaaaaa, which serves already, as it was deployed"):
        beside(unit="failed")


def test_plans_of_several_services_are_one() -> None:
    state = host_state(ONE, blue=slot_state(ONE))
    plans = [
        replace(deploy("blue_green", TWO, dict.fromkeys(("m1", "m2"), state), balancer_state(blue=ONE)), service=name)
        for name in ("tumour", "prices")
    ]
    alone = together(plans[:1], ["lb1"], {"id": "x"})
    assert {key: alone[key] for key in plans[0].as_dict() if key != "wheels"} == {
        key: value for key, value in plans[0].as_dict().items() if key != "wheels"
    }
    both = together(plans, ["lb1"], {"id": "x"})
    assert (both["service"], both["stage"], both["record"]) == ("tumour, prices", ["m1", "m2"], ["lb1"])
    assert both["to"] == {key: {"slot": "green", "release": TWO.name} for key in ("tumour", "prices")}
    assert both["back"] == {key: {"slot": "blue", "release": ONE.name} for key in ("tumour", "prices")}
    assert [(each["service"], each["stop_slot"]) for each in both["undo"]] == [("tumour", "green"), ("prices", "green")]


def test_wheels_are_gathered_once_an_environment_and_for_the_oldest_c_library() -> None:
    older = host_state(python={**PYTHON, "glibc": "2.9"})
    plan = deploy("basic", ONE, {"m1": host_state(), "m2": older}, balancer_state())
    assert [entry["glibc"] for entry in plan.wheels] == ["2.9"]


def test_no_wheels_are_gathered_where_the_environment_is_there() -> None:
    plan = deploy("rolling", TWO, host_state(ONE, blue=slot_state(ONE)), balancer_state(blue=ONE))
    assert (plan.stage, plan.wheels) == (["m1", "m2"], [])


@pytest.mark.parametrize(
    ("keep", "history", "pinned"),
    [
        (2, [ONE, TWO], [THREE, TWO]),
        (5, [ONE, TWO], [THREE, TWO, ONE]),
        (3, [TWO, ONE, TWO, THREE], [THREE, TWO]),
        (5, [], [THREE]),
    ],
    ids=["what serves and the one before", "as many as are kept", "each once, the latest first", "no history"],
)
def test_what_served_last_is_not_let_go(keep: int, history: list[Release], pinned: list[Release]) -> None:
    service = parse_services({"tumour": {"port": 8101, "keep_releases": keep}}, GROUPS)["tumour"]
    four = Release("4-dddddddddddd", "4", "d" * 64)
    host = host_state(THREE, green=slot_state(THREE, "green"))
    plan = deploy("blue_green", four, host, balancer_state("green", history, green=THREE), service)
    assert plan.pinned == [release.name for release in pinned]


def test_what_served_last_by_any_balancers_word_is_not_let_go() -> None:
    balancers = {"lb1": balancer_state(blue=THREE, history=[ONE]), "lb2": balancer_state(blue=THREE, history=[TWO])}
    plan = plan_deploy(SERVICE, "rolling", THREE, {"m1": host_state(TWO), "m2": host_state(TWO)}, balancers, env_of)
    assert plan.pinned == [THREE.name, ONE.name, TWO.name]


def test_a_first_deploy_has_nothing_to_keep() -> None:
    assert deploy("basic", ONE, host_state(), balancer_state()).pinned == []


def test_a_balancer_without_the_service_is_refused() -> None:
    with pytest.raises(ServiceError, match=r"lb1: expected pools for tumour, found none: run provision\.yml first"):
        deploy("basic", ONE, host_state(), {"services": {}})


def test_a_host_that_is_not_in_the_pool_is_refused() -> None:
    balancer = balancer_state()
    del balancer["services"]["tumour"]["pools"]["blue"]["servers"]["m2"]
    with pytest.raises(ServiceError, match=r"lb1: expected m2 in the pool tumour_blue: run provision\.yml first"):
        deploy("basic", ONE, host_state(ONE, blue=slot_state(ONE)), balancer)


def test_balancers_that_disagree_are_refused() -> None:
    balancers = {"lb1": balancer_state("blue"), "lb2": balancer_state("green")}
    hosts = {"m1": host_state(), "m2": host_state()}
    with pytest.raises(ServiceError, match="to route to the same slot, found lb1 blue, lb2 green"):
        plan_deploy(SERVICE, "basic", ONE, hosts, balancers, env_of)


def test_balancers_that_know_different_releases_are_refused_where_one_without_any_is_not() -> None:
    hosts = {"m1": host_state(), "m2": host_state()}
    balancers = {"lb1": balancer_state("blue", blue=ONE), "lb2": balancer_state("blue", blue=TWO)}
    with pytest.raises(ServiceError, match=f"the same release in blue, found {ONE.name} on lb1, {TWO.name} on lb2"):
        plan_deploy(SERVICE, "basic", ONE, hosts, balancers, env_of)
    plan_deploy(SERVICE, "basic", ONE, hosts, {**balancers, "lb2": balancer_state("blue")}, env_of)


def rollback(to: str | None, host: Any, balancer: Any) -> Plan:
    hosts = host if "m1" in host else {"m1": host, "m2": host}
    return plan_rollback(SERVICE, to, hosts, {"lb1": balancer})


def test_a_rollback_starts_the_release_before_in_the_idle_slot() -> None:
    plan = rollback(None, host_state(ONE, TWO, blue=slot_state(TWO)), balancer_state(blue=TWO, history=[ONE]))
    assert plan.release == ONE
    assert (plan.slot, plan.idle, plan.stage, plan.record) == ("green", ["m1", "m2"], [], ["lb1"])


@pytest.mark.parametrize("to", ["1", ONE.name])
def test_a_rollback_takes_a_version_or_a_release(to: str) -> None:
    state = host_state(ONE, TWO, THREE, blue=slot_state(THREE))
    assert rollback(to, state, balancer_state(blue=THREE, history=[ONE, TWO])).release == ONE


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("9", r"to: expected a release that the hosts of tumour hold \(1-a.*, 2-b.*\), found '9'"),
        ("2", "tumour: expected another release to go back to, found 2-bbbbbbbbbbbb, which serves now"),
    ],
)
def test_a_rollback_to_what_cannot_be_is_refused(to: str, message: str) -> None:
    with pytest.raises(ServiceError, match=message):
        rollback(to, host_state(ONE, TWO, blue=slot_state(TWO)), balancer_state(blue=TWO, history=[ONE]))


def test_a_rollback_without_a_history_is_refused() -> None:
    with pytest.raises(ServiceError, match="tumour: expected an earlier release in the balancers' history, found none"):
        rollback(None, host_state(ONE, blue=slot_state(ONE)), balancer_state(blue=ONE))


def of_groups(**definition: Any) -> Service:
    """A service whose blue hosts are m1 and m2, and its only green one m3."""
    groups = {"left": ["m1", "m2"], "right": ["m3"]}
    hosts = {"blue": "left", "green": "right"}
    return parse_services({"tumour": {"port": 8101, "hosts": hosts, **definition}}, groups)["tumour"]


def after_rolling(**changed: Any) -> dict[str, Any]:
    """Hosts of two groups, of which the blue one was replaced in place by THREE, and the green one has ONE, warm."""
    blue = host_state(TWO, THREE, blue=slot_state(THREE))
    return {"m1": blue, "m2": blue, "m3": host_state(ONE, green=slot_state(ONE, "green")), **changed}


@pytest.mark.parametrize("strategy", ["basic", "rolling", "blue_green"])
@pytest.mark.parametrize("to", [None, "2", TWO.name])
def test_a_group_goes_back_in_batches_where_the_other_one_lacks_the_release(to: str | None, strategy: str) -> None:
    service = of_groups(strategy=strategy, batches=[1, "100%"], keep_warm=False)
    plan = plan_rollback(
        service, to, after_rolling(), {"lb1": balancer_state(blue=THREE, green=ONE, history=[ONE, TWO])}
    )
    assert (plan.release, plan.slot, plan.was) == (TWO, "blue", {"release": THREE.name, "slot": "blue"})
    assert (plan.in_place, plan.batches, plan.idle, plan.stop) == (["m1", "m2"], [1, "100%"], [], [])
    assert (plan.record, plan.put_back) == (["lb1"], dict.fromkeys(["m1", "m2"], again(THREE)))


@pytest.mark.parametrize(
    "hosts",
    [
        after_rolling(m3=host_state(ONE, TWO)),
        after_rolling(m1=host_state(THREE), m2=host_state(THREE), m3=host_state(TWO)),
    ],
    ids=["both hold it", "the other one holds it"],
)
def test_a_group_that_holds_the_release_is_gone_back_to(hosts: Any) -> None:
    balancers = {"lb1": balancer_state(blue=THREE, green=ONE, history=[ONE, TWO])}
    plan = plan_rollback(of_groups(), None, hosts, balancers)
    assert (plan.release, plan.slot, plan.in_place, plan.idle) == (TWO, "green", [], ["m3"])


@pytest.mark.parametrize(("lost", "beside"), [(["m2"], False), ([], True)], ids=["one host", "several services"])
def test_what_would_lose_requests_in_place_or_move_with_others_does_not_go_back_there(
    lost: list[str], beside: bool
) -> None:
    hosts = {host: state for host, state in after_rolling().items() if host not in lost}
    balancers = {"lb1": balancer_state(blue=THREE, green=ONE, history=[ONE, TWO])}
    with pytest.raises(ServiceError, match=r"the hosts of tumour hold \(1-aaaaaaaaaaaa\), found '2-bbbbbbbbbbbb'"):
        plan_rollback(of_groups(), None, hosts, balancers, beside)


def test_a_rollback_to_a_release_that_a_host_lost_names_the_host() -> None:
    hosts = {"m1": host_state(ONE, TWO), "m2": host_state(TWO)}
    with pytest.raises(ServiceError, match=r"found it missing on m2: deploy its bundle again"):
        rollback("1", hosts, balancer_state(blue=TWO, history=[ONE]))


def test_a_version_with_two_bundles_must_be_named_in_full() -> None:
    twin = Release("1-dddddddddddd", "1", "d" * 64)
    with pytest.raises(ServiceError, match="to: expected one release of tumour, found '1' for 1-aaaaaaaaaaaa, 1-ddddd"):
        rollback("1", host_state(ONE, twin, TWO), balancer_state(blue=TWO, history=[ONE]))


def test_a_machine_that_did_not_answer_is_named_before_anything_is_planned() -> None:
    with pytest.raises(ServiceError, match=r"expected every machine to answer .* found none from m2"):
        check_reached(["m1", "m2"], {"m1": host_state()})


def test_a_rollback_does_not_wait_for_a_host_that_is_down() -> None:
    hosts = {"m1": host_state(ONE, TWO, blue=slot_state(TWO))}
    assert rollback(None, hosts, balancer_state(blue=TWO, history=[ONE])).idle == ["m1"]


def undo(died: Any, hosts: Any, balancer: Any, strategy: Any = "rolling") -> Plan:
    return plan_back(SERVICE, strategy, died, True, True, hosts, {"lb1": balancer})


IN_PLACE = {"release": TWO.name, "slot": "blue", "was": {"release": ONE.name, "slot": "blue"}}
UNREACHABLE = {"m1": f"expected {ONE.name} to run again, found the host unreachable"}


@pytest.mark.parametrize(
    ("died", "balancer", "out"),
    [
        (IN_PLACE, balancer_state(blue=ONE), UNREACHABLE),
        (IN_PLACE, balancer_state(blue=TWO, history=[ONE]), UNREACHABLE),
        (IN_PLACE, balancer_state(blue=ONE, admin={("blue", "m1"): "maint"}), {}),
        (IN_PLACE, balancer_state(blue=ONE, down=[("blue", "m1")]), UNREACHABLE),
        ({**IN_PLACE, "slot": "green"}, balancer_state(blue=ONE), {}),
    ],
    ids=["serves", "moved", "is out already", "is down, and comes up again", "started beside"],
)
def test_a_host_that_may_run_what_is_undone_and_does_not_answer_leaves_the_rotation(
    died: Any, balancer: Any, out: Any
) -> None:
    plan = undo(died, {"m2": host_state(ONE, TWO, blue=slot_state(ONE))}, balancer)
    assert (plan.in_place, plan.idle, plan.stop, plan.out) == ([], [], [], out)
    assert together([plan], ["lb1"], {})["left_out"] == [
        f"{host}: tumour stays out of rotation: {why}" for host, why in out.items()
    ]


@pytest.mark.parametrize(("recorded", "out"), [(ONE, {}), (THREE, UNREACHABLE)], ids=["ran it last", "ran another"])
def test_a_cold_rollback_waits_for_no_host_that_did_not_answer(recorded: Release, out: Any) -> None:
    hosts = {"m2": host_state(ONE, TWO, blue=slot_state(TWO))}
    balancers = {"lb1": balancer_state(blue=TWO, green=recorded, history=[ONE])}
    plan = plan_rollback(SERVICE, None, hosts, balancers)
    assert (plan.idle, plan.out) == (["m2"], out)
    assert together([plan], ["lb1"], {})["up"] == {"tumour": 1}


def test_status_shows_a_host_that_did_not_answer() -> None:
    lines = status_lines({"tumour": SERVICE}, {"m1": host_state()}, {"lb1": balancer_state()})
    assert lines[2].split()[3:6] == ["m2", "-", "unreachable"]


def test_retire_stops_the_slot_that_no_balancer_routes_to() -> None:
    hosts = {
        "m1": host_state(ONE, TWO, blue=slot_state(TWO), green=slot_state(ONE, "green")),
        "m2": host_state(ONE, TWO, blue=slot_state(TWO), green=slot_state(ONE, "green", unit="inactive")),
    }
    plan = plan_retire(SERVICE, hosts, {"lb1": balancer_state(blue=TWO, green=ONE)})
    assert (plan.stop, plan.stop_slot) == (["m1"], "green")


def test_status_has_a_row_a_service_slot_and_host() -> None:
    hosts = {"m1": host_state(ONE, blue=slot_state(ONE)), "m2": host_state()}
    lines = status_lines({"tumour": SERVICE}, hosts, {"lb1": balancer_state(blue=ONE)})
    assert [line.split()[:6] for line in lines[1:3]] == [
        ["tumour", "blue", "active", "m1", ONE.name, "active"],
        ["tumour", "blue", "active", "m2", "-", "-"],
    ]
    assert lines[0].split() == ["service", "slot", "route", "host", "release", "unit", "ready", "balancer"]


NOON = {"retry_after": 120, "detail": "Back at noon."}


@pytest.mark.parametrize(
    ("first", "second", "lines"),
    [
        (None, None, []),
        (NOON, NOON, ["tumour: in maintenance on lb1, lb2: 503, Back at noon. Retry-After: 120"]),
        (None, NOON, ["tumour: in maintenance on lb2: 503, Back at noon. Retry-After: 120"]),
    ],
    ids=["none", "on both", "on one"],
)
def test_the_status_says_which_service_is_in_maintenance(first: Any, second: Any, lines: list[str]) -> None:
    balancers = {"lb1": balancer_state(blue=ONE), "lb2": balancer_state(blue=ONE)}
    for state, notice in zip(balancers.values(), (first, second), strict=True):
        state["services"]["tumour"]["maintenance"] = notice
    assert status_lines({"tumour": SERVICE}, {}, balancers)[5:] == lines


def test_the_status_shows_which_host_is_taken_out() -> None:
    balancer = balancer_state(blue=ONE, admin={("blue", "m1"): "maint"})
    rows = status_lines({"tumour": SERVICE}, {}, {"lb1": balancer})
    assert [row.split()[-1] for row in rows[1:3]] == ["UP/maint", "UP/ready"]


CONTRACT = Contract(True, (Column("age", "int64"),), (Output("predictions", "int64", (-1,)),))
DOCUMENT = {
    "columns": True,
    "inputs": [{"name": "age", "dtype": "int64"}],
    "outputs": [{"name": "predictions", "dtype": "int64", "shape": [-1]}],
}


def judged(hosts: Any, balancers: Any, release: Release = THREE, new: Contract = CONTRACT) -> tuple[str, str, str]:
    (verdict,) = judge_contract(SERVICE, parse_policy({})["contract"], release, lambda: new, "blue", hosts, balancers)
    return verdict["verdict"], verdict["expected"], verdict["found"]


def on(**releases: Release) -> dict[str, Any]:
    """Hosts whose active slot has a release, with its contract."""
    return {host: host_state(blue=slot_state(release, contract=DOCUMENT)) for host, release in releases.items()}


ANY = "the contract of what serves, or a compatible one"


@pytest.mark.parametrize(
    ("hosts", "balancer", "release", "found"),
    [
        ({"m1": host_state(), "m2": host_state()}, balancer_state(), THREE, ("pass", ANY, "nothing serves yet")),
        # A first deploy that was cut short: what is in the slot never served.
        (on(m1=ONE, m2=ONE), balancer_state(), THREE, ("pass", ANY, "nothing serves yet")),
        (on(m1=THREE, m2=THREE), balancer_state(blue=THREE), THREE, ("pass", ANY, "3-cccccccccccc itself serves")),
        # A rolling deploy that was cut short before a balancer recorded it.
        (on(m1=THREE, m2=THREE), balancer_state(blue=ONE), THREE, ("pass", ANY, "3-cccccccccccc itself serves")),
        (
            on(m1=ONE, m2=TWO),
            balancer_state(blue=ONE),
            THREE,
            ("pass", "the contract of 1-aaaaaaaaaaaa, 2-bbbbbbbbbbbb, or a compatible one", "identical"),
        ),
        (
            {"m1": host_state(blue=slot_state(ONE, contract=None)), **on(m2=ONE)},
            balancer_state(blue=ONE),
            THREE,
            ("pass", "the contract of 1-aaaaaaaaaaaa, or a compatible one", "identical"),
        ),
        (
            {host: host_state(blue=slot_state(ONE, contract=None)) for host in ("m1", "m2")},
            balancer_state(blue=ONE),
            THREE,
            (
                "fail",
                "the contract of 1-aaaaaaaaaaaa, which serves",
                "none that is as it was built on m1, m2",
            ),
        ),
    ],
    ids=["first", "first, cut short", "the same", "record is missing", "mixed", "damaged on one", "damaged on all"],
)
def test_a_contract_is_compared_with_what_hosts_serve(
    hosts: Any, balancer: Any, release: Release, found: tuple[str, str, str]
) -> None:
    assert judged(hosts, {"lb1": balancer}, release) == found


def test_the_old_slot_is_the_baseline_of_one_that_starts_beside_it() -> None:
    host, balancer = host_state(ONE, blue=slot_state(ONE)), balancer_state(blue=ONE)
    groups = parse_services({"tumour": {"port": 8101, "hosts": {"blue": "left", "green": "right"}}}, GROUPS)["tumour"]
    for plan, compared in (
        (deploy("blue_green", TWO, host, balancer), ("blue", ONE.name)),
        (deploy("rolling", TWO, host, balancer), ("", ONE.name)),
        (deploy("blue_green", TWO, host, balancer, groups), ("", ONE.name)),
        (deploy("blue_green", ONE, host, balancer), ("", "")),
        (deploy("blue_green", ONE, host_state(), balancer_state()), ("", "")),
    ):
        assert (plan.baseline_slot, plan.replaces) == compared


def test_what_goes_back_is_compared_with_nothing() -> None:
    host, balancer = host_state(ONE, TWO, blue=slot_state(TWO)), balancer_state(blue=TWO, green=ONE, history=[ONE])
    hosts, balancers = {"m1": host, "m2": host}, {"lb1": balancer}
    died = {"release": TWO.name, "slot": "blue", "was": {"release": ONE.name, "slot": "green"}}
    cold, undone = rollback(None, host, balancer), plan_back(SERVICE, "blue_green", died, True, True, hosts, balancers)
    for plan in (cold, undone):
        assert (plan.release, plan.idle) == (ONE, ["m1", "m2"])
        assert (plan.baseline_slot, plan.replaces) == ("", "")


@pytest.mark.parametrize(
    ("strategy", "release", "keep_warm", "lines"),
    [
        (
            "blue_green",
            TWO,
            False,
            [
                "tumour: 2-bbbbbbbbbbbb in green; now 1-aaaaaaaaaaaa in blue serves",
                "  place the release                      m1, m2",
                "  start it in green, beside what serves  m1, m2",
                "  send the requests to green             lb1",
                "  stop blue                              m1, m2",
            ],
        ),
        (
            "rolling",
            TWO,
            True,
            [
                "tumour: 2-bbbbbbbbbbbb in blue; now 1-aaaaaaaaaaaa in blue serves",
                "  place the release                                      m1, m2",
                "  replace what runs in blue, in batches of 1, 25%, 100%  m1, m2",
                "  send the requests to blue                              lb1",
            ],
        ),
        (
            "rolling",
            ONE,
            True,
            ["tumour: 1-aaaaaaaaaaaa in blue; now 1-aaaaaaaaaaaa in blue serves", "  nothing to do"],
        ),
    ],
)
def test_a_plan_is_said_in_lines(strategy: Any, release: Release, keep_warm: bool, lines: list[str]) -> None:
    service = parse_services({"tumour": {"port": 8101, "keep_warm": keep_warm}}, GROUPS)["tumour"]
    state = host_state(ONE, blue=slot_state(ONE))
    assert deploy(strategy, release, state, balancer_state(blue=ONE), service).as_dict()["lines"] == lines


ENDED = {"action": "deploy", "by": "anna", "since": "noon", "held": False, "step": None, "reason": "", "gates": []}


def test_the_status_says_what_the_gates_of_the_last_rollout_found() -> None:
    def balancer(name: str, verdict: str) -> dict[str, Any]:
        state = balancer_state(blue=ONE)
        gate = verdict_of("contract", "enforce", verdict == "done", "a contract", "identical")
        state["services"]["tumour"]["rollout"] = {**ENDED, "id": name, "verdict": verdict, "gates": [gate]}
        return state

    hosts = {host: host_state(ONE, blue=slot_state(ONE)) for host in ("m1", "m2")}
    balancers = {"lb1": balancer("20260101T120000-a", "failed"), "lb2": balancer("20260102T120000-b", "done")}
    assert status_lines({"tumour": SERVICE}, hosts, balancers)[-5:] == [
        "",
        "tumour: deploy 20260101T120000-a by anna since noon: failed",
        "tumour: deploy 20260102T120000-b by anna since noon: done",
        "  gate      where       mode     verdict  expected    found      seconds",
        "  contract  controller  enforce  pass     a contract  identical  0.00",
    ]


@pytest.mark.parametrize(
    ("rollout", "lines"),
    [
        (None, []),
        ({**ENDED, "id": "1", "verdict": "done"}, ["", "tumour: deploy 1 by anna since noon: done"]),
    ],
    ids=["no journal", "no gates yet"],
)
def test_a_status_without_verdicts_says_no_more_than_there_is(rollout: Any, lines: list[str]) -> None:
    balancer = balancer_state(blue=ONE)
    if rollout:
        balancer["services"]["tumour"]["rollout"] = rollout
    assert status_lines({"tumour": SERVICE}, {}, {"lb1": balancer})[5:] == lines
