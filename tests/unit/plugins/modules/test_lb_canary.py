# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Canaries on a real HAProxy with the role's configuration: who is in one, and how it begins, grows and ends."""

from __future__ import annotations

import http.client
import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._control import Control, ControlFile
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal import begin, read_rollout
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal_folder import JournalFolder
from ansible_collections.modelfleet.onprem.plugins.modules import (
    lb_canary,
    lb_control,
    lb_info,
    lb_rollback,
    lb_rollout,
    lb_route,
    lb_server,
    lb_services,
    lb_watch,
)
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.canary import parse_canary

from tests.unit.plugins.balancer import Machine, ModelServer, pools_of, release, run_module, wait_until_up

Capture = pytest.CaptureFixture[str]

USERS = [f"user-{number}" for number in range(10_000)]
KINDS: Mapping[str, Mapping[str, Any]] = {
    "header": {"by": "header:X-User", "force_header": "X-Canary"},
    "cookie": {"by": "cookie:user", "without_key": "chance"},
    "address": {"by": "address"},
    "only": {"by": "header:X-User", "only": [f"kim{number}@example.org" for number in range(45)]},
}


class Fleet:
    """A service for each kind of canary, with release 1 in blue and release 2 in green, all on the same two servers."""

    def __init__(self, folder: Path) -> None:
        self.models = {slot: [ModelServer("any", version)] for slot, version in (("blue", 1), ("green", 2))}
        pools = pools_of(dict.fromkeys(KINDS, self.models))
        for pool in pools:
            service = pool["service"]
            pool["canary"] = parse_canary("canary", KINDS[service]).rules(service)
        self.machine = Machine(folder, pools)
        self.params = self.machine.params

    def ask(
        self, service: str, headers: Sequence[Mapping[str, str]], source: Callable[[int], str] | None = None
    ) -> list[str]:
        """The version that answers each of the requests, which have these headers."""
        found = []
        connection = self.machine.connect()
        for number, each in enumerate(headers):
            if source:
                connection.close()
                connection = http.client.HTTPConnection(
                    "127.0.0.1", self.machine.port, timeout=15, source_address=(source(number), 0)
                )
            connection.request("GET", f"/{service}/predict", headers=dict(each))
            response = connection.getresponse()
            body = json.loads(response.read())
            assert response.status == 200, body
            found.append(body["version"])
        connection.close()
        return found

    def of_users(self, service: str, users: Sequence[str]) -> set[str]:
        """The users who get the canary."""
        answers = self.ask(service, [{"X-User": user} for user in users])
        return {user for user, version in zip(users, answers, strict=True) if version == "2"}

    def stop(self) -> None:
        self.machine.stop()
        for servers in self.models.values():
            for server in servers:
                server.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    found = Fleet(tmp_path_factory.mktemp("canary"))
    try:
        found.machine.start()
        wait_until_up(found.machine)
        yield found
    finally:
        found.stop()


@pytest.fixture
def fleet(shared: Fleet, capsys: Capture) -> Iterator[Fleet]:
    """The fleet with all requests going to blue."""
    yield shared
    services = {name: {"slot": "blue", "release": release(1)} for name in KINDS}
    for name in KINDS:
        ControlFile(shared.params["rollouts_dir"], name).write(Control())
    result = run_module(lb_route, capsys, **shared.params, services=services, verify=False)
    assert "msg" not in result


