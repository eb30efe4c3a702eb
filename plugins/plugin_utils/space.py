# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts have no room for what a rollout is about to place on them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    plans: Sequence[Mapping[str, Any]],
    hosts: Mapping[str, Mapping[str, Any]],
    release_sizes: Mapping[str, int],
    env_sizes: Mapping[str, int],
) -> list[str]:
    """A line for each host and file system that lacks room for what ``plans`` stage there.

    ``hosts`` is what ``model_info`` found. ``release_sizes``, by service, and ``env_sizes``, by the environment's name,
    are in bytes.
    """
    lines = []
    for host in dict.fromkeys(host for plan in plans for host in plan["stage"]):
        placed = [plan for plan in plans if host in plan["stage"]]
        # Services share an environment, so a host builds it once.
        needs = dict.fromkeys(
            need for plan in placed for need in _needs(plan, host, hosts[host], release_sizes, env_sizes)
        )
        for folders in _file_systems(needs, hosts[host]["one_disk"]):
            lines += _lacking(host, [need for need in needs if need.folder in folders])
    return lines


def _file_systems(needs: Iterable[_Need], one_disk: bool) -> list[set[Path]]:
    """The folders of each file system."""
    folders = dict.fromkeys(need.folder for need in needs)
    return [set(folders)] if one_disk else [{folder} for folder in folders]


def _lacking(host: str, needs: Sequence[_Need]) -> list[str]:
    """A line if what is to be placed on one file system is more than is free there."""
    size = sum(need.size for need in needs)
    free = min((need.free for need in needs), default=0)
    if size <= free:
        return []
    where = " and ".join(dict.fromkeys(str(need.folder) for need in needs))
    what = " and ".join(need.what for need in needs)
    return [f"{host}: {where}: expected {format_size(size)} free for {what}, found {format_size(free)}"]


def _needs(
    plan: Mapping[str, Any],
    host: str,
    state: Mapping[str, Any],
    release_sizes: Mapping[str, int],
    env_sizes: Mapping[str, int],
) -> list[_Need]:
    env, release, service = plan["envs"][host], plan["release"]["name"], plan["service"]
    placed = [found["release"] for found in state["services"].get(service, {}).get("releases", [])]
    free = state["free_bytes"]
    needs = []
    if env not in state["envs"]:
        needs.append(_Need(Layout().envs, f"the environment {env}", env_sizes[env], free["envs"]))
    if release not in placed:
        what = f"the release {release} of {service}"
        needs.append(_Need(Layout().services, what, release_sizes[service], free["releases"]))
    return needs
