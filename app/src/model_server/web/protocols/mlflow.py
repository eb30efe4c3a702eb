# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MLflow's scoring protocol, as ``mlflow models serve`` speaks it: ``/invocations``, ``/ping``, ``/version``."""

from __future__ import annotations

import msgspec

from model_server.scoring.encode import encode
from model_server.scoring.frames import csv_decoder, frame_decoder
from model_server.web.protocol import Answer, Ask, Failure, Protocol, Route, Served

VERSION = "3.17.2"
"""The version of MLflow that this was compared with; clients that ask take it for the server's."""

CSV = "text/csv"

# MLflow's own words, for the kinds of failures that have one. A request that cannot be answered is a bad one.
_ERROR_CODES = {
    "contract": "INVALID_PARAMETER_VALUE",
    "refused": "INVALID_PARAMETER_VALUE",
    "unauthorized": "UNAUTHENTICATED",
    "not_found": "ENDPOINT_NOT_FOUND",
    "busy": "REQUEST_LIMIT_EXCEEDED",
    "model": "INTERNAL_ERROR",
    "server": "INTERNAL_ERROR",
    "deadline": "DEADLINE_EXCEEDED",
}


def routes(served: Served) -> list[Route]:
    contract, score = served.scorer.contract, served.score
    from_json, from_csv = frame_decoder(contract), csv_decoder(contract)
    healthy, stopping, version = Answer(200, b"\n"), Answer(503, b"\n"), Answer(200, VERSION.encode())

    def invocations(ask: Ask) -> Answer:
        scored = score(from_csv(ask.body) if ask.content_type == CSV else from_json(ask.body))
        return Answer(200, encode({"predictions": scored.outputs["predictions"]}), scored=scored)

    def ping(ask: Ask) -> Answer:
        return stopping if served.is_stopping() else healthy

    return [
        Route("POST", "/invocations", invocations, predicts=True, content_types=("application/json", CSV)),
        Route("GET", "/ping", ping, is_open=True),
        Route("GET", "/health", ping, is_open=True),
        Route("GET", "/version", lambda ask: version, is_open=True),
    ]


def failed(failure: Failure) -> Answer:
    code = _ERROR_CODES.get(failure.kind, "BAD_REQUEST")
    status = 400 if failure.status == 422 else failure.status
    return Answer(status, msgspec.json.encode({"error_code": code, "message": failure.detail}))


MLFLOW = Protocol("mlflow", routes, failed)
