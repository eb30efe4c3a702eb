# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Prometheus reads: counted by each worker in its own lane, added up when it is asked for."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from model_server.bundle.contract import Contract, Output
from model_server.scoring.scorer import Scored
from model_server.scoring.table import Table
from model_server.web.failures import KINDS
from model_server.web.lanes import Lanes
from model_server.web.protocol import Served

# From a small model's microseconds to a large batch's seconds.
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

# Beside those of failures that of a health check once the server stops.
STATUSES = (200, *sorted({503, *(int(status) for status, _title in KINDS.values())}))

OTHER = "other"
"""The route of what is no route, and the status of what is none of ours: clients must not grow the number of series."""

PENDING_ROWS = 32
"""Rows that are looked at together: counting row by row would take longer than many a model, and counting hundreds at
once as long as several requests, which wait meanwhile."""

BUCKETS = 10
"""How many buckets a histogram of predicted numbers has, beside the one above all."""

LARGEST_OUTPUTS = 32
"""How many values a row of predictions may have for each to be counted."""


class Layout:
    """Which cell of a lane counts what. Names are given out in order, so every worker has the same layout."""

    def __init__(self) -> None:
        self.width = 0

    def take(self, count: int = 1) -> int:
        """The first of ``count`` cells in a row."""
        first = self.width
        self.width += count
        return first


class Metrics:
    """The counts of one served model. ``routes`` are the paths that are counted by name; lane 0 is used until ``use``.

    A worker calls all of this in one thread.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, served: Served, routes: Sequence[str], lanes: int = 1) -> None:
        layout = Layout()
        self.routes = (*routes, OTHER)
        self._requests = [{status: layout.take() for status in (*STATUSES, 0)} for _route in self.routes]
        self._seconds = [layout.take(len(SECONDS) + 2) for _route in self.routes]
        self._errors = {kind: layout.take() for kind in KINDS}
        self._rows, self._in_flight, self._queued = layout.take(), layout.take(), layout.take()
        contract = served.scorer.contract
        self._columns = _Columns(contract, layout)
        self._predictions = _Predictions(contract, served.golden, layout)
        self._pending: list[Scored] = []
        self._pending_rows = 0
        manifest = served.scorer.manifest
        self._model = {
            "model": served.service,
            "version": manifest.version,
            "digest": manifest.digest,
            "scorer": served.scorer.form,
        }
        self.lanes = lanes
        self._lanes = Lanes(lanes, layout.width)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self.use(0)

    def use(self, lane: int) -> None:
        """Count in ``lane`` from now on, where its worker before ended; what went with that worker is over."""
        self._cells, self._array = self._lanes.cells(lane), self._lanes.array(lane)
        self.forget(lane)

    def forget(self, lane: int) -> None:
        """Of the worker that had ``lane``, nothing is in flight any more."""
        cells = self._lanes.cells(lane)
        cells[self._in_flight] = cells[self._queued] = 0.0

    def answered(self, route: int, status: int, kind: str, seconds: float) -> None:
        """A request to the route of that number has been answered; ``kind`` is its failure's, or empty."""
        cells = self._cells
        requests = self._requests[route]
        cells[requests.get(status, requests[0])] += 1
        first = self._seconds[route]
        cells[first + bisect_left(SECONDS, seconds)] += 1
        cells[first + len(SECONDS) + 1] += seconds
        if kind:
            cells[self._errors[kind]] += 1

    def scored(self, scored: Scored) -> None:
        """Rows were predicted. What they say of drift is counted by ``look``, which this calls now and then."""
        count = scored.request.count
        self._cells[self._rows] += count
        self._pending.append(scored)
        self._pending_rows += count
        if self._pending_rows >= PENDING_ROWS:
            self.look()

    def in_flight(self, change: int) -> None:
        self._cells[self._in_flight] += change

    def queued(self, count: int) -> None:
        """So many requests wait for the model now."""
        self._cells[self._queued] = count

    def look(self) -> None:
        """Count missing and unusual values, and predictions, of the rows since the last look."""
        pending, self._pending, self._pending_rows = self._pending, [], 0
        if pending:
            self._columns.count([scored.request.table for scored in pending], self._array)
            self._predictions.count([scored.outputs[self._predictions.name] for scored in pending], self._array)

    def exposition(self) -> bytes:
        """The text that Prometheus reads, of all workers."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks of a collector."""
        cells = self._lanes.total()
        requests = CounterMetricFamily("model_server_requests", "Requests answered", labels=("route", "status"))
        seconds = HistogramMetricFamily("model_server_request_seconds", "Time to answer", labels=("route",))
        for route, statuses, first in zip(self.routes, self._requests, self._seconds, strict=True):
            for status, cell in statuses.items():
                if cells[cell]:
                    requests.add_metric((route, str(status) if status else OTHER), cells[cell])
            counts = cells[first : first + len(SECONDS) + 1]
            if any(counts):
                seconds.add_metric((route,), _buckets(SECONDS, counts), cells[first + len(SECONDS) + 1])
        errors = CounterMetricFamily("model_server_errors", "Requests that failed", labels=("kind",))
        for kind, cell in self._errors.items():
            errors.add_metric((kind,), cells[cell])
        yield from (requests, seconds, errors)
        yield CounterMetricFamily("model_server_rows", "Rows predicted", cells[self._rows])
        yield GaugeMetricFamily("model_server_requests_in_flight", "Requests being answered", cells[self._in_flight])
        yield GaugeMetricFamily("model_server_queue", "Requests that wait for the model", cells[self._queued])
        yield from self._columns.metrics(cells)
        yield from self._predictions.metrics(cells)
        info = GaugeMetricFamily("model_info", "The model that is served", labels=tuple(self._model))
        info.add_metric(tuple(self._model.values()), 1)
        yield info


