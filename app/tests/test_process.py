# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server as systemd runs it: a real gunicorn, its signals, and clients that notice every lost request."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, document: Any = None
) -> tuple[int, http.client.HTTPMessage, Any]:
    body = None if document is None else json.dumps(document)
    connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    answer = connection.getresponse()
    text = answer.read()
    if answer.headers.get("Connection") == "close":
        connection.close()
    found = json.loads(text) if "json" in answer.headers["Content-Type"] else text.decode()
    return answer.status, answer.headers, found


def predict(connection: http.client.HTTPConnection, seconds: float) -> Any:
    status, _headers, found = ask(connection, "POST", "/predict", {"instances": [[seconds]]})
    assert (status, found) == (200, {"predictions": [seconds]})


class Load:
    """Clients that predict without pause until the server takes no more connections; half of them keep theirs."""

    def __init__(self, server: Any, clients: int = 8) -> None:
        self.server = server
        self.answered = 0
        self.lost: list[str] = []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(bool(number % 2),)) for number in range(clients)]
        for thread in self.threads:
            thread.start()

    def _run(self, keep_alive: bool) -> None:
        with self.server.connection() as connection:
            while not self.stopping.is_set():
                try:
                    if connection.sock is None:
                        connection.connect()
                except ConnectionRefusedError:
                    return
                try:
                    predict(connection, 0.01)
                    self.answered += 1
                except Exception as error:
                    self.lost.append(repr(error))
                    connection.close()
                if not keep_alive:
                    connection.close()

    def join(self) -> None:
        for thread in self.threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in self.threads)


def test_predictions_over_one_connection_and_metrics_of_all_workers(
    start: Callable[..., Any], slow_bundle: Path
) -> None:
    server = start(slow_bundle)
    with server.connection() as connection:
        predict(connection, 0.0)
        kept = connection.sock
        for _attempt in range(4):
            predict(connection, 0.0)
        assert connection.sock is kept
        for _attempt in range(5):
            with server.connection() as other:
                predict(other, 0.0)
        lines = ask(connection, "GET", "/metrics")[2].splitlines()
    assert 'model_server_requests_total{route="/predict",status="200"} 10.0' in lines
    assert "model_server_requests_in_flight 1.0" in lines


def predict_slowly(server: Any) -> None:
    with server.connection() as connection:
        predict(connection, 1.0)


def test_stopping_finishes_what_it_began_and_tells_everyone(start: Callable[..., Any], slow_bundle: Path) -> None:
    server = start(slow_bundle)
    with ThreadPoolExecutor(1) as background, server.connection() as idle:
        assert ask(idle, "GET", "/v2/health/ready")[1]["Connection"] == "keep-alive"
        slow = background.submit(predict_slowly, server)
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        status, headers, found = ask(idle, "GET", "/v2/health/ready")
        assert (status, found["ready"], headers["Connection"]) == (503, False, "close")
        slow.result(10)
    assert server.process.wait(10) == 0
    assert "Traceback" not in server.log.read_text()
    with pytest.raises(ConnectionRefusedError):
        server.ready()


def test_a_server_that_nobody_is_connected_to_stops_at_once(start: Callable[..., Any], slow_bundle: Path) -> None:
    server = start(slow_bundle)
    begun = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(10) == 0
    assert time.monotonic() - begun < 1.5


def test_stopping_under_load_loses_nothing(start: Callable[..., Any], slow_bundle: Path) -> None:
    server = start(slow_bundle)
    load = Load(server)
    time.sleep(1)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    load.join()
    assert load.lost == []
    assert load.answered > 50


def test_a_reload_replaces_the_workers_under_load_and_stays_ready(start: Callable[..., Any], slow_bundle: Path) -> None:
    server = start(slow_bundle)
    load = Load(server, clients=4)
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert server.ready() == 200
        time.sleep(0.01)
    load.stopping.set()
    load.join()
    assert load.lost == []
    assert server.log.read_text().count("Booting worker") == 4


