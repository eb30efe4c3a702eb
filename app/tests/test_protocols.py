# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The protocols' routes, their errors and what OpenAPI says of them, under a WSGI server."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor, IsolationForest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder
from sklearn.tree import DecisionTreeClassifier

from model_server.bundle.contract import Contract, Input, Output
from model_server.bundle.golden import mismatches
from model_server.scoring.load import load
from model_server.scoring.scorer import Scorer
from model_server.web.app import create_app
from model_server.web.openapi import openapi
from model_server.web.protocol import Served
from model_server.web.service import Service
from model_server.web.settings import Settings


class Stopping:
    now = False


@pytest.fixture
def stopping() -> Stopping:
    return Stopping()


@pytest.fixture
def served(bundle_of: Callable[..., Path], mixed_classifier: Any, mixed: pd.DataFrame, stopping: Stopping) -> Served:
    bundle = bundle_of(mixed_classifier, mixed, version="3")
    golden = json.loads((bundle / "golden.json").read_bytes())
    return Served(load(bundle), "mixed", lambda: stopping.now, golden, max_rows=50)


def client_of(served: Served) -> FlaskClient:
    service = Service(served, Settings(bundle=Path("/unused"), service=served.service))
    service.read()
    service.start()
    return create_app(service).test_client()


@pytest.fixture
def client(served: Served) -> FlaskClient:
    return client_of(served)


INFER = "/v2/models/mixed/infer"


def tensors(frame: pd.DataFrame) -> dict[str, Any]:
    datatypes = ["FP64", "FP64", "INT64", "BOOL", "BYTES", "BYTES", "FP64"]
    plain = frame.astype(object).where(frame.notna(), None)
    return {
        "inputs": [
            {"name": name, "shape": [len(frame)], "datatype": datatype, "data": plain[name].tolist()}
            for name, datatype in zip(frame.columns, datatypes, strict=True)
        ]
    }


@pytest.mark.parametrize("path", [INFER, "/v2/models/mixed/versions/3/infer"])
def test_an_inference(client: FlaskClient, path: str, mixed: pd.DataFrame, mixed_classifier: Any) -> None:
    answer = client.post(path, data=json.dumps({**tensors(mixed.head(3)), "id": "7"}))
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    found = answer.get_json()
    assert (found["id"], found["model_name"], found["model_version"]) == ("7", "mixed", "3")
    predictions, probabilities = found["outputs"]
    assert predictions["data"] == mixed_classifier.predict(mixed.head(3)).tolist()
    assert (predictions["datatype"], predictions["shape"]) == ("BOOL", [3])
    assert probabilities["data"] == pytest.approx(mixed_classifier.predict_proba(mixed.head(3)).ravel())
    assert (probabilities["datatype"], probabilities["shape"]) == ("FP64", [3, 2])


def test_an_inference_with_binary_data(client: FlaskClient, mixed: pd.DataFrame, mixed_classifier: Any) -> None:
    document = {**tensors(mixed.head(3)), "parameters": {"binary_data_output": True}}
    width = document["inputs"][0]
    del width["data"]
    width["parameters"] = {"binary_data_size": 24}
    head = json.dumps(document).encode()
    answer = client.post(
        INFER,
        data=head + mixed["width"].head(3).to_numpy().tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"},
    )
    assert (answer.status_code, answer.mimetype) == (200, "application/octet-stream")
    length = int(answer.headers["Inference-Header-Content-Length"])
    sizes = [output["parameters"]["binary_data_size"] for output in json.loads(answer.data[:length])["outputs"]]
    assert sizes == [3, 48]
    probabilities = np.frombuffer(answer.data[length + 3 :]).reshape(3, 2)
    np.testing.assert_allclose(probabilities, mixed_classifier.predict_proba(mixed.head(3)))


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("/v2", {"name": "modelfleet-model-server", "version": "0.1.0", "extensions": ["binary_tensor_data"]}),
        ("/v2/health/live", {"live": True}),
    ],
)
def test_the_server_says_what_it_is(client: FlaskClient, path: str, document: dict[str, Any]) -> None:
    assert client.get(path).get_json() == document


