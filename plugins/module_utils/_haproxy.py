# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HAProxy, spoken to over its sockets: what runs, and changes that are persisted and read back."""

from __future__ import annotations

import csv
import re
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Optional, Protocol, TypeVar

from ._files import only_one, write_file
from ._http import Ready, Server, read_ready
from ._route import (
    Entries,
    State,
    Target,
    count_needed,
    format_map,
    format_records,
    parse_map,
    parse_records,
    parse_shares,
    shares_meanwhile,
)

Result = TypeVar("Result")

_MAINT = 0x01 | 0x02 | 0x04 | 0x20
_DRAIN = 0x08 | 0x10
_STATUS = {"0": "DOWN", "1": "STARTING", "2": "UP", "3": "STOPPING"}

LONGEST_WAIT = 5.0
"""Seconds for which a change waits for the moment that it is to come at."""

OPTIONS: dict[str, Any] = {
    "socket": {"type": "path", "default": "/run/haproxy/admin.sock"},
    "master_socket": {"type": "path", "default": "/run/haproxy-master.sock"},
    "state_dir": {"type": "path", "default": "/var/lib/modelfleet/lb"},
    "rollouts_dir": {"type": "path", "default": "/var/lib/modelfleet/rollouts"},
}


class HaproxyError(ValueError):
    """HAProxy cannot be reached, or did not do what was asked, in one line."""


class Talks(Protocol):
    """A process of HAProxy that can be asked."""

    def ask(self, command: str) -> str: ...


class Process:
    """The HAProxy that takes connections now, over one connection to its stats socket.

    It is spoken to in prompt mode: there a reply ends with a prompt, where else it ends with an empty line, of which a
    reply may have several.
    """

    def __init__(self, path: str, timeout: float = 10) -> None:
        self._path = path
        self._timeout = timeout
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> Process:
        self._socket.settimeout(self._timeout)
        try:
            self._socket.connect(self._path)
        except OSError as error:
            self._socket.close()
            raise HaproxyError(
                f"{self._path}: expected the socket of a running HAProxy, found: {error.strerror or error}; "
                "see systemctl status haproxy"
            ) from error
        try:
            self.ask("prompt")
        except HaproxyError:
            self._socket.close()
            raise
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._socket.close()

    def ask(self, command: str) -> str:
        reply = b""
        try:
            self._socket.sendall(command.encode() + b"\n")
            while not reply.endswith(b"\n> "):
                received = self._socket.recv(65536)
                if not received:
                    raise HaproxyError(f"{self._path}: expected a reply to {command!r}, found a closed connection")
                reply += received
        except OSError as error:
            raise HaproxyError(f"{self._path}: expected a reply to {command!r}, found: {error}") from error
        return reply[:-3].decode(errors="replace").strip("\n")


class Leaving:
    """A process that a reload has replaced: it still serves the connections it holds. Reached through its master."""

    def __init__(self, master: str, pid: str) -> None:
        self._master = master
        self.pid = pid

    def ask(self, command: str) -> str:
        return _ask_master(self._master, f"@!{self.pid} {command}")


def find_leaving(process: Talks, master: str) -> list[Leaving]:
    """The processes other than ``process`` that have not ended; none if there is no master to ask.

    While the master starts a new process it does not answer, or still lists the replaced one as the current one.
    """
    if not Path(master).is_socket():
        return []
    replies: list[str] = []

    def listed() -> bool:
        try:
            replies[:] = [_ask_master(master, "show proc")]
        except HaproxyError as error:
            replies[:] = [str(error)]
        return "# workers" in replies[0]

    if not wait_until(listed, 5):
        raise HaproxyError(f"{master}: expected the processes of HAProxy, found: {replies[0] or 'nothing'}")
    current = re.search(r"^Pid: *(\d+)", process.ask("show info"), re.MULTILINE)
    rows = [line.split() for line in replies[0].splitlines()]
    pids = [row[0] for row in rows if row[1:2] == ["worker"]]
    return [Leaving(master, pid) for pid in pids if not current or pid != current[1]]


