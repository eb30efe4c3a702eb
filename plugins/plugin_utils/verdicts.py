# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What gates found, on the controller and on hosts: collected, compared over hosts, and laid out for people.

A verdict is a plain mapping, which modules return and the journal keeps: ``gate``, ``where`` (``controller``, or what
was asked on a host), ``mode``, ``verdict`` (``pass``, ``fail``, ``warn``, ``inconclusive`` or ``off``), ``expected``,
``found``, ``seconds``, and perhaps ``details``; one of a host has its name as ``host``. Pure, but for ``timed``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ansible_collections.modelfleet.onprem.plugins.module_utils._golden import mismatches
from ansible_collections.modelfleet.onprem.plugins.module_utils._verdict import CONTROLLER, said
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.contract import Contract, Difference, compare, grade
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.policy import GATES, Policy

Verdict = dict[str, Any]

JUDGE = "judge"
"""What compares a canary with what serves: no gate of the policy, and after all of them."""
NOT_RUN = "not run"
_ORDER = (*GATES, JUDGE)
_HEADING = ("gate", "where", "mode", "verdict", "expected", "found", "seconds")
# The message of what failed says all of it; a line of the table is to stay a line.
_WIDEST = 60
_HOSTS_NAMED = 4
_DIFFERENCES_TOLD = 5
_ANSWERS = {"predictions": "", "probabilities": "probabilities of ", "scores": "scores of "}


def verdict_of(
    gate: str,
    mode: str,
    passed: bool,
    expected: str,
    found: str,
    details: Mapping[str, Any] | None = None,
) -> Verdict:
    """The verdict of a gate that the controller put; one that did not pass only warns where it is not enforced."""
    return {
        "gate": gate,
        "where": CONTROLLER,
        "mode": mode,
        "verdict": "pass" if passed else "fail" if mode == "enforce" else "warn",
        "expected": expected,
        "found": found,
        "seconds": 0.0,
        **({"details": dict(details)} if details else {}),
    }


def timed(judge: Callable[[], list[Verdict]]) -> list[Verdict]:
    """The verdicts of a gate that the controller puts, each with the seconds that it took."""
    started = time.monotonic()
    verdicts = judge()
    seconds = round(time.monotonic() - started, 3)
    return [{**verdict, "seconds": seconds} for verdict in verdicts]


def judge_contracts(policy: Mapping[str, Any], serving: Mapping[str, Contract], new: Contract) -> Verdict:
    """The verdict on the contract of a new release, compared with those of what serves, by release.

    ``policy`` is that of the gate.
    """
    differences: dict[str, Difference] = {}
    for contract in serving.values():
        differences.update((str(difference), difference) for difference in compare(contract, new, policy["ranges"]))
    listed = sorted(differences.values(), key=lambda difference: not difference.breaking)
    graded = grade(listed)
    return verdict_of(
        "contract",
        policy["mode"],
        graded != "breaking",
        f"the contract of {', '.join(serving)}, or a compatible one",
        f"{graded}: {_told(listed)}" if listed else graded,
        {"grade": graded, "differences": [asdict(difference) for difference in listed]},
    )


def _told(differences: Sequence[Difference]) -> str:
    """Every difference that breaks, or the first of those that do not: a training changes the range of each column."""
    breaking = [str(each) for each in differences if each.breaking]
    shown = breaking or [str(each) for each in differences[:_DIFFERENCES_TOLD]]
    more = len(differences) - len(shown)
    return "; ".join([*shown, *([f"and {more} more that break nothing"] if more else [])])


