# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two pools of a service looked at side by side while one of them is new: a canary, or what has just moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ._figures import Balanced, read_pool, why_stop
from ._haproxy import Balancer, HaproxyError, PoolServer, Process, find_pool, read_servers, read_stat

INTERVAL = 2.0
"""Seconds between two looks."""


@dataclass(frozen=True)
class Pools:
    """The pools of the two sides: what is compared with, and what is watched."""

    baseline: str
    canary: str


@dataclass(frozen=True)
class Look:
    """What HAProxy says at one moment: its counters by pool, and the servers of both pools."""

    balanced: Mapping[str, Balanced]
    servers: tuple[PoolServer, ...]


def read_slot(params: Mapping[str, Any], service: str) -> str:
    """The slot that takes the requests of ``service``; HaproxyError if there is none."""
    with Process(params["socket"]) as process:
        slot = Balancer(process, params["state_dir"], params["master_socket"]).read().slot(service)
    if slot is None:
        raise HaproxyError(f"{service}: expected a route to blue or green, found none in the map")
    return slot


def look(socket: str, pools: Pools) -> Look:
    """What HAProxy says of both pools now."""
    # A process that a reload has replaced goes on answering on a connection it has, so each look makes one of its own.
    with Process(socket) as process:
        servers = read_servers(process)
        rows = {row["pxname"]: read_pool(row) for row in read_stat(process, 2)}
    both = (pools.baseline, pools.canary)
    return Look(
        {pool: rows.get(pool, Balanced()) for pool in both},
        tuple(server for pool in both for server in find_pool(servers, pool)),
    )


def why_fails(first: Look, now: Look, pools: Pools) -> str:
    """Why the canary must not go on, or nothing: it has no server left, or fails at half of its requests."""
    if not any(server.in_rotation for server in now.servers if server.pool == pools.canary):
        states = "; ".join(server.found for server in now.servers if server.pool == pools.canary)
        return f"{pools.canary}: expected a server in rotation, found {states}"
    canary, baseline = (now.balanced[pool].since(first.balanced[pool]) for pool in (pools.canary, pools.baseline))
    return why_stop(canary, baseline)
