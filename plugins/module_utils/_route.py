# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a route is and how it may move: pure, so that the order of writes and the history can be reasoned about alone.

A balancer knows a route in three places: the maps in the running HAProxy, the map files that its next start reads, and
``releases.json``, which says which release each slot was last given and which releases were active before.

There are two maps. One says which pool a service's requests go to, the other which share of the requests to such a pool
goes to the service's other pool instead. As that share belongs to the pool, it ends with the very change of the first
map that moves the service away from it: there is no moment in which one map has changed and the other has not.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from ._layout import SLOTS, check_release, check_service, digest_of

HISTORY = 50
"""How many earlier releases of a service are remembered."""

ALL = 10_000
"""Every request, in hundredths of a percent."""

Entries = tuple[tuple[str, str], ...]
"""The lines of a map in their order: a service and the pool that its requests go to, or a pool and a share."""


@dataclass(frozen=True)
class Record:
    """What ``releases.json`` says of a service: which release each slot was given, and earlier ones, oldest first."""

    slots: Mapping[str, str] = field(default_factory=dict)
    history: tuple[str, ...] = ()

    def active(self, slot: Optional[str]) -> Optional[str]:
        return self.slots.get(slot) if slot else None

    def earlier(self, slot: Optional[str]) -> tuple[str, ...]:
        """The history while ``slot`` is active.

        The active release is no earlier one of itself. A file may end with it, for it is written before the route moves
        and must be right on both sides of that moment: going forward it has the release that is left, going back the
        one that is gone to.
        """
        history = self.history
        while history and history[-1] == self.active(slot):
            history = history[:-1]
        return history


@dataclass(frozen=True)
class Target:
    """The slot that a service's requests are to go to, and the release that runs there.

    Going back, ``record`` is what is to be recorded then, where balancers may know different things.
    """

    service: str
    slot: str
    release: str
    record: Optional[Record] = None

    def __post_init__(self) -> None:
        check_service(self.service)
        check_release(self.release)
        if self.slot not in SLOTS:
            raise ValueError(f"slot of {self.service}: expected blue or green, found {self.slot!r}")

    @property
    def pool(self) -> str:
        return pool_of(self.service, self.slot)

    @property
    def digest(self) -> str:
        """The 12 hexadecimal digits that its servers must answer with."""
        return digest_of(self.release)


@dataclass(frozen=True)
class Canary:
    """The share of a service's requests, in hundredths of a percent, that the release in the slot beside gets."""

    service: str
    share: int
    release: Optional[str] = None

    def __post_init__(self) -> None:
        check_service(self.service)
        if not 0 <= self.share <= ALL:
            raise ValueError(f"share of {self.service}: expected 0 to {ALL}, found {self.share}")
        if self.release is not None:
            check_release(self.release)
        elif self.share:
            raise ValueError(f"release of {self.service}: expected the one that gets a share, found none")


@dataclass(frozen=True)
class Cold:
    """Why a service cannot go back at once. ``release`` is None if there is none of that name."""

    service: str
    release: Optional[str]
    reason: str


@dataclass(frozen=True)
class State:
    """The three places: ``live`` (the running maps), ``file`` (the map files), ``records`` (``releases.json``)."""

    live: Entries
    file: Entries
    records: Mapping[str, Record]
    live_shares: Entries = ()
    file_shares: Entries = ()

    def slot(self, service: str) -> Optional[str]:
        """The slot that takes the requests now, or would if HAProxy knew the service."""
        for entries in (self.live, self.file):
            for key, pool in entries:
                if key == service:
                    return slot_of(service, pool)
        return None

    def share(self, service: str) -> int:
        """The share that goes to the other slot now, in hundredths of a percent."""
        slot = self.slot(service)
        shares = self.live_shares if self.live else self.file_shares
        return int(dict(shares).get(pool_of(service, slot), "0")) if slot else 0

    def sends_to(self, pool: str) -> bool:
        """Whether requests go to a pool now, or would after HAProxy's next start: all of a service's, or a share."""
        for entries, shares in ((self.live, self.live_shares), (self.file, self.file_shares)):
            shared = {name for name, share in shares if share != "0"}
            for service, active in entries:
                slot = slot_of(service, active)
                beside = {pool_of(service, other(slot))} if slot and active in shared else set()
                if pool in {active, *beside}:
                    return True
        return False

    def record(self, service: str) -> Record:
        return self.records.get(service, Record())

    def summary(self, service: str) -> dict[str, Any]:
        slot = self.slot(service)
        return {"slot": slot, "release": self.record(service).active(slot), "share": self.share(service)}


