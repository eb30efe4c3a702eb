"""The modules of the balancer against a real HAProxy with the role's configuration."""

from __future__ import annotations

import difflib
import fcntl
import importlib.util
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils import _haproxy
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal import Write, begin, read_rollout
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal_folder import JournalFolder
from ansible_collections.modelfleet.onprem.plugins.module_utils._maintenance import Notice
from ansible_collections.modelfleet.onprem.plugins.modules import (
    lb_canary,
    lb_info,
    lb_maintenance,
    lb_rollback,
    lb_rollout,
    lb_route,
    lb_server,
    lb_services,
    lb_settle,
)

from tests.unit.plugins.balancer import ROLE, Machine, ModelServer, pools_of, release, run_module

Capture = pytest.CaptureFixture[str]


class Fleet:
    """Two services with a blue slot on release 1 and a green one on release 2, two servers each."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.models = {
            service: {slot: [ModelServer(service, version) for _each in range(2)] for slot, version in slots}
            for service, slots in (("tumour", (("blue", 1), ("green", 2))), ("prices", (("blue", 1), ("green", 2))))
        }
        self.machine = Machine(folder, pools_of(self.models), **settings)
        self.params = self.machine.params

    def start(self) -> None:
        self.machine.start()
        deadline = time.monotonic() + 10
        while not all(server.in_rotation for server in self.servers()):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def servers(self) -> list[_haproxy.PoolServer]:
        with _haproxy.Process(self.params["socket"]) as process:
            return _haproxy.read_servers(process)

    def admin(self) -> dict[str, str]:
        return {server.label: server.admin for server in self.servers()}

    def snapshot(self) -> tuple[str, dict[str, str], dict[str, str]]:
        """All that a module can change: the running map, the servers' states, and the files."""
        files = {path.name: path.read_text() for path in self.machine.state_dir.iterdir()}
        return self.machine.ask(f"show map {self.machine.state_dir}/active.map"), self.admin(), files

    def wanted(self, slot: str, version: int, *services: str) -> dict[str, object]:
        return {"services": {name: {"slot": slot, "release": release(version)} for name in services or ("tumour",)}}

    def serving(self) -> int:
        """Which version answers for the first service."""
        return int(self.machine.get("/tumour/predict")[1]["version"])

    def stop(self) -> None:
        self.machine.stop()
        for slots in self.models.values():
            for servers in slots.values():
                for server in servers:
                    server.stop()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    found = Fleet(tmp_path)
    try:
        found.start()
        yield found
    finally:
        found.stop()


def keep_state() -> object:
    specification = importlib.util.spec_from_file_location("keep_state", ROLE / "files/keep_state.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_a_request_finds_its_service_by_its_path(fleet: Fleet) -> None:
    assert fleet.machine.get("/tumour/predict")[1]["path"] == "/predict"
    assert fleet.machine.get("/tumour")[1]["path"] == "/"
    assert fleet.machine.get("/v2/models/prices/ready")[1]["path"] == "/v2/models/prices/ready"
    status, problem = fleet.machine.get('/no"such/predict')
    assert (status, problem["detail"]) == (404, 'There is no service no"such here.')


def test_metrics_are_not_for_clients(fleet: Fleet) -> None:
    for path in ("/tumour/metrics", "/tumour/%6detrics", "/tumour/metrics?now"):
        status, problem = fleet.machine.get(path)
        assert (status, problem["title"]) == (404, "Not Found")


def test_a_service_without_servers_is_a_503_with_a_body(fleet: Fleet, capsys: Capture) -> None:
    servers = ["tumour_blue/model1", "tumour_blue/model2"]
    run_module(lb_server, capsys, **fleet.params, servers=servers, state="maint")
    assert fleet.machine.get("/tumour/predict") == (
        503,
        {
            "type": "about:blank",
            "title": "Service Unavailable",
            "status": 503,
            "detail": "No server can take this request now.",
        },
    )


@pytest.mark.parametrize(
    ("path", "status", "title", "detail"),
    [
        ("/tumour/crash", 502, "Bad Gateway", "The server gave no whole answer, and may have begun to predict."),
        ("/tumour/slow", 504, "Gateway Timeout", "The server gave no answer in time, and may still predict."),
    ],
)
def test_a_server_that_gives_no_answer_is_told_in_the_same_form(
    tmp_path: Path, path: str, status: int, title: str, detail: str
) -> None:
    fleet = Fleet(tmp_path, timeout_server="200ms")
    try:
        fleet.start()
        connection = fleet.machine.connect()
        connection.request("GET", path)
        response = connection.getresponse()
        problem = json.loads(response.read())
        connection.close()
    finally:
        fleet.stop()
    assert (response.status, response.headers["Content-Type"]) == (status, "application/problem+json")
    assert problem == {"type": "about:blank", "title": title, "status": status, "detail": detail}


def test_every_answer_of_the_balancers_own_is_a_problem_document(tmp_path: Path) -> None:
    lines = Machine(tmp_path, []).config.read_text().splitlines()
    found = [line.split()[2:5] for line in lines if line.split()[:1] == ["http-error"]]
    statuses = ["400", "408", "500", "501", "502", "503", "504"]
    assert found == [[status, "content-type", "application/problem+json"] for status in statuses]


def test_connections_that_are_kept_alive_move_with_their_next_request(fleet: Fleet, capsys: Capture) -> None:
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("blue", 1))
    connection = fleet.machine.connect()
    assert fleet.machine.get("/tumour/predict", connection)[1]["version"] == "1"
    result = run_module(lb_route, capsys, **fleet.params, **fleet.wanted("green", 2))
    assert result["changed"]
    assert result["routes"]["tumour"] == {
        "before": {"slot": "blue", "release": release(1), "share": 0},
        "after": {"slot": "green", "release": release(2), "share": 0},
    }
    assert fleet.machine.get("/tumour/predict", connection)[1]["version"] == "2"
    connection.close()
    assert not run_module(lb_route, capsys, **fleet.params, **fleet.wanted("green", 2))["changed"]


def test_no_request_is_lost_while_the_route_moves_and_haproxy_reloads(fleet: Fleet, capsys: Capture) -> None:
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("blue", 1))
    stop = threading.Event()
    answers: list[tuple[int, str]] = []
    errors: list[str] = []

    def ask() -> None:
        connection = fleet.machine.connect()
        while not stop.is_set():
            try:
                status, body = fleet.machine.get("/tumour/predict", connection)
                answers.append((status, body["version"]))
            except OSError as error:
                errors.append(repr(error))
        connection.close()

    clients = [threading.Thread(target=ask) for _each in range(4)]
    for client in clients:
        client.start()
    for slot, version in (("green", 2), ("blue", 1), ("green", 2)):
        run_module(lb_route, capsys, **fleet.params, **fleet.wanted(slot, version))
        keep_state().save(fleet.params["socket"], fleet.machine.config, fleet.machine.state_dir / "servers.state")
        fleet.machine.reload()
    stop.set()
    for client in clients:
        client.join()
    assert errors == []
    assert {status for status, _version in answers} == {200}
    assert {version for _status, version in answers} == {"1", "2"}