def test_a_reload_reads_the_api_keys_anew(start: Callable[..., Any], slow_bundle: Path, tmp_path: Path) -> None:
    def write(key: str) -> None:
        keys.write_text(f"ana {hashlib.sha256(key.encode()).hexdigest()}\n")

    def status(key: str) -> int:
        with server.connection() as connection:
            connection.request("GET", "/v2", headers={"X-API-Key": key})
            answer: int = connection.getresponse().status
            return answer

    keys = tmp_path / "keys"
    write("old")
    server = start(slow_bundle, API_KEYS=str(keys))
    write("new")
    assert (status("old"), status("new")) == (200, 401)
    before = set(workers_of(server))
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 20
    while not before.isdisjoint(workers_of(server)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert {(status("old"), status("new")) for _time in range(20)} == {(401, 200)}


def test_a_reload_with_keys_that_are_none_changes_nothing(
    start: Callable[..., Any], slow_bundle: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"ana {hashlib.sha256(b'hers').hexdigest()}\n")

    def status() -> int:
        with server.connection() as connection:
            connection.request("GET", "/v2", headers={"X-API-Key": "hers"})
            answer: int = connection.getresponse().status
            return answer

    server = start(slow_bundle, API_KEYS=str(keys))
    time.sleep(1)
    before = set(workers_of(server))
    keys.write_text("ana a-typo\n")
    server.process.send_signal(signal.SIGHUP)
    time.sleep(1)
    # One that takes the place of another has the keys that the others have.
    os.kill(min(before), signal.SIGKILL)
    time.sleep(1)
    assert len(before & set(workers_of(server))) == len(before) - 1
    assert {status() for _time in range(20)} == {200}
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    (refused,) = [line["event"] for line in lines if line["event"].startswith("not reloaded")]
    assert refused.startswith(f"not reloaded, what serves goes on: {keys}")
    keys.write_text(f"ana {hashlib.sha256(b'hers').hexdigest()}\n")
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 20
    while not before.isdisjoint(workers_of(server)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert status() == 200


def test_a_worker_that_cannot_begin_is_tried_again(
    start: Callable[..., Any], slow_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "modules" / "sitecustomize.py").write_text(
        "import os, pathlib\n"
        "from model_server.scoring.scorer import Scorer\n"
        "def start(self):\n"
        f"    if pathlib.Path({str(tmp_path / 'broken')!r}).exists():\n"
        "        raise RuntimeError('no memory')\n"
        "Scorer.start = start\n"
    )
    server = start(slow_bundle, WORKERS="2")
    # The second one begins later, and has begun by then.
    time.sleep(1)
    killed, kept = workers_of(server)
    (tmp_path / "broken").touch()
    os.kill(killed, signal.SIGKILL)
    time.sleep(3)
    assert kept in workers_of(server)
    assert server.ready() == 200
    lines = [json.loads(line)["event"] for line in server.log.read_text().splitlines()]
    assert 1 <= lines.count("cannot serve: RuntimeError: no memory") <= 3
    (tmp_path / "broken").unlink()
    time.sleep(3)
    assert (len(workers_of(server)), server.process.poll()) == (2, None)
    (tmp_path / "broken").touch()
    # Where none has ever served, it is no use to try.
    other = start(slow_bundle, ready=False, WORKERS="1")
    assert other.process.wait(20) == 4


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_where_no_worker_can_begin_the_log_says_why_and_the_process_ends(
    start: Callable[..., Any], slow_bundle: Path, tmp_path: Path, workers: int
) -> None:
    (tmp_path / "modules" / "sitecustomize.py").write_text(
        "import time\n"
        "from model_server.scoring.scorer import Scorer\n"
        "def start(self):\n"
        # So all of them fail at the same moment.
        "    time.sleep(1.5 - time.time() % 1)\n"
        "    raise RuntimeError('no memory')\n"
        "Scorer.start = start\n"
    )
    server = start(slow_bundle, ready=False, WORKERS=str(workers))
    assert server.process.wait(20) == 4
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    errors = [line["event"] for line in lines if line["level"] == "error"]
    assert "cannot serve: RuntimeError: no memory" in errors
    assert errors[-1] == "Reason: a worker could not begin, and its own line says why"
    assert not any("error" in line for line in lines)


def workers_of(server: Any) -> list[int]:
    found = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return [int(pid) for pid in found.split()]


def sample(server: Any, name: str) -> float:
    """The value of one series of /metrics."""
    with server.connection() as connection:
        lines = ask(connection, "GET", "/metrics")[2].splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " "))


def test_a_worker_that_is_killed_loses_its_own_requests_alone(start: Callable[..., Any], slow_bundle: Path) -> None:
    server = start(slow_bundle)
    load = Load(server)
    time.sleep(0.5)
    for _kill in range(3):
        os.kill(workers_of(server)[0], signal.SIGKILL)
        time.sleep(1.5)
    load.stopping.set()
    load.join()
    # A kill can take what each of the eight clients had on that worker, and no more.
    assert 0 < len(load.lost) <= 3 * 8
    assert load.answered > 100
    assert len(workers_of(server)) == 2


