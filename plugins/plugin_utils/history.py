# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the journals say, for people: a table of rollouts, and one of them whole. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ansible_collections.modelfleet.onprem.plugins.module_utils._journal import Rollout, merge
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.service import ServiceError

_TIME = "%Y-%m-%dT%H:%M:%SZ"


def history_lines(journals: Mapping[str, Iterable[Mapping[str, Any]]], services: Sequence[str]) -> list[str]:
    """A row for each rollout of ``services``, the latest last. ``journals`` has each balancer's, by its name."""
    rows = [("id", "when", "who", "action", "service", "from", "to", "strategy", "verdict", "seconds")]
    for rollout in _merged(journals):
        for service, meant in rollout.services.items():
            if service in services:
                rows.append(
                    (
                        rollout.id,
                        rollout.begun,
                        rollout.who,
                        rollout.action,
                        service,
                        str(meant["was"]["release"] or "-"),
                        str(meant["release"] or "-"),
                        str(rollout.strategy or "-"),
                        rollout.verdict,
                        _seconds(rollout),
                    )
                )
    return table(rows)


def rollout_lines(journals: Mapping[str, Iterable[Mapping[str, Any]]], wanted: str) -> list[str]:
    """One rollout whole: what it meant, its steps, its gates, how it ended."""
    found = next((it for it in _merged(journals) if it.id == wanted), None)
    if found is None:
        raise ServiceError(f"id: expected a rollout that the journals keep, found {wanted!r}")
    lines = [
        f"{found.action} {found.id}",
        f"by {found.who} from {found.where}, strategy {found.strategy or 'none'}",
        f"begun {found.begun}, ended {found.ended or 'not yet'} ({_seconds(found)} s)",
        f"verdict {found.verdict}" + (f": {found.reason}" if found.reason else ""),
    ]
    for service, meant in found.services.items():
        before, after = (f"{it['release'] or 'nothing'} in {it['slot'] or 'no slot'}" for it in (meant["was"], meant))
        lines.append(f"{service}: from {before} to {after}, bundle {meant.get('bundle') or 'none'}")
    lines += [f"took over {name}" for name in found.takes_over]
    lines += [f"undid {found.undoes}"] if found.undoes else []
    lines += [f"override {name}: {reason}" for name, reason in found.overrides.items()]
    lines += [f"step {step} at {step.at}" + (f", begun at {step.begun}" if step.begun else "") for step in found.steps]
    lines += [
        f"gate {gate.get('gate')} on {gate.get('host') or gate.get('where')}: {gate.get('verdict')}, "
        f"expected {gate.get('expected')}, found {gate.get('found')}"
        for gate in found.gates
    ]
    return lines


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with their columns beneath each other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _merged(journals: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[Rollout]:
    return merge(view for journal in journals.values() for view in journal)


def _seconds(rollout: Rollout) -> str:
    if not (rollout.begun and rollout.ended):
        return "-"
    begun, ended = (datetime.strptime(text, _TIME) for text in (rollout.begun, rollout.ended))
    return str(round((ended - begun).total_seconds()))