def test_two_services_move_in_one_step_and_back(fleet: Fleet, capsys: Capture) -> None:
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("blue", 1, "tumour", "prices"))
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("green", 2, "tumour", "prices"))
    found = run_module(lb_info, capsys, **fleet.params)["load_balancer"]["services"]
    assert {name: service["pool"] for name, service in found.items()} == {
        "tumour": "tumour_green",
        "prices": "prices_green",
    }
    result = run_module(lb_rollback, capsys, **fleet.params, services=["tumour", "prices"])
    assert result["rolled_back"] == {
        name: {"from": release(2), "to": release(1), "slot": "blue"} for name in ("tumour", "prices")
    }
    found = run_module(lb_info, capsys, **fleet.params, services=["tumour"])["load_balancer"]["services"]
    assert (list(found), found["tumour"]["slot"], found["tumour"]["history"]) == (["tumour"], "blue", [])
    again = run_module(lb_rollback, capsys, **fleet.params, services=["tumour"])
    assert again["msg"] == (
        f"tumour: expected an earlier release to go back to, found none; active is {release(1)}, earlier ones are none"
    )


def test_a_map_file_that_differs_from_the_running_map_is_reported(fleet: Fleet, capsys: Capture) -> None:
    path = fleet.machine.state_dir / "active.map"
    path.write_text(path.read_text().replace("tumour_blue", "tumour_green"))
    found = run_module(lb_info, capsys, **fleet.params)["load_balancer"]["services"]
    assert {name: found[name]["persisted"] for name in found} == {"tumour": False, "prices": True}


@dataclass(frozen=True)
class Change:
    """A run of a module that has something to do: what it says of it, and the lines that go and come in its diff."""

    module: ModuleType
    params: dict[str, Any]
    says: dict[str, Any]
    shows: list[str]


CHANGES = {
    "route": Change(
        lb_route,
        {"services": {"prices": {"slot": "green", "release": release(2)}}},
        {
            "routes": {
                "prices": {
                    "before": {"slot": "blue", "release": None, "share": 0},
                    "after": {"slot": "green", "release": release(2), "share": 0},
                }
            }
        },
        [
            *["-prices prices_blue", "+prices prices_green"] * 2,
            *['+"prices": {', '+"history": [],', '+"slots": {', f'+"green": "{release(2)}"', "+}", "+},"],
        ],
    ),
    "rollback": Change(
        lb_rollback,
        {"services": ["tumour"]},
        {"rolled_back": {"tumour": {"from": release(2), "to": release(1), "slot": "blue"}}, "cold": {}},
        ["-tumour tumour_green", "+tumour tumour_blue"] * 2,
    ),
    "drain": Change(
        lb_server,
        {"servers": ["tumour_blue/model1"], "state": "drain"},
        {"servers": {"tumour_blue/model1": {"before": "ready", "after": "drain"}}},
        ["-tumour_blue/model1 ready", "+tumour_blue/model1 drain"],
    ),
    "maintenance": Change(
        lb_server,
        {"servers": ["tumour_blue/model1", "prices_blue/model2"], "state": "maint"},
        {
            "servers": {
                "tumour_blue/model1": {"before": "ready", "after": "maint"},
                "prices_blue/model2": {"before": "ready", "after": "maint"},
            }
        },
        [
            *["-tumour_blue/model1 ready", "-prices_blue/model2 ready"],
            *["+tumour_blue/model1 maint", "+prices_blue/model2 maint"],
        ],
    ),
    "services": Change(
        lb_services,
        {"services": ["tumour", "weather"]},
        {"added": ["weather"], "removed": ["prices"], "reload_needed": None},
        ["-prices prices_blue", "+weather weather_blue"],
    ),
}


def shown(diff: dict[str, str]) -> list[str]:
    """The lines that Ansible shows of a diff in red and green, without their indent."""
    lines = difflib.unified_diff(diff["before"].splitlines(), diff["after"].splitlines(), n=0, lineterm="")
    return [line[0] + line[1:].strip() for line in list(lines)[2:] if not line.startswith("@")]


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_check_mode_shows_the_diff_of_the_run_and_changes_nothing(
    fleet: Fleet, capsys: Capture, change: Change
) -> None:
    for slot, version in (("blue", 1), ("green", 2)):
        run_module(lb_route, capsys, **fleet.params, **fleet.wanted(slot, version))
    params = {**fleet.params, **change.params}
    if "config" in change.module.ARGUMENTS:
        params["config"] = str(fleet.machine.config)
    before = fleet.snapshot()
    checked = run_module(change.module, capsys, check=True, **params)
    assert fleet.snapshot() == before
    done = run_module(change.module, capsys, **params)
    assert fleet.snapshot() != before
    for result in (checked, done):
        assert result["changed"]
        assert {name: result[name] for name in change.says} == change.says
        assert shown(result["diff"]) == change.shows
    assert checked["diff"] == done["diff"]


@pytest.mark.parametrize(
    ("module", "params"),
    [
        (lb_route, {"services": {"tumour": {"slot": "blue", "release": release(1)}}}),
        (lb_server, {"servers": ["tumour_blue/model1"], "state": "ready"}),
        (lb_services, {"services": ["tumour", "prices"]}),
    ],
    ids=["route", "server", "services"],
)
@pytest.mark.parametrize("check", [False, True], ids=["run", "check mode"])
def test_what_is_as_it_should_be_has_no_diff(
    fleet: Fleet, capsys: Capture, module: ModuleType, params: dict[str, Any], check: bool
) -> None:
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("blue", 1))
    if "config" in module.ARGUMENTS:
        params = {**params, "config": str(fleet.machine.config)}
    result = run_module(module, capsys, check=check, **fleet.params, **params)
    assert (result["changed"], result["diff"]["before"]) == (False, result["diff"]["after"])


@pytest.mark.parametrize(
    ("module", "params", "message"),
    [
        (
            lb_route,
            {"services": {"weather": {"slot": "green", "release": release(2)}}},
            "weather_green: expected a pool of that name in HAProxy, found only: "
            "prices_blue, prices_green, tumour_blue, tumour_green",
        ),
        (
            lb_rollback,
            {"services": ["tumour"]},
            "tumour: expected an earlier release to go back to, found none; active is an unknown release, ",
        ),
        (lb_server, {"servers": ["tumour_blue/model3"], "state": "drain"}, "tumour_blue/model3: expected a server"),
    ],
    ids=["route", "rollback", "server"],
)
def test_check_mode_refuses_what_a_run_would_refuse(
    fleet: Fleet, capsys: Capture, module: ModuleType, params: dict[str, Any], message: str
) -> None:
    checked = run_module(module, capsys, check=True, **fleet.params, **params)
    assert checked["msg"].startswith(message)
    assert run_module(module, capsys, **fleet.params, **params)["msg"] == checked["msg"]