def test_clients_of_the_other_workers_notice_nothing_of_a_kill(start: Callable[..., Any], slow_bundle: Path) -> None:
    server = start(slow_bundle)
    stopping = threading.Event()
    workers: dict[int, int] = {}
    lost: dict[int, str] = {}

    def use(number: int, connection: http.client.HTTPConnection) -> None:
        try:
            while not stopping.is_set():
                predict(connection, 0.01)
        except (OSError, http.client.HTTPException) as error:
            lost[number] = repr(error)

    with ExitStack() as stack, ThreadPoolExecutor(64) as pool:
        kept: list[http.client.HTTPConnection] = []
        # One worker may be ready before the other has begun; then connections, several at a time, go to both.
        while len(set(workers.values())) < 2:
            new = [stack.enter_context(server.connection()) for _client in range(8)]
            for connection in new:
                connection.connect()
            for number, connection in enumerate(new, len(kept)):
                workers[number] = ask(connection, "GET", "/v2/health/ready")[2]["worker"]
            kept += new
            assert len(kept) <= 64
            time.sleep(0.2)
        killed, other = set(workers.values())
        used = [pool.submit(use, number, connection) for number, connection in enumerate(kept)]
        time.sleep(0.5)
        os.kill(killed, signal.SIGKILL)
        time.sleep(1)
        stopping.set()
        for future in used:
            future.result(20)
    assert sorted(lost) == [number for number, worker in workers.items() if worker == killed], lost
    assert other in workers_of(server)
    assert killed not in workers_of(server)


