from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.policy import parse_policy
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.service import (
    ServiceError,
    balancer_pools,
    check_balancers,
    find_asked,
    find_service,
    find_strategy,
    order_services,
    parse_services,
    reached_by,
)

GROUPS = {"model_hosts": ["m1", "m2"], "left": ["m1"], "right": ["m2"], "empty": []}


def test_a_service_needs_no_more_than_a_port() -> None:
    service = parse_services({"tumour": {"port": 8101}}, GROUPS)["tumour"]
    assert service.hosts == ("m1", "m2")
    assert (service.port_of("blue"), service.port_of("green")) == (8101, 8102)
    assert service.strategy == "blue_green"
    assert service.settings("green")["BIND"] == "0.0.0.0:8102"
    assert service.limits() == {"MemoryMax": "1G", "TasksMax": "256"}


def test_a_service_has_a_complete_policy_of_gates() -> None:
    definitions = {"a": {"port": 8101}, "b": {"port": 8111, "gates": {"latency": {"mode": "enforce", "max_ms": 50}}}}
    services = parse_services(definitions, GROUPS)
    assert services["a"].gates == parse_policy({})
    latency = {"mode": "enforce", "factor": 3, "max_ms": 50, "inconclusive": "pass"}
    assert services["b"].gates == {**parse_policy({}), "latency": latency}


def test_blue_and_green_may_be_two_groups_of_hosts() -> None:
    service = parse_services({"tumour": {"port": 8101, "hosts": {"blue": "left", "green": "right"}}}, GROUPS)["tumour"]
    assert service.slot_hosts == {"blue": ("m1",), "green": ("m2",)}
    assert service.hosts == ("m1", "m2")


@pytest.mark.parametrize(
    ("definitions", "message"),
    [
        ({}, "modelfleet_services: expected a mapping of at least one service in the inventory, found none"),
        ({"Tumour": {"port": 8101}}, "modelfleet_services.Tumour: expected a name of up to 40 lower-case letters"),
        ({"v2": {"port": 8101}}, "not lb, rollouts, v2, found 'v2'"),
        ({"tumour": None}, "modelfleet_services.tumour: expected a mapping with at least a port, found None"),
        ({"tumour": {}}, "modelfleet_services.tumour.port: expected a whole number from 1024 to 65534, found None"),
        ({"tumour": {"port": True}}, "found True"),
        ({"tumour": {"port": 80}}, "found 80"),
        ({"tumour": {"port": 8101, "worker": 2}}, "found 'worker'"),
        (
            {"tumour": {"port": 8101, "canary": {"by": "name"}}},
            "modelfleet_services.tumour.canary.by: expected header:N",
        ),
        (
            {"tumour": {"port": 8101, "strategy": "canary"}},
            "modelfleet_services.tumour.canary: expected one for the strategy canary, found none: add it and run",
        ),
        ({"tumour": {"port": 8101, "workers": 0}}, "tumour.workers: expected a whole number from 1 to 256, found 0"),
        ({"tumour": {"port": 8101, "workers": "2"}}, "found '2'"),
        ({"tumour": {"port": 8101, "keep_warm": "yes"}}, "tumour.keep_warm: expected true or false, found 'yes'"),
        (
            {"tumour": {"port": 8101, "strategy": "red"}},
            "tumour.strategy: expected one of basic, rolling, blue_green, canary",
        ),
        (
            {"tumour": {"port": 8101, "gates": ["ready"]}},
            r"^modelfleet_services.tumour.gates: expected a mapping of gates to .*, found \['ready'\]$",
        ),
        (
            {"tumour": {"port": 8101, "gates": {"speed": "warn"}}},
            r"^modelfleet_services.tumour.gates: expected some of digest, .*, latency, found 'speed'$",
        ),
        (
            {"tumour": {"port": 8101, "gates": {"latency": {"factor": 0}}}},
            r"^modelfleet_services.tumour.gates.latency.factor: expected a number from 1 to 1000, found 0$",
        ),
        ({"tumour": {"port": 8101, "max_latency_ms": 50}}, "found 'max_latency_ms'"),
        ({"tumour": {"port": 8101, "batches": []}}, "tumour.batches: expected a list of counts and percentages"),
        ({"tumour": {"port": 8101, "batches": [0]}}, "tumour.batches"),
        ({"tumour": {"port": 8101, "memory_max": "lots"}}, "tumour.memory_max: expected a size such as 512M or 2G"),
        ({"tumour": {"port": 8101, "environment": {"a": "b"}}}, "tumour.environment: expected a mapping"),
        (
            {"tumour": {"port": 8101, "environment": {"A": "b\nC=d"}}},
            r"tumour.environment.A: expected one line of printable text, found '\\n' in it$",
        ),
        ({"tumour": {"port": 8101, "environment": {"A": "b\x1b[0m"}}}, r"found '\\x1b' in it"),
        (
            {"tumour": {"port": 8101, "environment": {"A": "b", "WORKERS": 3}}},
            "tumour.environment: expected none of ACCESS_LOG, .*, THREADS, WORKERS, found WORKERS",
        ),
        ({"tumour": {"port": 8101, "environment": {"MODEL_ENV": "/opt"}}}, "found MODEL_ENV"),
        ({"tumour": {"port": 8101, "environment": {"MODEL_DIGEST": "0a"}}}, "found MODEL_DIGEST"),
        ({"tumour": {"port": 8101, "hosts": "nobody"}}, "tumour.hosts: expected a group with hosts in it, found 'nob"),
        ({"tumour": {"port": 8101, "hosts": "empty"}}, "found 'empty' with none"),
        ({"tumour": {"port": 8101, "hosts": {"blue": "left"}}}, "tumour.hosts: expected a group, or the keys blue and"),
        ({"tumour": {"port": 8101, "hosts": {"blue": "left", "green": "model_hosts"}}}, "found m1 in both"),
        ({"a": {"port": 8101}, "b": {"port": 8102}}, "b.port: expected ports of its own on m1 .* found 8102, which a"),
        ({"a": {"port": 8101, "metrics_port": 8102}}, "a.port: expected ports of its own on m1 .* found 8102"),
        ({"a": {"port": 8101, "metrics_port": 8101}}, "expected ports of its own on m1 .* found 8101, which a has"),
        ({"tumour": {"port": 8101, "scorer": "gpu"}}, "tumour.scorer: expected one of auto, native, found 'gpu'"),
        ({"tumour": {"port": 8101, "access_log": "some"}}, "tumour.access_log: expected one of off, errors, all"),
        ({"tumour": {"port": 8101, "capture_share": 10}}, "tumour.capture_share: expected a number from 0 to 1"),
        ({"tumour": {"port": 8101, "capture_redact": "age"}}, "tumour.capture_redact: expected a list of columns"),
        ({"tumour": {"port": 8101, "capture_redact": ["a,b"]}}, "tumour.capture_redact: expected a list of columns"),
    ],
)
def test_a_definition_that_cannot_be_used_is_refused(definitions: Any, message: str) -> None:
    with pytest.raises(ServiceError, match=message):
        parse_services(definitions, GROUPS)