@pytest.fixture
def give(fleet: Fleet, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Give a service's canary a share in hundredths of a percent."""
    # The servers serve several services, and say the name of none.
    monkeypatch.setattr(lb_canary, "wrong_servers", lambda *_asked: [])

    def run(service: str, share: int, check: bool = False, refused: bool = False) -> Any:
        services = {service: {"share": share, "release": release(2)}}
        result = run_module(lb_canary, capsys, check=check, **fleet.params, services=services)
        assert ("msg" in result) == refused, result
        return result

    return run


def tolerated(count: int, share: int) -> float:
    """Four standard deviations of a binomial, and one more for a share of next to nothing."""
    p = share / 10_000
    return 4 * math.sqrt(count * p * (1 - p)) + 1


def test_users_are_sticky_and_those_of_a_smaller_share_stay_in(fleet: Fleet, give: Callable[..., Any]) -> None:
    before: set[str] = set()
    for share in (1, 100, 500, 2500, 5000, 9999):
        assert give("header", share)["shares"]["header"]["after"] == share
        found = fleet.of_users("header", USERS)
        assert abs(len(found) - share) <= tolerated(len(USERS), share)
        assert before <= found
        before = found
    again = sorted(before)[:200]
    assert fleet.of_users("header", again) == set(again)


def test_the_canaries_of_two_services_are_not_the_same_users(fleet: Fleet, give: Callable[..., Any]) -> None:
    users = USERS[:2000]
    for service in ("header", "cookie"):
        give(service, 2000)
    one = fleet.of_users("header", users)
    answers = fleet.ask("cookie", [{"Cookie": f"other=1; user={user}"} for user in users])
    other = {user for user, version in zip(users, answers, strict=True) if version == "2"}
    assert abs(len(other) - 400) <= tolerated(2000, 2000)
    assert abs(len(one & other) - 80) <= tolerated(2000, 400)


def test_buckets_have_no_bias(fleet: Fleet, give: Callable[..., Any]) -> None:
    """Chi-square of the users over ten equal parts of the buckets: 27.9 is exceeded once in a thousand."""
    users = USERS[:2000]
    inside = [0]
    for share in range(1000, 10_000, 1000):
        give("header", share)
        inside.append(len(fleet.of_users("header", users)))
    counts = [more - less for less, more in zip(inside, [*inside[1:], len(users)], strict=True)]
    assert sum((count - 200) ** 2 / 200 for count in counts) < 27.9


def test_a_user_may_be_told_by_the_address(fleet: Fleet, give: Callable[..., Any]) -> None:
    def source(number: int) -> str:
        return f"127.0.{number // 200 + 1}.{number % 200 + 1}"

    give("address", 3000)
    first = fleet.ask("address", [{}] * 600, source)
    assert abs(first.count("2") - 180) <= tolerated(600, 3000)
    assert fleet.ask("address", [{}] * 600, source) == first


@pytest.mark.parametrize("headers", [{}, {"X-User": ""}], ids=["none", "an empty one"])
def test_requests_without_a_key_never_go_or_go_by_chance(
    fleet: Fleet, give: Callable[..., Any], headers: dict[str, str]
) -> None:
    give("header", 9000)
    assert set(fleet.ask("header", [headers] * 200)) == {"1"}
    give("cookie", 3000)
    found = fleet.ask("cookie", [{}] * 1000).count("2")
    assert abs(found - 300) <= tolerated(1000, 3000)


def test_listed_users_alone_are_in_whatever_the_share(fleet: Fleet, give: Callable[..., Any]) -> None:
    listed = list(KINDS["only"]["only"])
    assert fleet.of_users("only", listed) == set()
    for share in (1, 9999):
        give("only", share)
        assert fleet.of_users("only", [*listed, *USERS[:200], ""]) == set(listed)


def test_a_header_forces_either_side_while_a_canary_runs(fleet: Fleet, give: Callable[..., Any]) -> None:
    user = {"X-User": "user-1"}
    assert fleet.ask("header", [{**user, "X-Canary": "always"}]) == ["1"]
    for share in (1, 9999):
        give("header", share)
        sides = [{**user, "X-Canary": side} for side in ("always", "never")]
        assert fleet.ask("header", [*sides, {"X-Canary": "always"}]) == ["2", "1", "2"]
    # A service that names no header does not look at any.
    give("cookie", 1)
    assert fleet.ask("cookie", [{"Cookie": "user=user-1", "X-Canary": "always"}]) == ["1"]


def test_a_canary_without_a_server_takes_nobodys_answer(
    fleet: Fleet, give: Callable[..., Any], capsys: Capture
) -> None:
    params = fleet.params
    give("header", 9999)
    assert fleet.of_users("header", USERS[:50]) == set(USERS[:50])
    try:
        run_module(lb_server, capsys, **params, servers=["header_green/model1"], state="maint")
        assert fleet.of_users("header", USERS[:50]) == set()
    finally:
        run_module(lb_server, capsys, **params, servers=["header_green/model1"], state="ready", wait_up=False)


def test_a_share_survives_reload_and_restart(fleet: Fleet, give: Callable[..., Any], capsys: Capture) -> None:
    give("header", 2500)
    before = fleet.of_users("header", USERS[:500])
    fleet.machine.reload()
    assert fleet.of_users("header", USERS[:500]) == before
    fleet.machine.stop()
    fleet.machine.start()
    wait_until_up(fleet.machine)
    assert fleet.of_users("header", USERS[:500]) == before
    found = run_module(lb_info, capsys, **fleet.params)["load_balancer"]["services"]["header"]
    assert (found["share"], found["pools"]["green"]["release"]) == (2500, release(2))


@pytest.mark.parametrize("module", ["route", "rollback"])
def test_a_promotion_shows_no_request_anything_but_before_and_after(
    fleet: Fleet, give: Callable[..., Any], capsys: Capture, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """A user in the canary sees no other release while it becomes the one that serves, the others see it change."""
    monkeypatch.setattr(lb_rollback, "wrong_servers", lambda *_asked: [])
    give("header", 5000)
    inside = sorted(fleet.of_users("header", USERS[:100]))[0]
    outside = sorted(set(USERS[:100]) - fleet.of_users("header", USERS[:100]))[0]
    seen: dict[str, list[str]] = {inside: [], outside: []}
    stop = threading.Event()

    def client(user: str) -> None:
        while not stop.is_set():
            seen[user] += fleet.ask("header", [{"X-User": user}] * 20)

    clients = [threading.Thread(target=client, args=(user,)) for user in seen]
    for each in clients:
        each.start()
    params = fleet.params
    wanted = {"header": {"slot": "green", "release": release(2)}}
    if module == "route":
        result = run_module(lb_route, capsys, **params, services=wanted, verify=False)
        assert result["routes"]["header"]["before"]["share"] == 5000
        assert result["routes"]["header"]["after"] == {"slot": "green", "release": release(2), "share": 0}
    else:
        result = run_module(lb_rollback, capsys, **params, services=["header"], to="2")
        assert result["rolled_back"]["header"]["to"] == release(2)
    stop.set()
    for each in clients:
        each.join()
    assert set(seen[inside]) == {"2"}
    assert seen[outside] == sorted(seen[outside])
    assert fleet.machine.ask(f"show map {fleet.machine.state_dir}/canary.map") == ""
    assert (fleet.machine.state_dir / "canary.map").read_text() == ""


@pytest.mark.parametrize("to", [None, "1"])
def test_going_back_while_a_canary_runs_ends_it(
    fleet: Fleet, give: Callable[..., Any], capsys: Capture, to: str | None
) -> None:
    run_module(lb_route, capsys, **fleet.params, services={"header": {"slot": "blue", "release": release(1)}})
    give("header", 500)
    options = {"services": ["header"], **({"to": to} if to else {})}
    checked = run_module(lb_rollback, capsys, check=True, **fleet.params, **options)
    result = run_module(lb_rollback, capsys, **fleet.params, **options)
    assert (checked["ended"], checked["changed"]) == (result["ended"], True)
    assert (result["ended"], result["rolled_back"], result["cold"]) == ({"header": {"share": 500}}, {}, {})
    assert fleet.of_users("header", USERS[:200]) == set()
    assert ControlFile(fleet.params["rollouts_dir"], "header").read().word == "abort"


@pytest.mark.usefixtures("give")
def test_a_share_is_a_step_of_the_rollout_that_holds_the_service(
    fleet: Fleet, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = "20260102T030405Z-00000001"
    meant = {"header": {"release": release(2), "slot": "green", "was": {"release": release(1), "slot": "blue"}}}
    rollout = {"id": identity, "action": "deploy", "strategy": "canary", "services": meant}
    run_module(lb_rollout, capsys, **fleet.params, state="begun", rollout=rollout)

    def share(number: int) -> Any:
        services = {"header": {"share": number, "release": release(2)}}
        return run_module(lb_canary, capsys, **fleet.params, services=services, rollout=identity)

    def seen() -> Any:
        return run_module(lb_info, capsys, **fleet.params)["load_balancer"]["services"]["header"]

    before = seen()
    # The step begins again where a rollout goes on, though the share is there already.
    for changed in (True, False):
        assert share(500)["changed"] == changed
        assert seen()["rollout"]["step"] == "canary 5 % started"
    assert (seen()["share"], seen()["persisted"]) == (500, True)
    assert seen()["revision"] != before["revision"]
    ControlFile(fleet.params["rollouts_dir"], "header").write(Control("abort", "kim"))
    aborted = "header: expected a canary that goes on, found it aborted by kim"
    assert share(2500)["msg"] == aborted
    monkeypatch.setattr(lb_route, "wrong_servers", lambda *_asked: [])
    wanted = {"header": {"slot": "green", "release": release(2)}}
    assert run_module(lb_route, capsys, **fleet.params, services=wanted, rollout=identity)["msg"] == aborted
    assert share(0)["changed"]
    run_module(lb_rollout, capsys, **fleet.params, state="ended", id=identity, verdict="failed")
    assert share(500)["msg"] == f"{identity}: expected to hold header, found that it has ended"
    assert seen()["share"] == 0


def test_a_share_that_a_crash_left_over_never_counts(fleet: Fleet, give: Callable[..., Any], capsys: Capture) -> None:
    """The route has moved to green, the run died before blue's share was removed, and then the route goes back."""
    give("header", 9999)
    name = f"{fleet.machine.state_dir}/active.map"
    fleet.machine.ask(f"set map {name} header header_green")
    file = fleet.machine.state_dir / "active.map"
    file.write_text(file.read_text().replace("header header_blue", "header header_green"))
    assert set(fleet.ask("header", [{"X-User": user} for user in USERS[:50]])) == {"2"}
    services = {"header": {"slot": "blue", "release": release(1)}}
    run_module(lb_route, capsys, **fleet.params, services=services, verify=False)
    assert set(fleet.ask("header", [{"X-User": user} for user in USERS[:50]])) == {"1"}


def test_check_mode_shows_the_diff_of_the_run_and_changes_nothing(fleet: Fleet, give: Callable[..., Any]) -> None:
    checked = give("header", 500, check=True)
    assert fleet.of_users("header", USERS[:100]) == set()
    done = give("header", 500)
    assert (checked["changed"], checked["shares"], checked["diff"]) == (True, done["shares"], done["diff"])
    assert not give("header", 500)["changed"]
    assert "+header_blue 500" not in done["diff"]["before"]
    assert done["diff"]["after"].count("header_blue 500\n") == 2


@pytest.mark.parametrize(
    ("services", "message"),
    [
        ({"header": {"share": 10_001, "release": release(2)}}, "share of header: expected 0 to 10000, found 10001"),
        ({"header": {"share": 5}}, "release of header: expected the one that gets a share, found none"),
        ({"header": {"share": "half"}}, "share of header: expected a whole number, found 'half'"),
        ({"header": {"part": 1}}, "services: expected a share and a release for header, found {'part': 1}"),
        ({"nobody": {"share": 0}}, "nobody: expected a route to blue or green, found none in the map"),
    ],
)
def test_a_share_that_cannot_be_is_refused(
    fleet: Fleet, capsys: Capture, services: dict[str, Any], message: str
) -> None:
    assert run_module(lb_canary, capsys, **fleet.params, services=services)["msg"] == message


def test_a_canary_gets_nothing_before_its_servers_run_the_release(fleet: Fleet, capsys: Capture) -> None:
    services = {"header": {"share": 5, "release": release(3)}}
    message = run_module(lb_canary, capsys, **fleet.params, services=services)["msg"]
    assert message.startswith(f"header_green/model1: expected header {release(3)}, found any 2-")


def test_an_operator_speaks_to_a_canary_that_runs(fleet: Fleet, give: Callable[..., Any], capsys: Capture) -> None:
    def say(word: str, **options: Any) -> Any:
        return run_module(lb_control, capsys, **fleet.params, service="header", word=word, by="kim", **options)

    assert say("pause")["msg"] == "header: expected a canary to pause, found none: all requests go to blue"
    give("header", 500)
    assert say("promote")["msg"] == (
        "header: expected a run that watches the canary, which has 5 %, found it last watched never: "
        "run abort.yml, or the same deploy again"
    )
    ControlFile(fleet.params["rollouts_dir"], "header").touch()
    assert say("pause", check=True)["changed"]
    told = say("pause")
    assert (told["changed"], told["share"], told["is_watched"]) == (True, 500, True)
    assert not say("pause")["changed"]
    assert say("abort")["changed"]
    assert (
        give("header", 2500, refused=True)["msg"] == "header: expected a canary that goes on, found it aborted by kim"
    )
    assert give("header", 0)["shares"]["header"] == {"before": 500, "after": 0}


def test_a_new_service_gets_the_file_and_one_that_is_gone_leaves_no_share(
    fleet: Fleet, give: Callable[..., Any], capsys: Capture, tmp_path: Path
) -> None:
    give("header", 500)
    params = {**fleet.params, "config": str(fleet.machine.config)}
    before = {path.name: path.read_text() for path in fleet.machine.state_dir.iterdir()}
    try:
        run_module(lb_services, capsys, **params, services=["cookie"])
        assert (fleet.machine.state_dir / "canary.map").read_text() == ""
    finally:
        for name, text in before.items():
            (fleet.machine.state_dir / name).write_text(text)
    missing = {**params, "socket": str(tmp_path / "none"), "state_dir": str(tmp_path / "lb")}
    run_module(lb_services, capsys, **missing, services=["cookie"])
    assert (tmp_path / "lb/canary.map").read_text() == ""


def test_watching_counts_what_both_sides_answered(fleet: Fleet, give: Callable[..., Any], capsys: Capture) -> None:
    give("header", 5000)
    users = USERS[:200]
    inside = len(fleet.of_users("header", users))
    result: list[Any] = []
    seen = threading.Event()
    exposition = fleet.models["green"][0].metrics

    def client() -> None:
        seen.wait(10)
        fleet.of_users("header", users)

    def first_look(*arguments: Any) -> Any:
        found = real(*arguments)
        seen.set()
        return found

    real = lb_watch.scrape
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lb_watch, "scrape", first_look)
        patched.setattr(lb_watch, "INTERVAL", 0.2)
        asking = threading.Thread(target=client)
        asking.start()
        result.append(run_module(lb_watch, capsys, **fleet.params, service="header", seconds=2))
        asking.join()
    assert exposition
    found = result[0]
    assert (found["control"], found["failing"], found["unread"]) == ("go", "", [])
    sides = found["sides"]
    assert (sides["canary"]["requests"], sides["baseline"]["requests"]) == (inside, 200 - inside)
    assert (sides["canary"]["errors"], sides["baseline"]["errors"]) == (0, 0)
    assert sides["canary"]["latency"]["+Inf"] == inside
    assert sides["canary"]["predictions"] == {"1": inside}


def test_a_canary_of_a_rollout_that_was_taken_over_is_not_watched_any_longer(
    fleet: Fleet, give: Callable[..., Any], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lb_watch, "INTERVAL", 0.1)
    give("header", 100)
    folder = JournalFolder(fleet.params["rollouts_dir"])
    ids = [f"20260102T03040{number}Z-0000000{number}" for number in (1, 2)]

    def begun(name: str, *dead: str) -> None:
        services = {"header": {"release": release(2), "slot": "green", "was": {"release": release(1), "slot": "blue"}}}
        rollout = {"id": name, "action": "deploy", "services": services, "takes_over": list(dead)}
        with folder.alone() as journal:
            folder.write(begin(journal, read_rollout(rollout, "test"), "2026-01-02T03:04:05Z"))

    begun(ids[0])
    taking = threading.Timer(0.5, begun, (ids[1], ids[0]))
    taking.start()
    found = run_module(lb_watch, capsys, **fleet.params, service="header", seconds=30, rollout=ids[0])
    taking.join()
    assert found["msg"].startswith(f"{ids[0]}: expected to hold header, found deploy {ids[1]}")


def test_watching_ends_at_once_when_the_canary_fails(
    fleet: Fleet, give: Callable[..., Any], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lb_watch, "INTERVAL", 0.1)
    give("header", 9999)
    fleet.models["green"][0].status = 500
    ended = threading.Event()

    def client() -> None:
        connection = fleet.machine.connect()
        while not ended.is_set():
            connection.request("GET", "/header/predict", headers={"X-User": "user-1"})
            connection.getresponse().read()
            ended.wait(0.02)
        connection.close()

    asking = threading.Thread(target=client)
    asking.start()
    try:
        found = run_module(lb_watch, capsys, **fleet.params, service="header", seconds=30)
    finally:
        ended.set()
        asking.join()
        fleet.models["green"][0].status = 200
    assert found["failing"].startswith("errors: canary ")
    assert found["failing"].endswith("against 0 of 0: too many to wait for the end of the window")
    assert found["seconds"] < 10


def test_watching_ends_when_an_operator_says_so_or_no_server_is_left(
    fleet: Fleet, give: Callable[..., Any], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lb_watch, "INTERVAL", 0.1)
    give("header", 500)
    control = ControlFile(fleet.params["rollouts_dir"], "header")
    control.write(Control("promote", "kim"))
    found = run_module(lb_watch, capsys, **fleet.params, service="header", seconds=30)
    assert (found["control"], found["by"], found["seconds"] < 5) == ("promote", "kim", True)
    control.write(Control())
    assert control.is_watched()
    params = fleet.params
    try:
        run_module(lb_server, capsys, **params, servers=["header_green/model1"], state="maint")
        found = run_module(lb_watch, capsys, **fleet.params, service="header", seconds=30)
    finally:
        run_module(lb_server, capsys, **params, servers=["header_green/model1"], state="ready", wait_up=False)
    assert found["failing"] == "header_green: expected a server in rotation, found model1 is in maint"
    assert run_module(lb_watch, capsys, check=True, **fleet.params, service="header", seconds=30)["seconds"] == 0
