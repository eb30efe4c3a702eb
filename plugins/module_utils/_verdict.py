# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What gates find, as verdicts: the same plain data in results of modules, in the journal and in tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

MODES = ("enforce", "warn", "off")

GATES = (
    "digest",
    "signature",
    "contract",
    "environment",
    "load",
    "ready",
    "version",
    "golden",
    "replay",
    "latency",
)
"""Every gate there is, in the order in which they are put, each by one module or by the controller."""

CONTROLLER = "controller"
"""Where a gate was put that asks no host."""

ADVICE = {
    "digest": "these bytes are not those that were built: deploy the bundle as it was built, which places it anew, and "
    "find out who changed this one",
    "contract": "once the clients are made for it, deploy it with -e override=contract -e override_reason=...",
    "environment": "give the hosts what the bundle was built with, or build it anew with what they have",
    "load": "mend the model, or let the service have what it needs (memory_max, ready_timeout)",
    "ready": "mend the model and build it as another version, or let the service have more time (ready_timeout)",
    "version": "find out what else listens on the slot's port, or who changed the release there, and deploy again",
    "golden": "find out what is other than where it was built, and build it as another version",
    "replay": "train it anew, or, if other answers are what you want, deploy it with -e override=replay "
    "-e override_reason=...",
    "latency": "make the model faster, or, if it is fast enough, say it in gates.latency (max_ms, factor)",
}
"""What a person may do about a gate that refuses a release; ``signature`` says its own, which is another each time."""

UNDECIDED = {
    "replay": "let more requests be captured, or ask for fewer (gates.replay), or, if these are enough for you, deploy "
    "it with -e override=replay -e override_reason=...",
    "latency": "deploy it where the old release can be asked beside it (blue_green), or say that it need not be "
    "(gates.latency.inconclusive: pass)",
}
"""What a person may do about a gate that refuses a release because it could not tell."""

Policy = Mapping[str, Any]
"""What a service asks of one gate: ``mode``, and thresholds."""


class GateError(ValueError):
    """Gates that cannot be put, in one line."""


@dataclass(frozen=True)
class Finding:
    """What a gate found, and in words what was expected and found. ``passed`` is None where it cannot be told.

    ``details`` are figures for a program, ``gives`` is what else the gate's module returns, and ``seconds`` is what it
    took before the gate was put.
    """

    passed: bool | None
    expected: str
    found: str
    details: Mapping[str, Any] = field(default_factory=dict)
    gives: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Put:
    """Gates that were put: their ``verdicts``, in order, and the first one that blocks the release in one line."""

    verdicts: list[dict[str, Any]]
    problem: str | None
    gives: Mapping[str, Any]


def parse_policies(gates: object, own: Iterable[str]) -> dict[str, Policy]:
    """The policies of ``own`` in ``gates``, which may be the whole policy of a service, in the order of ``own``.

    Gates that others put are passed over. GateError if there is no such gate, or an own one has no mode that there is.
    """
    if not isinstance(gates, Mapping):
        raise GateError(f"gates: expected a mapping of some of {', '.join(GATES)}, found {gates!r}")
    for name in gates:
        if name not in GATES:
            raise GateError(f"gates: expected some of {', '.join(GATES)}, found {name!r}")
    policies = {name: gates[name] for name in own if name in gates}
    for name, policy in policies.items():
        mode = policy.get("mode") if isinstance(policy, Mapping) else policy
        if not isinstance(policy, Mapping) or mode not in MODES:
            raise GateError(f"gates.{name}: expected a mode, one of {', '.join(MODES)}, found {mode!r}")
    return policies


def put_gates(policies: Mapping[str, Policy], where: Mapping[str, str], check: Callable[[str], Finding]) -> Put:
    """Put the gates of ``policies`` one after another; what comes after one that blocks is left out.

    ``where`` says what each gate asks.
    """
    verdicts = []
    gives: dict[str, Any] = {}
    for gate, policy in policies.items():
        mode = policy["mode"]
        if mode == "off":
            finding, seconds = Finding(None, "nothing", "not put"), 0.0
        else:
            started = time.monotonic()
            finding = check(gate)
            seconds = finding.seconds + time.monotonic() - started
        gives.update(finding.gives)
        verdict = _verdict(gate, where[gate], mode, finding, seconds)
        verdicts.append(verdict)
        if blocks(verdict, policy):
            return Put(verdicts, said(verdict), gives)
    return Put(verdicts, None, gives)


def _verdict(gate: str, where: str, mode: str, finding: Finding, seconds: float) -> dict[str, Any]:
    outcome = {True: "pass", False: "warn" if mode == "warn" else "fail", None: "inconclusive"}[finding.passed]
    return {
        "gate": gate,
        "where": where,
        "mode": mode,
        "verdict": "off" if mode == "off" else outcome,
        "expected": finding.expected,
        "found": finding.found,
        "seconds": round(seconds, 3),
        **({"details": dict(finding.details)} if finding.details else {}),
    }


def blocks(verdict: Mapping[str, Any], policy: Policy) -> bool:
    """Whether a release with this verdict gets no traffic."""
    undecided = verdict["verdict"] == "inconclusive" and policy.get("inconclusive", "pass") == "fail"
    return bool(verdict["mode"] == "enforce" and (verdict["verdict"] == "fail" or undecided))


def said(verdict: Mapping[str, Any]) -> str:
    """A verdict in one line, for whom it refuses a release: where, expected, found, and what may be done about it."""
    place = "" if verdict["where"] == CONTROLLER else f"{verdict['where']}: "
    told = f"gate {verdict['gate']}: {place}expected {verdict['expected']}, found {verdict['found']}"
    advice = {**ADVICE, **UNDECIDED} if verdict["verdict"] == "inconclusive" else ADVICE
    return f"{told}: {advice[verdict['gate']]}" if verdict["gate"] in advice else told
