# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a balancer that was away up to date from the balancers that went on without it.

``tell`` writes what this balancer has: routes, shares, services in maintenance, releases, the journal and which servers
are taken out. The socket unit starts it for each connection; it answers peers alone. ``adopt`` asks every peer, and
takes over what the one has that knows most, if that is more than is known here. Before HAProxy starts that happens too
where both know the same rollouts, for what a peer has that runs is newer than what was left here; while it runs, its
servers are taken out and brought back as they are there, and HAProxy has to be reloaded if ``adopt`` says that it
changed something.

Which one knows more is read off the journals: rollouts that the other lacks, or that went on there. A service that this
balancer has no route for is left out, and so is a value that it would not write itself. A peer that gives no answer
within seconds is passed over.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from keep_state import SOCKET, STATE, ask, process_id

PEERS = Path("/etc/modelfleet/peers.json")
MAPS = ("active.map", "canary.map", "maintenance.map")
RELEASES = "releases.json"
SECONDS_TO_CONNECT = 2
SECONDS_TO_TELL = 5
SECONDS_TO_HOLD = 10
LARGEST = 64 << 20
# What an operator or a rollout takes out by hand; other bits of a server's state come from checks and configuration.
FORCED = 0x01 | 0x08

_VALUES = {
    "active.map": re.compile(r"[a-z][a-z0-9_-]{0,39}_(?:blue|green)"),
    "canary.map": re.compile(r"[0-9]{1,5}"),
    "maintenance.map": re.compile(r"[0-9]{1,8}\|[!-~]{1,1500}"),
}
_JOURNAL_FILE = re.compile(r"([0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}\.json)|([a-z][a-z0-9_-]{0,39}\.lock)")
_LABEL = re.compile(r"[\w.:-]+/[\w.:-]+")

Records = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Places:
    """Where a balancer has its maps, its journal, what HAProxy reads of its servers when it starts, and its socket."""

    folder: Path = Path("/var/lib/modelfleet/lb")
    journal: Path = Path("/var/lib/modelfleet/rollouts")
    state: Path = STATE
    socket: str = SOCKET


@dataclass(frozen=True)
class Known:
    """What a balancer has.

    ``maps`` and ``releases`` are texts as in its folder, ``journal`` the records of rollouts and locks by the name of
    their file, ``forced`` the bits of a server that was taken out by hand, by its pool, a slash and its name.
    """

    runs: bool = False
    maps: Mapping[str, str] = field(default_factory=dict)
    releases: str = ""
    journal: Records = field(default_factory=dict)
    forced: Mapping[str, int] = field(default_factory=dict)

    @property
    def rollouts(self) -> dict[str, Mapping[str, Any]]:
        """The records of rollouts by id. A lock is the record of one as it began."""
        found = {record["id"]: record for record in self.journal.values()}
        found.update((record["id"], record) for name, record in self.journal.items() if name == f"{record['id']}.json")
        return found

    @property
    def is_held(self) -> bool:
        return any(record.get("ended") is None for record in self.rollouts.values())


def knows_more(one: Known, other: Known) -> bool:
    """Whether ``one`` took part in rollouts, or in steps of them, that ``other`` did not.

    Records that were let go because they are old say nothing, and neither does a rollout that failed before its first
    step. If each took part in something that the other did not, the one with the latest rollout knows more.
    """
    ones, others = _carried_out(one), _carried_out(other)
    missed = [name for name in ones if name not in others and name > min(others, default="")]
    lacked = [name for name in others if name not in ones and name > min(ones, default="")]
    if missed or lacked:
        return bool(missed) and (not lacked or max(missed) > max(lacked))
    progress = [(_progress(ones[name]), _progress(others[name])) for name in ones if name in others]
    return any(mine > theirs for mine, theirs in progress) and not any(mine < theirs for mine, theirs in progress)


def _carried_out(known: Known) -> dict[str, Mapping[str, Any]]:
    return {
        name: record
        for name, record in known.rollouts.items()
        if record.get("steps") or record.get("verdict") != "failed"
    }


def _progress(record: Mapping[str, Any]) -> tuple[bool, int, int]:
    steps = record.get("steps", ())
    return record.get("ended") is not None, len(steps), sum(step["state"] != "started" for step in steps)


def find_best(peers: Iterable[Known], mine: Known) -> Known | None:
    """The peer whose state is to be taken over, None if there is none."""
    best: Known | None = None
    for peer in sorted(peers, key=lambda peer: not peer.runs):
        if best is None or knows_more(peer, best):
            best = peer
    if best is None or knows_more(mine, best):
        return None
    # One that runs was told of what is in no journal, such as maintenance, while this one was away.
    is_newer = best.runs and not mine.runs and not (mine.is_held or best.is_held)
    return best if knows_more(best, mine) or is_newer else None


