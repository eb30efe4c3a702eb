"""The load: wrk for how many requests a second, and a client of a fixed rate for how long each takes."""

from __future__ import annotations

import contextlib
import gc
import http.client
import json
import os
import re
import select
import socket
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.command import StepError, install, run

SERVER_CORE, CLIENT_CORE = 0, 1
CONNECTIONS = 8
HOST = "127.0.0.1"

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
# What wrk sends, and what it found as one line of JSON.
_SCRIPT = """
local file = assert(io.open(%s, "rb"))
wrk.method = %s
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = "application/json"
file:close()
function done(summary, latency)
  local errors = summary.errors
  local lost = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(
    '{"requests": %%d, "seconds": %%f, "refused": %%d, "lost": %%d}\\n',
    summary.requests, summary.duration / 1e6, errors.status, lost))
end
"""


@dataclass(frozen=True)
class Target:
    """One request, sent again and again: ``body``, which is JSON, to ``path`` on the loopback interface."""

    port: int
    path: str
    body: bytes = b""
    method: str = "POST"

    def request(self) -> bytes:
        """All that is sent for it."""
        head = f"{self.method} {self.path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(self.body)}\r\n\r\n".encode() + self.body

    def exchange(self) -> bytes:
        """All that is sent back, its head too. Raises StepError when it is not a 200."""
        with socket.create_connection((HOST, self.port), timeout=30) as connection:
            return _exchange(connection, self.request())

    def ask(self, timeout: float = 30) -> bytes:
        """The answer's body. Raises OSError or HTTPException when there is none, StepError when it is not a 200."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(self.method, self.path, self.body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        if answer.status != 200:
            text = content[:200].decode(errors="replace")
            raise StepError(f"{self.path} on port {self.port}: expected 200, found {answer.status}: {text}")
        return content


def requests_per_second(target: Target, seconds: int, connections: int = CONNECTIONS) -> float:
    """As many as ``connections`` kept connections get answered, by wrk. Raises StepError unless all answers are 2xx."""
    install("wrk")
    with tempfile.TemporaryDirectory() as name:
        body, script = Path(name) / "body", Path(name) / "script.lua"
        body.write_bytes(target.body)
        script.write_text(_SCRIPT % (json.dumps(str(body)), json.dumps(target.method)))
        what = ["--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s", "--timeout", "30s"]
        url = f"http://{HOST}:{target.port}{target.path}"
        said = run(["taskset", "--cpu-list", str(CLIENT_CORE), "wrk", *what, "--script", str(script), url])
    found: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    if found["refused"] or found["lost"] or not found["requests"]:
        raise StepError(f"{url}: expected 2xx answers alone, found {found}")
    return float(found["requests"] / found["seconds"])


def latencies(target: Target, rate: float, seconds: float) -> list[float]:
    """Seconds from when each request was due, sorted, at ``rate`` requests a second evenly spaced.

    Of kept connections: each has had an answer before, for to open one takes as long as several answers.
    An open loop: what is due while all connections wait for answers is sent late, and its wait counts. Waits by asking
    again and again rather than by sleeping, since a timer of the system is as coarse as what is measured.
    """
    request = target.request()
    taken: list[float] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(_alone())
        sockets: dict[int, socket.socket] = {}
        events = stack.enter_context(contextlib.closing(select.epoll()))
        for _ in range(CONNECTIONS):
            connected = stack.enter_context(socket.create_connection((HOST, target.port)))
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _exchange(connected, request)
            sockets[connected.fileno()] = connected
            events.register(connected, select.EPOLLIN)
        free = deque(sockets)
        due_of: dict[int, float] = {}
        received: dict[int, bytes] = {}
        start = time.perf_counter()
        count, issued = int(rate * seconds), 0
        while len(taken) < count:
            now = time.perf_counter()
            if issued < count and free and (due := start + issued / rate) <= now:
                number = free.popleft()
                due_of[number] = due
                sockets[number].sendall(request)
                issued += 1
            for number, _event in events.poll(0):
                answer = received.pop(number, b"") + sockets[number].recv(65536)
                if not _is_whole(answer):
                    received[number] = answer
                    continue
                taken.append(time.perf_counter() - due_of.pop(number))
                free.append(number)
    return sorted(taken)


def _exchange(connection: socket.socket, request: bytes) -> bytes:
    """All that is sent back, its head too. Raises StepError when it is not a 200."""
    answer = b""
    connection.sendall(request)
    while not _is_whole(answer):
        answer += connection.recv(65536)
    return answer


def _is_whole(answer: bytes) -> bool:
    """Whether all of an answer is there. Raises StepError when it is not a 200."""
    head, end, body = answer.partition(b"\r\n\r\n")
    if answer and not answer.startswith(b"HTTP/1.1 200 "):
        raise StepError(f"expected HTTP/1.1 200, found {answer[:80].decode(errors='replace')!r}")
    length = _LENGTH.search(head)
    return bool(end) and length is not None and len(body) >= int(length[1])


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """This process on the client's core, and its garbage collector still, as long as it measures."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CLIENT_CORE})
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        os.sched_setaffinity(0, cores)
