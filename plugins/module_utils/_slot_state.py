# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a slot is at this moment: its files, its unit and what answers at its address."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible_collections.modelfleet.onprem.plugins.module_utils import _systemd
from ansible_collections.modelfleet.onprem.plugins.module_utils._http import Ready, Server, read_ready
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import Layout, env_of, release_in, unit
from ansible_collections.modelfleet.onprem.plugins.module_utils._slot import (
    listening_address,
    parse_limits,
    parse_settings,
    read_record,
    read_text,
)

READY_SECONDS = 2
"""A slot that takes longer to say that it is ready counts as not ready."""


def read_slots(layout: Layout, slots: Sequence[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Any] | None]:
    """The state of each of ``slots`` (service and slot), None where there never was a release.

    systemd is asked once for all of them, and their addresses are asked at the same time.
    """
    known = [place for place in slots if release_in(layout, *place)]
    units = _systemd.show([unit(*place) for place in known])
    with ThreadPoolExecutor(max_workers=max(1, min(16, len(known)))) as pool:
        states = pool.map(lambda place: _read_known_slot(layout, place[0], place[1], units[unit(*place)]), known)
        found = dict(zip(known, states))
    return {place: found.get(place) for place in slots}


def read_slot(layout: Layout, service: str, slot: str) -> dict[str, Any] | None:
    """The state of one slot."""
    return read_slots(layout, [(service, slot)])[service, slot]


def _read_known_slot(layout: Layout, service: str, slot: str, state: _systemd.UnitState) -> dict[str, Any]:
    release = release_in(layout, service, slot)
    settings = parse_settings(read_text(layout.settings(service, slot)))
    record = read_record(layout, service, slot)
    answer = Ready(False, "")
    if state.active == "active":
        with Server(listening_address(settings), READY_SECONDS) as server:
            answer = read_ready(server)
    return {
        "release": release,
        "env": env_of(layout.release(service, release)) if release else None,
        "settings": settings,
        "limits": parse_limits(read_text(layout.limits(service, slot))),
        "unit": state.active,
        "invocation": state.invocation if state.active == "active" else None,
        "started": {"release": record.release, "env": record.env} if record else None,
        "ready": answer.ready,
        "digest": answer.digest,
    }
