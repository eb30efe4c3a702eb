# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server does with clients that are slow, many, half gone or ask for too much: bytes on a socket."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from model_server.web.connection import Connection

Start = Callable[..., Any]


def request(body: bytes = b'{"instances":[[0.0]]}', *fields: str, path: str = "/predict") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *fields, "", ""]).encode() + body


def seconds(count: float) -> bytes:
    return json.dumps({"instances": [[count]]}).encode()


def connect(server: Any) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def answer_on(connection: socket.socket) -> tuple[int, dict[str, str], Any]:
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, {name.lower(): value for name, value in answer.headers.items()}, json.loads(answer.read())


def ask(server: Any, *sent: bytes) -> tuple[int, dict[str, str], Any]:
    with connect(server) as connection:
        for piece in sent:
            connection.sendall(piece)
        return answer_on(connection)


def test_a_request_may_come_in_pieces_and_several_at_once(start: Start, slow_bundle: Path) -> None:
    server = start(slow_bundle)
    with connect(server) as connection:
        for byte in request():
            connection.sendall(bytes([byte]))
        assert answer_on(connection)[2] == {"predictions": [0.0]}
        connection.sendall(b"".join(request(seconds(count)) for count in (0.2, 0.0, 0.1)))
        received = b""
        while received.count(b"predictions") < 3:
            received += connection.recv(10_000)
    found = [
        json.loads(part.partition(b"\r\n\r\n")[2])["predictions"] for part in received.split(b"HTTP/1.1 200 OK")[1:]
    ]
    assert found == [[0.2], [0.0], [0.1]]


def test_a_client_that_ends_its_side_gets_its_answer(start: Start, slow_bundle: Path) -> None:
    server = start(slow_bundle)
    with connect(server) as connection:
        connection.sendall(request(seconds(0.3)))
        connection.shutdown(socket.SHUT_WR)
        status, headers, found = answer_on(connection)
        assert (status, headers["connection"], found) == (200, "close", {"predictions": [0.3]})
        assert connection.recv(1) == b""


@pytest.mark.parametrize("begun", [b"POST /predict", request()[:-3]])
def test_a_request_that_does_not_arrive_in_time_is_refused(start: Start, slow_bundle: Path, begun: bytes) -> None:
    server = start(slow_bundle, READ_TIMEOUT="1")
    with connect(server) as connection:
        connection.sendall(begun)
        for _second in range(2):
            time.sleep(0.3)
            # Not idle, and yet too slow.
            connection.sendall(b"0")
        status, headers, found = answer_on(connection)
    assert (status, headers["connection"]) == (408, "close")
    assert found["detail"] == "expected the whole request within 1 s"


def test_who_sends_two_requests_and_ends_its_side_gets_both_answers(start: Start, slow_bundle: Path) -> None:
    server = start(slow_bundle)
    with connect(server) as connection:
        connection.sendall(request(seconds(0.3)) + request(seconds(0.1)) + request()[:-3])
        connection.shutdown(socket.SHUT_WR)
        for kept, found in (("keep-alive", 0.3), ("close", 0.1)):
            status, headers, answer = answer_on(connection)
            assert (status, headers["connection"], answer) == (200, kept, {"predictions": [found]})
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    ("path", "member"), [("/predict", "detail"), ("/v2/models/slow/infer", "error"), ("/invocations", "message")]
)
def test_a_late_request_and_a_wrong_method_are_refused_as_the_protocol_has_it(
    start: Start, slow_bundle: Path, path: str, member: str
) -> None:
    server = start(slow_bundle, READ_TIMEOUT="1")
    status, headers, found = ask(server, request(path=path).replace(b"POST", b"PUT"))
    assert (status, "POST" in headers["allow"]) == (405, True)
    assert member in found
    status, headers, found = ask(server, request(b" " * 9, "X-Request-ID: mine", path=path)[:-1])
    assert (status, headers["x-request-id"]) == (408, "mine")
    assert found[member] == "expected the whole request within 1 s"


def test_slow_and_silent_clients_do_not_take_the_places_of_others(start: Start, slow_bundle: Path) -> None:
    server = start(slow_bundle, WORKERS="1", CONNECTIONS="20")
    slow = [connect(server) for _client in range(40)]
    for number, connection in enumerate(slow):
        if number % 2:
            connection.sendall(b"POST /predict HTTP/1.1\r\nX-Slow: ")
    begun = time.monotonic()
    assert ask(server, request())[0] == 200
    assert time.monotonic() - begun < 15
    for connection in slow:
        connection.close()


