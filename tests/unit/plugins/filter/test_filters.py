# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters, as Ansible finds them: by their names in ``FilterModule``."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible_collections.modelfleet.onprem.plugins.filter import (
    addresses,
    balancer_pools,
    fleet_problems,
    fleet_status,
    gates_found,
    host_releases,
    lacking_space,
    pick,
    plan_servers,
    read_state,
    same_moment,
)
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.service import ServiceError

from tests.unit.plugins.states import ONE, TWO, balancer_state, host_state, slot_state

ROOT = Path(__file__).parents[4]
GROUPS = {"model_hosts": ["m1", "m2"], "left": ["m1"]}
HOSTVARS = {
    "m1": {"ansible_host": "10.0.0.1", "modelfleet_address": "192.168.0.1"},
    "m2": {"ansible_host": "10.0.0.2", "modelfleet_address": ""},
    "m3": {},
    "::1": {},
    "lb1": {"ansible_host": "lb1.invalid"},
    "lb2": {"ansible_host": "localhost"},
}
SERVICES = {"tumour": {"port": 8101, "workers": 3, "threads": 2}, "prices": {"port": 8201, "hosts": "left"}}


def apply(plugin: ModuleType, *arguments: Any, **options: Any) -> Any:
    """The filter of ``plugin``, which has the plugin's name."""
    name = plugin.__name__.rpartition(".")[2]
    return plugin.FilterModule().filters()[name](*arguments, **options)


@pytest.mark.parametrize(
    ("hosts", "found"),
    [
        (["m1"], ["192.168.0.1"]),
        (["m2"], ["10.0.0.2"]),
        (["::1"], ["::1"]),
        (["m2", "m1"], ["10.0.0.2", "192.168.0.1"]),
        ([], []),
    ],
    ids=["its own variable first", "then Ansible's", "then its name", "in the order asked for", "of nobody"],
)
def test_an_address_is_the_one_that_the_fleet_uses(hosts: list[str], found: list[str]) -> None:
    assert apply(addresses, HOSTVARS, hosts) == found


def test_a_name_becomes_all_of_its_addresses() -> None:
    found = apply(addresses, HOSTVARS, ["lb2"])
    assert "127.0.0.1" in found
    assert found == sorted({str(ip_address(address)) for address in found})


def test_a_name_that_does_not_resolve_is_refused() -> None:
    message = (
        "address of lb1: expected an IP address or a name that resolves, found 'lb1.invalid': set modelfleet_address"
    )
    with pytest.raises(ServiceError, match=f"^{re.escape(message)}$"):
        apply(addresses, HOSTVARS, ["m1", "lb1"])


def test_the_inventory_to_start_from_has_services_that_are_right() -> None:
    everything = yaml.safe_load((ROOT / "inventories" / "example" / "hosts.yml").read_text())["all"]
    groups = {name: list(group["hosts"]) for name, group in everything["children"].items()}
    hostvars = {host: it for group in everything["children"].values() for host, it in group["hosts"].items()}
    services = everything["vars"]["modelfleet_services"]
    pools = apply(balancer_pools, services, groups, hostvars)
    assert [pool["name"] for pool in pools] == ["tumour_blue", "tumour_green", "churn_blue", "churn_green"]


def test_every_service_has_a_pool_for_each_slot() -> None:
    pools = apply(balancer_pools, SERVICES, GROUPS, HOSTVARS)
    assert [pool["name"] for pool in pools] == ["tumour_blue", "tumour_green", "prices_blue", "prices_green"]
    assert pools[1] == {
        "name": "tumour_green",
        "service": "tumour",
        "slot": "green",
        "servers": [
            {"name": "m1", "address": "192.168.0.1", "port": 8102},
            {"name": "m2", "address": "10.0.0.2", "port": 8102},
        ],
        "max_in_flight": 24,
    }
    assert [server["name"] for server in pools[2]["servers"]] == ["m1"]


@pytest.mark.parametrize(("plugin", "states"), [(balancer_pools, [HOSTVARS]), (fleet_status, [{}, {}])])
def test_a_definition_that_cannot_be_used_is_refused(plugin: ModuleType, states: list[Any]) -> None:
    with pytest.raises(ServiceError, match=r"modelfleet_services\.tumour\.port: expected .*, found None"):
        apply(plugin, {"tumour": {}}, GROUPS, *states)


