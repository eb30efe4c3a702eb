from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiohttp import web

from testbed.command import ROOT
from testbed.load import Load, Plan, Samples, check_target, percentile, same

BODY = {"instances": [[1.0]]}


def test_every_request_is_counted_with_its_version(server) -> None:
    with Load(server.url, BODY, requests=60, rate=0) as load:
        wait_until(lambda: load.sent == 60)
    result = load.result
    assert (result["sent"], result["failed"], result["versions"]) == (60, 0, {"1": 60})
    assert result["running"] is False
    assert server.requests == 60
    assert 0 < result["p50_ms"] <= result["p99_ms"] <= result["max_ms"]


def test_kept_connections_are_kept_and_fresh_ones_are_new(server) -> None:
    with Load(server.url, BODY, requests=50, rate=0, keepalive=2, fresh=0) as load:
        wait_until(lambda: load.sent == 50)
    assert load.result["connections"] == 2
    with Load(server.url, BODY, requests=50, rate=0, keepalive=0, fresh=2) as load:
        wait_until(lambda: load.sent == 50)
    assert load.result["connections"] == 50
    assert len(server.connections) == 52


def test_the_rate_is_kept(server) -> None:
    with Load(server.url, BODY, seconds=1.0, rate=100) as load:
        wait_until(lambda: load.result["running"] is False)
    assert 90 <= load.result["sent"] <= 104
    assert sum(second["sent"] for second in load.result["timeline"]) == load.result["sent"]


@pytest.mark.parametrize(
    ("failing", "reason"),
    [
        ("status", "status 503: no healthy server"),
        ("redirect", "status 302"),
        ("close", "ServerDisconnectedError"),
        ("half", "ClientPayloadError"),
        ("silence", "TimeoutError"),
    ],
)
def test_what_is_not_answered_well_is_counted_and_never_sent_again(server, failing: str, reason: str) -> None:
    async def fail(request: web.Request) -> web.StreamResponse:
        if server.requests != 5:
            return web.json_response({}, headers={"X-Model-Version": "1"})
        if failing == "status":
            return web.Response(status=503, text="no healthy server")
        if failing == "redirect":
            return web.Response(status=302, headers={"Location": "/elsewhere"})
        if failing == "close":
            request.transport.close()
        if failing == "half":
            answer = web.StreamResponse(headers={"Content-Length": "100"})
            await answer.prepare(request)
            await answer.write(b"half")
            request.transport.close()
            return answer
        await asyncio.sleep(1)
        return web.Response()

    server.handler = fail
    with Load(server.url, BODY, requests=20, rate=0, keepalive=1, fresh=0, timeout=0.3) as load:
        wait_until(lambda: load.sent == 20)
    result = load.result
    assert (result["sent"], result["failed"], server.requests) == (20, 1, 20)
    assert reason in result["failures"][0]["reason"]
    assert result["failures"][0]["phase"] == "start"


def test_a_target_where_nothing_listens_is_a_failure_for_each_request() -> None:
    with Load("http://127.0.0.1:9/", BODY, requests=30, rate=0) as load:
        wait_until(lambda: load.sent == 30)
    assert load.result["failed"] == 30
    assert len(load.result["failures"]) == 20
    assert load.result["p99_ms"] is None


def test_failures_of_one_phase_do_not_hide_those_of_the_next() -> None:
    with Load("http://127.0.0.1:9/", BODY, rate=0, phase="before") as load:
        wait_until(lambda: load.sent >= 30)
        load.mark("after")
        wait_until(lambda: sum(failure["phase"] == "after" for failure in load.samples.failures) == 20)
    kept = [failure["phase"] for failure in load.result["failures"]]
    assert (load.result["phases"][0]["name"], kept.count("before"), kept.count("after")) == ("before", 20, 20)


def test_requests_say_which_user_sends_them_and_that_they_may(server) -> None:
    seen = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append((request.headers.get("X-User"), request.headers.get("X-API-Key")))
        return web.json_response({}, headers={"X-Model-Version": "1"})

    server.handler = answer
    with Load(server.url, BODY, rate=0, requests=30, users=3, key="secret") as load:
        wait_until(lambda: load.sent == 30)
    assert set(seen) == {("user-0", "secret"), ("user-1", "secret"), ("user-2", "secret")}