def test_connections_beyond_the_limit_wait_for_a_place(start: Start, slow_bundle: Path) -> None:
    server = start(slow_bundle, WORKERS="1", CONNECTIONS="4", KEEP_ALIVE="1")
    idle = [connect(server) for _client in range(4)]
    for connection in idle:
        connection.sendall(request())
        assert answer_on(connection)[0] == 200
    with connect(server) as waiting:
        waiting.sendall(request())
        waiting.settimeout(0.3)
        with pytest.raises(TimeoutError):
            waiting.recv(1)
        idle[0].close()
        waiting.settimeout(10)
        assert answer_on(waiting)[0] == 200
    for connection in idle:
        connection.close()


def test_who_has_been_idle_for_longest_makes_room_for_who_waits(start: Start, slow_bundle: Path) -> None:
    server = start(slow_bundle, WORKERS="1", CONNECTIONS="4")
    kept = [connect(server) for _client in range(4)]
    for connection in kept:
        connection.sendall(request())
        assert answer_on(connection)[0] == 200
    time.sleep(6)
    # As long as nobody waits nobody has to go.
    kept[0].settimeout(0.1)
    with pytest.raises(TimeoutError):
        kept[0].recv(1)
    begun = time.monotonic()
    assert ask(server, request())[0] == 200
    assert time.monotonic() - begun < 3
    kept[0].settimeout(2)
    assert kept[0].recv(1) == b""
    for connection in kept[1:]:
        connection.sendall(request())
        assert answer_on(connection)[0] == 200
    # None of these is idle long enough: a request may be on its way.
    with connect(server) as another, connect(server) as waiting:
        another.sendall(request())
        assert answer_on(another)[0] == 200
        waiting.sendall(request())
        waiting.settimeout(1.5)
        with pytest.raises(TimeoutError):
            waiting.recv(1)
    for connection in kept:
        connection.close()


def test_an_idle_connection_is_closed_after_its_time(start: Start, slow_bundle: Path) -> None:
    server = start(slow_bundle, KEEP_ALIVE="1")
    with connect(server) as connection:
        connection.sendall(request())
        assert answer_on(connection)[0] == 200
        begun = time.monotonic()
        assert connection.recv(1) == b""
        assert 0.5 < time.monotonic() - begun < 5


def test_a_client_that_reads_nothing_does_not_hold_up_others(start: Start, bundle: Path) -> None:
    server = start(bundle, WORKERS="1", MODEL_SERVICE="size", READ_TIMEOUT="1")
    rows = json.dumps({"instances": [[0.5, 8.0]] * 20_000, "probabilities": True}).encode()
    with connect(server) as deaf, ThreadPoolExecutor(1) as background:
        sending = background.submit(deaf.sendall, request(rows) * 200)
        time.sleep(1)
        with connect(server) as connection:
            connection.sendall(request(b'{"instances":[[0.5,8.0]]}'))
            assert answer_on(connection)[0] == 200
        # Its time ends, and with it the connection.
        assert isinstance(sending.exception(20), ConnectionError)


def large_answer(server: Any, takes: int, pause: float, seconds: float, *fields: str) -> tuple[int, int]:
    """How many bytes of a body of seven megabytes a client gets, and how many there are.

    It takes so many at once and pauses, for so many seconds; what there still is then it takes at once.
    """
    rows = json.dumps({"instances": [[0.5, 8.0]] * 100_000, "probabilities": True}).encode()
    with socket.socket() as client:
        # What the kernel takes for a client is none that it has read.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.settimeout(20)
        client.connect(("127.0.0.1", server.port))
        client.sendall(request(rows, *fields))
        answer = http.client.HTTPResponse(client)
        answer.begin()
        expected = answer.length or 0
        got, until = 0, time.monotonic() + seconds
        while (left := expected - got) and time.monotonic() < until:
            got += len(answer.read1(min(takes, left)))
            time.sleep(pause)
        with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
            got += len(answer.read())
        return got, expected


@pytest.mark.parametrize("fields", [(), ("Connection: close",)])
def test_who_reads_slowly_and_goes_on_gets_all_of_a_large_answer(
    start: Start, bundle: Path, fields: tuple[str, ...]
) -> None:
    server = start(bundle, WORKERS="1", MODEL_SERVICE="size", READ_TIMEOUT="1", KEEP_ALIVE="1")
    begun = time.monotonic()
    got, expected = large_answer(server, 100_000, 0.08, 60, *fields)
    assert got == expected > 7_000_000
    # Several times as long as anybody may take nothing.
    assert time.monotonic() - begun > 4


@pytest.mark.parametrize("takes", [0, 1])
@pytest.mark.parametrize("fields", [(), ("Connection: close",)])
def test_who_takes_nothing_of_an_answer_or_a_byte_now_and_then_is_cut_off(
    start: Start, bundle: Path, takes: int, fields: tuple[str, ...]
) -> None:
    server = start(bundle, WORKERS="1", MODEL_SERVICE="size", READ_TIMEOUT="1")
    got, expected = large_answer(server, takes, 0.05, 3.5, *fields)
    assert got < expected


