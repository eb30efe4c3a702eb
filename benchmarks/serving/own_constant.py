"""A constant answer from our own worker class. ``own_constant.py ANSWER BUNDLE PORT``.

ANSWER is a file with an answer of our server, as a JSON list of its headers and its body. Requests to ``/predict`` go
the whole way of our server, limits, ids, metrics and headers included, but nothing is decoded, predicted or encoded.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from model_server.scoring.load import load
from model_server.web.gunicorn import Server
from model_server.web.protocol import Answer, Ask, Served
from model_server.web.settings import Settings

PREDICT = ("POST", "/predict")


def serve(answer: bytes, bundle: Path, port: int) -> None:
    settings = Settings(bundle, "bench", bind=f"127.0.0.1:{port}", workers=1)
    server = Server(Served(load(bundle), settings.service), settings)
    constant = Answer(200, answer)

    def same(_ask: Ask) -> Answer:
        return constant

    endpoint = server.service.endpoints[PREDICT]
    server.service.endpoints[PREDICT] = replace(endpoint, route=replace(endpoint.route, answer=same))
    server.run()


if __name__ == "__main__":
    _headers, body = json.loads(Path(sys.argv[1]).read_text())
    serve(body.encode(), Path(sys.argv[2]), int(sys.argv[3]))
