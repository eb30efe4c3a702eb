# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Flask application: the routes of one model."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import RequestEntityTooLarge

from model_server.bundle.contract import INTEGERS
from model_server.bundle.manifest import Manifest
from model_server.scoring.decode import decoder
from model_server.scoring.encode import encode
from model_server.scoring.formats import FORMATS
from model_server.scoring.scorer import Scorer
from model_server.web.metrics import Metrics
from model_server.web.problems import UnsupportedMediaType, handle_errors

DATATYPES = {
    **{dtype: dtype.upper() for dtype in INTEGERS},
    "float32": "FP32",
    "float64": "FP64",
    "bool": "BOOL",
    "string": "BYTES",
    "category": "BYTES",
}
"""The Open Inference Protocol's names of the contract's dtypes."""


def model_headers(manifest: Manifest) -> dict[str, str]:
    """What every answer says of the model, an error of the server's own too."""
    return {"X-Model-Version": manifest.version, "X-Model-Digest": manifest.digest[:12]}


def create_app(
    scorer: Scorer, service: str, max_body_bytes: int, is_stopping: Callable[[], bool] = lambda: False
) -> Flask:
    """The application that serves ``scorer`` under the name ``service``, ready until ``is_stopping`` gives true."""
    manifest = scorer.manifest
    app = Flask(__name__, static_folder=None)
    # One byte more than is allowed, for a chunked body is cut off there and its length is the only sign of it.
    app.config["MAX_CONTENT_LENGTH"] = max_body_bytes + 1
    metrics = Metrics(service, manifest.version, manifest.digest)
    metrics.watch(app)
    decode = decoder(scorer.contract)
    handle_errors(app, max_body_bytes)

    @app.after_request
    def name_the_model(response: Response) -> Response:
        response.headers.update(model_headers(manifest))
        return response

    @app.post("/predict")
    def predict() -> Response:
        if request.mimetype != "application/json":
            raise UnsupportedMediaType("application/json", request.mimetype)
        body = request.get_data(cache=False)
        if len(body) > max_body_bytes:
            raise RequestEntityTooLarge
        asked = decode(body)
        answer = encode(scorer.predict(asked))
        metrics.rows.inc(asked.count)
        return Response(answer, content_type="application/json")

    @app.get("/v2/health/live")
    def live() -> Response:
        return jsonify(live=True)

    @app.get("/v2/health/ready")
    @app.get(f"/v2/models/{service}/ready")
    def ready() -> tuple[Response, int]:
        is_ready = not is_stopping()
        answer = jsonify(ready=is_ready, model=service, version=manifest.version, digest=manifest.digest)
        return answer, 200 if is_ready else 503

    @app.get(f"/v2/models/{service}")
    def metadata() -> Response:
        contract = scorer.contract
        return jsonify(
            name=service,
            versions=[manifest.version],
            platform=FORMATS[manifest.model_format].platform,
            inputs=[
                {"name": column.name, "datatype": DATATYPES[column.dtype], "shape": [-1]} for column in contract.inputs
            ],
            outputs=[
                {"name": output.name, "datatype": DATATYPES[output.dtype], "shape": list(output.shape)}
                for output in contract.outputs
            ],
        )

    @app.get("/metrics")
    def exposition() -> Response:
        return Response(metrics.exposition(), content_type=metrics.content_type)

    return app