def _buckets(edges: Sequence[float], counts: Iterable[float]) -> list[tuple[str, float]]:
    """Counts of each bucket as Prometheus has them: those up to each edge."""
    return list(zip([*map(repr, edges), "+Inf"], accumulate(counts), strict=True))


class _Columns:
    """How often each input column was missing, or outside the range that the training data had."""

    def __init__(self, contract: Contract, layout: Layout) -> None:
        self._names = contract.names
        self._missing = layout.take(len(self._names))
        self._outside = layout.take(len(self._names))
        self._low = np.array([-np.inf if column.minimum is None else column.minimum for column in contract.inputs])
        self._high = np.array([np.inf if column.maximum is None else column.maximum for column in contract.inputs])
        self._bounded = [
            place
            for place, column in enumerate(contract.inputs)
            if column.minimum is not None or column.maximum is not None
        ]

    def count(self, tables: Sequence[Table], lane: np.ndarray[Any, Any]) -> None:
        width = len(self._names)
        matrices = [table for table in tables if isinstance(table, np.ndarray)]
        if matrices:
            found = matrices[0] if len(matrices) == 1 else np.concatenate(matrices)
            lane[self._missing : self._missing + width] += np.isnan(found).sum(axis=0)
            lane[self._outside : self._outside + width] += ((found < self._low) | (found > self._high)).sum(axis=0)
        for table in tables:
            if isinstance(table, np.ndarray):
                continue
            for place, values in enumerate(table):
                if values.dtype.kind in "fOM":
                    # Only NaN, and NaT of dates, differ from themselves.
                    lane[self._missing + place] += int(np.count_nonzero(np.not_equal(values, values)))
            for place in self._bounded:
                values = table[place]
                if values.dtype.kind in "biuf":
                    outside = (values < self._low[place]) | (values > self._high[place])
                    lane[self._outside + place] += int(np.count_nonzero(outside))

    def metrics(self, cells: Sequence[float]) -> Iterator[Metric]:
        missing = CounterMetricFamily("model_server_column_missing", "Missing values", labels=("column",))
        outside = CounterMetricFamily(
            "model_server_column_out_of_range", "Values outside the range of the training data", labels=("column",)
        )
        for place, name in enumerate(self._names):
            missing.add_metric((name,), cells[self._missing + place])
        for place in self._bounded:
            outside.add_metric((self._names[place],), cells[self._outside + place])
        yield from (missing, outside)


