# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Open Inference Protocol, version 2, over HTTP: https://github.com/kserve/open-inference-protocol."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from model_server import __version__
from model_server.scoring.errors import BodyError, shown
from model_server.scoring.formats import FORMATS
from model_server.scoring.tensors import DATATYPE, datatype, tensor_decoder, tensor_encoder
from model_server.web.protocol import Answer, Ask, Failure, Protocol, Route, Served

_JSON_LENGTH = "Inference-Header-Content-Length"
_BINARY = "application/octet-stream"


def routes(served: Served) -> list[Route]:
    manifest = served.scorer.manifest
    model = f"/v2/models/{served.service}"
    live = _constant({"live": True})
    server = _constant(
        {"name": "modelfleet-model-server", "version": __version__, "extensions": ["binary_tensor_data"]}
    )
    metadata = _constant(_metadata(served))
    who = {"model": served.service, "version": manifest.version, "digest": manifest.digest}

    def ready(named: Mapping[str, str]) -> Answer:
        stopping = served.is_stopping()
        # Which of the workers answers, so that who wants to ask each of them knows when that is done.
        document = {**named, "ready": not stopping, **who, "worker": os.getpid(), "workers": served.workers}
        return _constant(document)._replace(status=503 if stopping else 200)

    def model_ready(ask: Ask) -> Answer:
        return ready({"name": served.service})

    infer = _infer(served)
    found = [
        Route("GET", "/v2", lambda ask: server),
        Route("GET", "/v2/health/live", lambda ask: live, is_open=True),
        Route("GET", "/v2/health/ready", lambda ask: ready({}), is_open=True),
    ]
    for path in (model, f"{model}/versions/{manifest.version}"):
        found += [
            Route("GET", path, lambda ask: metadata),
            Route("GET", f"{path}/ready", model_ready, is_open=True),
            # Clients of the protocol send JSON without saying so.
            Route("POST", f"{path}/infer", infer, True, ("application/json", _BINARY, "")),
        ]
    return found


def failed(failure: Failure) -> Answer:
    """The protocol knows no rows that do not fit: a request that cannot be answered is a bad one."""
    status = 400 if failure.status == 422 else failure.status
    return Answer(status, msgspec.json.encode({"error": failure.detail}))


def _infer(served: Served) -> Any:
    contract, score = served.scorer.contract, served.score
    decode = tensor_decoder(contract)
    encode = tensor_encoder(contract, served.service, served.scorer.manifest.version)

    def answer(ask: Ask) -> Answer:
        asked = decode(ask.body, _json_length(ask.headers))
        scored = score(asked.request)
        body, length = encode(asked, scored.outputs)
        if length is None:
            return Answer(200, body, scored=scored)
        return Answer(200, body, _BINARY, scored, ((_JSON_LENGTH, str(length)),))

    return answer


def _json_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    for name, value in headers:
        if name == b"inference-header-content-length":
            if not value.isdigit() or len(value) > 18:
                raise BodyError(f"{_JSON_LENGTH}: expected a number of bytes, found {shown(value.decode('latin-1'))}")
            return int(value)
    return None


def _metadata(served: Served) -> dict[str, Any]:
    contract, manifest = served.scorer.contract, served.scorer.manifest
    return {
        "name": served.service,
        "versions": [manifest.version],
        "platform": FORMATS[manifest.model_format].platform,
        "inputs": [{"name": column.name, "datatype": datatype(column), "shape": [-1]} for column in contract.inputs],
        "outputs": [
            {"name": output.name, "datatype": DATATYPE.get(output.dtype, "BYTES"), "shape": output.shape}
            for output in contract.outputs
        ],
    }


def _constant(document: dict[str, Any]) -> Answer:
    return Answer(200, msgspec.json.encode(document))


OPEN_INFERENCE = Protocol("open_inference", routes, failed, prefix="/v2")