def pool_of(service: str, slot: str) -> str:
    return f"{service}_{slot}"


def entries_of(service: str, entries: Entries) -> Entries:
    """The lines of a map that are about ``service``: one, if all is well."""
    return tuple(entry for entry in entries if entry[0] == service)


def shares_of(service: str, shares: Entries) -> Entries:
    """The lines of a map of shares that are about the pools of ``service``, sorted; none, if it has no canary."""
    return tuple(sorted(entry for entry in shares if slot_of(service, entry[0])))


def slot_of(service: str, pool: str) -> Optional[str]:
    """The slot whose pool it is, None for a pool of something else."""
    return next((slot for slot in SLOTS if pool == pool_of(service, slot)), None)


def move(state: State, targets: Iterable[Target]) -> State:
    """The state with every target active and getting all requests. Equal to ``state`` if all places say so already.

    Entries of other services stay as they are, and a service has one entry, however many it had.
    """
    live, file, records = state.live, state.file, dict(state.records)
    live_shares, file_shares = state.live_shares, state.file_shares
    for target in targets:
        record = state.record(target.service)
        slot = state.slot(target.service)
        left = record.active(slot)
        history = record.earlier(slot)
        if left != target.release:
            history = _history_after(history, left)
        elif record.active(target.slot) == target.release and slot == target.slot:
            history = record.history
        records[target.service] = Record({**record.slots, target.slot: target.release}, history)
        live = _with(live, target.service, target.pool)
        file = _with(file, target.service, target.pool)
        live_shares, file_shares = (_without(shares, target.service) for shares in (live_shares, file_shares))
    return State(live, file, records, live_shares, file_shares)


def give(state: State, canaries: Iterable[Canary]) -> State:
    """The state in which each canary gets its share; the routes stay. Equal to ``state`` if it is so already."""
    records, shares = dict(state.records), [state.live_shares, state.file_shares]
    for canary in canaries:
        slot = state.slot(canary.service)
        if slot is None:
            raise ValueError(f"{canary.service}: expected a route to blue or green, found none in the map")
        shares = [_without(entries, canary.service) for entries in shares]
        if canary.share and canary.release:
            record = state.record(canary.service)
            if record.active(slot) == canary.release:
                raise ValueError(
                    f"release of {canary.service}: expected another one than serves from {slot}, found {canary.release}"
                )
            records[canary.service] = replace(record, slots={**record.slots, other(slot): canary.release})
            shares = [(*entries, (pool_of(canary.service, slot), str(canary.share))) for entries in shares]
    kept = [
        before if sorted(before) == sorted(after) else after
        for before, after in zip((state.live_shares, state.file_shares), shares)
    ]
    return replace(state, records=records, live_shares=kept[0], file_shares=kept[1])


def shares_meanwhile(before: Entries, before_shares: Entries, after: Entries, after_shares: Entries) -> Entries:
    """The shares while routes go from ``before`` to ``after``: those of pools that are left stay until they are left.

    Only the pools that take a service's requests have a share that counts. So a map with the shares of both sides of
    the change is right before it and after it; one that was left over from a change cut short is dropped before.
    """
    left = {pool for _service, pool in before} - {pool for _service, pool in after} - set(dict(after_shares))
    return (*after_shares, *(entry for entry in before_shares if entry[0] in left))


def move_back(state: State, targets: Iterable[Target]) -> State:
    """As ``move``, but what is left is not remembered, and neither is what came after the release gone back to."""
    wanted = list(targets)
    moved = move(state, wanted)
    records = dict(moved.records)
    for target in wanted:
        record, slot = state.record(target.service), state.slot(target.service)
        history = record.earlier(slot)
        # What serves already may have served before, too: what came in between stays.
        serves = slot == target.slot and record.active(slot) == target.release
        if target.release in history and not serves:
            last = len(history) - history[::-1].index(target.release)
            records[target.service] = replace(records[target.service], history=history[:last])
        if target.record:
            records[target.service] = target.record
    return replace(moved, records=records)


