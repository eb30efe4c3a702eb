# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator sees and sets: metrics, the log, request ids, API keys, captured requests."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib.metadata
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from flask.testing import FlaskClient
from sklearn.ensemble import IsolationForest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

from model_server.bundle.build import write
from model_server.bundle.contract import Contract, Input, Output, encode_contract
from model_server.scoring.load import load
from model_server.scoring.scorer import Scored, Scorer
from model_server.scoring.table import Request, column_array
from model_server.web.app import create_app
from model_server.web.capture import Capture
from model_server.web.keys import read_keys
from model_server.web.logs import JsonFormatter
from model_server.web.protocol import Served
from model_server.web.service import Service
from model_server.web.settings import Settings, settings_from

TALL, SHORT = [0.5, 8.0], [0.5, 1.0]


def client_of(scorer: Scorer, golden: dict[str, Any] | None = None, **settings: Any) -> FlaskClient:
    service = Service(Served(scorer, "size", golden=golden or {}), Settings(Path("/unused"), "size", **settings))
    service.read()
    service.start()
    return create_app(service).test_client()


def samples(client: FlaskClient) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_predicted_classes_are_counted(scorer: Scorer) -> None:
    client = client_of(scorer)
    client.post("/predict", json={"instances": [TALL, TALL, SHORT]})
    client.post("/predict", json={"instances": [TALL] * 300})
    found = samples(client)
    assert found['model_server_predictions_total{class="tall",output="0"}'] == 302
    assert found['model_server_predictions_total{class="short",output="0"}'] == 1
    assert found['model_server_predictions_total{class="middle",output="0"}'] == 0
    assert found["model_server_rows_total"] == 303


def test_of_several_labels_a_row_each_is_counted(bundle_of: Callable[..., Path], mixed: pd.DataFrame) -> None:
    rows = mixed[["width", "height"]]
    labels = pd.DataFrame({"size": np.where(rows["height"] > 5, "tall", "short"), "city": mixed["city"]})
    scorer = load(bundle_of(DecisionTreeClassifier(random_state=0).fit(rows, labels), rows))
    assert scorer.contract.outputs[0].classes == (("short", "tall"), ("Bonn", "Köln"))
    client = client_of(scorer)
    answer = client.post("/predict", json={"instances": [TALL, SHORT, TALL]})
    cities = [city for _size, city in answer.get_json()["predictions"]]
    found = samples(client)
    assert [found[f'model_server_predictions_total{{class="{name}",output="0"}}'] for name in ("short", "tall")] == [
        1,
        2,
    ]
    for city in ("Bonn", "Köln"):
        assert found[f'model_server_predictions_total{{class="{city}",output="1"}}'] == cities.count(city)


def test_predicted_numbers_are_a_histogram_over_what_the_golden_rows_gave(
    bundle_of: Callable[..., Path], regression: Any, numbers: pd.DataFrame
) -> None:
    bundle = bundle_of(regression, numbers)
    golden = json.loads((bundle / "golden.json").read_text())
    client = client_of(load(bundle), golden)
    answer = client.post("/predict", json={"instances": golden["instances"]}).get_json()
    assert answer["predictions"] == golden["predictions"]
    found = samples(client)
    buckets = [value for name, value in found.items() if name.startswith("model_server_prediction_values_bucket")]
    assert len(buckets) == 11
    assert buckets == sorted(buckets)
    assert buckets[0] >= 1
    assert buckets[-1] == found['model_server_prediction_values_count{output="0"}'] == len(golden["instances"])
    assert found['model_server_prediction_values_sum{output="0"}'] == pytest.approx(sum(golden["predictions"]))