def test_what_is_read_is_the_same_in_check_mode_and_has_no_diff(fleet: Fleet, capsys: Capture) -> None:
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("blue", 1))
    before = fleet.snapshot()
    checked = run_module(lb_info, capsys, check=True, **fleet.params)
    assert (checked["changed"], "diff" in checked) == (False, False)
    blue = checked["load_balancer"]["services"]["tumour"]["pools"]["blue"]
    assert (blue["release"], set(blue["servers"])) == (release(1), {"model1", "model2"})
    assert run_module(lb_info, capsys, **fleet.params) == checked
    assert fleet.snapshot() == before


def test_check_mode_makes_no_files_for_the_first_services(tmp_path: Path, capsys: Capture) -> None:
    params = {"services": ["tumour"], "state_dir": str(tmp_path / "lb"), "socket": str(tmp_path / "none.sock")}
    checked = run_module(lb_services, capsys, check=True, **params)
    assert (checked["changed"], checked["added"]) == (True, ["tumour"])
    assert not (tmp_path / "lb").exists()
    assert run_module(lb_services, capsys, **params)["diff"] == checked["diff"]
    assert (tmp_path / "lb/active.map").read_text() == "tumour tumour_blue\n"


def test_a_release_that_answers_as_another_gets_no_traffic(fleet: Fleet, capsys: Capture) -> None:
    fleet.models["tumour"]["green"][1].version = 7
    result = run_module(lb_route, capsys, **fleet.params, **fleet.wanted("green", 2))
    assert result["msg"] == f"tumour_green/model2: expected tumour {release(2)}, found tumour {release(7)}"
    assert fleet.machine.get("/tumour/predict")[1]["version"] == "1"


def test_servers_that_are_not_up_in_time_are_named(fleet: Fleet, capsys: Capture) -> None:
    run_module(lb_server, capsys, **fleet.params, servers=["tumour_green/model2"], state="maint")
    result = run_module(lb_route, capsys, **fleet.params, **fleet.wanted("green", 2), wait_timeout=0.1)
    assert result["msg"].startswith(
        "tumour_green: expected 2 of 2 servers UP within 0.1 s, found 1: model2 is in maint"
    )
    assert run_module(lb_route, capsys, **fleet.params, **fleet.wanted("green", 2), min_up="50%")["changed"]


def test_a_pool_that_is_not_there_is_named(fleet: Fleet, capsys: Capture) -> None:
    result = run_module(lb_route, capsys, **fleet.params, **fleet.wanted("green", 2, "weather"))
    assert result["msg"] == (
        "weather_green: expected a pool of that name in HAProxy, found only: "
        "prices_blue, prices_green, tumour_blue, tumour_green"
    )


def test_an_entry_that_is_there_twice_is_put_right(fleet: Fleet, capsys: Capture) -> None:
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("blue", 1))
    fleet.machine.ask(f"add map {fleet.machine.state_dir}/active.map tumour tumour_green")
    assert run_module(lb_route, capsys, **fleet.params, **fleet.wanted("blue", 1))["changed"]
    assert fleet.machine.ask(f"show map {fleet.machine.state_dir}/active.map").count("tumour_") == 1


@pytest.mark.parametrize("place", ["running map", "map file"])
def test_a_move_that_died_half_way_is_completed(fleet: Fleet, capsys: Capture, place: str) -> None:
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("blue", 1))
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("green", 2))
    path = fleet.machine.state_dir / "active.map"
    if place == "running map":
        fleet.machine.ask(f"set map {path} tumour tumour_blue")
    else:
        path.write_text("tumour tumour_blue\nprices prices_blue\n")
    fleet.machine.ask(f"prepare map {path}")
    assert run_module(lb_route, capsys, **fleet.params, **fleet.wanted("green", 2))["changed"]
    assert fleet.machine.get("/tumour/predict")[1]["version"] == "2"
    assert path.read_text() == "tumour tumour_green\nprices prices_blue\n"
    history = run_module(lb_info, capsys, **fleet.params)["load_balancer"]["services"]["tumour"]["history"]
    assert history == [release(1)]


def test_a_cold_release_is_reported_or_refused(fleet: Fleet, capsys: Capture) -> None:
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("blue", 1))
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("green", 2))
    fleet.models["tumour"]["blue"][0].version = 9
    reason = f"tumour_blue/model1: expected tumour {release(1)}, found tumour {release(9)}"
    result = run_module(lb_rollback, capsys, **fleet.params, services=["tumour"])
    assert (result["changed"], result["cold"]) == (False, {"tumour": {"release": release(1), "reason": reason}})
    refused = run_module(lb_rollback, capsys, **fleet.params, services=["tumour"], cold_ok=False)
    assert refused["msg"] == f"tumour is not warm: {reason}"
    unknown = run_module(lb_rollback, capsys, **fleet.params, services=["tumour"], to="5")
    assert unknown["cold"]["tumour"]["release"] is None


def test_a_host_that_is_down_does_not_hold_back_a_rollback(fleet: Fleet, capsys: Capture) -> None:
    for slot, version in (("blue", 1), ("green", 2)):
        run_module(lb_route, capsys, **fleet.params, **fleet.wanted(slot, version))
    be_down(fleet, "tumour_blue/model2", "tumour_green/model2")
    assert run_module(lb_rollback, capsys, **fleet.params, services=["tumour"])["changed"]
    assert fleet.machine.get("/tumour/predict")[1]["version"] == "1"


def be_down(fleet: Fleet, *labels: str) -> None:
    """Stop servers, and wait until HAProxy knows."""
    for label in labels:
        service, slot, number = label.replace("_", "/model").split("/model")
        fleet.models[service][slot][int(number) - 1].stop()
    deadline = time.monotonic() + 10
    while any(server.in_rotation for server in fleet.servers() if server.label in labels):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_host_that_serves_and_cannot_be_started_does_not_hold_back_a_rollback(fleet: Fleet, capsys: Capture) -> None:
    for slot, version in (("blue", 1), ("green", 2)):
        run_module(lb_route, capsys, **fleet.params, **fleet.wanted(slot, version))
    be_down(fleet, "tumour_blue/model2")
    wanted = {"services": ["tumour"], "cold_ok": False, "targets": {"tumour": {"slot": "blue", "release": release(1)}}}
    refused = run_module(lb_rollback, capsys, **fleet.params, **wanted)
    assert "tumour_blue: expected 2 of 2 servers UP" in refused["msg"]
    assert run_module(lb_rollback, capsys, **fleet.params, **wanted, up={"tumour": 1})["changed"]
    assert fleet.serving() == 1


