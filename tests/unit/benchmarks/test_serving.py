from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from benchmarks import readme
from benchmarks.serving import measure, peers, servers, table
from benchmarks.serving.client import CONNECTIONS, Target, latencies
from testbed.command import ROOT, StepError

ROWS = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
MACHINE = {"machine": {"processor": "Some CPU", "processors": 2, "python": "3.11.7"}, "wrk": "4.1.0-3"}
LINES = [
    MACHINE,
    {"rounds": 5, "seconds": 3},
    {
        "workload": "linear",
        "requests_per_second": {"model_server": 12000, "fastapi": 1500, "flask": 900},
        "best_peer": "fastapi",
        "ratio": 8.0,
        "rounds": {},
    },
    {"name": "serving_linear_over_best_peer", "value": 8.0, "bar": ">= 5", "holds": True},
    {"name": "serving_p99_over_p50", "value": 4.0, "bar": "<= 3", "holds": False},
]


def answer(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def listening(reply: Callable[[socket.socket, int], None]) -> Iterator[int]:
    """A server that reads a request and lets ``reply(connection, number)`` answer, on a thread a connection."""
    counts = iter(range(1_000_000))

    def serve(connection: socket.socket) -> None:
        with closing(connection):
            while connection.recv(65536):
                reply(connection, next(counts))

    def accept() -> None:
        while True:
            try:
                connection, _address = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_latency_counts_from_when_a_request_was_due() -> None:
    def reply(connection: socket.socket, number: int) -> None:
        # The very first is to the request that a connection is opened with, and counts for nothing.
        if number in (0, CONNECTIONS):
            time.sleep(0.3)
        connection.sendall(answer(b"{}"))

    # All connections share one lock, so the first answer that counts, which is late, makes the others late.
    lock = threading.Lock()

    def one_at_a_time(connection: socket.socket, number: int) -> None:
        with lock:
            reply(connection, number)

    with listening(one_at_a_time) as port:
        found = latencies(Target(port, "/predict", b"{}"), rate=100, seconds=0.5)
    assert len(found) == 50
    # Due at 0 to 0.3 s and answered from 0.3 s on: a closed loop would have seen eight late answers alone.
    assert sum(seconds > 0.05 for seconds in found) >= 20
    assert 0.3 <= found[-1] < 0.6


def test_an_answer_in_pieces_is_one_answer() -> None:
    def reply(connection: socket.socket, _number: int) -> None:
        whole = answer(b'{"predictions":[1]}')
        connection.sendall(whole[:20])
        time.sleep(0.002)
        connection.sendall(whole[20:])

    with listening(reply) as port:
        assert len(latencies(Target(port, "/predict", b"{}"), rate=50, seconds=0.2)) == 10


def test_a_refusal_under_load_ends_the_measuring() -> None:
    with (
        listening(lambda connection, _number: connection.sendall(answer(b"{}", "503 Busy"))) as port,
        pytest.raises(StepError, match=r"expected HTTP/1\.1 200, found 'HTTP/1\.1 503 Busy"),
    ):
        latencies(Target(port, "/predict", b"{}"), rate=50, seconds=0.2)


def test_a_server_that_answers_wrong_labels_is_not_measured() -> None:
    body = json.dumps({"predictions": [1, 0, 0]}).encode()
    with listening(lambda connection, _number: connection.sendall(answer(body))) as port:
        target = Target(port, "/predict", b"{}")
        servers.check(target, peers.predictions, [1, 0, 0], "ours")
        with pytest.raises(StepError, match="ours: expected scikit-learn's 3 labels, found others from row 1"):
            servers.check(target, peers.predictions, [1, 1, 0], "ours")


def test_a_server_that_ends_says_why() -> None:
    program = "import sys; sys.exit('no such model')"
    with (
        closing(servers.Server("peer", [sys.executable, "-c", program], servers.free_port(), {})) as server,
        pytest.raises(StepError, match="peer: ended with 1: no such model"),
    ):
        server.wait_until(lambda: servers.ready(server.port))


def test_memory_is_of_all_processes_of_a_server_until_it_is_stopped(tmp_path: Path) -> None:
    filled = tmp_path / "filled"
    program = (
        "import os, pathlib, sys, time; child = os.fork(); block = os.urandom(1) * (32 << 20);"
        f"child and pathlib.Path({str(filled)!r}).touch(); time.sleep(60)"
    )
    with closing(servers.Server("peer", [sys.executable, "-c", program], servers.free_port(), {})) as server:
        deadline = time.monotonic() + 20
        while not (filled.exists() and server.pss() > 64 << 20) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(server.members()) == 2
        assert 64 << 20 < server.pss() < 128 << 20
    assert server.members() == []


@pytest.mark.parametrize(
    ("samples", "growth"),
    [
        # What settles in the first half is not counted.
        ([100, 150, 190, 200, 200, 200, 200, 200], 0.0),
        ([200, 200, 200, 200, 200, 201, 200, 199], -0.015),
        ([100, 101, 102, 103, 104, 105, 106, 107], 0.077),
    ],
    ids=["settled", "noise", "a leak"],
)
def test_a_leak_shows_in_the_slope_of_the_second_half(samples: list[int], growth: float) -> None:
    assert measure.second_half_growth(samples) == pytest.approx(growth, abs=0.002)


@pytest.mark.parametrize("name", list(peers.PEERS))
def test_a_peer_has_what_it_is_made_from(name: str) -> None:
    folder = peers.FOLDER / name
    assert {"requirements.in", "requirements.txt", "serve.py"} <= {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", list(peers.PEERS))
def test_a_peer_reads_pickles_with_the_scikit_learn_that_wrote_them(name: str) -> None:
    ours, theirs = (
        next(line for line in path.read_text().splitlines() if line.startswith("scikit-learn=="))
        for path in (ROOT / "requirements.txt", peers.FOLDER / name / "requirements.txt")
    )
    assert theirs == ours


def test_peers_get_rows_in_their_own_formats() -> None:
    tensor = {"name": "rows", "shape": [3, 2], "datatype": "FP64", "data": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}
    assert json.loads(peers.PEERS["fastapi"].body(ROWS)) == {"instances": ROWS}
    assert json.loads(peers.PEERS["mlserver"].body(ROWS)) == {"inputs": [tensor]}
    assert json.loads(peers.PEERS["vetiver"].body(ROWS[:1])) == [{"0": 1.0, "1": 2.0}]


def test_the_table_has_a_row_for_each_server_and_what_does_not_hold() -> None:
    lines = table.table(LINES).splitlines()
    assert lines[0] == "| requests/s | linear |"
    assert "| this server | 12,000 |" in lines
    assert "| FastAPI + uvicorn | 1,500 |" in lines
    assert "| **over the best peer** | **8.00** |" in lines
    assert "| `serving_p99_over_p50` | 4.0 | <= 3 | **no** |" in lines


def test_readme_says_what_was_measured() -> None:
    assert readme.read(table.NAME) == table.section(readme.stored(table.NAME))
