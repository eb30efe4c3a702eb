# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks that a release must pass before it gets traffic, each against the model server itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.modelfleet.onprem.plugins.module_utils._golden import mismatches
from ansible_collections.modelfleet.onprem.plugins.module_utils._http import READY, HttpError, Server, read_ready

PREDICT = "/predict"
ROWS_A_REQUEST = 256
LATENCY_SAMPLES = 100
WARM_UP = 10


@dataclass(frozen=True)
class Golden:
    """Golden rows: inputs, and what the model gave for them when the bundle was built."""

    instances: Sequence[Any]
    predictions: Sequence[Any]
    probabilities: Sequence[Any] | None
    tolerance: Mapping[str, float]


@dataclass(frozen=True)
class Expected:
    """What the gates compare with; what is None is not compared, and a limit of 0 is none."""

    service: str | None
    version: str | None
    digest: str | None
    golden: Golden | None
    max_latency_ms: float | None


@dataclass(frozen=True)
class Finding:
    """What a gate found: its verdict in ``passed``, and in words what was expected and found."""

    passed: bool
    expected: str
    found: str


def ready(server: Server, expected: Expected) -> Finding:
    """The model server says that it is ready, for the service that is asked for."""
    answer = read_ready(server)
    service = expected.service
    if answer.ready and service is not None and answer.model != service:
        return Finding(False, f"ready for {service}", f"ready for {answer.model}")
    return Finding(answer.ready, f"ready for {service}" if service else "ready", answer.found)


def version(server: Server, expected: Expected) -> Finding:
    """The model server has loaded the version, and the very bundle, that is asked for."""
    answer = read_ready(server)
    wanted = {"version": expected.version, "digest": expected.digest}
    found = {"version": answer.version, "digest": answer.digest}
    compared = [name for name in wanted if wanted[name] is not None]
    same = {
        "version": found["version"] == wanted["version"],
        # A digest may be given by its first digits, as in a release's name.
        "digest": str(found["digest"]).startswith(str(wanted["digest"])),
    }
    return Finding(
        all(same[name] for name in compared),
        ", ".join(f"{name} {wanted[name]}" for name in compared) or "any version",
        ", ".join(f"{name} {found[name]}" for name in compared) or f"version {answer.version}",
    )


def golden(server: Server, expected: Expected) -> Finding:
    """The golden rows give what they gave when the bundle was built, within the tolerance."""
    rows = expected.golden
    if rows is None:
        return Finding(True, "no golden rows", "no golden rows")
    words = f"the answers to {len(rows.instances)} golden rows"
    found: dict[str, list[Any]] = {"predictions": [], "probabilities": []}
    for first in range(0, len(rows.instances), ROWS_A_REQUEST):
        body: dict[str, Any] = {"instances": rows.instances[first : first + ROWS_A_REQUEST]}
        if rows.probabilities is not None:
            body["probabilities"] = True
        answer = server.post(PREDICT, body)
        document = answer.json()
        if answer.status != 200 or not isinstance(document, dict):
            return Finding(False, words, answer.shown)
        for name, values in found.items():
            values.extend(document.get(name) or [])
    lines = mismatches(rows.predictions, found["predictions"], rows.tolerance)
    if rows.probabilities is not None:
        more = mismatches(rows.probabilities, found["probabilities"], rows.tolerance)
        lines += [f"probabilities of {line}" for line in more]
    return Finding(not lines, words, "; ".join(lines[:5]) or "the same")


def latency(server: Server, expected: Expected) -> Finding:
    """The slowest in a hundred requests, of one golden row each, stays within the limit."""
    rows, limit = expected.golden, expected.max_latency_ms
    if rows is None or limit is None or not rows.instances:
        return Finding(True, "any latency", "not measured")
    words = f"p99 of at most {limit:g} ms"
    seconds = []
    for request in range(WARM_UP + LATENCY_SAMPLES):
        answer = server.post(PREDICT, {"instances": [rows.instances[request % len(rows.instances)]]})
        if answer.status != 200:
            return Finding(False, words, answer.shown)
        if request >= WARM_UP:
            seconds.append(answer.seconds)
    found = 1000 * percentile(seconds, 0.99)
    return Finding(found <= limit, words, f"{found:.1f} ms over {LATENCY_SAMPLES} requests of one row")


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of ``values`` that ``share`` of them do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@dataclass(frozen=True)
class Gate:
    """A check of a model server, and the path that it asks.

    ``needs`` names fields of ``Expected`` that must be given (``a or b``: one of these). A gate with a ``limit``, the
    field of that name, is put whenever the limit is given.
    """

    check: Callable[[Server, Expected], Finding]
    path: str
    needs: tuple[str, ...] = ()
    limit: str | None = None

    def lacks(self, expected: Expected) -> str | None:
        """What it needs and was not given, None if nothing."""
        for need in (*self.needs, *([self.limit] if self.limit else [])):
            if not any(getattr(expected, name) for name in need.split(" or ")):
                return need
        return None


GATES = {
    "ready": Gate(ready, READY),
    "version": Gate(version, READY, needs=("version or digest",)),
    "golden": Gate(golden, PREDICT, needs=("golden",)),
    "latency": Gate(latency, PREDICT, needs=("golden",), limit="max_latency_ms"),
}
"""Every gate there is, by its name in inventories and results."""

DEFAULT_GATES = ("ready", "version", "golden")


class GateError(ValueError):
    """Gates that cannot be put, in one line."""


def choose_gates(names: Sequence[str], expected: Expected) -> list[str]:
    """``names``, and after them the gates whose limit is given; GateError if one is unknown or lacks what it needs."""
    limited = [name for name, gate in GATES.items() if gate.limit and getattr(expected, gate.limit)]
    chosen = list(dict.fromkeys([*names, *limited]))
    for name in chosen:
        if name not in GATES:
            raise GateError(f"gates: expected some of {', '.join(GATES)}, found {name!r}")
        need = GATES[name].lacks(expected)
        if need:
            raise GateError(f"gates: expected the option {need} for the gate {name}, found none")
    return chosen


def run_gates(server: Server, gates: Sequence[str], expected: Expected) -> list[dict[str, Any]]:
    """What each of ``gates`` found, in this order; after one that failed, the rest is not run."""
    results: list[dict[str, Any]] = []
    failed = False
    for gate in gates:
        where = server.address + GATES[gate].path
        result = {"gate": gate, "where": where, "expected": None, "found": None, "seconds": 0.0}
        if failed:
            results.append({**result, "verdict": "not run"})
            continue
        started = time.monotonic()
        try:
            finding = GATES[gate].check(server, expected)
        except HttpError as error:
            finding = Finding(False, "an answer", str(error))
        failed = not finding.passed
        result.update(
            verdict="fail" if failed else "pass",
            expected=finding.expected,
            found=finding.found,
            seconds=round(time.monotonic() - started, 3),
        )
        results.append(result)
    return results


def failure(results: Sequence[Mapping[str, Any]]) -> str | None:
    """The first gate that failed, in one line; None if all passed."""
    for result in results:
        if result["verdict"] == "fail":
            return f"gate {result['gate']}: {result['where']}: expected {result['expected']}, found {result['found']}"
    return None