def _ask_master(path: str, command: str) -> str:
    reply = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(2)
            connection.connect(path)
            connection.sendall(command.encode() + b"\n")
            connection.shutdown(socket.SHUT_WR)
            while received := connection.recv(65536):
                reply += received
    except OSError as error:
        raise HaproxyError(f"{path}: expected a reply to {command!r}, found: {error}") from error
    return reply.decode(errors="replace").strip("\n")


@dataclass(frozen=True)
class PoolServer:
    """A server of a pool. ``sessions`` are the requests it works on, ``queue`` those that wait for it.

    ``spare`` are the health checks that may fail before the next one makes it DOWN, of at most ``most_spare``.
    """

    pool: str
    name: str
    address: str
    port: int
    status: str
    admin: str
    weight: int
    sessions: int
    queue: int
    check: str
    spare: int = 0
    most_spare: int = 0

    @property
    def label(self) -> str:
        return f"{self.pool}/{self.name}"

    @property
    def in_rotation(self) -> bool:
        return self.status == "UP" and self.admin == "ready"

    @property
    def is_sure(self) -> bool:
        """Whether it is in rotation by checks that it has passed: what leaves maintenance is UP before any, for one."""
        return self.in_rotation and self.spare >= self.most_spare

    @property
    def found(self) -> str:
        """Its state in words."""
        state = self.status if self.admin == "ready" else f"in {self.admin}"
        if self.in_rotation and not self.is_sure:
            state += ", and has still to pass health checks"
        return f"{self.name} is {state}" + (f" ({self.check})" if self.check and state != "UP" else "")


def read_servers(process: Talks) -> list[PoolServer]:
    """All servers of all pools."""
    counts = {}
    for row in read_stat(process):
        check = " ".join(word for word in (row.get("check_status", ""), row.get("last_chk", "")) if word)
        rise, fall, health = (int(row.get(f"check_{name}") or 0) for name in ("rise", "fall", "health"))
        spare = (health - rise, fall - 1) if fall else (0, 0)
        counts[row["pxname"], row["svname"]] = (int(row["scur"] or 0), int(row["qcur"] or 0), check, *spare)
    return [
        PoolServer(
            pool=row["be_name"],
            name=row["srv_name"],
            address=row["srv_addr"],
            port=int(row["srv_port"]),
            status=_STATUS.get(row["srv_op_state"], "UNKNOWN"),
            admin=_admin(int(row["srv_admin_state"])),
            weight=int(row["srv_uweight"]),
            sessions=counts[row["be_name"], row["srv_name"]][0],
            queue=counts[row["be_name"], row["srv_name"]][1],
            check=counts[row["be_name"], row["srv_name"]][2],
            spare=counts[row["be_name"], row["srv_name"]][3],
            most_spare=counts[row["be_name"], row["srv_name"]][4],
        )
        for row in parse_servers_state(process.ask("show servers state"))
        if (row["be_name"], row["srv_name"]) in counts
    ]


def read_stat(process: Talks, kind: int = 4) -> list[dict[str, str]]:
    """A row for each server, or for each pool as a whole if ``kind`` is 2, by the names that the heading gives."""
    reply = process.ask(f"show stat -1 {kind} -1")
    if not reply.startswith("# pxname,"):
        raise HaproxyError(f"show stat: expected a table, found {reply[:60]!r}")
    return list(csv.DictReader(reply[2:].splitlines()))


def in_flight(processes: Iterable[Talks], servers: Iterable[PoolServer]) -> dict[str, int]:
    """The requests that each server works on or that wait for it, by its label; a server that has none is left out.

    A process that is leaving and does not answer may have some, unless it is gone when its master is asked again.
    """
    labels = {server.label for server in servers}
    found: dict[str, int] = {}
    for process in processes:
        rows = _tolerantly(process, read_stat)
        if rows is None:
            found["a process that a reload has replaced and that does not answer"] = 1
        for row in rows or []:
            label = f"{row['pxname']}/{row['svname']}"
            count = int(row["scur"] or 0) + int(row["qcur"] or 0)
            if label in labels and count:
                found[label] = found.get(label, 0) + count
    return found