def test_a_client_that_leaves_the_end_of_an_answer_does_not_keep_its_connection() -> None:
    front = mock.Mock()
    front.max_body, front.service.settings.read_timeout = 1000, 1
    ours, its = socket.socketpair()
    with ours, its:
        transport = mock.Mock()
        transport.get_extra_info.return_value = ours
        connection = Connection(front)
        connection.connection_made(transport)
        # Too little to stall it, and no longer wanted either.
        transport.get_write_buffer_size.return_value = 9000
        connection.time_is_over()
        assert connection.ends_at > time.monotonic()
        transport.abort.assert_not_called()
        connection.time_is_over()
        transport.abort.assert_called_once_with()


def test_health_is_answered_while_the_model_is_busy(start: Start, slow_bundle: Path) -> None:
    server = start(slow_bundle, WORKERS="1")
    with ThreadPoolExecutor(1) as background:
        slow = background.submit(ask, server, request(seconds(1.5)))
        time.sleep(0.2)
        begun = time.monotonic()
        assert server.ready() == 200
        assert time.monotonic() - begun < 1
        assert slow.result()[0] == 200


def test_more_than_can_be_answered_soon_is_refused_at_once(start: Start, slow_bundle: Path) -> None:
    server = start(slow_bundle, WORKERS="1", MAX_WAIT_MS="500")
    assert ask(server, request(seconds(0.4)))[0] == 200
    with ThreadPoolExecutor(12) as clients:
        found = list(clients.map(lambda _client: ask(server, request(seconds(0.4))), range(12)))
    statuses = [status for status, _headers, _found in found]
    assert set(statuses) == {200, 429}
    # One runs and as many wait as half a second has room for.
    assert 2 <= statuses.count(200) <= 4
    headers, problem = next((headers, found) for status, headers, found in found if status == 429)
    assert headers["retry-after"] == str(problem["retry_after"])
    assert problem["detail"] == f"the server is busy: try again in {problem['retry_after']} s"


def test_a_first_request_that_takes_long_is_not_waited_for_either(start: Start, slow_bundle: Path) -> None:
    server = start(slow_bundle, WORKERS="1", MAX_WAIT_MS="300")
    with ThreadPoolExecutor(1) as background:
        slow = background.submit(ask, server, request(seconds(1.5)))
        time.sleep(0.6)
        status, headers, _found = ask(server, request(seconds(0)))
        assert (status, headers["retry-after"]) == (429, "1")
        assert slow.result()[0] == 200


def test_how_long_the_model_takes_is_known_before_the_first_request(start: Start, slow_bundle: Path) -> None:
    manifest = json.loads((slow_bundle / "manifest.json").read_bytes())
    golden = json.dumps({"instances": [[0.4], [100.0]]}).encode()
    (slow_bundle / "golden.json").write_bytes(golden)
    manifest["files"]["golden.json"] |= {"sha256": hashlib.sha256(golden).hexdigest(), "size": len(golden)}
    (slow_bundle / "manifest.json").write_text(json.dumps(manifest))
    server = start(slow_bundle, WORKERS="1", MAX_WAIT_MS="500")
    time.sleep(1)
    with ThreadPoolExecutor(12) as clients:
        statuses = list(clients.map(lambda _client: ask(server, request(seconds(0.4)))[0], range(12)))
    assert set(statuses) == {200, 429}
    assert 2 <= statuses.count(200) <= 4
    with server.connection() as connection:
        connection.request("GET", "/metrics")
        counted = connection.getresponse().read().decode()
    assert f"model_server_rows_total {statuses.count(200)}.0" in counted


def test_a_deadline_is_kept_and_what_is_too_late_is_not_scored(start: Start, slow_bundle: Path, tmp_path: Path) -> None:
    server = start(slow_bundle, WORKERS="1", MAX_WAIT_MS="60000")
    with ThreadPoolExecutor(2) as clients, connect(server) as connection:
        running = clients.submit(ask, server, request(seconds(1.0)))
        time.sleep(0.2)
        begun = time.monotonic()
        connection.sendall(request(seconds(0.9), "X-Request-Timeout-Ms: 300"))
        status, _headers, problem = answer_on(connection)
        assert 0.25 < time.monotonic() - begun < 0.75
        assert (status, problem["detail"]) == (504, "there was no answer within X-Request-Timeout-Ms")
        # The connection goes on, and the model has not been asked for what nobody waits for.
        connection.sendall(request(seconds(0.0), "X-Request-Timeout-Ms: 5000"))
        assert answer_on(connection)[0] == 200
        assert time.monotonic() - begun < 1.6
        assert running.result()[0] == 200


def queue_of(server: Any) -> float:
    with server.connection() as connection:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("model_server_queue "))