def test_metadata_names_every_column_and_output(client: FlaskClient) -> None:
    found = client.get("/v2/models/mixed").get_json()
    assert found == client.get("/v2/models/mixed/versions/3").get_json()
    assert (found["name"], found["versions"]) == ("mixed", ["3"])
    assert [(column["name"], column["datatype"], column["shape"]) for column in found["inputs"]] == [
        ("width", "FP64", [-1]),
        ("height", "FP64", [-1]),
        ("count", "INT64", [-1]),
        ("smoker", "BOOL", [-1]),
        ("city", "BYTES", [-1]),
        ("grade", "BYTES", [-1]),
        ("weight", "FP64", [-1]),
    ]
    assert found["outputs"] == [
        {"name": "predictions", "datatype": "BOOL", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP64", "shape": [-1, 2]},
    ]


@pytest.mark.parametrize("path", ["/v2/models/mixed/ready", "/v2/models/mixed/versions/3/ready"])
def test_a_model_s_readiness_has_its_name(client: FlaskClient, stopping: Stopping, path: str) -> None:
    for is_ready in (True, False):
        stopping.now = not is_ready
        document = client.get(path).get_json()
        assert (document["name"], document["ready"]) == ("mixed", is_ready)
        _validate(client.get("/openapi.json").get_json(), {"$ref": "#/components/schemas/ModelReady"}, document)
    assert "name" not in client.get("/v2/health/ready").get_json()


READY = ["/v2/health/ready", "/v2/models/mixed/ready", "/v2/models/mixed/versions/3/ready", "/ping", "/health"]


@pytest.mark.parametrize("path", READY)
def test_readiness_ends_with_stopping(client: FlaskClient, stopping: Stopping, path: str) -> None:
    assert client.get(path).status_code == 200
    stopping.now = True
    assert client.get(path).status_code == 503


ROWS = {"instances": [[1, 2, 3, True, "Bonn", "low", None]]}
WRONG_ROW = {"instances": [[1, 2, 3, True, "Bonn", "lower", None]]}
DETAIL = 'row 0, column \'grade\': expected one of "low", "high", found text'


@pytest.mark.parametrize(
    ("request_", "status", "document"),
    [
        ({"path": "/v2/models/other/infer", "method": "POST"}, 404, {"error": "The requested URL was not found"}),
        ({"path": "/v2/models/mixed/versions/9"}, 404, {"error": "The requested URL was not found"}),
        ({"path": INFER}, 405, {"error": "The method is not allowed"}),
        ({"path": INFER, "method": "POST", "data": b""}, 400, {"error": "the body is not valid JSON"}),
        (
            {"path": INFER, "method": "POST", "data": b"{}", "content_type": "text/csv"},
            415,
            {"error": 'content type: expected application/json or application/octet-stream, found "text/csv"'},
        ),
        (
            {"path": INFER, "method": "POST", "data": b"", "headers": {"Inference-Header-Content-Length": "-1"}},
            400,
            {"error": 'Inference-Header-Content-Length: expected a number of bytes, found "-1"'},
        ),
        ({"path": "/invocations", "method": "POST", "json": ROWS}, 200, {"predictions": [False]}),
        (
            {"path": "/invocations", "method": "POST", "json": WRONG_ROW},
            400,
            {"error_code": "INVALID_PARAMETER_VALUE", "message": DETAIL},
        ),
        (
            {"path": "/invocations", "method": "POST", "json": {}},
            400,
            {"error_code": "BAD_REQUEST", "message": "expected an object with one of dataframe_split, "},
        ),
        (
            {"path": "/invocations", "method": "POST", "data": b"", "content_type": "application/x-parquet"},
            415,
            {"error_code": "BAD_REQUEST", "message": "content type: expected application/json or text/csv"},
        ),
        (
            {"path": "/invocations", "method": "POST", "json": {"instances": ROWS["instances"] * 51}},
            413,
            {"error_code": "BAD_REQUEST", "message": "expected at most 50 rows, found 51"},
        ),
        ({"path": "/predict", "method": "POST", "json": WRONG_ROW}, 422, {"detail": DETAIL, "found": "text"}),
    ],
)
def test_each_protocol_has_its_own_errors(
    client: FlaskClient, request_: dict[str, Any], status: int, document: dict[str, Any]
) -> None:
    answer = client.open(**request_)
    assert answer.status_code == status
    found = answer.get_json(force=True)
    for key, value in document.items():
        assert found[key][: len(value)] == value
    if status != 200 and request_["path"] != "/predict":
        assert answer.mimetype == "application/json"
        assert found.keys() == document.keys()


def test_mlflow_s_version_is_that_of_the_protocol(client: FlaskClient) -> None:
    assert client.get("/version").text == "3.17.2"


def test_every_example_of_openapi_fits_its_schema_and_is_answered_as_promised(client: FlaskClient) -> None:
    document = client.get("/openapi.json").get_json()
    assert document["openapi"] == "3.1.0"
    examples = 0
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            for example in content.get("examples", {}).values():
                examples += 1
                _validate(document, content["schema"], example["value"])
                answer = client.open(path, method=verb.upper(), json=example["value"])
                assert answer.status_code == 200
                promised = operation["responses"]["200"]["content"]["application/json"]["schema"]
                _validate(document, promised, answer.get_json())
            if verb == "get":
                answer = client.get(path)
                promised = operation["responses"]["200"]["content"][answer.mimetype]["schema"]
                _validate(document, promised, answer.get_json())
    assert examples >= 6


MODELS: dict[str, tuple[list[str], Callable[[pd.DataFrame], Any]]] = {
    "numbers in, numbers out": (["width", "height"], lambda f: LinearRegression().fit(f.to_numpy(), f["height"])),
    "two numbers a row": (["width", "height"], lambda f: Ridge().fit(f, f[["height", "width"]])),
    "two labels a row": (
        ["width", "height"],
        lambda f: DecisionTreeClassifier().fit(f, f.round().astype(int).astype(str)),
    ),
    "labels of whole numbers": (["width", "count"], lambda f: LogisticRegression().fit(f, f["count"] % 3)),
    "missing numbers": (["weight", "height"], lambda f: HistGradientBoostingRegressor(max_iter=5).fit(f, f["height"])),
    "an anomaly detector": (["width", "height"], lambda f: IsolationForest(n_estimators=5).fit(f)),
    "texts": (["city"], lambda f: make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(f["city"], f.index % 2)),
    "categories of text": (
        ["grade", "city"],
        lambda f: make_pipeline(OneHotEncoder(), LogisticRegression()).fit(f, f.index % 2),
    ),
    "dates": (
        ["day"],
        lambda f: make_pipeline(FunctionTransformer(pd.DataFrame.astype, kw_args={"dtype": "int64"}), Ridge()).fit(
            f, f.index
        ),
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_of_model_is_answered_the_same_by_every_protocol(
    kind: str, bundle_of: Callable[..., Path], mixed: pd.DataFrame
) -> None:
    columns, fit = MODELS[kind]
    frame = mixed.assign(day=pd.date_range("2026-01-01", periods=len(mixed), unit="us"))[columns]
    bundle = bundle_of(fit(frame), frame)
    golden = json.loads((bundle / "golden.json").read_bytes())
    client = client_of(Served(load(bundle), "one", golden=golden))
    document = client.get("/openapi.json").get_json()
    for path in ("/predict", "/v2/models/one/infer", "/invocations"):
        operation = document["paths"][path]["post"]
        content = operation["requestBody"]["content"]["application/json"]
        for example in content["examples"].values():
            _validate(document, content["schema"], example["value"])
            answer = client.post(path, json=example["value"])
            assert answer.status_code == 200, answer.text
            found = answer.get_json()
            _validate(document, operation["responses"]["200"]["content"]["application/json"]["schema"], found)
            if path == "/v2/models/one/infer":
                named = {
                    output["name"]: np.reshape(output["data"], output["shape"]).tolist() for output in found["outputs"]
                }
                assert named.keys() == {output.name for output in load(bundle).contract.outputs}
                found = {"predictions": named["predictions"]}
            expected = golden["predictions"][: len(found["predictions"])]
            assert not mismatches(expected, found["predictions"], golden["tolerance"])


ENCODED: dict[str, Any] = {
    "linear": (OneHotEncoder(sparse_output=False), LogisticRegression()),
    "trees": (OrdinalEncoder(), DecisionTreeClassifier()),
    "native": (OneHotEncoder(), KNeighborsClassifier()),
}


@pytest.mark.parametrize("form", ENCODED)
def test_text_that_the_model_does_not_know_is_refused_by_the_contract(
    form: str, bundle_of: Callable[..., Path], mixed: pd.DataFrame
) -> None:
    encoder, estimator = ENCODED[form]
    filled = make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), encoder)
    frame = mixed[["city", "grade", "width"]].assign(town=mixed["city"].where(mixed.index % 3 > 0, None))
    # Of what the model was trained on, the given rows lack a city, and the categories have one that it does not know.
    frame.loc[59, "city"] = "Ulm"
    frame["grade"] = frame["grade"].cat.add_categories("none")
    columns = make_column_transformer((encoder, ["city", "grade"]), (filled, ["town"]), remainder="passthrough")
    model = make_pipeline(columns, estimator).fit(frame, frame.index % 2)
    scorer = load(bundle_of(model, frame.head(50), scorer=form))
    assert {column.name: column.categories for column in scorer.contract.inputs} == {
        "city": ("Bonn", "Köln", "Ulm"),
        "grade": ("low", "high"),
        "width": None,
        "town": ("Bonn", "Köln", "none"),
    }
    client = client_of(Served(scorer, "one"))
    row = {"city": "Ulm", "grade": "low", "width": 1.0, "town": None}
    assert client.post("/predict", json={"instances": [row]}).status_code == 200
    detail = 'row 1, column \'city\': expected one of "Bonn", "Köln", "Ulm", found text'
    rows = [row, {**row, "city": "Aachen"}]
    answer = client.post("/predict", json={"instances": rows})
    problem = answer.get_json(force=True)
    assert (answer.status_code, problem["detail"], problem["column"]) == (422, detail, "city")
    answer = client.post("/invocations", json={"dataframe_records": rows})
    assert (answer.status_code, answer.get_json()["message"]) == (400, detail)
    assert client.post("/predict", json={"instances": [{**row, "grade": "none"}]}).status_code == 422


def test_what_the_model_makes_of_text_may_be_any_text(bundle_of: Callable[..., Path], mixed: pd.DataFrame) -> None:
    frame = pd.DataFrame({"size": mixed["width"].round(1).astype(str), "city": mixed["city"]})
    encoded = make_column_transformer(
        (FunctionTransformer(pd.DataFrame.astype, kw_args={"dtype": float}), ["size"]),
        (OneHotEncoder(handle_unknown="ignore"), ["city"]),
    )
    bundle = bundle_of(make_pipeline(encoded, LogisticRegression()).fit(frame, frame.index % 2), frame)
    client = client_of(Served(load(bundle), "one"))
    assert [column.categories for column in load(bundle).contract.inputs] == [None, None]
    answers = [client.post("/predict", json={"instances": [[size, "Aachen"]]}) for size in ("123.25", "large")]
    assert [answer.status_code for answer in answers] == [200, 422]
    assert answers[1].get_json(force=True)["type"] == "urn:modelfleet:problem:refused"


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_an_answer_beyond_all_numbers_is_the_fault_of_the_row(
    bundle_of: Callable[..., Path], regression: Any, numbers: pd.DataFrame
) -> None:
    client = client_of(Served(load(bundle_of(regression, numbers)), "one"))
    row = [1e308, 1e308]
    detail = "row 1, output 'predictions': expected a finite number, found infinity: the values of the row are too "
    tensor = {"name": "rows", "datatype": "FP64", "shape": [2, 2], "data": [[1, 1], row]}
    for path, body, status, member in (
        ("/predict", {"instances": [[1, 1], row]}, 422, "detail"),
        ("/v2/models/one/infer", {"inputs": [tensor]}, 400, "error"),
        ("/invocations", {"instances": [[1, 1], row]}, 400, "message"),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code == status, answer.text
        assert answer.get_json(force=True)[member].startswith(detail)
    problem = client.post("/predict", json={"instances": [row]}).get_json(force=True)
    assert (problem["row"], problem["output"], problem["found"]) == (0, "predictions", "infinity")
    assert 'model_server_errors_total{kind="refused"} 4.0' in client.get("/metrics").text


def _validate(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    whole = {"components": document["components"], **schema}
    Draft202012Validator.check_schema(whole)
    Draft202012Validator(whole).validate(value)


@pytest.mark.parametrize(
    ("column", "schema"),
    [
        (
            Input("y", "float32", nullable=True, minimum=1, maximum=2.5),
            {
                "title": "y",
                "type": ["number", "null"],
                "minimum": -3.4028234663852886e38,
                "maximum": 3.4028234663852886e38,
                "description": "in the training data 1 to 2.5; null is a missing value",
            },
        ),
        (Input("n", "int8"), {"title": "n", "type": "integer", "minimum": -128, "maximum": 127}),
        (Input("c", "category", categories=(1, 2), nullable=True), {"enum": [1, 2, None]}),
        (Input("s", "string", categories=("Bonn", "Köln")), {"enum": ["Bonn", "Köln"]}),
        (Input("b", "bool"), {"title": "b", "type": "boolean"}),
        (Input("d", "datetime64[ns]"), {"type": "string", "format": "date"}),
    ],
)
def test_the_schema_of_a_column(served: Served, column: Input, schema: dict[str, Any]) -> None:
    scorer = Scorer(
        served.scorer.manifest,
        Contract(True, (column,), (Output("predictions", "float64", (-1,)),)),
        served.scorer.predictor,
    )
    document = openapi(Served(scorer, "one"))
    assert document["components"]["schemas"]["Record"]["properties"][column.name].items() >= schema.items()
    assert "examples" not in document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert "probabilities" not in json.dumps(document)


def test_the_page_runs_its_own_script_and_nothing_else(client: FlaskClient) -> None:
    answer = client.get("/docs")
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    script = answer.text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    # It is the same for every model, and nothing in it is of another host or of this one's root.
    assert "http" not in answer.text
    assert 'href="/' not in answer.text
