"""A load client: sends predictions at a steady rate over old and new connections, and counts what is lost.

It never retries: a request that a client would have lost counts as lost. On the command line::

    python -m testbed.load --url http://127.0.0.1:18080/tumour/predict --body FILE --seconds 30 --out result.json

and from Python::

    with Load(url, body) as load:
        load.mark("deploy v2")
        ...
    assert load.result["failed"] == 0
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import contextlib
import ipaddress
import json
import math
import os
import signal
import sys
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

from testbed.command import ROOT, StepError, say
from testbed.inventory import read_fleet

MAX_SECONDS = 900.0
MAX_REQUESTS = 500_000
FAILURES_KEPT = 20
"""Of each phase, so that many in one do not hide those of another."""
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Plan:
    """What to send. ``rate`` is in requests a second over all clients; 0 is as fast as the clients get answers.

    ``keepalive`` clients keep their connection, ``fresh`` clients make a new one for each request. ``expected`` maps a
    version to what its answer must hold: keys of the answer, numbers to a relative 1e-6. With ``users`` each request
    says in ``X-User`` which of so many users sends it, in turns, and with ``key`` in ``X-API-Key`` that it may.
    ``phase`` names the first of the phases that requests are counted for.
    """

    url: str
    body: bytes
    keepalive: int = 6
    fresh: int = 2
    rate: float = 200.0
    requests: int = MAX_REQUESTS
    seconds: float = MAX_SECONDS
    timeout: float = 10.0
    users: int = 0
    key: str = ""
    expected: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    phase: str = "start"

    def __post_init__(self) -> None:
        for name, smallest, largest in (
            ("keepalive", 0, 256),
            ("fresh", 0, 256),
            ("rate", 0, 10_000),
            ("requests", 1, MAX_REQUESTS),
            ("seconds", 0.1, MAX_SECONDS),
            ("timeout", 0.1, 120),
            ("users", 0, 1_000_000),
        ):
            value = getattr(self, name)
            if not smallest <= value <= largest:
                raise ValueError(f"{name}: expected {smallest} to {largest}, found {value}")
        if self.keepalive + self.fresh == 0:
            raise ValueError("keepalive and fresh: expected at least one client, found 0")
        check_target(self.url)


def check_target(url: str, allowed: Callable[[], set[str]] | None = None) -> None:
    """Refuse every target but this machine's loopback interface and the hosts of the testbed's own fleets."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"url: expected http://HOST:PORT/PATH, found {url!r}")
    if parts.hostname == "localhost":
        return
    try:
        address = ipaddress.ip_address(parts.hostname)
    except ValueError:
        address = None
    if address is not None and (address.is_loopback or str(address) in (allowed or testbed_addresses)()):
        return
    raise ValueError(f"url: expected a loopback address or a host of the testbed, found {parts.hostname}")


