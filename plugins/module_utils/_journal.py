# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a balancer's journal says of rollouts, and how it changes: pure, so that a crash between any two writes can be
reasoned about and simulated.

A rollout is in two kinds of files. ``<id>.json`` is its record. ``<service>.lock`` says that it holds the service, and
is the record as it was when the rollout began, so that nothing is lost if the record was not written any more. A lock
whose record has ended holds nothing. So each change is a list of writes of which every beginning leaves something
right.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Optional

from ._layout import check_service
from ._route import State, shares_of

KEPT = 50
"""How many records a balancer keeps."""

RUNNING = "running"
VERDICTS = ("done", "failed", "rolled_back", "resumed", "withdrawn")
"""How a rollout ends. ``rolled_back`` and ``resumed`` are said of one that died, by the one that took its lock over."""

_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")


class JournalError(ValueError):
    """A rollout that may not go on, or a journal that cannot be read, in one line."""


def check_id(name: str) -> str:
    """``name`` again, if a rollout can have it."""
    if not _ID.fullmatch(name):
        raise JournalError(f"rollout: expected an id such as 20260102T030405Z-0a1b2c3d, found {name!r}")
    return name


@dataclass(frozen=True)
class Step:
    """A step of a rollout on ``hosts``; ``state`` is started, done or failed, and ``at`` when it became so."""

    name: str
    hosts: tuple[str, ...]
    state: str
    at: str
    begun: str = ""

    def __str__(self) -> str:
        where = f" ({', '.join(self.hosts)})" if self.hosts else ""
        return f"{self.name}{where} {self.state}"


@dataclass(frozen=True)
class Rollout:
    """What one rollout intends and how far it has come.

    ``services`` has for each service the release and the slot that it is to serve from, its digest and bundle where
    they are known, and as ``was`` the release and the slot before. ``takes_over`` are rollouts that died and whose
    locks this one takes; ``undoes`` is the one of them whose change it takes back. ``process`` is the controller's, on
    ``where``.
    """

    id: str
    action: str
    services: Mapping[str, Mapping[str, Any]]
    strategy: Optional[str] = None
    who: str = "unknown"
    where: str = "unknown"
    process: Optional[str] = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    takes_over: tuple[str, ...] = ()
    undoes: Optional[str] = None
    begun: str = ""
    steps: tuple[Step, ...] = ()
    gates: tuple[Mapping[str, Any], ...] = ()
    verdict: str = RUNNING
    reason: str = ""
    ended: Optional[str] = None

    def __post_init__(self) -> None:
        check_id(self.id)
        for service in self.services:
            check_service(service)

    @property
    def changed_nothing(self) -> bool:
        """Whether it ended before its first step, as one that ``refuse`` writes does."""
        return self.verdict == "failed" and not self.steps

    @property
    def step(self) -> str:
        """The last step in words."""
        return str(self.steps[-1]) if self.steps else "the beginning"

    def describe(self, service: str) -> str:
        """Who holds ``service`` since when and at which step, for a command that is refused."""
        return (
            f"{self.action} {self.id} of {self.services[service].get('release')} by {self.who} from {self.where} "
            f"since {self.begun}, at {self.step}"
        )


@dataclass(frozen=True)
class Write:
    """A file to be written, or removed where it is to hold nothing. One that is ``new`` must not exist."""

    name: str
    rollout: Optional[Rollout] = None
    new: bool = False


@dataclass(frozen=True)
class Journal:
    """The files of a balancer's journal, by their names."""

    files: Mapping[str, Rollout] = field(default_factory=dict)

    @property
    def rollouts(self) -> list[Rollout]:
        """Every rollout that is known, the latest last."""
        found = {rollout.id: rollout for rollout in self.files.values()}
        found.update({rollout.id: rollout for name, rollout in self.files.items() if name == _record(rollout.id)})
        return [found[name] for name in sorted(found)]

    def find(self, name: str) -> Optional[Rollout]:
        return next((rollout for rollout in self.rollouts if rollout.id == name), None)

    def holder(self, service: str) -> Optional[Rollout]:
        """The rollout that holds a service, None if it is free."""
        lock = self.files.get(_lock(service))
        record = self.files.get(_record(lock.id), lock) if lock else None
        return record if record and record.ended is None else None

    def last(self, service: str) -> Optional[Rollout]:
        """The rollout that holds a service, else the latest that was about it."""
        about = [rollout for rollout in self.rollouts if service in rollout.services]
        return self.holder(service) or (about[-1] if about else None)

    def after(self, writes: Iterable[Write]) -> Journal:
        files = dict(self.files)
        for write in writes:
            if write.rollout is None:
                files.pop(write.name, None)
            else:
                files[write.name] = write.rollout
        return Journal(files)