@pytest.mark.parametrize(
    ("only", "services"),
    [(None, ["tumour", "prices"]), (["prices"], ["prices"])],
    ids=["all of them", "those asked for"],
)
def test_the_status_has_a_row_for_each_service_slot_and_host(only: list[str] | None, services: list[str]) -> None:
    hosts = {"m1": host_state(ONE, TWO, blue=slot_state(ONE), green=slot_state(TWO, "green", ready=False))}
    rows = [
        line.split()
        for line in apply(fleet_status, SERVICES, GROUPS, hosts, {"lb1": balancer_state(blue=ONE, green=TWO)}, only)
    ]
    assert rows[0] == ["service", "slot", "route", "host", "release", "unit", "ready", "balancer"]
    assert list(dict.fromkeys(row[0] for row in rows[1:])) == services
    if "tumour" in services:
        assert rows[1:5] == [
            ["tumour", "blue", "active", "m1", ONE.name, "active", "yes", "UP/ready"],
            ["tumour", "blue", "active", "m2", "-", "unreachable", "no", "UP/ready"],
            ["tumour", "green", "idle", "m1", TWO.name, "active", "no", "UP/ready"],
            ["tumour", "green", "idle", "m2", "-", "unreachable", "no", "UP/ready"],
        ]
    assert rows[-1] == ["prices", "green", "idle", "m1", "-", "-", "no", "unknown"]


@pytest.mark.parametrize(
    "variables",
    [{}, {"state": None}, {"state": {"failed": True, "msg": "no route"}}, {"state": {"unreachable": True}}],
    ids=["not asked", "nothing", "failed", "unreachable"],
)
def test_a_host_that_did_not_answer_is_left_out(variables: dict[str, Any]) -> None:
    hostvars = {"m1": {"state": {"model_host": {"envs": []}}}, "m2": variables, "m3": HOSTVARS["m3"]}
    assert apply(read_state, hostvars, ["m1", "m2"], "state", "model_host") == {"m1": {"envs": []}}


def test_a_host_without_room_for_its_environment_is_named() -> None:
    plan = {"service": "tumour", "stage": ["m1"], "envs": {"m1": "e9"}, "release": {"name": ONE.name}}
    state = host_state(ONE, free_bytes={"envs": 1000, "releases": 0}, one_disk=False)
    gathered = [{"item": {"env": "e9", "tag": "cp311"}, "size": 2000, "folder": "/wheels"}]
    assert apply(lacking_space, [plan], {"m1": state}, {"tumour": {"size": 0}}, gathered) == [
        "m1: /opt/modelfleet/envs: expected 2 kB free for the environment e9, found 1 kB"
    ]


def test_the_services_that_are_asked_for_are_checked() -> None:
    hosts = {"m1": host_state(ONE, blue=slot_state(ONE, ready=False), problems=[])}
    balancer = balancer_state(blue=ONE)
    balancer["services"]["tumour"].update(persisted=True)
    definitions = {"tumour": {"port": 8101, "hosts": "left"}, "prices": {"port": 8201, "hosts": "left"}}
    found = apply(fleet_problems, definitions, GROUPS, hosts, {"lb1": balancer}, ["tumour"])
    assert found == ["m1: expected tumour blue to be ready, found that it is not"]
    assert "lb1: expected pools for prices, found none" in apply(
        fleet_problems, definitions, GROUPS, hosts, {"lb1": balancer}
    )


@pytest.mark.parametrize(
    ("clocks", "moment"),
    [([1000.5, 1001], 1002.5), ([1000.5], 0), ([], 0), ([1000, 4600], 0)],
    ids=["two", "one", "none", "an hour off"],
)
def test_a_moment_at_which_all_can_change_is_ahead_of_every_clock(clocks: list[float], moment: float) -> None:
    assert apply(same_moment, clocks) == pytest.approx(moment)


