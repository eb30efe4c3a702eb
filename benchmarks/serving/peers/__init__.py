"""The Python model servers that ours is measured beside: how each is asked, and how it answers.

A peer is a folder here: ``requirements.in``, what it is made of; ``requirements.txt``, that pinned; and ``serve.py``,
which is given the file of a pickled model and a port, and serves it on the loopback interface the way the peer's own
guide does, on one worker, without an access log.

To add one: make its folder, enter it in PEERS, and pin it with ``make lock``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent

Rows = list[list[float]]


def instances(rows: Rows) -> Any:
    return {"instances": rows}


def predictions(answer: Any) -> list[Any]:
    return list(answer["predictions"])


def _tensor(rows: Rows) -> Any:
    flat = [value for row in rows for value in row]
    return {"inputs": [{"name": "rows", "shape": [len(rows), len(rows[0])], "datatype": "FP64", "data": flat}]}


@dataclass(frozen=True)
class Peer:
    """``paths``: a peer that is written in more than one way is measured in each, and the faster one counts.

    ``document`` makes of rows what the peer takes as JSON, ``labels`` takes a label for each row out of its answer.
    """

    title: str
    paths: tuple[str, ...] = ("/predict",)
    document: Callable[[Rows], Any] = instances
    labels: Callable[[Any], list[Any]] = predictions

    def body(self, rows: Rows) -> bytes:
        return json.dumps(self.document(rows), separators=(",", ":")).encode()


PEERS = {
    "fastapi": Peer("FastAPI + uvicorn", paths=("/loop/predict", "/threads/predict")),
    "flask": Peer("Flask + gunicorn gthread"),
    "mlserver": Peer(
        "MLServer", ("/v2/models/model/infer",), _tensor, labels=lambda answer: list(answer["outputs"][0]["data"])
    ),
    "mlflow": Peer("MLflow models serve", ("/invocations",), lambda rows: {"inputs": rows}),
    "litserve": Peer("LitServe"),
    "bentoml": Peer("BentoML", labels=list),
    "vetiver": Peer(
        "vetiver",
        document=lambda rows: [{str(column): value for column, value in enumerate(row)} for row in rows],
        labels=lambda answer: list(answer["predict"]),
    ),
}
"""By the names of their folders."""
