# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gates that a release passes before it gets a request, and what a service may say about each of them.

``GATES`` is the table: a gate, its modes, its default and its thresholds are there and nowhere else. Pure; what is
wrong is a ``PolicyError`` of one line.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Mode = Literal["enforce", "warn", "off"]
MODES: tuple[Mode, ...] = get_args(Mode)

Policy = dict[str, dict[str, Any]]
"""The complete mapping: for every gate its ``mode`` and each of its thresholds, None where one is not set."""


class PolicyError(ValueError):
    """A policy or an override that cannot be used, in one line."""


@dataclass(frozen=True)
class Threshold:
    """What a gate compares with: in words what it must be, as a check, its default, and what it means."""

    words: str
    suits: Callable[[object], bool]
    default: Any
    meaning: str


@dataclass(frozen=True)
class Gate:
    """A gate: when it passes, the modes that it may have, and its thresholds by name.

    A gate with ``trust`` guards against who made the bundle, and a rollout cannot override it.
    """

    meaning: str
    mode: Mode = "enforce"
    modes: tuple[Mode, ...] = MODES
    thresholds: Mapping[str, Threshold] = field(default_factory=dict)
    trust: bool = False


def _number(minimum: float, maximum: float, default: float | None, meaning: str) -> Threshold:
    def suits(value: object) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and minimum <= value <= maximum

    return Threshold(f"a number from {minimum:g} to {maximum:g}", suits, default, meaning)


def _whole(minimum: int, maximum: int, default: int, meaning: str) -> Threshold:
    def suits(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum

    return Threshold(f"a whole number from {minimum} to {maximum}", suits, default, meaning)


def _text(words: str, meaning: str) -> Threshold:
    return Threshold(words, lambda value: isinstance(value, str) and bool(value) and value.isprintable(), None, meaning)


def _one_of(choices: Sequence[str], default: str, meaning: str) -> Threshold:
    return Threshold(f"one of {', '.join(choices)}", lambda value: value in choices, default, meaning)


GATES: dict[str, Gate] = {
    "digest": Gate("every byte is what the manifest says", modes=("enforce",), trust=True),
    "signature": Gate("a key of the service's allowed_signers signed the manifest", trust=True),
    "contract": Gate(
        "requests that the release before takes are taken, and are answered in the same form",
        thresholds={
            "ranges": _one_of(("compatible", "breaking"), "compatible", "what a narrower range of a column is")
        },
    ),
    "environment": Gate("packages on the host are those of the bundle, and Python is its own or a newer one"),
    "load": Gate("a process of its own, with the slot's limits, loads the model and answers"),
    "ready": Gate("the slot is ready, for the service"),
    "version": Gate("the slot has loaded the very bundle"),
    "golden": Gate("the golden rows give what they gave at building, and the same on every host"),
    "replay": Gate(
        "requests that the release before answered are answered alike",
        mode="off",
        thresholds={
            "rows": _whole(1, 1_000_000, 2000, "most rows that are sent"),
            "min_rows": _whole(1, 1_000_000, 100, "fewer rows, of all or of a segment, are inconclusive"),
            "max_flip_rate": _number(0, 1, 0.01, "share of rows with another label, by its upper Wilson bound"),
            "max_change": _number(0, 1e9, None, "largest change of a score"),
            "max_p99_change": _number(0, 1e9, None, "change of score that 99 of 100 rows stay within"),
            "segment": _text("the name of a column", "a column: the rows of each of its values are judged apart, too"),
            "requests": _text(
                "the path of a file", "a file of captured requests on the controller, not what the old slot captured"
            ),
            "inconclusive": _one_of(("pass", "fail"), "pass", "what follows from too few rows, of all or of a segment"),
        },
    ),
    "latency": Gate(
        "99 of 100 golden rows are answered in time, beside the release before",
        mode="warn",
        thresholds={
            "factor": _number(1, 1000, 3, "times as long as the release before"),
            "max_ms": _number(0.001, 3_600_000, None, "milliseconds"),
            "inconclusive": _one_of(("pass", "fail"), "pass", "what follows from an old release that cannot be asked"),
        },
    ),
}
"""Every gate by its name, in the order in which they are put."""


def parse_policy(found: Mapping[str, object], signed: bool = False) -> Policy:
    """The complete policy of a service, out of the key ``gates`` of its definition.

    Where a service is ``signed``, which is to say that it has allowed signers, signatures are enforced by default.
    """
    unknown = [name for name in map(str, found) if name not in GATES]
    if unknown:
        raise PolicyError(f"gates: expected some of {', '.join(GATES)}, found {unknown[0]!r}")
    return {name: _parse_gate(name, found.get(name, {}), signed) for name in GATES}


def _parse_gate(name: str, found: object, signed: bool) -> dict[str, Any]:
    gate, where = GATES[name], f"gates.{name}"
    # YAML reads a bare off as false.
    given = dict(found) if isinstance(found, Mapping) else {"mode": found}
    unknown = sorted(set(map(str, given)) - {"mode", *gate.thresholds})
    if unknown:
        raise PolicyError(f"{where}: expected {_listed(('mode', *gate.thresholds))}, found {unknown[0]!r}")
    unsigned: Mode = "enforce" if signed else "off"
    mode = given.pop("mode", unsigned if name == "signature" else gate.mode)
    mode = "off" if mode is False else mode
    if mode not in gate.modes:
        raise PolicyError(f"{where}: expected {_listed(gate.modes)}, found {mode!r}")
    for key, value in given.items():
        threshold = gate.thresholds[key]
        if not threshold.suits(value):
            raise PolicyError(f"{where}.{key}: expected {threshold.words}, found {value!r}")
    defaults = {key: threshold.default for key, threshold in gate.thresholds.items()}
    return {"mode": mode, **defaults, **given}


def check_override(policies: Collection[Policy], names: Sequence[str], reason: str | None) -> None:
    """PolicyError if one of the gates ``names`` cannot be overridden, or none of ``policies`` enforces it."""
    if bool(names) != bool((reason or "").strip()):
        given, lacking = ("override", "override_reason") if names else ("override_reason", "override")
        wanted = '-e override_reason="…"' if names else "-e override=GATE"
        raise PolicyError(f"{lacking}: expected {wanted} with -e {given}, found nothing")
    able = [gate for gate in GATES if any(_can_override(policy, gate) for policy in policies)]
    for name in names:
        expected = f"override: expected one of {', '.join(able)}, found"
        if name in GATES and GATES[name].trust:
            raise PolicyError(f"{expected} {name}, which cannot be overridden")
        if name not in able:
            modes = dict.fromkeys(policy[name]["mode"] for policy in policies if name in policy)
            raise PolicyError(f"{expected} {name!r}" + (f", which is {' and '.join(modes)} already" if modes else ""))


def override(policy: Policy, names: Sequence[str], reason: str) -> tuple[Policy, list[dict[str, str]]]:
    """``policy`` with those of the gates ``names`` that it enforces turned into ``warn``, and which these are."""
    turned = [name for name in dict.fromkeys(names) if _can_override(policy, name)]
    overridden = {name: {**gate, "mode": "warn"} if name in turned else gate for name, gate in policy.items()}
    return overridden, [{"gate": name, "reason": reason} for name in turned]


def _can_override(policy: Policy, name: str) -> bool:
    return name in GATES and not GATES[name].trust and policy[name]["mode"] == "enforce"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