def test_a_service_may_set_variables_of_the_model_server_that_nothing_else_sets() -> None:
    definition = {"port": 8101, "environment": {"KEEP_ALIVE": 5, "GREETING": "schön"}}
    settings = parse_services({"tumour": definition}, GROUPS)["tumour"].settings("blue")
    assert (settings["KEEP_ALIVE"], settings["GREETING"]) == ("5", "schön")


def test_what_the_model_server_is_to_do_reaches_it() -> None:
    plain = parse_services({"tumour": {"port": 8101}}, GROUPS)["tumour"].settings("green")
    assert not {"METRICS_BIND", "CAPTURE_SHARE"} & plain.keys()
    definition = {
        "port": 8101,
        "metrics_port": 9101,
        "scorer": "native",
        "access_log": "all",
        "max_rows": 10,
        "max_wait_ms": 50,
        "capture_share": 0.01,
        "capture_redact": ["name", "date of birth"],
    }
    found = parse_services({"tumour": definition}, GROUPS)["tumour"].settings("green")
    assert {name: found[name] for name in found if plain.get(name) != found[name]} == {
        "METRICS_BIND": "0.0.0.0:9102",
        "SCORER": "native",
        "ACCESS_LOG": "all",
        "MAX_ROWS": "10",
        "MAX_WAIT_MS": "50",
        "CAPTURE_SHARE": "0.01",
        "CAPTURE_MAX_BYTES": "67108864",
        "CAPTURE_REDACT": "name,date of birth",
    }


def test_what_a_service_sets_itself_is_not_its_environments_to_set() -> None:
    for name in parse_services({"tumour": {"port": 8101}}, GROUPS)["tumour"].settings("blue"):
        with pytest.raises(ServiceError, match=f"found {name}$"):
            parse_services({"tumour": {"port": 8101, "environment": {name: "1"}}}, GROUPS)


def test_two_services_may_share_a_port_on_different_hosts() -> None:
    definitions = {"a": {"port": 8101, "hosts": "left"}, "b": {"port": 8101, "hosts": "right"}}
    assert set(parse_services(definitions, GROUPS)) == {"a", "b"}


def test_an_unknown_service_is_refused_with_those_there_are() -> None:
    services = parse_services({"tumour": {"port": 8101}}, GROUPS)
    with pytest.raises(ServiceError, match="service: expected one of tumour, found 'tumor'"):
        find_service(services, "tumor")
    with pytest.raises(ServiceError, match="service: expected -e service=NAME, one of tumour, found nothing"):
        find_service(services, None)


def test_the_strategy_asked_for_goes_before_the_inventorys() -> None:
    service = parse_services({"tumour": {"port": 8101, "strategy": "rolling"}}, GROUPS)["tumour"]
    assert find_strategy(service, None) == "rolling"
    assert find_strategy(service, "basic") == "basic"
    with pytest.raises(ServiceError, match="strategy: expected one of basic, rolling, blue_green, canary, found 'red'"):
        find_strategy(service, "red")


