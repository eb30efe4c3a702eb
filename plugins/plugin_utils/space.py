# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts have no room for what a rollout is about to place on them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.modelfleet.onprem.plugins.module_utils._files import format_size
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import Layout


@dataclass(frozen=True)
class _Need:
    """What is to be placed in ``folder``, and the bytes that it takes and that are free there."""

    folder: Path
    what: str
    size: int
    free: int


def lacking_space(
    plan: Mapping[str, Any], hosts: Mapping[str, Mapping[str, Any]], release_size: int, env_sizes: Mapping[str, int]
) -> list[str]:
    """A line for each host of ``plan["stage"]`` and file system that lacks room for what the host is to get.

    ``hosts`` is what ``model_info`` found. ``release_size`` and ``env_sizes``, by the environment's name, are in bytes.
    """
    lines = []
    for host in plan["stage"]:
        needs = _needs(plan, host, hosts[host], release_size, env_sizes)
        for together in [needs] if hosts[host]["one_disk"] else [[need] for need in needs]:
            size = sum(need.size for need in together)
            free = min((need.free for need in together), default=0)
            if size > free:
                where = " and ".join(str(need.folder) for need in together)
                what = " and ".join(need.what for need in together)
                lines.append(
                    f"{host}: {where}: expected {format_size(size)} free for {what}, found {format_size(free)}"
                )
    return lines


def _needs(
    plan: Mapping[str, Any], host: str, state: Mapping[str, Any], release_size: int, env_sizes: Mapping[str, int]
) -> list[_Need]:
    env, release = plan["envs"][host], plan["release"]["name"]
    placed = [found["release"] for found in state["services"].get(plan["service"], {}).get("releases", [])]
    free = state["free_bytes"]
    needs = []
    if env not in state["envs"]:
        needs.append(_Need(Layout().envs, f"the environment {env}", env_sizes[env], free["envs"]))
    if release not in placed:
        needs.append(_Need(Layout().services, f"the release {release}", release_size, free["releases"]))
    return needs