def take_over(peer: Known, mine: Known) -> Known:
    """What this balancer is to have. What the peer knows nothing of, and what it cannot have, stays as it is."""
    services = _parse_map(mine.maps.get("active.map", ""), "active.map")
    theirs = _parse_map(peer.maps.get("active.map", ""), "active.map")
    told = {service for service in services if theirs.get(service) in _pools(service)}
    pools = {pool for service in told for pool in _pools(service)}
    maps = {"active.map": {service: theirs[service] if service in told else pool for service, pool in services.items()}}
    for name, keys in (("canary.map", pools), ("maintenance.map", told)):
        kept = {key: value for key, value in _parse_map(mine.maps.get(name, ""), name).items() if key not in keys}
        found = {key: value for key, value in _parse_map(peer.maps.get(name, ""), name).items() if key in keys}
        maps[name] = {**kept, **found}
    releases = json.loads(mine.releases or "{}")
    releases.update((name, told_of) for name, told_of in json.loads(peer.releases or "{}").items() if name in told)
    locks = {f"{service}.lock" for service in told}
    return Known(
        runs=mine.runs,
        maps={name: _format_map(entries, mine.maps.get(name, "")) for name, entries in maps.items()},
        releases=json.dumps(releases, indent=2, sort_keys=True) + "\n" if releases else mine.releases,
        journal={
            **{name: record for name, record in mine.journal.items() if name not in locks},
            **{name: record for name, record in peer.journal.items() if name in locks or name.endswith(".json")},
        },
        forced={label: peer.forced.get(label, bits) for label, bits in mine.forced.items()},
    )


def _pools(service: str) -> tuple[str, str]:
    return f"{service}_blue", f"{service}_green"


def _parse_map(text: str, name: str) -> dict[str, str]:
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return {words[0]: words[1] for words in lines if len(words) == 2 and _VALUES[name].fullmatch(words[1])}


def _format_map(entries: Mapping[str, str], before: str) -> str:
    """The text before, if it says the same."""
    after = "".join(f"{key} {value}\n" for key, value in entries.items())
    return before if sorted(before.splitlines()) == sorted(after.splitlines()) else after


def read_forced(state: str) -> dict[str, int]:
    """The servers of ``show servers state``, and which of the forced bits each has."""
    rows = [line.split() for line in state.splitlines() if line.strip()]
    if len(rows) < 2 or rows[0] != ["1"]:
        return {}
    names = rows[1][1:] if rows[1][0] == "#" else rows[1]
    pool, server, admin = (names.index(name) for name in ("be_name", "srv_name", "srv_admin_state"))
    return {f"{row[pool]}/{row[server]}": int(row[admin]) & FORCED for row in rows[2:]}


def force(state: str, forced: Mapping[str, int]) -> str:
    """The text of a state file in which servers are taken out as ``forced`` says."""
    rows = [line.split() for line in state.splitlines() if line.strip()]
    if len(rows) < 2 or rows[0] != ["1"]:
        return state
    names = rows[1][1:] if rows[1][0] == "#" else rows[1]
    pool, server, admin = (names.index(name) for name in ("be_name", "srv_name", "srv_admin_state"))
    for row in rows[2:]:
        label = f"{row[pool]}/{row[server]}"
        row[admin] = str(int(row[admin]) & ~FORCED | forced.get(label, int(row[admin]) & FORCED))
    return "".join(" ".join(row) + "\n" for row in rows)


def read_known(places: Places) -> Known:
    """What this balancer has. The journal is read first: so it never tells of more than the rest."""
    names = sorted(os.listdir(places.journal)) if places.journal.is_dir() else []
    records = {name: _read(places.journal / name) for name in names if _JOURNAL_FILE.fullmatch(name)}
    found = read_forced(ask(places.socket, "show servers state"))
    return Known(
        runs=bool(process_id(places.socket)),
        journal={name: json.loads(text) for name, text in records.items() if text},
        maps={name: _read(places.folder / name) for name in MAPS},
        releases=_read(places.folder / RELEASES),
        forced=found or read_forced(_read(places.state)),
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def format_known(known: Known) -> str:
    return json.dumps({name: getattr(known, name) for name in Known.__dataclass_fields__})


def parse_known(text: str) -> Known:
    """What a peer told. ValueError for anything else than that."""
    document = json.loads(text)
    try:
        known = Known(**document)
        if not all(_JOURNAL_FILE.fullmatch(name) for name in known.journal):
            raise ValueError("expected names of the journal's files, found others")
        if not all(_LABEL.fullmatch(label) and bits & ~FORCED == 0 for label, bits in known.forced.items()):
            raise ValueError("expected servers and how they are taken out, found others")
        json.loads(known.releases or "{}").items()
        for record in known.rollouts.values():
            _progress(record)
        for name in MAPS:
            _parse_map(known.maps.get(name, ""), name)
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"expected what a balancer has, found: {error!r}") from error
    return known