PLANS = [
    {
        "service": "tumour",
        "slot": "green",
        "stop_slot": "blue",
        "release": {"name": "3-cccccccccccc", "version": "3", "digest": "c" * 64},
        "was": {"release": "2-bbbbbbbbbbbb", "slot": "blue"},
        "envs": {"m1": "e1", "m2": "e2"},
        "stage": ["m2"],
        "idle": ["m1", "m2"],
        "pinned": ["2-bbbbbbbbbbbb"],
        "settings": {"WORKERS": "2"},
        "limits": {},
        "baseline_slot": "blue",
        "replaces": "2-bbbbbbbbbbbb",
    },
    {
        "service": "prices",
        "slot": "blue",
        "stop_slot": "green",
        "release": {"name": "1-aaaaaaaaaaaa", "version": "1", "digest": ""},
        "was": {"release": "1-aaaaaaaaaaaa", "slot": "blue"},
        "stage": [],
        "idle": ["m1"],
        "settings": {},
        "limits": {},
        "baseline_slot": "",
        "replaces": "",
    },
]
PARTS = {
    "tumour": {
        "bundle": "/b",
        "keep_releases": 5,
        "url": "",
        "ready_timeout": 9,
        "policy": {"load": {"mode": "warn"}},
        "trust": {"allowed_signers": "anna ssh-ed25519 AAAA", "revoked_keys": "", "signers": ["anna"], "gates": {}},
    },
    "prices": {"ready_timeout": 60, "policy": {}},
}


def test_the_releases_of_a_host_are_what_is_asked_for_and_planned_there() -> None:
    assert apply(host_releases, PLANS, "m1", "idle", PARTS) == [
        {
            "service": "tumour",
            "slot": "green",
            "release": "3-cccccccccccc",
            "version": "3",
            "digest": "c" * 64,
            "env": "e1",
            "src": "/b",
            "keep": 5,
            "ready_timeout": 9,
            "gates": {"load": {"mode": "warn"}},
            "allowed_signers": "anna ssh-ed25519 AAAA",
            "signers": ["anna"],
            "pinned": ["2-bbbbbbbbbbbb"],
            "settings": {"WORKERS": "2"},
            "limits": {},
            "baseline": "blue",
            "replaces": "2-bbbbbbbbbbbb",
        },
        # Known by its name alone, and it replaces nothing.
        {
            "service": "prices",
            "slot": "blue",
            "release": "1-aaaaaaaaaaaa",
            "version": "1",
            "digest": "aaaaaaaaaaaa",
            "ready_timeout": 60,
            "gates": {},
            "settings": {},
            "limits": {},
        },
    ]


def test_a_service_whose_step_is_not_about_the_host_is_left_out() -> None:
    wheels = [{"item": {"env": "e2"}, "folder": "/w"}, {"item": {"env": "e3"}, "skipped": True}]
    [release] = apply(host_releases, PLANS, "m2", "stage", PARTS, wheels)
    assert (release["service"], release["env"], release["wheels"]) == ("tumour", "e2", "/w")
    assert apply(host_releases, PLANS, "m1", "stage", PARTS, wheels) == []


def test_servers_of_a_step_are_those_of_every_service() -> None:
    assert apply(plan_servers, PLANS, "idle") == ["tumour_green/m1", "tumour_green/m2", "prices_blue/m1"]
    assert apply(plan_servers, PLANS, "stage", "stop_slot") == ["tumour_blue/m2"]


def test_what_is_picked_is_what_there_is_of_it_under_the_name_asked_for() -> None:
    mappings = [{"a": 1, "b": 2, "c": 3}, {"a": None}]
    assert apply(pick, mappings, "a", other="b") == [{"a": 1, "other": 2}, {"a": None}]


def test_what_gates_found_is_sorted_by_service_beside_what_was_found_before() -> None:
    before = {"tumour": {"placed": {"release": "3-cccccccccccc", "gates": []}}}
    passed, failed = {"gate": "load", "verdict": "pass"}, {"gate": "load", "verdict": "fail"}
    loaded = {
        "several": [
            {"service": "tumour", "slot": "green", "gates": [passed], "changed": False},
            {"service": "prices", "slot": "blue", "gates": [failed], "failed": True, "msg": "no"},
        ]
    }
    started = {"several": [{"service": "tumour", "after": {}}], "changed": True}
    assert apply(gates_found, before, loaded=loaded, started=started, gated={"unreachable": True}) == {
        "tumour": {**before["tumour"], "loaded": {"gates": [passed]}},
        "prices": {"loaded": {"gates": [failed]}},
    }
    assert before == {"tumour": {"placed": {"release": "3-cccccccccccc", "gates": []}}}