def test_a_drain_waits_for_the_request_in_flight(fleet: Fleet, capsys: Capture) -> None:
    models = fleet.models["tumour"]["blue"]
    answers: list[int] = []
    client = threading.Thread(target=lambda: answers.append(fleet.machine.get("/tumour/slow")[0]))
    client.start()
    while not any(model.slow.is_set() for model in models):
        time.sleep(0.01)
    busy = next(number for number, model in enumerate(models) if model.slow.is_set())
    label = f"tumour_blue/model{busy + 1}"
    failed = run_module(lb_server, capsys, **fleet.params, servers=[label], state="maint", timeout=0.2)
    assert failed["msg"] == (
        f"expected no request in flight within 0.2 s, found 1 of {label}; all servers are as they were before"
    )
    assert fleet.admin()[label] == "ready"
    threading.Timer(0.3, models[busy].go.set).start()
    result = run_module(lb_server, capsys, **fleet.params, servers=[label], state="maint")
    client.join()
    assert (answers, result["servers"]) == ([200], {label: {"before": "ready", "after": "maint"}})
    assert not run_module(lb_server, capsys, **fleet.params, servers=[label], state="maint")["changed"]


def test_the_last_server_that_is_up_does_not_leave_while_there_are_others(fleet: Fleet, capsys: Capture) -> None:
    fleet.models["tumour"]["blue"][1].stop()
    while sum(server.in_rotation for server in fleet.servers() if server.pool == "tumour_blue") > 1:
        time.sleep(0.02)
    refused = run_module(lb_server, capsys, **fleet.params, servers=["tumour_blue/model1"], state="maint")
    assert refused["msg"] == (
        "tumour_blue: expected another server to be UP while tumour_blue/model1 is out, found none"
    )
    assert set(fleet.admin().values()) == {"ready"}
    params = {**fleet.params, "servers": ["tumour_blue/model1"]}
    assert run_module(lb_server, capsys, **params, state="maint", last=True)["changed"]
    run_module(lb_server, capsys, **params, state="ready", timeout=10)
    # One that is down may go, and so may all of them.
    for servers in (["tumour_blue/model2"], ["tumour_blue/model1", "tumour_blue/model2"]):
        assert run_module(lb_server, capsys, **fleet.params, servers=servers, state="maint")["changed"]


def test_a_drain_waits_for_requests_of_the_process_that_a_reload_replaced(fleet: Fleet, capsys: Capture) -> None:
    models = fleet.models["tumour"]["blue"]
    client = threading.Thread(target=fleet.machine.get, args=("/tumour/slow",))
    client.start()
    while not any(model.slow.is_set() for model in models):
        time.sleep(0.01)
    fleet.machine.reload()
    labels = ["tumour_blue/model1", "tumour_blue/model2"]
    failed = run_module(lb_server, capsys, **fleet.params, servers=labels, state="drain", timeout=0.2)
    assert "expected no request in flight within 0.2 s, found 1 of tumour_blue/model" in failed["msg"]
    for model in models:
        model.go.set()
    client.join()
    assert run_module(lb_server, capsys, **fleet.params, servers=labels, state="drain")["changed"]


def test_a_server_comes_back_only_when_it_says_that_it_is_ready(fleet: Fleet, capsys: Capture) -> None:
    label = "tumour_blue/model1"
    run_module(lb_server, capsys, **fleet.params, servers=[label], state="maint")
    fleet.models["tumour"]["blue"][0].ready = False
    failed = run_module(lb_server, capsys, **fleet.params, servers=[label], state="ready", timeout=0.2)
    assert failed["msg"] == f"expected to be ready within 0.2 s, found {label}: status 503"
    assert fleet.admin()[label] == "maint"
    fleet.models["tumour"]["blue"][0].ready = True
    assert run_module(lb_server, capsys, **fleet.params, servers=[label], state="ready")["changed"]


def test_what_is_to_answer_as_recorded_comes_back_only_if_it_does(fleet: Fleet, capsys: Capture) -> None:
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("blue", 1))
    labels = ["tumour_blue/model1", "prices_blue/model1"]
    run_module(lb_server, capsys, **fleet.params, servers=labels, state="maint")
    for service in ("tumour", "prices"):
        fleet.models[service]["blue"][0].version = 9
    before = fleet.admin()
    back = {**fleet.params, "state": "ready", "recorded": True}
    refused = run_module(lb_server, capsys, **back, servers=labels)
    found = f"{labels[0]}: expected tumour {release(1)}, found tumour {release(9)}"
    assert refused["msg"] == f"{found}: deploy what is to serve there, which brings it back"
    assert fleet.admin() == before
    # Nobody has said what is to answer there.
    assert run_module(lb_server, capsys, **back, servers=labels[1:])["changed"]
    fleet.models["tumour"]["blue"][0].version = 1
    assert run_module(lb_server, capsys, **back, servers=labels)["changed"]
    assert set(fleet.admin().values()) == {"ready"}


def test_a_reload_keeps_routes_drains_and_weights_but_takes_new_ports(fleet: Fleet, capsys: Capture) -> None:
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("green", 2))
    run_module(lb_server, capsys, **fleet.params, servers=["tumour_blue/model1"], state="drain")
    run_module(lb_server, capsys, **fleet.params, servers=["tumour_blue/model2"], state="maint")
    fleet.machine.ask("set server prices_blue/model1 weight 50%")
    moved = ModelServer("prices", 3)
    fleet.models["prices"]["green"].append(moved)
    pools = pools_of(fleet.models)
    pools[3]["servers"] = [{"name": "model1", "address": "127.0.0.1", "port": moved.port}]
    fleet.machine.configure(pools)
    keep_state().save(fleet.params["socket"], fleet.machine.config, fleet.machine.state_dir / "servers.state")
    fleet.machine.reload()
    servers = {server.label: server for server in fleet.servers()}
    assert (servers["tumour_blue/model1"].admin, servers["tumour_blue/model2"].admin) == ("drain", "maint")
    assert servers["prices_blue/model1"].weight == 50
    assert servers["prices_green/model1"].port == moved.port
    assert fleet.machine.get("/tumour/predict")[1]["version"] == "2"


def test_services_come_and_go_and_routes_stay(fleet: Fleet, capsys: Capture) -> None:
    params = {**fleet.params, "config": str(fleet.machine.config)}
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("green", 2))
    assert not run_module(lb_services, capsys, **params, services=["tumour", "prices"])["changed"]
    checked = run_module(lb_services, capsys, check=True, **params, services=["tumour", "weather"])
    result = run_module(lb_services, capsys, **params, services=["tumour", "weather"])
    assert (result["changed"], result["added"], result["removed"]) == (True, ["weather"], ["prices"])
    assert (checked["changed"], checked["diff"]) == (True, result["diff"])
    path = fleet.machine.state_dir / "active.map"
    assert path.read_text() == "tumour tumour_green\nweather weather_blue\n"
    again = run_module(lb_services, capsys, **params, services=["tumour", "weather"])
    assert again["reload_needed"] == f"its routes differ from {path}"
    fleet.machine.reload()
    assert not run_module(lb_services, capsys, **params, services=["tumour", "weather"])["changed"]