def _tolerantly(process: Talks, action: Callable[[Talks], Result]) -> Optional[Result]:
    """What ``action`` finds; of a process that is leaving nothing if it fails, for it may have ended just now."""
    try:
        return action(process)
    except HaproxyError:
        if isinstance(process, Leaving):
            return None
        raise


def parse_servers_state(text: str) -> list[dict[str, str]]:
    """The rows of ``show servers state``, by the names that its heading gives."""
    lines = [line for line in text.splitlines() if line.strip()]
    if lines[:1] != ["1"] or len(lines) < 2:
        raise HaproxyError(f"show servers state: expected format 1, found {text[:60]!r}")
    names = lines[1].lstrip("# ").split()
    return [dict(zip(names, line.split())) for line in lines[2:] if not line.startswith("#")]


def _admin(bits: int) -> str:
    if bits & _MAINT:
        return "maint"
    return "drain" if bits & _DRAIN else "ready"


def find_pool(servers: Iterable[PoolServer], pool: str) -> list[PoolServer]:
    """The servers of a pool, of which there must be one."""
    everything = list(servers)
    found = [server for server in everything if server.pool == pool]
    if not found:
        known = ", ".join(sorted({server.pool for server in everything})) or "none"
        raise HaproxyError(f"{pool}: expected a pool of that name in HAProxy, found only: {known}")
    return found


def find_server(servers: Iterable[PoolServer], label: str) -> PoolServer:
    """The server of a label such as ``tumour_blue/model1``."""
    pool, _slash, name = label.partition("/")
    found = find_pool(servers, pool)
    for server in found:
        if server.name == name:
            return server
    raise HaproxyError(f"{label}: expected a server of {pool}, which are {', '.join(server.name for server in found)}")


def set_admin(process: Talks, server: PoolServer, state: str) -> None:
    """Put a server into ``ready``, ``drain`` or ``maint``."""
    reply = process.ask(f"set server {server.label} state {state}")
    if reply:
        raise HaproxyError(f"{server.label}: expected to be set to {state}, found: {reply}")


def wait_until(ready: Callable[[], bool], seconds: float, interval: float = 0.05) -> bool:
    """Whether ``ready`` came true in time. It is asked at once and at the end, and never sleeps if it is true."""
    deadline = time.monotonic() + seconds
    while not ready():
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(interval, left))
    return True


def wait_for_pool(process: Talks, pool: str, min_up: str, seconds: float) -> list[PoolServer]:
    """The servers of ``pool`` that are in rotation, once there are as many as ``min_up`` asks for."""
    servers: list[PoolServer] = []

    def enough() -> bool:
        servers[:] = find_pool(read_servers(process), pool)
        return sum(server.in_rotation for server in servers) >= count_needed(min_up, len(servers))

    if not wait_until(enough, seconds):
        up = sum(server.in_rotation for server in servers)
        missing = "; ".join(server.found for server in servers if not server.in_rotation)
        raise HaproxyError(
            f"{pool}: expected {count_needed(min_up, len(servers))} of {len(servers)} servers UP within {seconds:g} s, "
            f"found {up}: {missing or 'there are no more'}"
        )
    return [server for server in servers if server.in_rotation]