def find_earlier(state: State, service: str, to: Optional[str], cold_ok: bool = True) -> Target | Cold | None:
    """Where going back from the active release leads; None if ``to`` is active already.

    ``to`` is a release or a version. A release that no history has is looked for in the idle slot all the same, where a
    playbook may just have started it; its servers say whether it is there.
    """
    check_service(service)
    slot = state.slot(service)
    record = state.record(service)
    history = record.earlier(slot)
    active = record.active(slot)
    if slot is None:
        raise ValueError(f"{service}: expected a route to blue or green, found none in the map")
    idle = other(slot)
    known_ones = f"active is {active or 'an unknown release'}, earlier ones are {', '.join(history) or 'none'}"
    if to is None:
        if not history:
            raise ValueError(f"{service}: expected an earlier release to go back to, found none; {known_ones}")
        return Target(service, idle, history[-1])
    if active and _is(active, to):
        return None
    named = [release for release in (record.active(idle), *history) if release and _is(release, to)]
    if named:
        return Target(service, idle, named[-1])
    if _is_release(to):
        return Target(service, idle, to)
    reason = f"expected a release that was active before, found no {to}; {known_ones}"
    if cold_ok:
        return Cold(service, None, reason)
    raise ValueError(f"{service}: {reason}")


def other(slot: str) -> str:
    return SLOTS[1 - SLOTS.index(slot)]


def provide(state: State, services: Sequence[str]) -> State:
    """The files for exactly these services: a new one goes to its blue slot, one that is not asked for is forgotten.

    The first line of a service is kept as it is, and so is the running map, which HAProxy reads anew when it reloads.
    """
    for service in services:
        check_service(service)
    kept = {service: pool for service, pool in reversed(state.file) if service in services}
    entries = tuple((service, kept.get(service, pool_of(service, "blue"))) for service in services)
    records = {service: record for service, record in state.records.items() if service in services}
    pools = {pool for _service, pool in entries}
    shares = tuple(entry for entry in state.file_shares if entry[0] in pools)
    return State(state.live, entries, records, state.live_shares, shares)


def count_needed(min_up: str, servers: int) -> int:
    """How many of a pool's servers ``min_up`` asks for: a number, or a percentage that is rounded up; at least one."""
    found = re.fullmatch(r"([0-9]{1,6})(%?)", min_up)
    if not found or (found[2] and int(found[1]) > 100):
        raise ValueError(f"min_up: expected a number of servers or a percentage such as 50%, found {min_up!r}")
    needed = math.ceil(servers * int(found[1]) / 100) if found[2] else int(found[1])
    return max(1, needed)


def parse_map(text: str, where: str) -> Entries:
    """The entries of a map file."""
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2:
            raise ValueError(f"{where}, line {number}: expected a service and a pool, found {line!r}")
        entries.append((words[0], words[1]))
    return tuple(entries)


def parse_shares(text: str, where: str) -> Entries:
    """The entries of a map file of shares."""
    entries = parse_map(text, where)
    for pool, share in entries:
        if not share.isdigit() or int(share) > ALL:
            raise ValueError(f"{where}: expected a share of 0 to {ALL} for {pool}, found {share!r}")
    return entries


def format_map(entries: Entries) -> str:
    return "".join(f"{key} {value}\n" for key, value in entries)


def show_share(share: int) -> str:
    """A share in hundredths of a percent as people write it."""
    return f"{share / 100:g} %"


def parse_records(text: str, where: str) -> dict[str, Record]:
    """What ``releases.json`` holds; nothing if it is empty."""
    try:
        document = json.loads(text or "{}")
        return {
            service: Record(
                {slot: str(release) for slot, release in found["slots"].items() if slot in SLOTS and release},
                tuple(str(release) for release in found["history"]),
            )
            for service, found in document.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: expected slots and history for each service, found: {error}") from error


def format_records(records: Mapping[str, Record]) -> str:
    document = {
        service: {"slots": dict(record.slots), "history": list(record.history)} for service, record in records.items()
    }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _with(entries: Entries, service: str, pool: str) -> Entries:
    """One entry for ``service``: where its first one was, or at the end."""
    found: list[tuple[str, str]] = []
    placed = False
    for key, value in entries:
        if key != service:
            found.append((key, value))
        elif not placed:
            found.append((service, pool))
            placed = True
    return tuple(found if placed else [*found, (service, pool)])


def _without(shares: Entries, service: str) -> Entries:
    """The shares but those of the service's pools."""
    return tuple(entry for entry in shares if slot_of(service, entry[0]) is None)


def _history_after(history: tuple[str, ...], left: Optional[str]) -> tuple[str, ...]:
    return ((*history, left) if left else history)[-HISTORY:]


def _is(release: str, name: str) -> bool:
    return name in (release, release.rpartition("-")[0])


def _is_release(name: str) -> bool:
    try:
        check_release(name)
    except ValueError:
        return False
    return True
