# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Prometheus reads. With PROMETHEUS_MULTIPROC_DIR in the environment the workers' values are added up."""

from __future__ import annotations

import os
import time

from flask import Flask, Response, g, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

# From a small model's milliseconds to a large batch's seconds.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one application, in a registry of its own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, model: str, version: str, digest: str) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "model_server_requests", "Requests answered", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "model_server_request_seconds", "Time to answer", ["route"], registry=self.registry, buckets=SECONDS
        )
        self.in_flight = Gauge(
            "model_server_requests_in_flight",
            "Requests being answered",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.rows = Counter("model_server_rows", "Rows predicted", registry=self.registry)
        info = Gauge(
            "model_info",
            "The model that is served",
            ["model", "version", "digest"],
            registry=self.registry,
            multiprocess_mode="max",
        )
        info.labels(model, version, digest).set(1)

    def watch(self, app: Flask) -> None:
        """Count and time every request of ``app``."""

        @app.before_request
        def begin() -> None:
            g.begun = time.perf_counter()
            self.in_flight.inc()

        @app.after_request
        def count(response: Response) -> Response:
            # The rule, not the path: what clients ask for must not grow the number of series.
            route = request.url_rule.rule if request.url_rule else "other"
            self.requests.labels(route, str(response.status_code)).inc()
            self.seconds.labels(route).observe(time.perf_counter() - g.begun)
            return response

        @app.teardown_request
        def end(error: BaseException | None) -> None:
            self.in_flight.dec()

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        every_process = CollectorRegistry()
        MultiProcessCollector(every_process)
        return generate_latest(every_process)