def ask_ready(servers: Sequence[PoolServer], timeout: float = 2) -> dict[str, Ready]:
    """What each server itself says to ``GET /v2/health/ready``, asked all at once, by its label."""
    answers: dict[str, Ready] = {}

    def ask(server: PoolServer) -> None:
        host = f"[{server.address}]" if ":" in server.address else server.address
        with Server(f"{host}:{server.port}", timeout) as connection:
            answers[server.label] = read_ready(connection)

    threads = [threading.Thread(target=ask, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {server.label: answers.get(server.label, Ready(False, "no answer")) for server in servers}


def wrong_servers(target: Target, servers: Sequence[PoolServer]) -> list[str]:
    """Of the servers those that do not answer as ``target``'s release, each with what it answered."""
    wrong = []
    for label, answer in ask_ready(servers).items():
        digest = (answer.digest or "")[:12]
        if not answer.ready:
            wrong.append(f"{label}: expected to be ready, found {answer.found}")
        elif digest != target.digest or answer.model not in (None, target.service):
            found = f"{answer.model or target.service} {answer.version}-{digest}"
            wrong.append(f"{label}: expected {target.service} {target.release}, found {found}")
    return wrong


class Balancer:
    """A running HAProxy together with the files that its next start reads."""

    def __init__(self, process: Talks, state_dir: str, master: str = "") -> None:
        self.process = process
        self.folder = Path(state_dir)
        self.map = self.folder / "active.map"
        self.shares = self.folder / "canary.map"
        self.records = self.folder / "releases.json"
        self._master = master

    def read(self) -> State:
        """What all three places say. The running maps are what HAProxy says, not what was last written."""
        file, records, file_shares = read_files(self.folder)
        live, live_shares = (read_live_map(self.process, str(path)) for path in (self.map, self.shares))
        return State(live, file, records, live_shares, file_shares)

    def commit(self, before: State, after: State, at: Optional[float] = None) -> None:
        """Make all three places say ``after``, the running maps at the moment ``at`` (see ``wait_for``).

        The order is chosen so that a crash between any two steps leaves something that is right, and that the same
        command run again completes. ``releases.json`` is first, as it is right on both sides of the move (see
        ``Record.earlier``). The map files are next, and the running maps last: a start after a crash then takes up the
        move, whose target was found healthy; the other way round it would go back to a slot that may be stopped. While
        the routes change, the map of shares has those of both sides (see ``shares_meanwhile``).
        If HAProxy refuses, the files are put back, so that what failed does not happen at the next reload.
        """
        leaving = find_leaving(self.process, self._master)
        write_changed(self.records, format_records(before.records), format_records(after.records))
        file = shares_meanwhile(before.file, before.file_shares, after.file, after.file_shares)
        write_changed(self.shares, format_map(before.file_shares), format_map(file))
        write_changed(self.map, format_map(before.file), format_map(after.file))
        wait_for(at)
        try:
            self._replace_live(self.process, before, after)
        except HaproxyError:
            write_changed(self.map, format_map(after.file), format_map(before.file))
            write_changed(self.shares, format_map(file), format_map(before.file_shares))
            raise
        write_changed(self.shares, format_map(file), format_map(after.file_shares))
        for process in leaving:
            # What is at stake is only what it still takes, and the pools it knows are still there.
            _tolerantly(process, partial(self._replace_live, before=before, after=after))

    def _replace_live(self, process: Talks, before: State, after: State) -> None:
        """Replace those of the running maps that change."""
        shares = shares_meanwhile(before.live, before.live_shares, after.live, after.live_shares)
        for path, old, new in (
            (self.shares, before.live_shares, shares),
            (self.map, before.live, after.live),
            (self.shares, shares, after.live_shares),
        ):
            if old != new:
                replace_live_map(process, str(path), new)

    def commit_map(self, path: Path, before: Entries, after: Entries) -> None:
        """Make a map say ``after``, as a file and in the processes that serve; as ``commit``, for one map alone."""
        leaving = find_leaving(self.process, self._master)
        write_changed(path, format_map(before), format_map(after))
        try:
            replace_live_map(self.process, str(path), after)
        except HaproxyError:
            write_changed(path, format_map(after), format_map(before))
            raise
        for process in leaving:
            _tolerantly(process, partial(replace_live_map, name=str(path), entries=after))

    def set_servers(self, servers: Sequence[PoolServer], admin: str) -> None:
        """Put servers into ``ready``, ``drain`` or ``maint``, in the processes that are leaving as well."""
        for process in self.processes() if servers else []:
            for server in servers:
                _tolerantly(process, partial(set_admin, server=server, state=admin))

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Keep other runs from changing the files meanwhile. Who needs the journal as well takes that first."""
        if not self.folder.is_dir():
            raise HaproxyError(f"{self.folder}: expected the folder that the role load_balancer makes, found none")
        with only_one(self.folder, what):
            yield

    def save_servers(self) -> None:
        """Keep drains, weights and health for the next start."""
        with self.alone("saving the servers' state"):
            text = self.process.ask("show servers state")
            parse_servers_state(text)
            write_file(self.folder / "servers.state", text + "\n", 0o600)

    def processes(self) -> list[Talks]:
        """The one that takes connections, and those a reload has replaced."""
        return [self.process, *find_leaving(self.process, self._master)]


def wait_for(at: Optional[float]) -> None:
    """Wait until this machine's clock says ``at`` (seconds since 1970), for balancers to move at the same moment.

    Not at all where that is past, or so far ahead that the clock must be another one than was meant.
    """
    left = at - time.time() if at else 0.0
    if 0 < left <= LONGEST_WAIT:
        time.sleep(left)


def read_live_map(process: Talks, name: str) -> Entries:
    """The running map. Lines are ``<address> <key> <value>``, and a key can be there twice."""
    reply = process.ask(f"show map {name}")
    entries = []
    for line in reply.splitlines():
        words = line.split()
        if not words:
            continue
        if len(words) != 3 or not words[0].startswith("0x"):
            raise HaproxyError(f"{name}: expected HAProxy to use this map, found: {reply}")
        entries.append((words[1], words[2]))
    return tuple(entries)


def replace_live_map(process: Talks, name: str, entries: Entries) -> None:
    """Replace a running map by ``entries`` in one step, and read it back."""
    reply = process.ask(f"prepare map {name}")
    found = re.search(r"New version created: (\d+)", reply)
    if not found:
        raise HaproxyError(f"{name}: expected HAProxy to prepare a new version of the map, found: {reply}")
    version = found[1]
    try:
        for service, pool in entries:
            reply = process.ask(f"add map @{version} {name} {service} {pool}")
            if reply:
                raise HaproxyError(f"{name}: expected HAProxy to take {service} {pool}, found: {reply}")
        reply = process.ask(f"commit map @{version} {name}")
        if reply:
            raise HaproxyError(f"{name}: expected HAProxy to take version {version} of the map, found: {reply}")
    except HaproxyError:
        discard(process, version, name)
        raise
    live = read_live_map(process, name)
    if live != entries:
        raise HaproxyError(f"{name}: expected {format_lines(entries)}, found {format_lines(live)} after the change")


def discard(process: Talks, version: str, name: str) -> None:
    """Empty a prepared version that will not be used. If HAProxy is gone, so is the version."""
    try:
        process.ask(f"clear map @{version} {name}")
    except HaproxyError:
        return


def format_lines(entries: Entries) -> str:
    return ", ".join(" ".join(entry) for entry in entries) or "nothing"


def read_files(folder: Path) -> tuple[Entries, Mapping[str, Any], Entries]:
    """What the map of routes, ``releases.json`` and the map of shares say; nothing if they are not there."""
    return (
        parse_map(read_text(folder / "active.map"), str(folder / "active.map")),
        parse_records(read_text(folder / "releases.json"), str(folder / "releases.json")),
        parse_shares(read_text(folder / "canary.map"), str(folder / "canary.map")),
    )


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def write_changed(path: Path, before: str, after: str) -> None:
    if before != after:
        write_file(path, after)


def state_diff(state: State) -> str:
    """All places as text, for Ansible's diff."""
    return (
        f"running map:\n{format_map(state.live)}map file:\n{format_map(state.file)}"
        f"running shares:\n{format_map(state.live_shares)}shares file:\n{format_map(state.file_shares)}"
        f"releases.json:\n{format_records(state.records)}"
    )