def testbed_addresses() -> set[str]:
    """The addresses of all hosts of this repository's fleets."""
    addresses: set[str] = set()
    for path in [*ROOT.glob("inventories/*/hosts.yml"), *ROOT.glob("molecule/**/inventory/hosts.yml")]:
        try:
            fleet = read_fleet(path)
            addresses.update([*(host.address for host in fleet.hosts), *fleet.floating])
        except StepError:
            continue  # An example of an inventory that is not the testbed's.
    return addresses


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest of the sorted ``values`` that at least ``share`` of them do not exceed; None of no values."""
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else None


def same(expected: object, found: object) -> bool:
    """Whether an answer is the expected one, numbers to a relative 1e-6."""
    if isinstance(expected, Mapping):
        return isinstance(found, Mapping) and all(key in found and same(expected[key], found[key]) for key in expected)
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(expected) == len(found)
            and all(same(one, other) for one, other in zip(expected, found, strict=True))
        )
    if isinstance(expected, float) and isinstance(found, (int, float)):
        return math.isclose(expected, found, rel_tol=1e-6, abs_tol=1e-9)
    return expected == found


class Samples:
    """Every request's time and fate. Latencies are of the answers that were right, from send to last byte."""

    def __init__(self, phase: str) -> None:
        self.at = array("d")
        self.latency = array("d")
        """Seconds; negative for a request that failed."""
        self.late = array("d")
        self.phase = array("L")
        self.version = array("L")
        self.versions: list[str] = [""]
        self.phases: list[tuple[str, float]] = [(phase, 0.0)]
        self.failures: list[dict[str, Any]] = []
        self.connections = 0
        self.failed = 0

    def mark(self, name: str, at: float) -> None:
        """Count requests sent from now on for a phase of this name."""
        self.phases.append((name, at))

    def answered(self, at: float, late: float, phase: int, latency: float, version: str) -> None:
        """A right answer."""
        self._add(at, late, phase, latency, version)

    def lost(self, at: float, late: float, phase: int, latency: float, version: str, reason: str) -> None:
        """Anything else: no answer, none in time, not a 2xx, or not what was expected."""
        self._add(at, late, phase, -1.0, version)
        self.failed += 1
        name = self.phases[phase][0]
        if sum(failure["phase"] == name for failure in self.failures) < FAILURES_KEPT:
            took = round(latency * 1000, 1)
            self.failures.append({"at": round(at, 3), "phase": name, "ms": took, "version": version, "reason": reason})

    def _add(self, at: float, late: float, phase: int, latency: float, version: str) -> None:
        if version not in self.versions:
            self.versions.append(version)
        self.at.append(at)
        self.late.append(late)
        self.phase.append(phase)
        self.latency.append(latency)
        self.version.append(self.versions.index(version))

    def summary(self, chosen: Sequence[int] | range) -> dict[str, Any]:
        """Figures over some of the requests, given by number."""
        latencies = sorted(self.latency[i] for i in chosen if self.latency[i] >= 0)
        versions = Counter(self.versions[self.version[i]] for i in chosen if self.version[i])
        return {
            "sent": len(chosen),
            "failed": len(chosen) - len(latencies),
            "p50_ms": _milliseconds(percentile(latencies, 0.50)),
            "p99_ms": _milliseconds(percentile(latencies, 0.99)),
            "max_ms": _milliseconds(latencies[-1] if latencies else None),
            "versions": dict(sorted(versions.items())),
        }

    def result(self, seconds: float) -> dict[str, Any]:
        """The figures of the whole run, of each phase, and of each second."""
        phases: list[list[int]] = [[] for _ in self.phases]
        buckets: dict[int, list[int]] = {}
        for i, at in enumerate(self.at):
            phases[self.phase[i]].append(i)
            buckets.setdefault(int(at), []).append(i)
        ends = [at for _, at in self.phases[1:]] + [seconds]
        return {
            **self.summary(range(len(self.at))),
            "seconds": round(seconds, 3),
            "connections": self.connections,
            "late_p99_ms": _milliseconds(percentile(sorted(self.late), 0.99)),
            "failures": self.failures,
            "phases": [
                {"name": name, "from": round(start, 3), "seconds": round(end - start, 3), **self.summary(chosen)}
                for (name, start), end, chosen in zip(self.phases, ends, phases, strict=True)
            ],
            "timeline": [{"second": second, **self.summary(buckets[second])} for second in sorted(buckets)],
        }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