def test_of_an_anomaly_detector_the_scores_are_a_histogram(
    bundle_of: Callable[..., Path], numbers: pd.DataFrame
) -> None:
    bundle = bundle_of(IsolationForest(n_estimators=5, random_state=0).fit(numbers), numbers)
    golden = json.loads((bundle / "golden.json").read_text())
    client = client_of(load(bundle), golden)
    scores = client.post("/predict", json={"instances": golden["instances"]}).get_json()["scores"]
    found = samples(client)
    buckets = [value for name, value in found.items() if name.startswith("model_server_prediction_values_bucket")]
    # Two predictions would fill the first and the last one alone.
    assert len(set(buckets)) > 3
    assert buckets[-1] == len(scores)
    edges = [float(name.split('"')[1]) for name in found if name.startswith("model_server_prediction_values_bucket")]
    assert [edges[0], edges[-2]] == pytest.approx([min(scores), max(scores)], abs=1e-3)
    assert not [name for name in found if name.startswith("model_server_predictions_total")]


def test_missing_and_unusual_values_are_counted_by_column(
    bundle_of: Callable[..., Path], mixed_classifier: Any, mixed: pd.DataFrame
) -> None:
    client = client_of(load(bundle_of(mixed_classifier, mixed)))
    row = json.loads(mixed.iloc[[1]].to_json(orient="records"))[0]
    rows = [row, {**row, "weight": None}, {**row, "width": 99.0, "count": -5}, {**row, "width": -99.0}]
    assert client.post("/predict", json={"instances": rows}).status_code == 200
    found = samples(client)
    assert found['model_server_column_missing_total{column="weight"}'] == 1
    assert found['model_server_column_missing_total{column="city"}'] == 0
    assert found['model_server_column_out_of_range_total{column="width"}'] == 2
    assert found['model_server_column_out_of_range_total{column="count"}'] == 1
    assert 'model_server_column_out_of_range_total{column="city"}' not in found


@pytest.mark.parametrize("unit", ["s", "ns"])
def test_missing_dates_are_counted(scorer: Scorer, unit: str) -> None:
    column = Input("seen", f"datetime64[{unit}]", nullable=True)
    contract = Contract(True, (column, Input("width", "float64")), scorer.contract.outputs)
    service = Service(
        Served(Scorer(scorer.manifest, contract, scorer.predictor), "size"), Settings(Path("/unused"), "size")
    )
    dates = column_array(column, ["2026-05-31", None, None])
    outputs = {"predictions": np.array(["tall"] * 3)}
    service.metrics.scored(Scored(Request((dates, np.zeros(3)), 3), outputs))
    service.tick()
    assert 'model_server_column_missing_total{column="seen"} 2.0' in service.metrics.exposition().decode()


def test_numbers_are_looked_at_in_the_same_way(scorer: Scorer) -> None:
    client = client_of(scorer)
    client.post("/predict", json={"instances": [[99.0, 5.0], [0.0, 5.0], [-99.0, 99.0]]})
    found = samples(client)
    assert found['model_server_column_out_of_range_total{column="width"}'] == 2
    assert found['model_server_column_out_of_range_total{column="height"}'] == 1


def test_errors_are_counted_by_kind(scorer: Scorer) -> None:
    client = client_of(scorer)
    client.post("/predict", json={})
    client.post("/predict", json={"instances": [[1]]})
    client.post("/predict", data=b"")
    client.get("/nowhere")
    found = samples(client)
    for kind in ("body", "contract", "media_type", "not_found"):
        assert found[f'model_server_errors_total{{kind="{kind}"}}'] == 1
    assert found['model_server_errors_total{kind="busy"}'] == 0