def compare_answers(mode: str, answers: Mapping[str, Mapping[str, Any]]) -> list[Verdict]:
    """The verdict on whether all hosts answer the golden rows alike, none where fewer than two were asked.

    ``answers`` are by host, as model_probe returns them: ``predictions``, ``probabilities`` and ``scores`` (None of a
    model without) and ``tolerance``. Each host is compared with the one that most others agree with.
    """
    if len(answers) < 2 or mode == "off":
        return []
    differ = {host: {other: _differ(answers[host], answers[other]) for other in answers} for host in answers}
    model = min(answers, key=lambda host: sum(bool(lines) for lines in differ[host].values()))
    odd = {host: lines[0] for host, lines in differ[model].items() if lines}
    agreeing = _named([host for host in answers if host not in odd])
    found = (
        f"{'; '.join(f'{host}: {line}' for host, line in odd.items())} (expected as on {agreeing})"
        if odd
        else "the same"
    )
    expected = f"the same answers on {_named(list(answers))}"
    return [verdict_of("golden", mode, not odd, expected, found, {"hosts": list(odd)} if odd else None)]


def _differ(model: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    lines = []
    for kind, prefix in _ANSWERS.items():
        if model.get(kind) is not None:
            differ = mismatches(model[kind], found.get(kind) or [], model["tolerance"], limit=1)
            lines += [prefix + line for line in differ]
    return lines


def collect(
    policy: Policy, controller: Sequence[Verdict], hosts: Sequence[Mapping[str, Sequence[Verdict]]]
) -> list[Verdict]:
    """All verdicts in the order of the gates, the controller's first; a gate that is off has one that says so.

    ``hosts`` are results by host, one mapping for each module that puts gates.
    """
    found = [*controller]
    for results in hosts:
        for host, verdicts in results.items():
            found.extend({**verdict, "host": host} for verdict in verdicts)
    modes = {gate: settings["mode"] for gate, settings in policy.items()}
    put = [{"mode": modes.get(each["gate"]), **each} for each in found if each["verdict"] != NOT_RUN]
    off = [
        {**verdict_of(gate, "off", True, "", ""), "verdict": "off"}
        for gate, settings in policy.items()
        if settings["mode"] == "off" and gate not in {each["gate"] for each in put}
    ]
    return sorted([*put, *off], key=lambda verdict: _ORDER.index(verdict["gate"]))


def failure(verdicts: Sequence[Mapping[str, Any]]) -> str | None:
    """The verdicts that end a rollout, in one line; None if there are none."""
    return "; ".join(said(each) for each in verdicts if each["verdict"] == "fail") or None


def verdict_lines(
    verdicts: Sequence[Mapping[str, Any]],
    policy: Policy | None = None,
    overrides: Sequence[Mapping[str, str]] = (),
) -> list[str]:
    """A table for people; hosts that found the same are one line, and seconds are those of the slowest.

    With a ``policy``, gates that have no verdict are there too, as not run.
    """
    folded: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for each in verdicts:
        place = "host" if each.get("host") else str(each["where"])
        outcome = (place, *(str(each.get(key) or "") for key in ("mode", "verdict", "expected", "found")))
        folded.setdefault((str(each["gate"]), *outcome), []).append(each)
    rows = []
    for (gate, place, mode, verdict, expected, found), same in folded.items():
        hosts = [str(each["host"]) for each in same if each.get("host")]
        where = "-" if verdict == "off" else _named(hosts) if hosts else place
        seconds = "-" if verdict == "off" else f"{max(float(each.get('seconds') or 0) for each in same):.2f}"
        rows.append((gate, where, mode, verdict, _cut(expected) or "-", _cut(found) or "-", seconds))
    for gate, settings in (policy or {}).items():
        if gate not in {row[0] for row in rows}:
            rows.append((gate, "-", settings["mode"], NOT_RUN, "-", "-", "-"))
    rows.sort(key=lambda row: _ORDER.index(row[0]) if row[0] in _ORDER else len(_ORDER))
    return [
        *align([_HEADING, *rows]),
        *(f"{each['gate']} was overridden: {each['reason']}" for each in overrides),
    ]


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with the cells of ``rows`` below each other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _named(hosts: Sequence[str]) -> str:
    more = f" and {len(hosts) - _HOSTS_NAMED} more" if len(hosts) > _HOSTS_NAMED else ""
    return ", ".join(hosts[:_HOSTS_NAMED]) + more


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDEST else f"{line[: _WIDEST - 1]}…"