def begin(journal: Journal, rollout: Rollout, at: str) -> list[Write]:
    """Take the locks of all services of ``rollout``; JournalError if one that it does not take over holds one.

    The locks are first, and each says all that there is to know. Those that are taken over are ended last.
    """
    begun = replace(rollout, begun=at, steps=tuple(replace(step, at=at, begun=at) for step in rollout.steps))
    holders = {service: journal.holder(service) for service in rollout.services}
    for service, holder in holders.items():
        if holder and holder.id not in (rollout.id, *rollout.takes_over):
            raise JournalError(refusal(service, holder))
    left = {holder.id: holder for holder in holders.values() if holder and holder.id != rollout.id}
    stale = {service for service in rollout.services if _lock(service) in journal.files}

    def ended(it: Rollout) -> Rollout:
        verdict = "rolled_back" if it.id == rollout.undoes else "resumed"
        # One that was left says still why.
        reason = "; ".join(filter(None, (f"by {begun.id}", it.reason)))
        return replace(_close(it, "failed", at), verdict=verdict, reason=reason, ended=at)

    return [
        *(Write(_lock(service), begun, new=service not in stale) for service in sorted(rollout.services)),
        Write(_record(begun.id), begun),
        *(Write(_record(name), ended(it)) for name, it in left.items()),
        *_expired(journal, begun),
    ]


def refusal(service: str, holder: Rollout) -> str:
    """Why a command may not go on, and which ones may."""
    # What is retired can be started again, and is not put back.
    undoes = "" if holder.action == "retire" else f", rollback.yml -e service={service} undoes it"
    return (
        f"{service}: expected no other rollout to hold it, found {holder.describe(service)}; "
        f"resume.yml -e service={service} finishes it{undoes}"
    )


def check_holds(journal: Journal, name: str) -> Rollout:
    """The rollout of that id, which must hold all of its services: one that was taken over must not go on."""
    rollout = journal.find(check_id(name))
    if rollout is None:
        raise JournalError(f"{name}: expected a rollout that has begun, found none of that id")
    for service in rollout.services:
        holder = journal.holder(service)
        if holder is None or holder.id != name:
            found = holder.describe(service) if holder else "that it has ended"
            raise JournalError(f"{name}: expected to hold {service}, found {found}")
    return rollout


def start_step(
    journal: Journal, name: str, step: str, hosts: Sequence[str], at: str, gates: Sequence[Mapping[str, Any]] = ()
) -> list[Write]:
    """A step begins; the one before it is done then. ``gates`` is what they have found so far."""
    rollout = _found(check_holds(journal, name), gates)
    steps = (*_close(rollout, "done", at).steps, Step(step, tuple(hosts), "started", at, at))
    return [Write(_record(name), replace(rollout, steps=steps))]


def finish_step(journal: Journal, name: str, at: str, gates: Sequence[Mapping[str, Any]] = ()) -> list[Write]:
    """The step that began last is done. ``gates`` is what they have found so far."""
    return [Write(_record(name), _close(_found(check_holds(journal, name), gates), "done", at))]


def end(
    journal: Journal, name: str, verdict: str, at: str, reason: str = "", gates: Sequence[Mapping[str, Any]] = ()
) -> list[Write]:
    """The rollout has ended: first its record says so, then the locks go. Nothing, where it holds nothing any more."""
    if verdict not in VERDICTS:
        raise JournalError(f"verdict: expected one of {', '.join(VERDICTS)}, found {verdict!r}")
    rollout = journal.find(check_id(name))
    held = [service for service in rollout.services if _holds(journal, service, name)] if rollout else []
    if rollout is None or not held:
        return []
    closed = _close(_found(rollout, gates), "done" if verdict == "done" else "failed", at)
    ended = replace(closed, verdict=verdict, reason=reason, ended=at)
    return [Write(_record(name), ended), *(Write(_lock(service)) for service in sorted(held))]


def leave(journal: Journal, name: str, at: str, reason: str, gates: Sequence[Mapping[str, Any]] = ()) -> list[Write]:
    """A step has failed, and the rollout goes no further: it holds its services until another one takes it over."""
    rollout = _close(_found(check_holds(journal, name), gates), "failed", at)
    return [Write(_record(name), replace(rollout, reason=reason))]


def refuse(journal: Journal, rollout: Rollout, at: str, reason: str, gates: Sequence[Mapping[str, Any]]) -> list[Write]:
    """A rollout that the controller's gates refuse, which never holds a service: a record of one that has ended."""
    nothing = replace(rollout, takes_over=(), undoes=None, steps=())
    ended = replace(nothing, begun=at, verdict="failed", reason=reason, gates=tuple(gates), ended=at)
    return [Write(_record(ended.id), ended), *_expired(journal, ended)]