@pytest.mark.parametrize(("given", "is_kept"), [("a" * 128, True), ("a" * 129, False), ("a b", False), ("ä", False)])
def test_a_request_id_is_the_clients_if_it_is_one(scorer: Scorer, given: str, is_kept: bool) -> None:
    client = client_of(scorer)
    found = [client.get("/v2", headers={"X-Request-ID": given}).headers["X-Request-ID"] for _attempt in range(2)]
    assert (found == [given, given]) is is_kept
    assert is_kept or len(set(found)) == 2


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    hashes = [hashlib.sha256(key.encode()).hexdigest() for key in ("first", "second")]
    path.write_text(f"# who may ask\nana {hashes[0]}\n\nben {hashes[1]}\n")
    return path


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer second"}, 200),
        ({"X-API-Key": "first"}, 200),
        ({"X-API-Key": "third"}, 401),
        ({"Authorization": "Basic first"}, 401),
        ({}, 401),
    ],
)
def test_with_api_keys_only_who_has_one_is_answered(
    scorer: Scorer, keys: Path, headers: dict[str, str], status: int
) -> None:
    client = client_of(scorer, api_keys=keys)
    for answer in (
        client.post("/predict", json={"instances": [TALL]}, headers=headers),
        client.get("/metrics", headers=headers),
        client.get("/v2/models/size", headers=headers),
    ):
        assert answer.status_code == status
        assert answer.headers.get("WWW-Authenticate") == ("Bearer" if status == 401 else None)
    assert client.get("/v2/health/ready").status_code == 200
    # Who has no key does not learn what there is.
    assert client.get("/nowhere", headers=headers).status_code == (401 if status == 401 else 404)


def test_the_gates_have_a_key_of_their_own_beside_those_of_the_file(scorer: Scorer, keys: Path) -> None:
    gate = hashlib.sha256(b"gate").hexdigest()
    for told, status in ((gate, 200), ("", 401)):
        client = client_of(scorer, api_keys=keys, gate_key_sha256=told)
        answer = client.post("/predict", json={"instances": [TALL]}, headers={"X-API-Key": "gate"})
        assert answer.status_code == status
        assert client.get("/v2", headers={"X-API-Key": "first"}).status_code == 200
        assert client.get("/v2", headers={"X-API-Key": gate}).status_code == 401
    with pytest.raises(ValueError, match="GATE_KEY_SHA256: expected a sha256 in hexadecimal, found 6 other characters"):
        settings_from({"MODEL_BUNDLE": "b", "MODEL_SERVICE": "s", "GATE_KEY_SHA256": "secret"})


def test_keys_have_owners(keys: Path) -> None:
    found = read_keys(keys)
    assert found.owner({b"x-api-key": b"second"}) == "ben"
    assert found.owner({b"authorization": b"bearer first"}) == "ana"
    assert found.owner({}) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected at least one key, found none"),
        ("ana secret", "line 1: expected a name of its own and the sha256 of a key"),
        (f"ana {'0' * 64}\nana {'1' * 64}", "line 2: expected a name of its own"),
    ],
)
def test_a_file_of_keys_that_is_wrong_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_keys(path)


