from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.rollout import (
    Plan,
    Release,
    check_reached,
    plan_deploy,
    plan_retire,
    plan_rollback,
    status_lines,
)
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.service import Service, ServiceError, parse_services

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
    assert plan.wheels == [{"env": "e1", "tag": "cp311", "machine": "x86_64", "glibc": "2.36"}]


@pytest.mark.parametrize("strategy", ["basic", "rolling", "blue_green"])
def test_a_deploy_of_what_serves_has_nothing_to_do(strategy: Any) -> None:
    plan = deploy(strategy, ONE, host_state(ONE, blue=slot_state(ONE)), balancer_state(blue=ONE))
    assert plan.as_dict()["unchanged"] is True


def test_rolling_restarts_the_active_slot_in_batches() -> None:
    plan = deploy("rolling", TWO, host_state(ONE, blue=slot_state(ONE)), balancer_state(blue=ONE))
    assert (plan.slot, plan.in_place, plan.batches, plan.idle) == ("blue", ["m1", "m2"], [1, "100%"], [])
    assert plan.was == {"release": ONE.name, "slot": "blue"}


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


def test_blue_green_over_host_groups_stages_the_idle_group_alone() -> None:
    groups = parse_services({"tumour": {"port": 8101, "hosts": {"blue": "left", "green": "right"}}}, GROUPS)["tumour"]
    plan = deploy("blue_green", TWO, host_state(ONE, blue=slot_state(ONE)), balancer_state(blue=ONE), groups)
    assert (plan.stage, plan.idle) == (["m2"], ["m2"])


@pytest.mark.parametrize(
    "changed",
    [
        {"unit": "failed"},
        {"ready": False},
        {"started": None},
        {"started": {"release": ONE.name, "env": "other"}},
        {"started": {"release": TWO.name, "env": "e1"}},
        {"limits": {"MemoryMax": "2G", "TasksMax": "256"}},
        {"settings": {**SERVICE.settings("blue"), "WORKERS": "9"}},
        {"settings": {**SERVICE.settings("blue"), "REMOVED": "1"}},
    ],
)
def test_a_host_that_is_not_as_wanted_is_mended_in_place(changed: dict[str, Any]) -> None:
    hosts = {"m1": host_state(ONE, blue=slot_state(ONE)), "m2": host_state(ONE, blue=slot_state(ONE, **changed))}
    plan = deploy("blue_green", ONE, hosts, balancer_state(blue=ONE))
    assert (plan.in_place, plan.stage, plan.record) == (["m2"], [], [])


def test_a_host_that_an_earlier_run_left_out_of_rotation_is_brought_back() -> None:
    balancer = balancer_state(blue=ONE, admin={("blue", "m1"): "maint"})
    plan = deploy("rolling", ONE, host_state(ONE, blue=slot_state(ONE)), balancer)
    assert plan.in_place == ["m1"]


def test_a_host_left_out_of_the_idle_pool_is_brought_back_before_the_route_moves() -> None:
    state = host_state(ONE, TWO, blue=slot_state(ONE), green=slot_state(TWO, "green"))
    plan = deploy("blue_green", TWO, state, balancer_state(blue=ONE, admin={("green", "m2"): "maint"}))
    assert (plan.idle, plan.unready) == (["m2"], ["m2"])


def test_a_run_that_died_between_the_hosts_and_the_balancer_goes_on_with_the_balancer() -> None:
    state = host_state(ONE, TWO, blue=slot_state(ONE), green=slot_state(TWO, "green"))
    plan = deploy("blue_green", TWO, state, balancer_state(blue=ONE))
    assert (plan.stage, plan.idle, plan.record) == ([], [], ["lb1"])


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
    balancers = {"lb1": balancer_state(blue=TWO, history=[ONE]), "lb2": balancer_state(blue=THREE)}
    plan = plan_deploy(SERVICE, "rolling", THREE, {"m1": host_state(TWO), "m2": host_state(TWO)}, balancers, env_of)
    assert plan.pinned == [TWO.name, ONE.name, THREE.name]


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