class _Predictions:
    """What was predicted: how often each class, or a histogram of numbers over the range of the golden rows.

    Of an anomaly detector the numbers are its scores, for its predictions are two alone. ``name`` is the output's.
    """

    def __init__(self, contract: Contract, golden: Mapping[str, Any], layout: Layout) -> None:
        self.name = "scores" if contract.has_scores else contract.outputs[0].name
        output: Output = next(output for output in contract.outputs if output.name == self.name)
        values = output.shape[1] if len(output.shape) == 2 else 1
        self._count = values if values <= LARGEST_OUTPUTS and len(output.shape) <= 2 else 0
        classes = output.classes or ()
        of_each = classes if classes and isinstance(classes[0], tuple) else (classes,) * self._count
        self._classes = [{value: number for number, value in enumerate(found)} for found in of_each[: self._count]]
        golden_rows = golden.get(self.name, ())
        self._edges = [() if found else _edges(golden_rows, place) for place, found in enumerate(self._classes)]
        # A cell for each class and one for what is none, or one for each bucket, the last, and the sum.
        self._first = [layout.take(len(found) + 1 if found else BUCKETS + 2) for found in self._classes]

    def count(self, outputs: Sequence[np.ndarray[Any, Any]], lane: np.ndarray[Any, Any]) -> None:
        if not self._count:
            return
        found = outputs[0] if len(outputs) == 1 else np.concatenate(outputs)
        table = found.reshape(len(found), -1)
        for values, first, known, edges in zip(table.T, self._first, self._classes, self._edges, strict=False):
            if known:
                for value, count in Counter(values.tolist()).items():
                    lane[first + known.get(value, len(known))] += count
            elif values.dtype.kind in "biuf" and edges:
                numbers = values[np.isfinite(values)].astype(np.float64, copy=False)
                buckets = np.searchsorted(edges, numbers)
                lane[first : first + BUCKETS + 1] += np.bincount(buckets, minlength=BUCKETS + 1)
                lane[first + BUCKETS + 1] += numbers.sum()

    def metrics(self, cells: Sequence[float]) -> Iterator[Metric]:
        classes = CounterMetricFamily("model_server_predictions", "Predictions", labels=("output", "class"))
        numbers = HistogramMetricFamily("model_server_prediction_values", "Predicted numbers", labels=("output",))
        of_each = zip(self._first, self._classes, self._edges, strict=True)
        for place, (first, known, edges) in enumerate(of_each):
            for value, offset in known.items():
                classes.add_metric((str(place), str(value)), cells[first + offset])
            if known and cells[first + len(known)]:
                classes.add_metric((str(place), OTHER), cells[first + len(known)])
            if edges:
                buckets = _buckets(edges, cells[first : first + BUCKETS + 1])
                numbers.add_metric((str(place),), buckets, cells[first + BUCKETS + 1])
        yield classes if any(self._classes) else numbers


def _edges(predictions: Sequence[Any], place: int) -> tuple[float, ...]:
    """BUCKETS edges over the range of what the golden rows gave; none if they gave no numbers."""
    values = [row[place] if isinstance(row, list) else row for row in predictions]
    numbers = [float(value) for value in values if isinstance(value, (int, float))]
    if not numbers:
        return ()
    low, high = min(numbers), max(numbers)
    step = (high - low) / (BUCKETS - 1) or 1.0
    # Few digits, for each edge is a name in Prometheus. Equal ones would be one series twice.
    edges = [float(f"{low + step * number:.4g}") for number in range(BUCKETS)]
    if sorted(set(edges)) != edges:
        edges = [low + step * number for number in range(BUCKETS)]
    return tuple(edges) if sorted(set(edges)) == edges else ()