def captured(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def capture_of(scorer: Scorer, folder: Path, **options: Any) -> Capture:
    given = {"share": 1.0, "max_bytes": 64 * 1024, "redacted": (), "writers": 1, **options}
    return Capture(Served(scorer, "size"), folder, **given)


def score(scorer: Scorer, rows: list[list[float]]) -> Any:
    return Served(scorer, "size").score(Request(np.array(rows), len(rows), probabilities=True))


def test_captured_requests_can_be_sent_again(scorer: Scorer, tmp_path: Path) -> None:
    folder = tmp_path / "captured"
    client = client_of(scorer, capture_dir=folder, capture_share=1.0)
    sent = {"instances": [TALL, SHORT], "probabilities": True}
    answer = client.post("/predict", json=sent, headers={"X-Request-ID": "mine"})
    client.application.extensions["service"].tick()
    (line,) = captured(folder)
    assert (line["id"], line["service"], line["version"]) == ("mine", "size", "3")
    assert (line["digest"], line["columns"]) == (scorer.manifest.digest, ["width", "height"])
    assert line["outputs"] == answer.json
    again = client.post("/predict", json={"instances": line["instances"], "probabilities": True})
    assert again.json == answer.json
    assert [path.stat().st_mode & 0o077 for path in folder.iterdir()] == [0]


def test_what_gates_ask_is_not_captured(scorer: Scorer, tmp_path: Path) -> None:
    capture = capture_of(scorer, tmp_path)
    capture.take("modelfleet-gate", score(scorer, [TALL]))
    capture.take("a client's", score(scorer, [TALL]))
    capture.write()
    assert [line["id"] for line in captured(tmp_path)] == ["a client's"]


def test_mixed_columns_are_captured_as_json_has_them(
    bundle_of: Callable[..., Path], mixed_classifier: Any, mixed: pd.DataFrame, tmp_path: Path
) -> None:
    client = client_of(
        load(bundle_of(mixed_classifier, mixed)), capture_dir=tmp_path, capture_share=1.0, capture_redact=("city",)
    )
    rows = json.loads(mixed.head(6).to_json(orient="records"))
    client.post("/predict", json={"instances": rows})
    client.application.extensions["service"].tick()
    (line,) = captured(tmp_path)
    assert "city" not in line["columns"]
    for row in rows:
        del row["city"]
    assert [dict(zip(line["columns"], row, strict=True)) for row in line["instances"]] == rows


ECHO = """
import numpy as np

class Echo:
    def predict(self, frame):
        return np.array(["; ".join(map(repr, row)) for row in frame.itertuples(index=False)])
"""

NUMBERS = [
    (Input("flag", "bool"), True, False),
    (Input("small", "int8"), -128, 127),
    (Input("whole", "int64"), 3, -(1 << 52)),
    (Input("single", "float32"), 0.1, 3e38),
    (Input("double", "float64", nullable=True), 0.1, None),
]
LARGE = [(Input("large", "uint64"), (1 << 64) - 1, 0)]
OTHERS = [
    (Input("maybe", "bool", nullable=True), True, None),
    (Input("text", "string", nullable=True), "Köln", None),
    (Input("grade", "category", nullable=True, categories=("low", "high"), ordered=True), "high", None),
    (Input("size", "category", categories=(1, 2)), 1, 2),
    *(
        (Input(unit, f"datetime64[{unit}]", nullable=True), "2026-05-31T18:30:01", None)
        for unit in ("s", "ms", "us", "ns")
    ),
    (Input("fine", "datetime64[ns]"), "2026-05-31T18:30:01.000001", "2200-01-01"),
]


@pytest.mark.parametrize("redacts", [False, True])
@pytest.mark.parametrize("kinds", [NUMBERS[1:], NUMBERS, NUMBERS + LARGE, NUMBERS + LARGE + OTHERS])
def test_every_kind_of_column_is_captured_as_a_body_that_is_answered_alike(
    start: Callable[..., Any], tmp_path: Path, kinds: list[tuple[Input, Any, Any]], redacts: bool
) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "echo_model.py").write_text(ECHO)
    contract = Contract(True, tuple(column for column, *_values in kinds), (Output("predictions", "string", (-1,)),))
    pins = (f"{name}=={importlib.metadata.version(name)}\n" for name in ("numpy", "pandas"))
    files = {
        "model.pkl": b"cecho_model\nEcho\n)\x81.",
        "contract.json": json.dumps(encode_contract(contract)).encode(),
        "golden.json": b"{}",
        "requirements.lock": "".join(pins).encode(),
    }
    write(tmp_path / "echo", files, name="echo", version="1", model_format="pickle", model_path="model.pkl")
    rows = [list(row) for row in zip(*(values for _column, *values in kinds), strict=True)]
    redacted = {"CAPTURE_REDACT": kinds[0][0].name} if redacts else {}
    folder = tmp_path / "captured"
    server = start(tmp_path / "echo", WORKERS="1", CAPTURE_DIR=str(folder), CAPTURE_SHARE="1", **redacted)
    with server.connection() as connection:

        def predicted(instances: list[list[Any]]) -> Any:
            body = json.dumps({"instances": instances})
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            found = json.loads(answer.read())
            assert answer.status == 200, found
            return found

        first = predicted(rows)
        deadline = time.monotonic() + 10
        while not captured(folder) and time.monotonic() < deadline:
            time.sleep(0.05)
        (line,) = captured(folder)
        assert line["outputs"] == first
        if redacts:
            line["instances"] = [[rows[number][0], *row] for number, row in enumerate(line["instances"])]
        assert predicted(line["instances"]) == first


