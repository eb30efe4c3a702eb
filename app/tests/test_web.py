# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from flask import Flask
from flask.testing import FlaskClient

from model_server.scoring.scorer import Scorer
from model_server.web.app import create_app
from model_server.web.logs import JsonFormatter
from model_server.web.protocol import Served
from model_server.web.service import Service
from model_server.web.settings import Settings, settings_from

ROWS = {"instances": [[0.5, 8.0]]}


class Stopping:
    now = False


@pytest.fixture
def stopping() -> Stopping:
    return Stopping()


@pytest.fixture
def settings() -> Settings:
    return Settings(bundle=Path("/unused"), service="size", max_body_bytes=1000)


@pytest.fixture
def app(scorer: Scorer, stopping: Stopping, settings: Settings) -> Flask:
    service = Service(Served(scorer, "size", lambda: stopping.now), settings)
    service.read()
    service.start()
    return create_app(service)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def test_a_prediction(client: FlaskClient) -> None:
    answer = client.post("/predict", json=ROWS)
    assert (answer.status_code, answer.mimetype, answer.json) == (200, "application/json", {"predictions": ["tall"]})


def test_readiness_names_what_answers_and_ends_with_stopping(
    client: FlaskClient, scorer: Scorer, stopping: Stopping
) -> None:
    for path in ("/v2/health/ready", "/v2/models/size/ready"):
        stopping.now = False
        answer = client.get(path)
        who = {"model": "size", "version": "3", "digest": scorer.manifest.digest}
        name = {} if path == "/v2/health/ready" else {"name": "size"}
        expected = {**name, "ready": True, **who, "worker": os.getpid(), "workers": 1}
        assert (answer.status_code, answer.json) == (200, expected)
        stopping.now = True
        assert client.get(path).status_code == 503
        assert client.get(path).get_json()["ready"] is False
    assert client.get("/v2/health/live").status_code == 200


def test_metadata(client: FlaskClient) -> None:
    answer = client.get("/v2/models/size").get_json()
    assert (answer["name"], answer["versions"], answer["platform"]) == ("size", ["3"], "sklearn_pickle")
    assert answer["inputs"][0] == {"name": "width", "datatype": "FP64", "shape": [-1]}
    assert answer["outputs"][1] == {"name": "probabilities", "datatype": "FP64", "shape": [-1, 3]}


@pytest.mark.parametrize(
    ("request_", "status", "detail"),
    [
        ({"path": "/nowhere"}, 404, "The requested URL was not found"),
        ({"path": "/predict"}, 405, "The method is not allowed"),
        ({"path": "/predict", "method": "POST", "data": b"{}"}, 415, "expected application/json, found none"),
        (
            {"path": "/predict", "method": "POST", "data": b"{}", "content_type": "text/csv"},
            415,
            'content type: expected application/json, found "text/csv"',
        ),
        ({"path": "/predict", "method": "POST", "json": {}}, 400, 'expected an object with "instances"'),
        (
            {"path": "/predict", "method": "POST", "json": {"instances": [[1]]}},
            422,
            "row 0: expected 2 values",
        ),
        (
            {"path": "/predict", "method": "POST", "json": {"instances": [["a" * 2000]]}},
            413,
            "expected at most 1000 by",
        ),
    ],
)
def test_errors_are_problem_documents_that_name_the_model(
    client: FlaskClient, scorer: Scorer, request_: dict[str, Any], status: int, detail: str
) -> None:
    answer = client.open(**request_)
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    problem = answer.get_json(force=True)
    assert problem["status"] == status
    assert problem["type"]
    assert problem["title"]
    assert detail in problem["detail"]
    assert answer.headers["X-Model-Version"] == "3"
    assert answer.headers["X-Model-Digest"] == scorer.manifest.digest[:12]


def test_a_problem_has_its_parts(client: FlaskClient) -> None:
    problem = client.post("/predict", json={"instances": [[1, "x"]]}).get_json(force=True)
    assert problem == {
        "type": "urn:modelfleet:problem:contract",
        "title": "The rows do not fit the model's contract",
        "status": 422,
        "detail": "row 0, column 'height': expected a number, found text",
        "row": 0,
        "column": "height",
        "expected": "a number",
        "found": "text",
    }