def test_what_nobody_waits_for_any_more_leaves_the_queue_in_the_metrics_too(start: Start, slow_bundle: Path) -> None:
    server = start(slow_bundle, WORKERS="1", THREADS="1", MAX_WAIT_MS="60000")
    with connect(server) as late, connect(server) as gone:
        late.sendall(request(seconds(0.8), "X-Request-Timeout-Ms: 100"))
        gone.sendall(request(seconds(0.0)))
        assert answer_on(late)[0] == 504
        assert queue_of(server) == 2
        gone.close()
        deadline = time.monotonic() + 5
        while queue_of(server) and time.monotonic() < deadline:
            time.sleep(0.1)
    assert queue_of(server) == 0


def test_a_deadline_that_is_none_is_refused(start: Start, slow_bundle: Path) -> None:
    status, _headers, problem = ask(start(slow_bundle), request(seconds(0), "X-Request-Timeout-Ms: soon"))
    assert (status, problem["detail"]) == (400, "X-Request-Timeout-Ms: expected a whole number of milliseconds from 1")


def test_too_many_rows_are_refused(start: Start, slow_bundle: Path) -> None:
    server = start(slow_bundle, MAX_ROWS="2")
    body = b'{"instances":[[0.0],[0.0]]}'
    assert ask(server, request(body))[0] == 200
    status, _headers, problem = ask(server, request(body.replace(b"]]", b"],[0.0]]")))
    assert (status, problem["detail"]) == (413, "expected at most 2 rows, found 3")


def test_a_body_is_asked_for_only_if_it_may_come(start: Start, slow_bundle: Path) -> None:
    server = start(slow_bundle, MAX_BODY_BYTES="100")
    with connect(server) as connection:
        head, _blank, body = request(seconds(0), "Expect: 100-continue").partition(b"\r\n\r\n")
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert answer_on(connection)[0] == 200
        connection.sendall(request(b" " * 200, "Expect: 100-continue").partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        assert answer_on(connection)[0] == 413
        assert connection.recv(1) == b""


def test_a_target_may_be_a_whole_url_and_have_a_query(start: Start, slow_bundle: Path) -> None:
    server = start(slow_bundle)
    for path in ("/predict?now", "http://model/predict", "/%70redict"):
        assert ask(server, request(path=path))[0] == 200
    assert ask(server, request(path="/predict/"))[0] == 404


def test_head_has_the_length_and_no_body(start: Start, slow_bundle: Path) -> None:
    server = start(slow_bundle)
    with connect(server) as connection:
        connection.sendall(
            b"HEAD /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\nGET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        received = b""
        while not received.endswith(b"}"):
            received += connection.recv(1000)
    head, get = received.split(b"HTTP/1.1 200 OK")[1:]
    assert head.endswith(b"\r\n\r\n")
    length = len(get.partition(b"\r\n\r\n")[2])
    assert f"Content-Length: {length}\r\n".encode() in head


SURROGATE = rb'{"instances":[[0.0]],"\ud800":1}'
"""JSON may have half of a pair, which is no character, and which UTF-8 cannot say back."""


@pytest.mark.parametrize("path", ["/predict", "/invocations"])
def test_a_name_that_is_no_unicode_is_refused_and_the_next_request_answered(
    start: Start, slow_bundle: Path, path: str
) -> None:
    server = start(slow_bundle, WORKERS="1", THREADS="1")
    status, _headers, found = ask(server, request(SURROGATE, path=path))
    assert status == 400
    assert r"found \"\ud800\"" in json.dumps(found).replace(r"\\ud800", r"\ud800")
    assert ask(server, request())[0] == 200


def test_a_large_one_for_a_compiled_model_too(start: Start, bundle: Path) -> None:
    server = start(bundle, WORKERS="1", THREADS="1")
    assert ask(server, request(SURROGATE + 100_000 * b" "))[0] == 400
    assert ask(server, request(b'{"instances":[[0.0, 5.0]]}' + 100_000 * b" "))[0] == 200


def test_a_model_that_wants_to_end_the_process_ends_its_request_alone(start: Start, slow_bundle: Path) -> None:
    server = start(slow_bundle, WORKERS="1", THREADS="1")
    status, headers, found = ask(server, request(seconds(999)))
    assert (status, found["type"]) == (500, "urn:modelfleet:problem:server")
    status, _headers, found = ask(server, request(json.dumps({"instances": [[999]]}).encode(), path="/invocations"))
    assert (status, found["error_code"]) == (500, "INTERNAL_ERROR")
    assert ask(server, request())[0] == 200
    log = server.log.read_text()
    logged = [json.loads(line) for line in log.splitlines()]
    failed = [line["id"] for line in logged if line["event"] == "a request failed: SystemExit"]
    assert (len(failed), failed[0]) == (2, headers["x-request-id"])
    assert "999 reasons" not in log