def write_known(before: Known, after: Known, places: Places) -> list[str]:
    """Write what has changed, the releases before the routes and the journal last; the names of what was written."""
    texts = {places.folder / RELEASES: (before.releases, after.releases, 0o644)}
    texts.update(
        (places.folder / name, (before.maps.get(name, ""), after.maps[name], 0o644)) for name in reversed(MAPS)
    )
    texts.update(
        (places.journal / name, (_show(before.journal.get(name)), _show(after.journal.get(name)), 0o600))
        for name in {**before.journal, **after.journal}
    )
    if not before.runs:
        found = _read(places.state)
        texts[places.state] = (found, force(found, after.forced), 0o600)
    changed = []
    for target, (text, wanted, mode) in texts.items():
        if wanted == text:
            continue
        changed.append(target.name)
        if wanted or target.suffix == ".map":
            _write(target, wanted, mode)
        else:
            target.unlink()
    for label, bits in after.forced.items() if before.runs else ():
        if bits != before.forced.get(label):
            ask(places.socket, f"set server {label} state {'maint' if bits & 0x01 else 'drain' if bits else 'ready'}")
            changed.append(label)
    return changed


def _show(record: Mapping[str, Any] | None) -> str:
    return json.dumps(record, indent=2, sort_keys=True) + "\n" if record is not None else ""


def _write(path: Path, text: str, mode: int) -> None:
    """Replace a file at once, flushed to disk; as the collection does, whose code is not on the machine."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "w", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def alone(*folders: Path) -> Iterator[None]:
    """Hold the folders as the collection's modules do, so that none writes meanwhile."""
    handles = [os.open(folder, os.O_RDONLY | os.O_DIRECTORY) for folder in folders]
    deadline = time.monotonic() + SECONDS_TO_HOLD
    try:
        for handle in handles:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)
        yield
    finally:
        for handle in handles:
            os.close(handle)


def ask_peer(address: str, port: int) -> Known | None:
    """What a peer has; None, with a line that says why, if it does not tell."""
    deadline = time.monotonic() + SECONDS_TO_TELL
    told = b""
    try:
        with socket.create_connection((address, port), timeout=SECONDS_TO_CONNECT) as connection:
            while received := connection.recv(1 << 16):
                told += received
                left = deadline - time.monotonic()
                if left <= 0 or len(told) > LARGEST:
                    raise ValueError("expected all that it has in time, found more")
                connection.settimeout(left)
        return parse_known(told.decode())
    except (OSError, ValueError) as error:
        print(f"{address} port {port}: expected what that balancer has, found: {error}", file=sys.stderr)
        return None


def tell(peers: Iterable[str], places: Places) -> None:
    """Write what this balancer has to who asked, if that is a peer."""
    asking = os.environ.get("REMOTE_ADDR", "").removeprefix("::ffff:")
    if asking not in peers:
        sys.exit(f"{asking or 'nobody'}: expected one of the balancers {', '.join(peers)}")
    sys.stdout.write(format_known(read_known(places)))


def adopt(peers: Iterable[str], port: int, places: Places) -> list[str]:
    """Take over what a peer knows that this balancer does not; the names of what changed."""
    addresses = list(peers)
    places.journal.mkdir(mode=0o700, exist_ok=True)
    with ThreadPoolExecutor(max(1, len(addresses))) as pool:
        told = [known for known in pool.map(lambda address: ask_peer(address, port), addresses) if known]
    with alone(places.journal, places.folder):
        mine = read_known(places)
        best = find_best(told, mine)
        return write_known(mine, take_over(best, mine), places) if best else []


def main() -> None:
    places = Places()
    settings = json.loads(PEERS.read_text(encoding="utf-8")) if PEERS.exists() else {"peers": [], "port": 0}
    if sys.argv[1] == "tell":
        tell(settings["peers"], places)
    elif settings["peers"] and places.folder.is_dir():
        changed = adopt(settings["peers"], settings["port"], places)
        if changed:
            print(f"taken over from another balancer: {', '.join(changed)}")


if __name__ == "__main__":
    main()