def test_what_a_stopped_haproxy_left_gets_the_ports_of_the_configuration(tmp_path: Path) -> None:
    heading = "1\n# be_id be_name srv_id srv_name srv_port\n"
    (tmp_path / "state").write_text(heading + "3 tumour_blue 1 model1 8101\n3 tumour_blue 2 gone 8101\n")
    (tmp_path / "haproxy.cfg").write_text("backend tumour_blue\n    server model1 10.0.0.11:9101\n")
    keep_state().save(str(tmp_path / "none.sock"), tmp_path / "haproxy.cfg", tmp_path / "state")
    assert (tmp_path / "state").read_text() == heading + "3 tumour_blue 1 model1 9101\n"


def test_a_haproxy_that_does_not_run_is_said_so(tmp_path: Path, capsys: Capture) -> None:
    socket = str(tmp_path / "admin.sock")
    result = run_module(lb_info, capsys, socket=socket, state_dir=str(tmp_path))
    assert result["msg"] == (
        f"{socket}: expected the socket of a running HAProxy, found: No such file or directory; "
        "see systemctl status haproxy"
    )


def test_records_that_cannot_be_read_are_named(fleet: Fleet, capsys: Capture) -> None:
    path = fleet.machine.state_dir / "releases.json"
    path.write_text(json.dumps({"tumour": []}))
    result = run_module(lb_info, capsys, **fleet.params)
    assert result["msg"].startswith(f"{path}: expected slots and history for each service, found:")


def in_journal(fleet: Fleet, capsys: Capture) -> list[dict[str, Any]]:
    rollouts: list[dict[str, Any]] = run_module(lb_info, capsys, **fleet.params, rollouts=True)["load_balancer"][
        "rollouts"
    ]
    return rollouts


def revision_of(fleet: Fleet, capsys: Capture) -> str:
    services = run_module(lb_info, capsys, **fleet.params)["load_balancer"]["services"]
    return str(services["tumour"]["revision"])


def rollout_of(number: int, **changed: Any) -> dict[str, Any]:
    meant = {"release": release(2), "slot": "green", "was": {"release": release(1), "slot": "blue"}}
    identity = {"id": f"20260102T030405Z-{number:08x}", "action": "deploy", "who": "anna", "from": "ops1"}
    return {**identity, "services": {"tumour": meant}, **changed}


def test_a_rollout_that_a_gate_refuses_is_kept_and_keeps_nobody_from_another(fleet: Fleet, capsys: Capture) -> None:
    gates = [{"gate": "contract", "where": "controller", "verdict": "fail"}]
    refused = {**fleet.params, "state": "refused", "rollout": rollout_of(1), "reason": "gate contract: no"}
    assert run_module(lb_rollout, capsys, check=True, **refused, gates=gates)["changed"]
    assert in_journal(fleet, capsys) == []
    read = {"tumour": revision_of(fleet, capsys)}
    assert run_module(lb_rollout, capsys, **refused, gates=gates)["changed"]
    [kept] = in_journal(fleet, capsys)
    assert (kept["verdict"], kept["reason"], kept["gates"]) == ("failed", "gate contract: no", gates)
    assert run_module(lb_rollout, capsys, **fleet.params, state="begun", rollout=rollout_of(2), revisions=read)[
        "changed"
    ]


def test_a_rollout_begins_steps_and_ends_in_the_journal(fleet: Fleet, capsys: Capture) -> None:
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("blue", 1))
    begun, name = rollout_of(1), rollout_of(1)["id"]
    read = {"tumour": revision_of(fleet, capsys)}
    checked = run_module(lb_rollout, capsys, check=True, **fleet.params, state="begun", rollout=begun, revisions=read)
    assert (checked["changed"], in_journal(fleet, capsys)) == (True, [])
    assert run_module(lb_rollout, capsys, **fleet.params, state="begun", rollout=begun, revisions=read)["changed"]
    run_module(lb_rollout, capsys, **fleet.params, state="step", id=name, step="start", hosts=["model1"])
    # What the gates found is there from the step on that follows them, whatever becomes of the run.
    found = {"gate": "golden", "verdict": "pass"}
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("green", 2), rollout=name, gates=[found])
    assert in_journal(fleet, capsys)[0]["gates"] == [found]
    for server_state, gates in (("drain", []), ("ready", [found, found])):
        step = {"servers": ["tumour_blue/model1"], "state": server_state, "step": "stop", "gates": gates}
        run_module(lb_server, capsys, **fleet.params, **step, rollout=name)
        assert in_journal(fleet, capsys)[0]["gates"] == [found, *gates[1:]]
    assert run_module(lb_rollout, capsys, **fleet.params, state="ended", id=name, verdict="done")["changed"]
    assert not run_module(lb_rollout, capsys, **fleet.params, state="ended", id=name, verdict="failed")["changed"]
    [found] = in_journal(fleet, capsys)
    assert [(step["name"], step["state"]) for step in found["steps"]] == [
        ("start", "done"),
        ("move", "done"),
        ("stop", "done"),
    ]
    assert (found["verdict"], found["services"]) == ("done", begun["services"])
    folder = Path(fleet.params["rollouts_dir"])
    assert (folder.stat().st_mode & 0o777, [path.name for path in folder.iterdir()]) == (0o700, [f"{name}.json"])
    assert (folder / f"{name}.json").stat().st_mode & 0o777 == 0o600


def test_a_rollout_is_refused_while_another_one_holds_the_service(fleet: Fleet, capsys: Capture) -> None:
    run_module(lb_rollout, capsys, **fleet.params, state="begun", rollout=rollout_of(1))
    refused = run_module(lb_rollout, capsys, **fleet.params, state="begun", rollout=rollout_of(2))
    assert refused["msg"].startswith(
        f"tumour: expected no other rollout to hold it, found deploy {rollout_of(1)['id']} of {release(2)} by anna "
    )
    takes_over = [rollout_of(1)["id"]]
    taken = run_module(lb_rollout, capsys, **fleet.params, state="begun", rollout=rollout_of(2, takes_over=takes_over))
    assert taken["taken_over"] == takes_over
    moved = run_module(lb_route, capsys, **fleet.params, **fleet.wanted("green", 2), rollout=takes_over[0])
    assert moved["msg"].startswith(f"{takes_over[0]}: expected to hold tumour, found deploy {rollout_of(2)['id']}")
    assert fleet.machine.get("/tumour/predict")[1]["version"] == "1"


def taken_over(fleet: Fleet, capsys: Capture) -> str:
    """The id of a rollout that another one has taken over."""
    name = str(rollout_of(1)["id"])
    run_module(lb_rollout, capsys, **fleet.params, state="begun", rollout=rollout_of(2, takes_over=[name]))
    return name