def merge(views: Iterable[Mapping[str, Any]]) -> list[Rollout]:
    """The rollouts that several balancers tell of, the latest last; of one that they tell apart, the fullest.

    A rollout has ended when all of them say so: one that still holds a lock somewhere can be finished or undone.
    """
    found: dict[str, Rollout] = {}
    for view in views:
        rollout = read_rollout(view, "journal")
        known = found.setdefault(rollout.id, rollout)
        if (rollout.ended is None, len(rollout.steps)) > (known.ended is None, len(known.steps)):
            found[rollout.id] = rollout
    return [found[name] for name in sorted(found)]


def revision(state: State, journal: Journal, service: str) -> str:
    """Changes whenever the route, the share, the record or the rollouts of a service do, and with nothing else.

    A rollout that was refused before it began is nothing to one that is planned.
    """
    record = state.record(service)
    rollouts = Journal({name: it for name, it in journal.files.items() if not it.changed_nothing})
    last = rollouts.last(service)
    known = [
        [pool for key, pool in state.live if key == service],
        [pool for key, pool in state.file if key == service],
        shares_of(service, state.live_shares),
        shares_of(service, state.file_shares),
        sorted(record.slots.items()),
        list(record.history),
        [last.id, last.verdict] if last else None,
    ]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]


def check_revisions(state: State, journal: Journal, expected: Mapping[str, str]) -> None:
    """JournalError if a service has changed since ``expected`` was read, for what was planned may be wrong then."""
    for service, read in expected.items():
        found = revision(state, journal, service)
        if found != read:
            last = journal.last(service)
            by = f", by {last.describe(service)}, {last.verdict}" if last else ""
            raise JournalError(
                f"{service}: expected it as it was read (revision {read}), found it changed meanwhile ({found}{by}): "
                "run again"
            )


def read_rollout(document: Any, where: str) -> Rollout:
    """A rollout out of plain data."""
    try:
        document = {"steps": (), **document}
        known = {name: document[name] for name in _PLAIN if name in document}
        steps = [
            Step(it["name"], tuple(it["hosts"]), it["state"], it.get("at", ""), it.get("begun", ""))
            for it in document["steps"]
        ]
        return Rollout(
            **known,
            where=document.get("from", "unknown"),
            takes_over=tuple(document.get("takes_over", ())),
            steps=tuple(steps),
            gates=tuple(document.get("gates", ())),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise JournalError(f"{where}: expected the record of a rollout, found: {error!r}") from error


def show_rollout(rollout: Rollout) -> dict[str, Any]:
    """A rollout as plain data."""
    return {
        **{name: getattr(rollout, name) for name in _PLAIN},
        "from": rollout.where,
        "takes_over": list(rollout.takes_over),
        "steps": [{**asdict(it), "hosts": list(it.hosts)} for it in rollout.steps],
        "gates": list(rollout.gates),
    }


_PLAIN = (
    *("id", "action", "services", "strategy", "who", "process", "overrides", "undoes"),
    *("begun", "verdict", "reason", "ended"),
)


def parse_rollout(text: str, where: str) -> Rollout:
    """What a file of the journal holds."""
    try:
        return read_rollout(json.loads(text), where)
    except json.JSONDecodeError as error:
        raise JournalError(f"{where}: expected the record of a rollout, found: {error}") from error


def format_rollout(rollout: Rollout) -> str:
    return json.dumps(show_rollout(rollout), indent=2, sort_keys=True) + "\n"


def is_file_of_journal(name: str) -> bool:
    stem, _dot, kind = name.rpartition(".")
    return kind == "lock" or (kind == "json" and _ID.fullmatch(stem) is not None)


def _record(name: str) -> str:
    return f"{name}.json"


def _lock(service: str) -> str:
    return f"{service}.lock"


def _holds(journal: Journal, service: str, name: str) -> bool:
    lock = journal.files.get(_lock(service))
    return lock is not None and lock.id == name


def _found(rollout: Rollout, gates: Sequence[Mapping[str, Any]]) -> Rollout:
    """With what the gates found; what is known already stays where nothing is told."""
    return replace(rollout, gates=tuple(gates) or rollout.gates)


def _close(rollout: Rollout, state: str, at: str) -> Rollout:
    """Its open steps come to be in ``state``."""
    return replace(
        rollout,
        steps=tuple(replace(it, state=state, at=at) if it.state == "started" else it for it in rollout.steps),
    )


def _expired(journal: Journal, begun: Rollout) -> list[Write]:
    """The oldest records go, but never one that a lock is about."""
    locked = {rollout.id for name, rollout in journal.files.items() if name.endswith(".lock")}
    records = sorted(rollout.id for name, rollout in journal.files.items() if name == _record(rollout.id))
    removable = [name for name in records if name not in locked]
    return [Write(_record(name)) for name in removable[: max(0, len({*records, begun.id}) - KEPT)]]