class Load:
    """A running load. As a context manager it runs in a thread of its own until the block ends or its plan does."""

    def __init__(self, url: str, body: bytes | Mapping[str, Any], **options: Any) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.plan = Plan(url, content, **options)
        self.samples = Samples(self.plan.phase)
        self._known_right: dict[str, bytes] = {}
        self._issued = 0
        self._start = 0.0
        self._seconds = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._running = threading.Event()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="load")
        self._ended: concurrent.futures.Future[None] | None = None

    def __enter__(self) -> Self:
        self._ended = self._thread.submit(asyncio.run, self.run())
        self._ended.add_done_callback(lambda _: self._running.set())
        self._running.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._thread.shutdown()
        if self._ended is not None and error is None:
            self._ended.result()

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    @property
    def sent(self) -> int:
        """How many requests have come to an end, well or not."""
        return len(self.samples.at)

    @property
    def failed(self) -> int:
        """How many of them failed."""
        return self.samples.failed

    @property
    def result(self) -> dict[str, Any]:
        """All figures, as the command line writes them."""
        running = self._running.is_set() and self._seconds == 0
        return {"running": running, "url": self.plan.url, **self.samples.result(self._seconds or self.now)}

    def mark(self, name: str) -> None:
        """From now on requests count for a phase of this name as well."""
        self.samples.mark(name, self.now)

    def stop(self) -> None:
        """Send nothing more; requests in flight are waited for. From any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)

    async def run(self) -> None:
        """Send until the plan's end, or until stopped."""
        self._loop = asyncio.get_running_loop()
        count = self.plan.keepalive + self.plan.fresh
        interval = count / self.plan.rate if self.plan.rate else 0.0
        self._start = time.perf_counter()
        self._running.set()
        try:
            async with asyncio.TaskGroup() as clients:
                for number in range(count):
                    fresh = number >= self.plan.keepalive
                    clients.create_task(self._client(fresh, number * interval / count, interval))
        finally:
            self._seconds = self.now

    async def _client(self, fresh: bool, due: float, interval: float) -> None:
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_create_end.append(self._count_connection)
        headers = {"Content-Type": "application/json", **({"X-API-Key": self.plan.key} if self.plan.key else {})}
        timeout = aiohttp.ClientTimeout(total=self.plan.timeout)
        connector = aiohttp.TCPConnector(limit=1, force_close=True) if fresh else aiohttp.TCPConnector(limit=1)
        # Cookies would be kept between requests, and a proxy of the environment would stand between us and the target.
        async with aiohttp.ClientSession(
            connector=connector,
            headers=headers,
            timeout=timeout,
            trace_configs=[tracing],
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        ) as session:
            while await self._wait_until(due):
                await self._send(session, max(0.0, self.now - due) if interval else 0.0)
                due = due + interval if interval else self.now

    async def _count_connection(self, *_: Any) -> None:
        self.samples.connections += 1

    async def _wait_until(self, due: float) -> bool:
        """Wait for a request's time. Whether it is to be sent: not when the plan has ended meanwhile."""
        wait = min(due, self.plan.seconds) - self.now
        if wait > 0 and not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait)
        if self._stopping.is_set() or self.now >= self.plan.seconds or self._issued >= self.plan.requests:
            return False
        self._issued += 1
        return True

    async def _send(self, session: aiohttp.ClientSession, late: float) -> None:
        phase, at, version = len(self.samples.phases) - 1, self.now, ""
        try:
            # A POST, for this library would send a GET again by itself when a kept connection breaks.
            async with session.post(
                self.plan.url, data=self.plan.body, headers=self._user(), allow_redirects=False
            ) as answer:
                version = answer.headers.get("X-Model-Version", "")
                content = await answer.read()
                status = answer.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            self.samples.lost(at, late, phase, self.now - at, version, reason)
            return
        reason = self._wrong(status, version, content)
        if reason:
            self.samples.lost(at, late, phase, self.now - at, version, reason)
        else:
            self.samples.answered(at, late, phase, self.now - at, version)

    def _user(self) -> dict[str, str]:
        return {"X-User": f"user-{self._issued % self.plan.users}"} if self.plan.users else {}

    def _wrong(self, status: int, version: str, content: bytes) -> str:
        """Why an answer is not right, or nothing."""
        text = content[:160].decode(errors="replace")
        if not 200 <= status <= 299:
            return f"status {status}: {text}"
        if not self.plan.expected or self._known_right.get(version) == content:
            return ""
        expected = self.plan.expected.get(version)
        if expected is None:
            return f"version {version or 'unknown'}: expected one of {', '.join(sorted(self.plan.expected))}"
        try:
            answer = json.loads(content)
        except ValueError:
            return f"version {version}: not JSON: {text}"
        if not same(expected, answer):
            return f"version {version}: not the expected answer: {text}"
        self._known_right[version] = content
        return ""