def test_marks_part_the_run_into_phases(server) -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.json_response({}, headers={"X-Model-Version": version})

    server.handler, version = answer, "1"
    with Load(server.url, BODY, rate=200) as load:
        wait_until(lambda: load.sent >= 20)
        load.mark("deploy v2")
        wait_until(lambda: load.sent >= 40)
        version = "2"
        time.sleep(0.1)
        load.mark("after")
        seen = load.sent
        wait_until(lambda: load.sent >= seen + 20)
    start, deploy, after = load.result["phases"]
    assert [start["name"], deploy["name"], after["name"]] == ["start", "deploy v2", "after"]
    assert start["versions"] == {"1": start["sent"]}
    assert set(deploy["versions"]) == {"1", "2"}
    assert after["versions"] == {"2": after["sent"]}
    assert start["sent"] + deploy["sent"] + after["sent"] == load.result["sent"]
    assert deploy["from"] == pytest.approx(start["seconds"], abs=0.01)


@pytest.mark.parametrize(
    ("expected", "reason"),
    [
        ({"1": {"predictions": [0.25]}}, None),
        ({"1": {"predictions": [0.25 + 1e-9]}}, None),
        ({"1": {"predictions": [0.75]}}, 'version 1: not the expected answer: {"predictions": [0.25]}'),
        ({"2": {"predictions": [0.25]}}, "version 1: expected one of 2"),
    ],
)
def test_answers_are_compared_with_those_of_their_version(server, expected, reason: str | None) -> None:
    with Load(server.url, BODY, requests=10, rate=0, expected=expected) as load:
        wait_until(lambda: load.sent == 10)
    assert load.result["failed"] == (0 if reason is None else 10)
    assert [failure["reason"] for failure in load.result["failures"][:1]] == ([] if reason is None else [reason])


def test_an_error_in_the_block_is_not_hidden(server) -> None:
    with pytest.raises(KeyError, match="mine"), Load(server.url, BODY):
        raise KeyError("mine")


@pytest.mark.parametrize(
    "url", ["http://example.org/", "http://192.0.2.1/", "https://127.0.0.1/", "127.0.0.1", "http://10.213.77.200/"]
)
def test_other_targets_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"url: expected .*, found"):
        check_target(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://localhost/", "http://[::1]/x", "http://10.213.77.10/"])
def test_loopback_and_the_testbeds_hosts_are_allowed(url: str) -> None:
    check_target(url)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 901}, "seconds: expected 0.1 to 900.0, found 901"),
        ({"requests": 500_001}, "requests: expected 1 to 500000, found 500001"),
        ({"keepalive": 0, "fresh": 0}, "expected at least one client, found 0"),
    ],
)
def test_a_run_has_bounds(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan("http://127.0.0.1/", b"", **options)


@pytest.mark.parametrize(
    ("values", "share", "found"),
    [([], 0.5, None), ([7.0], 0.99, 7.0), ([1, 2, 3, 4], 0.5, 2), (range(1, 101), 0.99, 99)],
)
def test_a_percentile_is_a_value_that_was_measured(values, share: float, found: float | None) -> None:
    assert percentile(values, share) == found


def test_a_run_without_requests_has_a_result() -> None:
    assert Samples("start").result(1.0)["sent"] == 0


@pytest.mark.parametrize(
    ("expected", "found", "equal"),
    [
        ({"a": 1}, {"a": 1, "more": 2}, True),
        ({"a": 1}, {}, False),
        ([1.0], [1.0, 2.0], False),
        (["benign"], ["benign"], True),
        (1.0, "1.0", False),
    ],
)
def test_answers_are_the_same_if_they_hold_what_is_expected(expected, found, equal: bool) -> None:
    assert same(expected, found) is equal


@pytest.mark.parametrize("way", ["signal", "file"])
def test_the_command_line_runs_until_it_is_told_to_stop(server, tmp_path: Path, way: str) -> None:
    body, out, marks, stop = (tmp_path / name for name in ("body.json", "out.json", "marks", "stop"))
    body.write_text(json.dumps(BODY))
    options = ["--body", body, "--out", out, "--marks", marks, "--stop-file", stop, "--rate", 100]
    command = [sys.executable, "-m", "testbed.load", "--url", server.url, *map(str, options)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: out.exists() and server.requests > 10)
    assert json.loads(out.read_text())["running"] is True
    marks.write_text("deploy v2\n")
    time.sleep(0.3)
    if way == "signal":
        os.kill(process.pid, signal.SIGTERM)
    else:
        stop.touch()
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    result = json.loads(out.read_text())
    assert result["running"] is False
    assert result["sent"] == server.requests
    assert [phase["name"] for phase in result["phases"]] == ["start", "deploy v2"]
    assert result["phases"][1]["sent"] > 0
    assert said.startswith(f"{result['sent']} requests in ")


def test_the_command_line_refuses_in_one_line() -> None:
    command = [sys.executable, "-m", "testbed.load", "--url", "http://example.org/", "--body", os.devnull]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == "testbed load: url: expected a loopback address or a host of the testbed, found example.org\n"


def wait_until(condition, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.01)