def test_an_inventory_without_a_balancer_is_refused() -> None:
    with pytest.raises(ServiceError, match="expected at least one host in the group load_balancers, found none"):
        check_balancers({"load_balancers": []})


def test_a_service_has_two_pools_with_the_addresses_of_its_hosts() -> None:
    services = parse_services({"tumour": {"port": 8101, "workers": 3, "threads": 2}}, GROUPS)
    hostvars = {"m1": {"ansible_host": "10.0.0.1"}, "m2": {"ansible_host": "host2", "modelfleet_address": "10.0.0.2"}}
    blue, green = balancer_pools(services, hostvars)
    assert blue == {
        "name": "tumour_blue",
        "service": "tumour",
        "slot": "blue",
        "servers": [
            {"name": "m1", "address": "10.0.0.1", "port": 8101},
            {"name": "m2", "address": "10.0.0.2", "port": 8101},
        ],
        "max_in_flight": 24,
    }
    assert [server["port"] for server in green["servers"]] == [8102, 8102]


@pytest.mark.parametrize(
    ("variables", "listens_on"),
    [
        ({"ansible_host": "10.0.0.2"}, "0.0.0.0"),
        ({"ansible_host": "fd00::2"}, "[::]"),
        ({"ansible_host": "fd00::2", "modelfleet_address": "10.0.0.2"}, "0.0.0.0"),
        ({"modelfleet_address": "fe80::2%eth0"}, "[::]"),
        ({"modelfleet_address": "host2.example"}, "0.0.0.0"),
        ({}, "0.0.0.0"),
    ],
)
def test_a_service_listens_where_its_hosts_are_reached(variables: Any, listens_on: str) -> None:
    service = parse_services({"tumour": {"port": 8101, "metrics_port": 9101}}, GROUPS)["tumour"]
    found = reached_by(service, {"m1": {"ansible_host": "10.0.0.1"}, "m2": variables}).settings("green")
    assert (found["BIND"], found["METRICS_BIND"]) == (f"{listens_on}:8102", f"{listens_on}:9102")


def several(**requires: list[str]) -> Any:
    ports = zip(requires.items(), range(8101, 9000, 2), strict=False)
    return parse_services({name: {"port": port, "requires": names} for (name, names), port in ports}, GROUPS)


def test_services_come_after_those_that_they_require() -> None:
    services = several(front=["tumour", "prices"], prices=["base"], tumour=[], base=[])
    assert [it.name for it in order_services(list(services.values()))] == ["tumour", "base", "prices", "front"]
    # What is not deployed with it is no reason to wait.
    assert [it.name for it in order_services([services["prices"], services["tumour"]])] == ["prices", "tumour"]


@pytest.mark.parametrize(
    ("requires", "message"),
    [
        ({"a": ["b"], "b": ["a"]}, "modelfleet_services: expected no service to require itself, found a, b"),
        ({"a": ["a"]}, "modelfleet_services: expected no service to require itself, found a"),
        ({"a": ["c"]}, "modelfleet_services.a.requires: expected some of a, found 'c'"),
        ({"a": "b"}, "modelfleet_services.a.requires: expected a list of services, found 'b'"),
    ],
)
def test_what_services_require_must_be_there_and_come_to_an_end(requires: Any, message: str) -> None:
    with pytest.raises(ServiceError, match=message.replace(".", r"\.")):
        several(**requires)


NOTHING = {"bundle": None, "version": None}


def test_a_request_is_about_one_service_or_several() -> None:
    services = several(a=[], b=[])
    assert find_asked(services, None, "a", {**NOTHING, "version": "7"}) == {"a": {"bundle": None, "version": "7"}}
    asked = find_asked(services, {"b": 7, "a": {"bundle": "path"}}, None, NOTHING)
    assert asked == {"b": {"version": "7"}, "a": {"bundle": "path"}}
    assert find_asked(services, ["b", "a"], None, NOTHING) == {"b": {}, "a": {}}


@pytest.mark.parametrize(
    ("wanted", "name", "source", "message"),
    [
        ({"a": "7"}, "a", NOTHING, "services: expected neither service, bundle nor version beside them, found one"),
        ({"a": "7"}, None, {**NOTHING, "version": "7"}, "services: expected neither service, bundle nor version"),
        ({"c": "7"}, None, NOTHING, "service: expected one of a, b, found 'c'"),
        ({"a": True}, None, NOTHING, "services.a: expected a version, or a bundle, found True"),
        ({"a": {"path": "x"}}, None, NOTHING, "services.a: expected a version, or a bundle, found "),
        ("a", None, NOTHING, "services: expected names and versions such as "),
        ({}, None, NOTHING, "services: expected names and versions such as "),
    ],
)
def test_a_request_about_several_that_cannot_be_meant_is_refused(
    wanted: Any, name: str | None, source: Any, message: str
) -> None:
    with pytest.raises(ServiceError) as refused:
        find_asked(several(a=[], b=[]), wanted, name, source)
    assert str(refused.value).startswith(message)