def test_a_share_is_captured_and_redacted_columns_are_not(scorer: Scorer, tmp_path: Path) -> None:
    capture = capture_of(scorer, tmp_path, share=0.1, redacted=("width",))
    for number in range(100):
        capture.take(str(number), score(scorer, [TALL]))
    capture.write()
    lines = captured(tmp_path)
    assert len(lines) == 10
    assert (lines[0]["columns"], lines[0]["instances"]) == (["height"], [[8.0]])


def test_captured_files_never_take_more_than_their_bytes(scorer: Scorer, tmp_path: Path) -> None:
    folder = tmp_path / "captured"
    captures = [capture_of(scorer, folder, writers=2, max_bytes=32_768) for _writer in range(2)]
    for number in range(600):
        captures[number % 2].take(str(number), score(scorer, [TALL]))
        captures[number % 2].write()
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 32_768
    found = [int(line["id"]) for line in captured(folder)]
    # The newest are there, the oldest are not.
    assert 599 in found
    assert 0 not in found
    assert len(found) > 50


def test_a_column_that_is_not_there_cannot_be_redacted(scorer: Scorer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="CAPTURE_REDACT: expected columns of the contract, found 'depth'"):
        capture_of(scorer, tmp_path, redacted=("depth",))


@pytest.mark.parametrize("form", ["trees", "native"])
def test_text_that_no_file_can_hold_is_not_captured_and_the_connection_goes_on(
    start: Callable[..., Any],
    bundle_of: Callable[..., Path],
    mixed_classifier: Any,
    mixed: pd.DataFrame,
    tmp_path: Path,
    form: str,
) -> None:
    if form == "native":
        mixed = mixed[["city"]]
        mixed_classifier = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(mixed["city"], mixed["city"])
    bundle = bundle_of(mixed_classifier, mixed)
    assert load(bundle).form == form
    folder = tmp_path / "captured"
    server = start(bundle, WORKERS="1", THREADS="1", CAPTURE_DIR=str(folder), CAPTURE_SHARE="1")
    (row,) = json.loads(mixed.head(1).to_json(orient="records"))
    with server.connection() as connection:
        for number, city in enumerate(("Bonn", "\ud800", "Köln")):
            body = json.dumps({"instances": [{**row, "city": city}]})
            connection.request(
                "POST", "/predict", body, {"Content-Type": "application/json", "X-Request-ID": str(number)}
            )
            answer = connection.getresponse()
            assert (answer.status, answer.read()[:15]) == (200, b'{"predictions":')
    server.process.terminate()
    server.process.wait(10)
    assert [line["id"] for line in captured(folder)] == ["0", "2"]
    (logged,) = (line for line in lines_of(server) if line["event"].startswith("a request is not captured"))
    assert logged["id"] == "1"