def test_when_memory_is_short_the_kernel_ends_a_worker_and_not_the_master(
    start: Callable[..., Any], slow_bundle: Path
) -> None:
    server = start(slow_bundle)
    # One may be ready before the other has begun.
    deadline = time.monotonic() + 20
    while not all(badness(worker) > badness(server.process.pid) + 100 for worker in workers_of(server)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def badness(process: int) -> int:
    return int(Path(f"/proc/{process}/oom_score").read_text())


def test_a_large_request_takes_the_memory_of_the_one_before(start: Callable[..., Any], bundle: Path) -> None:
    server = start(bundle, WORKERS="1", MODEL_SERVICE="size")
    rows = {"instances": [[0.5, 8.25]] * 5_000, "probabilities": True}
    (worker,) = workers_of(server)
    faults = []
    with server.connection() as connection:
        for _request in range(20):
            before = page_faults(worker)
            assert ask(connection, "POST", "/predict", rows)[0] == 200
            faults.append(page_faults(worker) - before)
    # A page is 4 KiB: the body alone has 15.
    assert sorted(faults)[len(faults) // 2] <= 3


def test_a_connection_that_is_lost_leaves_nothing_behind(start: Callable[..., Any], bundle: Path) -> None:
    server = start(bundle, WORKERS="1")
    (worker,) = workers_of(server)
    half = b"POST /predict HTTP/1.1\r\nContent-Length: 8000000\r\n\r\n" + bytes(4_000_000)

    def send_half(count: int) -> int:
        """The worker's memory after so many clients that left in the middle of a request, in bytes."""
        for _client in range(count):
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
                client.sendall(half)
        with server.connection() as connection:
            assert ask(connection, "POST", "/predict", {"instances": [[0.5, 8.25]]})[0] == 200
        return 4096 * int(Path(f"/proc/{worker}/statm").read_text().split()[1])

    first = send_half(5)
    # All of them together sent 240 MB.
    assert send_half(60) - first < 60e6


def page_faults(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[7])


def test_nothing_listens_until_it_is_ready(start: Callable[..., Any], slow_bundle: Path) -> None:
    server = start(slow_bundle, ready=False)
    statuses: list[int | None] = []
    while 200 not in statuses:
        try:
            statuses.append(server.ready())
        except ConnectionRefusedError:
            # A balancer asks another server at once, which it would not do with a 503.
            statuses.append(None)
            time.sleep(0.002)
    assert set(statuses[:-1]) <= {None}


def test_metrics_outlive_workers(start: Callable[..., Any], slow_bundle: Path) -> None:
    server = start(slow_bundle)
    series = 'model_server_requests_total{route="/predict",status="200"}'
    for round_, (number, signal_) in enumerate(((0, signal.SIGKILL), (1, signal.SIGKILL), (None, signal.SIGHUP)), 1):
        for _request in range(10):
            with server.connection() as connection:
                predict(connection, 0.0)
        with server.connection() as hanging:
            # In flight while its worker dies, or is replaced.
            hanging.request("POST", "/predict", '{"instances":[[1.0]]}', {"Content-Type": "application/json"})
            time.sleep(0.2)
            workers = workers_of(server)
            os.kill(server.process.pid if number is None else workers[number], signal_)
            time.sleep(2)
        assert set(workers) != set(workers_of(server))
        assert 10 * round_ <= sample(server, series) <= 11 * round_
        # The one that asks.
        assert sample(server, "model_server_requests_in_flight") == 1
        assert sample(server, "model_server_queue") == 0


def test_systemd_is_told_once_the_model_is_loaded(start: Callable[..., Any], slow_bundle: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(30)
        server = start(slow_bundle, ready=False, NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert notified.recv(1000).startswith(b"READY=1")
    assert server.ready() == 200


def test_a_body_too_large_is_refused_and_the_connection_survives(start: Callable[..., Any], slow_bundle: Path) -> None:
    server = start(slow_bundle, MAX_BODY_BYTES="100")
    with server.connection() as connection:
        status, _headers, problem = ask(connection, "POST", "/predict", {"instances": [[0.0]] * 100})
        assert (status, problem["detail"]) == (413, "the body: expected at most 100 bytes")
        predict(connection, 0.0)


def test_a_chunked_body_is_taken_up_to_the_limit_and_refused_beyond_it(
    start: Callable[..., Any], slow_bundle: Path
) -> None:
    body = json.dumps({"instances": [[0.0]]}).encode()
    server = start(slow_bundle, MAX_BODY_BYTES=str(len(body)))
    statuses = []
    with server.connection() as connection:
        for sent in (body, body + b" ", body + b" " * 10_000, body):
            chunks = iter([sent[:10], sent[10:]])
            connection.request("POST", "/predict", chunks, {"Content-Type": "application/json"}, encode_chunked=True)
            answer = connection.getresponse()
            statuses.append((answer.status, json.loads(answer.read()).get("detail")))
    refused = (413, f"the body: expected at most {len(body)} bytes")
    assert statuses == [(200, None), refused, refused, (200, None)]


@pytest.mark.parametrize(
    ("sent", "status", "title", "detail"),
    [
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400, "Bad Request", "no request of HTTP/1.1: Invalid header token"),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n", 414, "Request URI Too Long", "expected a target of at most"),
        (
            # RFC 9112, section 6.3: where chunked is not the last, nobody knows where the body ends.
            b"POST / HTTP/1.1\r\nTransfer-Encoding: unknown\r\n\r\n",
            400,
            "Bad Request",
            "no request of HTTP/1.1: expected the transfer coding chunked alone",
        ),
        (
            # Section 6.1 has 501 for this one. It is the client's mistake, and no 5xx says so.
            b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            400,
            "Bad Request",
            "no request of HTTP/1.1: expected the transfer coding chunked alone",
        ),
    ],
)
def test_what_is_no_request_gets_a_problem_document_that_names_the_model(
    start: Callable[..., Any], slow_bundle: Path, sent: bytes, status: int, title: str, detail: str
) -> None:
    server = start(slow_bundle)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(sent)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        found = json.loads(answer.read())
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert (answer.headers["X-Model-Version"], len(answer.headers["X-Model-Digest"])) == ("1", 12)
    assert (found["status"], found["title"]) == (status, title)
    assert detail in found["detail"]


def test_a_client_still_sending_a_body_too_large_reads_the_refusal(
    start: Callable[..., Any], slow_bundle: Path
) -> None:
    server = start(slow_bundle)
    headers = {"Content-Type": "application/json", "Connection": "close"}
    with server.connection() as connection:
        connection.request("POST", "/predict", b" " * (12 * 1024 * 1024), headers)
        assert connection.getresponse().status == 413


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"MODEL_BUNDLE": "/absent"}, "model-server: /absent: No such file or directory"),
        ({"WORKERS": "many"}, "model-server: WORKERS: expected a whole number from 1, found 'many'"),
        ({"API_KEYS": "/absent"}, "model-server: [Errno 2] No such file or directory: '/absent'"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_status_1(
    start: Callable[..., Any], slow_bundle: Path, environment: dict[str, str], message: str
) -> None:
    server = start(slow_bundle, ready=False, **environment)
    assert server.process.wait(20) == 1
    assert server.log.read_text() == f"{message}\n"


def test_another_bundle_than_the_one_that_is_asked_for_is_not_served(
    start: Callable[..., Any], slow_bundle: Path
) -> None:
    digest = hashlib.sha256((slow_bundle / "manifest.json").read_bytes()).hexdigest()
    server = start(slow_bundle, ready=False, MODEL_DIGEST="0a1b2c3d4e5f")
    assert server.process.wait(20) == 1
    message = f"{slow_bundle}: manifest.json: expected sha256 0a1b2c3d4e5f, found {digest}"
    assert server.log.read_text() == f"model-server: {message}\n"
    assert start(slow_bundle, MODEL_DIGEST=digest[:12]).ready() == 200