async def _run_with_files(load: Load, marks: Path | None, stop_file: Path | None, out: Path | None) -> None:
    """Run a load that is told by files what to do, and that says in one, each second, how far it is."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, load.stop)
    running = asyncio.create_task(load.run())
    taken, written = 0, -1
    while not running.done():
        await asyncio.wait([running], timeout=_POLL_SECONDS)
        names = _lines(marks)
        for name in names[taken:]:
            load.mark(name)
        taken = max(taken, len(names))
        if stop_file is not None and stop_file.exists():
            load.stop()
        if out is not None and int(load.now) != written:
            written = int(load.now)
            _write(out, {"running": True, "url": load.plan.url, "sent": load.sent, "failed": load.failed})
    await running


def _lines(path: Path | None) -> list[str]:
    """The whole lines of a file that another program appends to."""
    if path is None or not path.exists():
        return []
    return [line.strip() for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _write(path: Path, result: Mapping[str, Any]) -> None:
    """Write it whole, so that a reader never sees half of it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(result, indent=2) + "\n")
    beside.replace(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m testbed.load", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--url", required=True, help="loopback or a host of the testbed; nothing else is taken")
    parser.add_argument("--body", required=True, type=Path, help="file with the JSON that each request sends")
    parser.add_argument("--keepalive", type=int, default=Plan.keepalive, help="clients that keep their connection")
    parser.add_argument("--fresh", type=int, default=Plan.fresh, help="clients that make a new one for each request")
    parser.add_argument("--rate", type=float, default=Plan.rate, help="requests a second in all; 0: no pause")
    parser.add_argument("--requests", type=int, default=Plan.requests, help="stop after so many")
    parser.add_argument("--seconds", type=float, default=Plan.seconds, help="stop after so long")
    parser.add_argument("--timeout", type=float, default=Plan.timeout, help="seconds until a request counts as failed")
    parser.add_argument("--users", type=int, default=Plan.users, help="say in X-User which of so many users it is")
    parser.add_argument("--key", default="", help="say in X-API-Key that the requests may be answered")
    parser.add_argument("--expected", type=Path, help="JSON file: version -> what its answer must hold")
    parser.add_argument("--marks", type=Path, help="a file: each line appended to it starts a phase of that name")
    parser.add_argument("--stop-file", type=Path, help="stop when this file is there (SIGTERM does as well)")
    parser.add_argument("--out", type=Path, help="write the result here; each second meanwhile, how far it is")
    return parser


def main() -> int:
    arguments = _parser().parse_args()
    try:
        expected = json.loads(arguments.expected.read_text()) if arguments.expected else {}
        load = Load(
            arguments.url,
            arguments.body.read_bytes(),
            keepalive=arguments.keepalive,
            fresh=arguments.fresh,
            rate=arguments.rate,
            requests=arguments.requests,
            seconds=arguments.seconds,
            timeout=arguments.timeout,
            users=arguments.users,
            key=arguments.key,
            expected=expected,
        )
    except (OSError, ValueError) as error:
        say(f"testbed load: {error}")
        return 2
    asyncio.run(_run_with_files(load, arguments.marks, arguments.stop_file, arguments.out))
    result = load.result
    if arguments.out:
        _write(arguments.out, result)
    else:
        say(json.dumps(result, indent=2))
    say(
        f"{result['sent']} requests in {result['seconds']:.1f} s, {result['failed']} failed, "
        f"p50 {result['p50_ms']} ms, p99 {result['p99_ms']} ms, versions {result['versions']}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