def test_labels_that_are_objects_of_numpy_are_answered_and_captured(
    start: Callable[..., Any], bundle_of: Callable[..., Path], numbers: pd.DataFrame, tmp_path: Path
) -> None:
    model = DecisionTreeClassifier(max_depth=2).fit(numbers, numbers["width"] > 0)
    model.classes_ = np.array([np.str_("narrow"), np.str_("wide")], dtype=object)
    folder = tmp_path / "captured"
    server = start(bundle_of(model, numbers), SCORER="native", WORKERS="1", CAPTURE_DIR=str(folder), CAPTURE_SHARE="1")
    tensor = {"name": "rows", "datatype": "FP64", "shape": [1, 2], "data": [0.5, 8.0]}
    with server.connection() as connection:
        for path, sent in (
            ("/predict", {"instances": [TALL]}),
            ("/v2/models/slow/infer", {"inputs": [tensor]}),
            ("/predict", {"instances": [TALL]}),
        ):
            connection.request("POST", path, json.dumps(sent), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            assert (answer.status, b'["wide"]' in answer.read()) == (200, True)
    server.process.terminate()
    server.process.wait(10)
    assert [line["outputs"]["predictions"] for line in captured(folder)] == [["wide"]] * 3


@pytest.mark.parametrize("part", ["model_server.web.capture.Capture.take", "model_server.web.metrics.Metrics.scored"])
def test_what_fails_after_an_answer_is_logged_and_does_not_matter_to_it(
    scorer: Scorer, tmp_path: Path, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    client = client_of(scorer, capture_dir=tmp_path, capture_share=1.0)
    with mock.patch(part, side_effect=TypeError("a value")):
        assert client.post("/predict", json={"instances": [TALL]}, headers={"X-Request-ID": "mine"}).status_code == 200
    (line,) = (json.loads(JsonFormatter().format(record)) for record in caplog.records)
    assert (line["event"], line["id"]) == ("an answered request is not counted or captured: TypeError", "mine")
    with mock.patch("model_server.web.metrics.Metrics.look", side_effect=TypeError("a value")):
        client.application.extensions["service"].tick()
    assert "a value" not in caplog.text


def test_a_full_disk_ends_the_capture_and_not_the_service(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(scorer, capture_dir=tmp_path, capture_share=1.0)

    def full(*_arguments: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    assert client.post("/predict", json={"instances": [TALL]}).status_code == 200
    service = client.application.extensions["service"]
    service.tick()
    assert service.capture is None
    assert client.post("/predict", json={"instances": [TALL]}).status_code == 200


def lines_of(server: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.read_text().splitlines()]


def fetch(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    found = answer.read()
    connection.close()
    return answer.status, found


@pytest.mark.parametrize(("setting", "logged"), [("off", []), ("errors", [422]), ("all", [200, 422])])
def test_the_log_is_json_and_has_the_requests_that_are_asked_for(
    start: Callable[..., Any], bundle: Path, setting: str, logged: list[int]
) -> None:
    server = start(bundle, ACCESS_LOG=setting, MODEL_SERVICE="size")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for row in (TALL, [1.0]):
        body = json.dumps({"instances": [row]}).encode()
        fetch(
            server.port, "POST", "/predict", body, Content_Type="application/json", Traceparent=trace, X_Request_ID="i"
        )
    server.process.terminate()
    server.process.wait(10)
    lines = lines_of(server)
    assert {"serving", "Handling signal: term"} <= {line["event"] for line in lines}
    requests = [line for line in lines if line["event"] == "request" and line["path"] == "/predict"]
    assert [line["status"] for line in requests] == logged
    for line in requests:
        assert (line["id"], line["traceparent"], line["method"]) == ("i", trace, "POST")
        assert line["milliseconds"] > 0
        assert (line.get("rows"), line.get("kind")) == ((1, None) if line["status"] == 200 else (None, "contract"))


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="there is no IPv6 here")
def test_the_server_listens_on_addresses_of_both_kinds(start: Callable[..., Any], bundle: Path) -> None:
    server = start(bundle, address="[::]")
    for host in ("127.0.0.1", "::1"):
        connection = http.client.HTTPConnection(host, server.port, timeout=20)
        with contextlib.closing(connection):
            connection.request("GET", "/v2/health/ready")
            assert connection.getresponse().status == 200


def test_metrics_can_have_an_address_of_their_own(start: Callable[..., Any], bundle: Path, keys: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = start(bundle, METRICS_BIND=f"127.0.0.1:{port}", API_KEYS=str(keys), MODEL_SERVICE="size")
    status, text = fetch(port, "GET", "/metrics")
    assert status == 200
    assert b"model_info" in text
    assert fetch(port, "GET", "/v2/health/ready")[0] == 404
    assert fetch(server.port, "GET", "/metrics", X_API_Key="first")[0] == 404
    assert fetch(server.port, "GET", "/metrics")[0] in (401, 404)
    assert fetch(server.port, "GET", "/v2")[0] == 401
    assert fetch(server.port, "GET", "/v2", X_API_Key="first")[0] == 200