@pytest.mark.parametrize(
    ("raised", "status", "event"),
    [
        (KeyError("a secret"), 500, "a request failed: the model failed with KeyError"),
        (ValueError("a secret"), 422, "a request failed: the model refuses a value of these rows"),
    ],
)
def test_what_the_model_fails_with_is_logged_without_its_text_and_not_told(
    client: FlaskClient, scorer: Scorer, caplog: pytest.LogCaptureFixture, raised: Exception, status: int, event: str
) -> None:
    word = "secret"

    def fail(table: Any, probabilities: bool) -> None:
        try:
            raise LookupError(f"another {word}")
        except LookupError as error:
            raise raised from error

    with mock.patch.object(type(scorer.predictor), "predict", side_effect=fail):
        answer = client.post("/predict", json=ROWS, headers={"X-Request-ID": "mine", "traceparent": "00-0af7"})
    assert answer.status_code == status
    assert "secret" not in answer.text
    assert "secret" not in caplog.text
    line = json.loads(JsonFormatter().format(caplog.records[0]))
    assert line["event"].startswith(event)
    assert (line["id"], line["traceparent"]) == ("mine", "00-0af7")
    assert "\nLookupError\n" in line["error"]
    assert f"\n{type(raised).__name__}\n" in line["error"]
    assert f'{__file__}", line' in line["error"]
    assert "in fail" in line["error"]


def test_what_the_server_is_to_blame_for_is_logged_not_told(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Scorer, body: bytes) -> None:
        raise RuntimeError("a " + "secret")

    monkeypatch.setattr(Scorer, "predict", fail)
    answer = client.post("/predict", json=ROWS)
    assert answer.status_code == 500
    line = JsonFormatter().format(caplog.records[0])
    assert json.loads(line)["event"] == "a request failed: RuntimeError"
    assert "in fail" in line
    assert "a secret" not in answer.text + caplog.text + line


def test_the_title_of_a_body_too_large_is_the_same_on_every_python(client: FlaskClient) -> None:
    answer = client.post("/predict", data=b" " * 2000, content_type="application/json")
    assert answer.get_json(force=True)["title"] == "Request Entity Too Large"


def test_a_405_says_what_is_allowed(client: FlaskClient) -> None:
    assert "POST" in client.get("/predict").headers["Allow"]


def test_readiness_that_ends_is_counted_as_503(client: FlaskClient, stopping: Stopping) -> None:
    stopping.now = True
    client.get("/v2/health/ready")
    line = 'model_server_requests_total{route="/v2/health/ready",status="503"} 1.0'
    assert line in client.get("/metrics").text.splitlines()


def test_metrics_count_by_route_and_status(client: FlaskClient, scorer: Scorer) -> None:
    client.post("/predict", json={"instances": [[0.5, 8.0], [0.5, 1.0]]})
    client.post("/predict", json={})
    client.get("/a/path/of/the/client")
    lines = client.get("/metrics").text.splitlines()
    for line in (
        'model_server_requests_total{route="/predict",status="200"} 1.0',
        'model_server_requests_total{route="/predict",status="400"} 1.0',
        'model_server_requests_total{route="other",status="404"} 1.0',
        'model_server_request_seconds_count{route="/predict"} 2.0',
        "model_server_rows_total 2.0",
        "model_server_requests_in_flight 1.0",
        f'model_info{{digest="{scorer.manifest.digest}",model="size",scorer="{scorer.form}",version="3"}} 1.0',
    ):
        assert line in lines


def test_settings_have_defaults() -> None:
    settings = settings_from({"MODEL_BUNDLE": "/b", "MODEL_SERVICE": "size", "THREADS": "7"})
    assert (settings.threads, settings.workers, settings.bind) == (7, Settings.workers, "127.0.0.1:8000")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"MODEL_SERVICE": "size"}, "MODEL_BUNDLE: expected a value in the environment, found none"),
        ({"MODEL_BUNDLE": "/b", "MODEL_SERVICE": ""}, "MODEL_SERVICE: expected a value"),
        ({"MODEL_BUNDLE": "/b", "MODEL_SERVICE": "s", "WORKERS": "0"}, "WORKERS: expected a whole number from 1, fo"),
        ({"MODEL_BUNDLE": "/b", "MODEL_SERVICE": "s", "KEEP_ALIVE": "1.5"}, "KEEP_ALIVE: .* found '1.5'"),
        (
            {"MODEL_BUNDLE": "/b", "MODEL_SERVICE": "s", "SCORER": "gpu"},
            "SCORER: expected one of auto, native, found 'gpu'",
        ),
        (
            {"MODEL_BUNDLE": "/b", "MODEL_SERVICE": "s", "CAPTURE_SHARE": "2"},
            "CAPTURE_SHARE: expected a number from 0 to 1, found '2'",
        ),
        (
            {"MODEL_BUNDLE": "/b", "MODEL_SERVICE": "s", "CAPTURE_SHARE": "0.1"},
            "CAPTURE_DIR: expected a folder, for CAPTURE_SHARE is set, found none",
        ),
        (
            {"MODEL_BUNDLE": "/b", "MODEL_SERVICE": "s", "MODEL_DIGEST": "3-0a1b"},
            "MODEL_DIGEST: expected a sha256 in hexadecimal, or its first digits, found '3-0a1b'",
        ),
    ],
)
def test_wrong_settings_are_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings_from(environment)
