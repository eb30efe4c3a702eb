# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pool did within a window: counters of its model servers and of the balancer, read twice and subtracted.

Pure. A counter that is smaller the second time began anew in between (its process was started again, or HAProxy was
reloaded): what it counts since then is all that is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Counts = Mapping[str, float]

_LINE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_PREDICTING = re.compile(r"/predict|/invocations|/v2/models/[^/]+/infer")
_FIRST_OUTPUT = "0"


@dataclass(frozen=True)
class Served:
    """What a model server counted: requests up to each edge of latency, predictions by class, and rows."""

    latency: Counts = field(default_factory=dict)
    predictions: Counts = field(default_factory=dict)
    rows: float = 0.0

    def since(self, earlier: Served) -> Served:
        return Served(
            _grown(earlier.latency, self.latency),
            _grown(earlier.predictions, self.predictions),
            _grown({"rows": earlier.rows}, {"rows": self.rows})["rows"],
        )


@dataclass(frozen=True)
class Balanced:
    """What a balancer counted for a pool: answers, and those of them that say 4xx or 5xx."""

    answers: float = 0.0
    errors: float = 0.0

    def since(self, earlier: Balanced) -> Balanced:
        before = {"answers": earlier.answers, "errors": earlier.errors}
        grown = _grown(before, {"answers": self.answers, "errors": self.errors})
        return Balanced(**grown)


def read_exposition(text: str) -> Served:
    """The counters in what Prometheus reads from a model server, of its requests for predictions alone."""
    latency: dict[str, float] = {}
    predictions: dict[str, float] = {}
    rows = 0.0
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if not found:
            continue
        name, labels, value = found[1], {key: _plain(text) for key, text in _LABEL.findall(found[2] or "")}, found[3]
        if name == "model_server_request_seconds_bucket" and _PREDICTING.fullmatch(labels.get("route", "")):
            latency[labels["le"]] = latency.get(labels["le"], 0.0) + float(value)
        elif name == "model_server_predictions_total" and labels.get("output") == _FIRST_OUTPUT:
            predictions[labels["class"]] = float(value)
        elif name == "model_server_rows_total":
            rows = float(value)
    return Served(latency, predictions, rows)


def read_pool(row: Mapping[str, str]) -> Balanced:
    """The counters in a pool's line of ``show stat``: HAProxy's own answers, such as a 503, are among them."""
    kinds = {kind: float(row.get(f"hrsp_{kind}") or 0) for kind in ("1xx", "2xx", "3xx", "4xx", "5xx", "other")}
    return Balanced(sum(kinds.values()), kinds["4xx"] + kinds["5xx"])


def side(balanced: Balanced, served: Iterable[Served]) -> dict[str, Any]:
    """One side of a window as plain data.

    Rows of one request are alike more than those of two. So where a request had several, their predictions are counted
    in proportion as if each request had had one.
    """
    latency: dict[str, float] = {}
    predictions: dict[str, float] = {}
    rows = 0.0
    for server in served:
        for edge, count in server.latency.items():
            latency[edge] = latency.get(edge, 0.0) + count
        for name, count in server.predictions.items():
            predictions[name] = predictions.get(name, 0.0) + count
        rows += server.rows
    requests = latency.get("+Inf", 0.0)
    factor = min(1.0, requests / rows) if rows else 1.0
    return {
        "requests": int(balanced.answers),
        "errors": int(balanced.errors),
        "latency": {edge: int(count) for edge, count in latency.items()},
        "predictions": {name: round(count * factor) for name, count in predictions.items()},
    }


def why_stop(canary: Balanced, baseline: Balanced, least: int = 10) -> str:
    """Why a canary must not go on until its window ends, or nothing: it fails at half of its requests or more.

    ``least`` errors, and a share at least twice that of the baseline, keep chance and what ails both out of it.
    """
    if canary.errors < least or 2 * canary.errors < canary.answers:
        return ""
    share = canary.errors / canary.answers
    if baseline.answers and share < 2 * baseline.errors / baseline.answers:
        return ""
    return (
        f"errors: canary {canary.errors:.0f} of {canary.answers:.0f} against "
        f"{baseline.errors:.0f} of {baseline.answers:.0f}: too many to wait for the end of the window"
    )


def _grown(before: Counts, after: Counts) -> dict[str, float]:
    began_anew = any(after.get(name, 0.0) < count for name, count in before.items())
    return dict(after) if began_anew else {name: count - before.get(name, 0.0) for name, count in after.items()}


def _plain(value: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], value)
