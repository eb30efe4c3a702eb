# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# /// script
# requires-python = ">=3.11"
# dependencies = ["mlflow-skinny==3.17.2", "fastapi", "uvicorn", "requests"]
# ///
"""Ask a server, and MLflow's own server of the same model, with MLflow's client: ``mlflow_client.py URL MODEL CSV``.

MODEL is a pickle, CSV has its rows, and the environment has the packages that it was pickled with. The answers to right
bodies must be the same; of those to wrong ones, the status and the error code.
"""

from __future__ import annotations

import json
import pickle
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow.sklearn
import pandas as pd
import requests
from mlflow.models import infer_signature
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

JSON, CSV = "application/json", "text/csv"


def bodies(rows: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Right bodies, each with its content type."""
    records = json.loads(rows.to_json(orient="records"))
    split = json.loads(rows.to_json(orient="split"))
    lists = {name: [record[name] for record in records] for name in rows.columns}
    for document in (
        {"dataframe_split": split},
        {"dataframe_split": {**split, "columns": split["columns"][::-1], "data": [row[::-1] for row in split["data"]]}},
        {"dataframe_split": {"columns": split["columns"], "data": split["data"]}},
        {"dataframe_split": {"columns": [*split["columns"], "more"], "data": [[*row, 1] for row in split["data"]]}},
        {"dataframe_records": records},
        {"dataframe_records": [{**record, "more": 1} for record in records]},
        {"instances": records},
        {"inputs": lists},
    ):
        yield json.dumps(document), JSON
    yield json.dumps({"dataframe_records": records, "params": None}), JSON
    yield rows.to_csv(index=False), CSV
    yield rows.to_csv(), CSV
    yield rows[rows.columns[::-1]].to_csv(index=False, lineterminator="\r\n"), CSV


WRONG = (
    ("", JSON),
    ("[]", JSON),
    ("{}", JSON),
    ('{"instances": [[1]], "inputs": [[1]]}', JSON),
    ('{"dataframe_split": []}', JSON),
    ('{"dataframe_split": {"columns": ["a"]}}', JSON),
    ('{"dataframe_records": {}}', JSON),
    ('{"dataframe_records": [{"nothing": 1}]}', JSON),
    ("", CSV),
    ("a\n1\n", CSV),
    ("{}", "application/octet-stream"),
)


def ask(port: int, body: str, content_type: str) -> requests.Response:
    url = f"http://127.0.0.1:{port}/invocations"
    return requests.post(url, data=body.encode(), headers={"Content-Type": content_type}, timeout=30)


def compare(ours: int, theirs: int, rows: pd.DataFrame) -> None:
    for port in (ours, theirs):
        client = ScoringServerClient("127.0.0.1", port)
        client.wait_server_ready(60)
        assert client.get_version() == mlflow.__version__
    expected = ScoringServerClient("127.0.0.1", theirs).invoke(rows)
    assert ScoringServerClient("127.0.0.1", ours).invoke(rows) == expected
    for body, content_type in bodies(rows):
        here, there = ask(ours, body, content_type), ask(theirs, body, content_type)
        assert there.status_code == 200, there.text[:500]
        assert (here.status_code, here.json()) == (200, there.json()), (body[:200], here.text[:200], there.text[:200])
    for body, content_type in WRONG:
        here, there = ask(ours, body, content_type), ask(theirs, body, content_type)
        assert here.status_code == there.status_code, (body, here.text, there.text[:300])
        if there.status_code != 415:
            assert here.json()["error_code"] == there.json()["error_code"], (body, here.text, there.text[:300])


def main(url: str, pickled: str, table: str) -> None:
    model: Any = pickle.loads(Path(pickled).read_bytes())
    rows = pd.read_csv(table)
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        saved = str(Path(folder) / "model")
        signature = infer_signature(rows, model.predict(rows))
        mlflow.sklearn.save_model(model, saved, signature=signature, serialization_format="pickle", pip_requirements=[])
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        serve = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "--model-uri", saved]
        server = subprocess.Popen([*serve, "--port", str(port), "--workers", "1"], start_new_session=True)
        try:
            compare(int(url.rpartition(":")[2]), port, rows.head(20))
        finally:
            stop(server)
    print("as asked")


def stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    server.wait(20)


if __name__ == "__main__":
    main(*sys.argv[1:])