@pytest.mark.parametrize("seconds", [0.5, 30])
def test_a_drain_of_a_rollout_that_was_taken_over_meanwhile_goes_no_further(
    fleet: Fleet, capsys: Capture, seconds: float
) -> None:
    run_module(lb_rollout, capsys, **fleet.params, state="begun", rollout=rollout_of(1))
    models = fleet.models["tumour"]["blue"]
    client = threading.Thread(target=fleet.machine.get, args=("/tumour/slow",))
    client.start()
    while not any(model.slow.is_set() for model in models):
        time.sleep(0.01)
    balancer = {key: fleet.params[key] for key in ("socket", "master_socket", "state_dir", "rollouts_dir")}
    labels = ["tumour_blue/model1", "tumour_blue/model2"]
    with _haproxy.Process(balancer["socket"]) as process:
        asked = {"servers": labels, "rollout": rollout_of(1)["id"], "idle": False, "last": False, "recorded": False}
        machine = _haproxy.Balancer(process, balancer["state_dir"], balancer["master_socket"])
        servers = lb_server.Servers(machine, JournalFolder(balancer["rollouts_dir"]), asked)
        failed: list[str] = []

        def empty() -> None:
            try:
                servers.empty("maint", seconds)
            except ValueError as error:
                failed.append(str(error))

        waiting = threading.Thread(target=empty)
        waiting.start()
        while "ready" in [fleet.admin()[label] for label in labels]:
            time.sleep(0.01)
        name = taken_over(fleet, capsys)
        if seconds > 1:
            for model in models:
                model.go.set()
        waiting.join()
    assert failed[0].startswith(f"{name}: expected to hold tumour, found deploy {rollout_of(2)['id']}")
    assert [fleet.admin()[label] for label in labels] == ["drain", "drain"]
    for model in models:
        model.go.set()
    client.join()


def test_a_server_does_not_come_back_for_a_rollout_that_was_taken_over_meanwhile(fleet: Fleet, capsys: Capture) -> None:
    run_module(lb_rollout, capsys, **fleet.params, state="begun", rollout=rollout_of(1))
    label = "tumour_blue/model1"
    run_module(lb_server, capsys, **fleet.params, servers=[label], state="maint", rollout=rollout_of(1)["id"])
    name = taken_over(fleet, capsys)
    late = {"servers": [label], "state": "ready", "rollout": name}
    failed = run_module(lb_server, capsys, **fleet.params, **late)
    assert failed["msg"].startswith(f"{name}: expected to hold tumour, found deploy {rollout_of(2)['id']}")
    assert fleet.admin()[label] == "maint"


def test_servers_that_come_back_have_passed_health_checks_since(fleet: Fleet, capsys: Capture) -> None:
    label = "tumour_blue/model1"
    run_module(lb_server, capsys, **fleet.params, servers=[label], state="maint")
    run_module(lb_server, capsys, **fleet.params, servers=[label], state="ready", wait_up=False)
    [at_once] = [server for server in fleet.servers() if server.label == label]
    assert (at_once.in_rotation, at_once.is_sure) == (True, False)
    assert at_once.found == "model1 is UP, and has still to pass health checks (L7OK)"
    run_module(lb_server, capsys, **fleet.params, servers=[label], state="maint")
    run_module(lb_server, capsys, **fleet.params, servers=[label], state="ready")
    assert all(server.is_sure for server in fleet.servers())


def test_servers_of_a_pool_that_requests_go_to_are_not_idle(fleet: Fleet, capsys: Capture) -> None:
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("blue", 1))
    before = fleet.admin()
    for pool, share in (("tumour_blue", 0), ("tumour_green", 100)):
        canary = {"tumour": {"share": share, "release": release(2)}}
        run_module(lb_canary, capsys, **fleet.params, services=canary)
        idle = {"servers": [f"{pool}/model1"], "state": "drain", "idle": True}
        refused = run_module(lb_server, capsys, **fleet.params, **idle)
        assert refused["msg"] == f"{pool}: expected that no requests are sent to this pool, found that some are"
        assert fleet.admin() == before
    run_module(lb_canary, capsys, **fleet.params, services={"tumour": {"share": 0}})
    assert run_module(lb_server, capsys, **fleet.params, **idle)["changed"]


def test_going_back_does_not_mind_that_another_service_moves_meanwhile(fleet: Fleet, capsys: Capture) -> None:
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("blue", 1, "tumour", "prices"))
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("green", 2, "tumour"))
    with _haproxy.Process(fleet.params["socket"]) as process:
        balancer = _haproxy.Balancer(process, fleet.params["state_dir"], fleet.params["master_socket"])
        back = lb_rollback.Change(balancer.read(), [lb_rollback.Target("tumour", "blue", release(1))], [])
        run_module(lb_route, capsys, **fleet.params, **fleet.wanted("green", 2, "prices"))
        back.commit(balancer, None)
        found = balancer.read()
        assert (found.slot("tumour"), found.slot("prices")) == ("blue", "green")
        again = lb_rollback.Change(back.read, back.targets, [])
        with pytest.raises(_haproxy.HaproxyError, match=r"^tumour: expected no other change of its route meanwhile"):
            again.commit(balancer, None)


