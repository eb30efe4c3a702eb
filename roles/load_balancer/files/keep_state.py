# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep what HAProxy knows of its servers (drained or not, weight, health) over reloads and restarts.

``save`` writes it to the state file that HAProxy reads when it starts; ``reload PID`` saves, tells the master process
PID to reload, and returns when the new process answers. ``stop`` saves, and first has Keepalived, if it runs, give the
floating address to another balancer: what is sent to a machine without HAProxy would be refused. Keepalived asks
``serves``, which ends with 0 if a process answers that is not about to stop.

HAProxy takes a server's port from the state file rather than from its configuration. So each row gets the port that the
configuration has now, and the rows of servers that are gone are left out. If no HAProxy runs, the file is put right so.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

CONFIG = Path("/etc/haproxy/haproxy.cfg")
SOCKET = "/run/haproxy/admin.sock"
MASTER = "/run/haproxy-master.sock"
STATE = Path("/var/lib/modelfleet/lb/servers.state")
LEAVING = Path("/run/haproxy/leaving")
SHARED = Path("/etc/keepalived/keepalived.conf")
SECONDS_TO_SAVE = 5
SECONDS_TO_LEAVE = 4
SECONDS_TO_RELOAD = 20


def ask(path: str, command: str, last: bool = False) -> str:
    """HAProxy's reply; nothing if none runs. A master has to be told that a command is the ``last`` one."""
    reply = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(2)
            connection.connect(path)
            connection.sendall(command.encode() + b"\n")
            if last:
                connection.shutdown(socket.SHUT_WR)
            while received := connection.recv(65536):
                reply += received
    except OSError:
        return ""
    return reply.decode(errors="replace")


def read_ports(config: str) -> dict[tuple[str, str], str]:
    """The port of each server in the configuration, by its pool and its name."""
    ports = {}
    pool = ""
    for line in config.splitlines():
        words = line.split()
        if not line[:1].isspace() and words:
            pool = words[1] if words[0] == "backend" and len(words) > 1 else ""
        elif pool and words[:1] == ["server"] and len(words) > 2:
            ports[pool, words[1]] = words[2].rpartition(":")[2]
    return ports


def align(state: str, ports: dict[tuple[str, str], str]) -> str:
    """The state with the ports of the configuration, and without servers that it does not have."""
    rows = [line for line in state.splitlines() if line.strip()]
    if len(rows) < 2 or rows[0] != "1":
        return ""
    names = rows[1].lstrip("# ").split()
    pool, server, port = (names.index(name) for name in ("be_name", "srv_name", "srv_port"))
    lines = rows[:2]
    for row in rows[2:]:
        fields = row.split()
        place = (fields[pool], fields[server])
        if place in ports:
            fields[port] = ports[place]
            lines.append(" ".join(fields))
    return "\n".join(lines) + "\n"


def save(path: str = SOCKET, config: Path = CONFIG, state: Path = STATE) -> None:
    """Write the state file, at once or not at all."""
    running = ask(path, "show servers state")
    before = state.read_text() if state.exists() else ""
    after = align(running or before, read_ports(config.read_text()))
    if not after or after == before:
        return
    partial = state.with_name(f".{state.name}.{os.getpid()}")
    with open(partial, "w", encoding="utf-8") as stream:
        os.fchmod(stream.fileno(), 0o600)
        stream.write(after)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, state)


def process_id(path: str = SOCKET) -> str:
    """The process that answers; nothing if none does."""
    found = re.search(r"^Pid: *(\d+)", ask(path, "show info"), re.MULTILINE)
    return found[1] if found else ""


def reload(master: int, path: str = SOCKET, master_path: str = MASTER) -> None:
    """Have the master process start a new one, and wait until both answer."""
    before = process_id(path)
    os.kill(master, signal.SIGUSR2)
    deadline = time.monotonic() + SECONDS_TO_RELOAD
    while process_id(path) in ("", before) or (
        os.path.exists(master_path) and "# workers" not in ask(master_path, "show proc", last=True)
    ):
        if time.monotonic() > deadline:
            sys.exit(f"haproxy: expected a new process within {SECONDS_TO_RELOAD} s, found process {before or 'none'}")
        time.sleep(0.05)


def floating_address(config: str) -> str:
    """The address that Keepalived's configuration has the balancers share, without its prefix; nothing if none."""
    found = re.search(r"virtual_ipaddress\s*{\s*([^\s/]+)", config)
    return found[1] if found else ""


def holds(address: str) -> bool:
    """Whether this machine has the address now."""
    command = ["ip", "-json", "address", "show", "to", address]
    return any(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))


def leave(shared: Path = SHARED, leaving: Path = LEAVING) -> None:
    """Have the floating address given up, and wait until it is; a moment at most, for nobody else may take it."""
    address = floating_address(shared.read_text()) if shared.exists() else ""
    if not address or not holds(address):
        return
    leaving.touch()
    deadline = time.monotonic() + SECONDS_TO_LEAVE
    while holds(address) and time.monotonic() < deadline:
        time.sleep(0.05)


def main() -> None:
    if sys.argv[1] == "serves":
        sys.exit(0 if process_id() and not LEAVING.exists() else 1)
    if sys.argv[1] == "stop":
        leave()
    signal.alarm(SECONDS_TO_SAVE)
    try:
        save()
    except (OSError, ValueError) as error:
        print(f"the state of the servers is not saved: {error}", file=sys.stderr)
    signal.alarm(0)
    if sys.argv[1] == "reload":
        reload(int(sys.argv[2]))


if __name__ == "__main__":
    main()