def is_held(folder: str) -> bool:
    """Whether a run holds the folder, not for a moment alone."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        for _look in range(5):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(handle, fcntl.LOCK_UN)
            time.sleep(0.05)
    except BlockingIOError:
        time.sleep(0.3)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    finally:
        os.close(handle)
    return False


@pytest.mark.parametrize("change", [lb_route.move_routes, lb_canary.set_shares])
def test_who_needs_the_journal_takes_it_before_the_routes(
    fleet: Fleet, capsys: Capture, change: Callable[..., Any]
) -> None:
    """Two runs that took them in different orders would wait for each other."""
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("blue", 1))
    run_module(lb_rollout, capsys, **fleet.params, state="begun", rollout=rollout_of(1))
    wanted = {"release": release(2), **({"slot": "green"} if change is lb_route.move_routes else {"share": 100})}
    waits = {"min_up": "100%", "wait_timeout": 5, "verify": True, "staged": False, "at": None, "gates": []}
    params = {**fleet.params, **waits, "services": {"tumour": wanted}, "rollout": rollout_of(1)["id"]}
    with _haproxy.Process(params["socket"]) as process:
        balancer = _haproxy.Balancer(process, params["state_dir"], params["master_socket"])
        waiting = threading.Thread(target=change, args=(balancer, params, False))
        with balancer.alone("this test"):
            waiting.start()
            deadline = time.monotonic() + 5
            while not (held := is_held(params["rollouts_dir"])) and time.monotonic() < deadline:
                time.sleep(0.05)
        waiting.join()
        assert held
        assert balancer.read().summary("tumour")["slot"] == ("green" if "slot" in wanted else "blue")


def test_a_rollout_is_refused_if_what_it_read_has_changed(fleet: Fleet, capsys: Capture) -> None:
    read = {"tumour": revision_of(fleet, capsys)}
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("green", 2))
    refused = run_module(lb_rollout, capsys, **fleet.params, state="begun", rollout=rollout_of(1), revisions=read)
    assert refused["msg"].startswith(
        f"tumour: expected it as it was read (revision {read['tumour']}), found it changed"
    )
    assert in_journal(fleet, capsys) == []


def test_of_rollouts_that_begin_in_the_same_moment_one_goes_on(tmp_path: Path) -> None:
    folder = JournalFolder(str(tmp_path / "rollouts"))
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def try_to_begin(number: int) -> None:
        start.wait()
        try:
            with folder.alone() as journal:
                folder.write(begin(journal, read_rollout(rollout_of(number), "test"), "2026-01-02T03:04:05Z"))
            outcomes.append("began")
        except ValueError:
            outcomes.append("refused")

    threads = [threading.Thread(target=try_to_begin, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["began", *["refused"] * 7]


def test_a_lock_is_made_only_where_there_is_none(tmp_path: Path) -> None:
    folder = JournalFolder(str(tmp_path))
    first, second = (read_rollout(rollout_of(number), "test") for number in (1, 2))
    folder.write([Write("tumour.lock", first, new=True)])
    with pytest.raises(ValueError, match=f"tumour: expected no other rollout to hold it, found deploy {first.id}"):
        folder.write([Write("tumour.lock", second, new=True)])
    assert [path.name for path in tmp_path.iterdir()] == ["tumour.lock"]


def test_a_warm_rollback_begins_moves_and_ends_in_one_run(fleet: Fleet, capsys: Capture) -> None:
    for slot, version in (("blue", 1), ("green", 2)):
        run_module(lb_route, capsys, **fleet.params, **fleet.wanted(slot, version))
    begun = {"id": rollout_of(1)["id"], "who": "anna", "from": "ops1"}
    asked = run_module(lb_rollback, capsys, check=True, **fleet.params, services=["tumour"], begin=begun)
    assert in_journal(fleet, capsys) == []
    params = {**fleet.params, "services": ["tumour"], "begin": begun, "revisions": asked["revisions"]}
    assert run_module(lb_rollback, capsys, **params)["changed"]
    [found] = in_journal(fleet, capsys)
    assert (found["action"], found["verdict"], found["services"]["tumour"]["was"]) == (
        "rollback",
        "done",
        {"release": release(2), "slot": "green"},
    )
    late = run_module(
        lb_rollback, capsys, **{**params, "begin": {**begun, "id": rollout_of(2)["id"]}, "to": release(2)}
    )
    assert late["msg"].startswith("tumour: expected it as it was read")


def test_a_rollback_of_several_balancers_holds_until_all_have_moved(fleet: Fleet, capsys: Capture) -> None:
    for slot, version in (("blue", 1), ("green", 2)):
        run_module(lb_route, capsys, **fleet.params, **fleet.wanted(slot, version))
    begun = {"id": rollout_of(1)["id"], "who": "anna", "from": "ops1"}
    params = {**fleet.params, "services": ["tumour"], "begin": begun, "hold": True}
    assert run_module(lb_rollback, capsys, **params)["changed"]
    [found] = in_journal(fleet, capsys)
    assert (found["verdict"], found["steps"][-1]["state"]) == ("running", "done")
    other = run_module(lb_rollback, capsys, **{**params, "begin": {**begun, "id": rollout_of(2)["id"]}})
    assert rollout_of(1)["id"] in other["cold"]["tumour"]["reason"]
    assert run_module(lb_rollout, capsys, **fleet.params, state="ended", id=begun["id"], verdict="done")["changed"]
    assert in_journal(fleet, capsys)[0]["verdict"] == "done"


def test_where_rollouts_meet_a_rollback_begins_before_it_moves(fleet: Fleet, capsys: Capture) -> None:
    for slot, version in (("blue", 1), ("green", 2)):
        run_module(lb_route, capsys, **fleet.params, **fleet.wanted(slot, version))
    begun = {"id": rollout_of(1)["id"], "who": "anna", "from": "ops1"}
    asked = run_module(lb_rollback, capsys, check=True, **fleet.params, services=["tumour"], begin=begun)
    params = {**fleet.params, "services": ["tumour"], "begin": begun, "revisions": asked["revisions"]}
    taken = run_module(lb_rollback, capsys, **params, staged=True)
    assert (taken["changed"], taken["cold"]) == (False, {})
    assert fleet.serving() == 2
    [found] = in_journal(fleet, capsys)
    assert (found["verdict"], [step["state"] for step in found["steps"]]) == ("running", ["started"])
    # Another one that was asked in the same moment finds it held, and moves nothing.
    late = {**params, "begin": {**begun, "id": rollout_of(2)["id"]}}
    assert begun["id"] in run_module(lb_rollback, capsys, **late, staged=True)["cold"]["tumour"]["reason"]
    # What was read before it began is still so for itself.
    assert run_module(lb_rollback, capsys, **params, hold=True)["changed"]
    assert fleet.serving() == 1
    assert [it["verdict"] for it in in_journal(fleet, capsys)] == ["running"]


def test_a_rollback_that_was_taken_over_meanwhile_does_not_move(
    fleet: Fleet, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slot, version in (("blue", 1), ("green", 2)):
        run_module(lb_route, capsys, **fleet.params, **fleet.wanted(slot, version))
    begun = {"id": rollout_of(1)["id"], "who": "anna", "from": "ops1"}
    begin_rollout = lb_rollback.begin_rollout

    def then_another(*given: Any) -> Any:
        found = begin_rollout(*given)
        taking = {**rollout_of(2), "takes_over": [begun["id"]]}
        folder = JournalFolder(fleet.params["rollouts_dir"])
        with folder.alone() as journal:
            folder.write(begin(journal, read_rollout(taking, "test"), "2026-01-02T03:04:05Z"))
        return found

    monkeypatch.setattr(lb_rollback, "begin_rollout", then_another)
    found = run_module(lb_rollback, capsys, **fleet.params, services=["tumour"], begin=begun)
    assert found["msg"].startswith(f"{begun['id']}: expected to hold tumour, found deploy {rollout_of(2)['id']}")
    assert fleet.serving() == 2


def test_what_is_only_staged_is_waited_for_and_moves_nothing(fleet: Fleet, capsys: Capture) -> None:
    for slot, version in (("blue", 1), ("green", 2)):
        run_module(lb_route, capsys, **fleet.params, **fleet.wanted(slot, version))
    run_module(lb_rollout, capsys, **fleet.params, state="begun", rollout=rollout_of(1))
    target = {"tumour": {"slot": "blue", "release": release(1)}}
    params = {**fleet.params, "services": ["tumour"], "cold_ok": False, "rollout": rollout_of(1)["id"], "staged": True}
    staged = run_module(lb_rollback, capsys, **params, targets=target)
    assert (staged["changed"], in_journal(fleet, capsys)[0]["steps"]) == (False, [])
    wrong = run_module(lb_rollback, capsys, **params, targets={"tumour": {"slot": "blue", "release": release(3)}})
    assert wrong["msg"].startswith("tumour is not warm: ")


def test_of_services_that_go_back_together_none_moves_where_one_is_cold(fleet: Fleet, capsys: Capture) -> None:
    both = ["tumour", "prices"]
    for slot, version in (("blue", 1), ("green", 2)):
        run_module(lb_route, capsys, **fleet.params, **fleet.wanted(slot, version, *both))
    run_module(lb_server, capsys, **fleet.params, servers=["prices_blue/model1"], state="maint")
    found = run_module(lb_rollback, capsys, **fleet.params, services=both, begin={"id": rollout_of(1)["id"]})
    assert (found["changed"], found["rolled_back"], list(found["cold"])) == (False, {}, ["prices"])
    assert (fleet.serving(), in_journal(fleet, capsys)) == (2, [])


def test_a_service_that_a_rollout_holds_is_cold(fleet: Fleet, capsys: Capture) -> None:
    for slot, version in (("blue", 1), ("green", 2)):
        run_module(lb_route, capsys, **fleet.params, **fleet.wanted(slot, version))
    run_module(lb_rollout, capsys, **fleet.params, state="begun", rollout=rollout_of(1))
    begun = {"id": rollout_of(2)["id"]}
    found = run_module(lb_rollback, capsys, **fleet.params, services=["tumour"], begin=begun)
    assert not found["changed"]
    assert rollout_of(1)["id"] in found["cold"]["tumour"]["reason"]
    # The rollout itself says where to go, here to what serves already, by another name.
    params = {**fleet.params, "services": ["tumour"], "cold_ok": False, "rollout": rollout_of(1)["id"]}
    green, blue = ({"tumour": {"slot": slot, "release": release(it)}} for slot, it in (("green", 2), ("blue", 1)))
    assert not run_module(lb_rollback, capsys, **params, targets=green)["changed"]
    assert run_module(lb_rollback, capsys, **params, targets=blue)["changed"]
    assert in_journal(fleet, capsys)[0]["steps"][-1]["state"] == "done"


def test_a_service_in_maintenance_is_answered_by_the_balancer_until_it_is_back(fleet: Fleet, capsys: Capture) -> None:
    said = 'Back at 12:00, "promised" 100 % ä'
    params = {**fleet.params, "services": ["tumour"], "retry_after": 120, "detail": said}
    checked = run_module(lb_maintenance, capsys, check=True, **params)
    assert fleet.machine.get("/tumour/predict")[0] == 200
    done = run_module(lb_maintenance, capsys, **params)
    assert (checked["changed"], checked["diff"], done["maintenance"]) == (True, done["diff"], ["tumour"])
    assert not run_module(lb_maintenance, capsys, **params)["changed"]

    def look() -> None:
        for path in ("/tumour/predict", "/v2/models/tumour/infer"):
            connection = fleet.machine.connect()
            connection.request("GET", path)
            response = connection.getresponse()
            problem = json.loads(response.read())
            connection.close()
            assert (response.status, response.headers["Retry-After"], problem["detail"]) == (503, "120", said)
        assert fleet.machine.get("/prices/predict")[0] == 200

    look()
    fleet.machine.reload()
    look()
    found = run_module(lb_info, capsys, **fleet.params)["load_balancer"]["services"]
    assert {name: service["maintenance"] for name, service in found.items()} == {
        "tumour": {"retry_after": 120, "detail": said},
        "prices": None,
    }
    # What the file says and the running HAProxy does not is put right.
    fleet.machine.ask(f"clear map {fleet.machine.state_dir}/maintenance.map")
    assert fleet.machine.get("/tumour/predict")[0] == 200
    assert run_module(lb_maintenance, capsys, **params)["changed"]
    look()
    assert run_module(lb_maintenance, capsys, **fleet.params, services=["tumour"], state="absent")["changed"]
    assert fleet.machine.get("/tumour/predict")[0] == 200
    assert run_module(lb_info, capsys, **fleet.params)["load_balancer"]["services"]["tumour"]["maintenance"] is None
    fleet.machine.ask(f"add map {fleet.machine.state_dir}/maintenance.map tumour noon")
    assert run_module(lb_info, capsys, **fleet.params)["msg"] == (
        "maintenance.map: expected seconds, a bar and what clients are told, found 'noon'"
    )
    fleet.machine.ask(f"clear map {fleet.machine.state_dir}/maintenance.map")
    unknown = run_module(lb_maintenance, capsys, **fleet.params, services=["weather"])
    assert unknown["msg"] == "services: expected some of prices, tumour, found weather"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"retry_after": -1}, "retry_after: expected 0 to 31536000 seconds, found -1"),
        ({"message": "two\nlines"}, "message: expected one line of printable text of up to about 1000 bytes"),
        ({"message": "x" * 1200}, "message: expected one line of printable text of up to about 1000 bytes"),
    ],
)
def test_a_notice_that_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Notice(**{"retry_after": 60, "message": "Back soon.", **given})


def test_what_has_moved_settles_while_its_requests_are_answered(
    fleet: Fleet, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lb_settle, "INTERVAL", 0.1)
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("green", 2, "tumour", "prices"))
    settled = run_module(lb_settle, capsys, **fleet.params, services=["tumour", "prices"], seconds=0.5)
    assert (settled["failing"], settled["changed"]) == ({}, False)
    assert settled["seconds"] >= 0.5
    checked = run_module(lb_settle, capsys, check=True, **fleet.params, services=["tumour"], seconds=600)
    assert (checked["failing"], checked["seconds"]) == ({}, 0)


def test_what_has_moved_and_has_no_server_left_fails(
    fleet: Fleet, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lb_settle, "INTERVAL", 0.1)
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("green", 2, "tumour", "prices"))
    for server in fleet.models["prices"]["green"]:
        server.stop()
    settled = run_module(lb_settle, capsys, **fleet.params, services=["tumour", "prices"], seconds=30)
    assert list(settled["failing"]) == ["prices"]
    assert settled["failing"]["prices"].startswith("prices_green: expected a server in rotation, found ")
    assert settled["seconds"] < 30


def test_what_has_moved_and_answers_wrongly_fails_where_what_was_before_did_not(
    fleet: Fleet, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lb_settle, "INTERVAL", 0.1)
    for _request in range(20):
        assert fleet.machine.get("/tumour/predict")[0] == 200
    run_module(lb_route, capsys, **fleet.params, **fleet.wanted("green", 2))
    for server in fleet.models["tumour"]["green"]:
        server.status = 500
    real = lb_settle.look
    asked = []

    def look_after_errors(socket: str, pools: Any) -> Any:
        if asked:
            for _request in range(12):
                fleet.machine.get("/tumour/predict")
        asked.append(pools)
        return real(socket, pools)

    monkeypatch.setattr(lb_settle, "look", look_after_errors)
    settled = run_module(lb_settle, capsys, **fleet.params, services=["tumour"], seconds=30)
    assert settled["failing"]["tumour"].startswith("errors: canary ")


def test_a_move_that_is_only_staged_changes_nothing_in_check_mode_either(fleet: Fleet, capsys: Capture) -> None:
    before = fleet.snapshot()
    for check in (True, False):
        staged = run_module(lb_route, capsys, check=check, **fleet.params, **fleet.wanted("green", 2), staged=True)
        assert (staged["changed"], staged["routes"]["tumour"]["after"]["slot"]) == (False, "blue")
    assert fleet.snapshot() == before
