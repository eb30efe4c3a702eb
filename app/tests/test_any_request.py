# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is sent, a real server answers in time, in the protocol's own shape, and never for a fault of its own."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

SECRET = "of-the-client"
"""Is in every text that is sent as a value, and in no answer that refuses it."""

KEY, END = "a-name-that-is-sent", "the-end-of-the-name"
"""Are in every key that is sent: an answer may name one, but only as much of it as tells which, and no log does."""

EXAMPLES = 150

row = [0.1, 6.0, 3, True, "Bonn", "low", None]
names = ["width", "height", "count", "smoker", "city", "grade", "weight"]
datatypes = ["FP64", "FP32", "INT64", "BOOL", "BYTES", "BYTES", "FP64"]
record = dict(zip(names, row, strict=True))

RIGHT: dict[str, list[Any]] = {
    "/predict": [{"instances": [row, row]}, {"instances": [record], "probabilities": True}],
    "/v2/models/mixed/infer": [
        {
            "id": "1",
            "inputs": [
                {"name": name, "shape": [1], "datatype": datatype, "data": [value]}
                for name, datatype, value in zip(names, datatypes, row, strict=True)
            ],
            "outputs": [{"name": "predictions", "parameters": {"binary_data": True}}],
        },
        {"inputs": [{"name": "all", "shape": [1, 7], "datatype": "FP64", "data": [[1, 2, 3, 4, 5, 6, 7]]}]},
    ],
    "/invocations": [
        {"dataframe_split": {"columns": names, "data": [row, row], "index": [0, 1]}},
        {"dataframe_records": [record]},
        {"instances": [row]},
        {"inputs": {name: [value] for name, value in record.items()}, "params": {}},
    ],
}

SHAPES = {
    "/predict": {"type", "title", "status", "detail"},
    "/v2/models/mixed/infer": {"error"},
    "/invocations": {"error_code", "message"},
}
"""The members that an error has, at least."""

secrets = st.text(max_size=5).map(lambda text: SECRET + text)
scalars = (
    st.none() | st.booleans() | st.integers() | st.integers(-(2**70), 2**70) | st.floats() | secrets | st.just(10**400)
)
keys = st.text(max_size=3) | st.text(max_size=5).map(lambda text: KEY + text + 60 * "." + END)
anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=3))


def places(document: Any) -> list[tuple[Any, ...]]:
    """The path of every value in a document."""
    found: list[tuple[Any, ...]] = [()]
    if isinstance(document, (dict, list)):
        keys = document if isinstance(document, dict) else range(len(document))
        found += [(key, *rest) for key in keys for rest in places(document[key])]
    return found


@st.composite
def almost_right(draw: st.DrawFn, path: str) -> bytes:
    """A right body with some values replaced or left out."""
    document = json.loads(json.dumps(draw(st.sampled_from(RIGHT[path]))))
    for _change in range(draw(st.integers(0, 3))):
        where = draw(st.sampled_from(places(document)))
        if not where:
            document = draw(anything)
            continue
        inner = document
        for key in where[:-1]:
            inner = inner[key]
        change = draw(st.integers(0, 2))
        if change == 0:
            inner[where[-1]] = draw(anything)
        elif change == 1 and isinstance(inner, dict):
            inner[draw(keys)] = inner.pop(where[-1])
        else:
            del inner[where[-1]]
    return json.dumps(document).encode()


@st.composite
def broken(draw: st.DrawFn, path: str) -> bytes:
    """A body with a part cut out of it, or with bytes put in."""
    body = draw(almost_right(path))
    start, end = sorted(draw(st.tuples(st.integers(0, len(body)), st.integers(0, len(body)))))
    return body[:start] + draw(st.binary(max_size=8)) + body[end:]


csv = st.lists(st.lists(scalars.map(str) | st.sampled_from(names), max_size=8).map(",".join), max_size=4).map("\n".join)
right_csv = ",".join(names) + "\n0.1,6.0,3,True,Bonn,low,\n"
line = st.tuples(*[scalars.map(str) | st.just(str(value)) for value in row]).map(",".join)
almost_right_csv = line.map(lambda text: right_csv + text)


def bodies(path: str) -> st.SearchStrategy[tuple[bytes, dict[str, str]]]:
    of_json = almost_right(path) | broken(path) | anything.map(lambda value: json.dumps(value).encode()) | st.binary()
    kinds = {"Content-Type": "application/json"}
    found = of_json.map(lambda body: (body, kinds))
    if path == "/invocations":
        text = (csv | almost_right_csv).map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary()
        found |= text.map(lambda body: (body, {"Content-Type": "text/csv"}))
    if path == "/v2/models/mixed/infer":
        length = st.integers(-2, 400).map(str) | st.sampled_from(["", "x", "9" * 30])
        found |= st.tuples(of_json, st.binary(max_size=40), length).map(
            lambda parts: (parts[0] + parts[1], {"Inference-Header-Content-Length": parts[2]})
        )
    return found


@pytest.mark.parametrize("path", list(RIGHT))
def test_any_body_is_answered_by_its_protocol(
    path: str, start: Callable[..., Any], bundle_of: Callable[..., Path], mixed_classifier: Any, mixed: Any
) -> None:
    server = start(bundle_of(mixed_classifier, mixed, version="3"), MODEL_SERVICE="mixed", WORKERS="1")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    answered = set()

    def ask(body: bytes, headers: dict[str, str]) -> tuple[int, str | None, bytes]:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read()

    with closing(connection):
        for document in RIGHT[path]:
            status, _kind, content = ask(json.dumps(document).encode(), {"Content-Type": "application/json"})
            # Seven numbers are no row of this model's, but a tensor as it should be.
            assert status == (400 if "all" in json.dumps(document) else 200), content

        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(asked=bodies(path))
        def check(asked: tuple[bytes, dict[str, str]]) -> None:
            status, kind, content = ask(*asked)
            answered.add(status)
            assert status < 500, content
            if status == 200:
                return
            assert kind == ("application/problem+json" if path == "/predict" else "application/json")
            assert json.loads(content).keys() >= SHAPES[path], content
            assert SECRET.encode() not in content
            assert END.encode() not in content
            assert b"Traceback" not in content

        check()
        assert {200, 400} <= answered
        assert server.ready() == 200
    log = server.log.read_text()
    assert "Traceback" not in log
    assert SECRET not in log
    assert KEY not in log


RIGHT_NUMBERS: dict[str, list[tuple[str, bytes]]] = {
    "/predict": [
        ("application/json", b'{"instances":[[0.5,3,7],[1,2,3]]}'),
        ("application/json", b'{"instances":[{"width":0.5,"count":3,"huge":7}],"probabilities":false}'),
    ],
    "/v2/models/numbers/infer": [
        (
            "application/json",
            b'{"id":"1","inputs":[{"name":"width","shape":[1],"datatype":"FP64","data":[0.5]},'
            b'{"name":"count","shape":[1,1],"datatype":"INT64","data":[[3]],"parameters":{"x":1}},'
            b'{"name":"huge","shape":[1],"datatype":"UINT64","data":[7]}],"outputs":[{"name":"predictions"}]}',
        ),
        (
            "application/json",
            b'{"inputs":[{"name":"rows","shape":[1,3],"datatype":"UINT64","data":[1,3,7]}],'
            b'"parameters":{"binary_data_output":true}}',
        ),
        ("", b'{"inputs":[{"name":"rows","shape":[1,3],"datatype":"FP32","data":[[0.5,3,7]]}]}'),
        (
            "",
            b'{"inputs":[{"name":"width","shape":[1],"datatype":"UINT64","data":[1]},'
            b'{"name":"count","shape":[1],"datatype":"UINT64","data":[3]},'
            b'{"name":"huge","shape":[1],"datatype":"UINT64","data":[7]}]}',
        ),
    ],
    "/invocations": [
        ("application/json", b'{"dataframe_split":{"columns":["width","count","huge"],"data":[[0.5,3,7]]}}'),
        ("application/json", b'{"dataframe_records":[{"width":0.5,"count":3,"huge":7}],"params":{"x":1}}'),
        ("application/json", b'{"inputs":{"width":[0.5],"count":[3],"huge":[7]}}'),
        ("text/csv", b"width,count,huge\n0.5,3,7\n1,2,3\n"),
    ],
}

OF_TEXT = b'{"inputs":[{"name":"rows","shape":[1,3],"datatype":"BYTES","data":["x","y","z"]}]}'
"""Nothing that a model of numbers takes."""

PIECES = re.compile(rb'"[^"]*"|[-+.0-9A-Za-z]+|.', re.DOTALL)
ODD_TEXTS = (
    *(b'"x"', b'"\xff"', rb'"\ud800"', rb'"\ud83d\ude00"', rb'"\u0000"', b'"\xed\xa0\x80"', b'"\xe2\x80\xa8"', b'"'),
    *(b'"FP16"', b'"UINT64"', b'"BOOL"', b'"BYTES"', b'"INT8"', b'"binary_data_size"', b'"data"', b'"columns"'),
)
ODD_NUMBERS = (
    *(b"null", b"true", b"NaN", b"-0", b"0.5", b"1e999", b"1e308", b"-1", b"0", b"2", b"[]", b"{}", b"01", b'"\xff"'),
    *(b"2147483648", b"9007199254740993", b"9223372036854775808", b"18446744073709551616", b"[1]", rb'"\ud800"'),
    *(401 * b"9", b"-" + 401 * b"9", 4000 * b"9", 5000 * b"9"),
)
ODD = (*ODD_TEXTS, *ODD_NUMBERS, b"", b",", b"\n", b"\r", b"\xff", b"\xe2\x80\xa8", b"\x00", 50_000 * b"[")


@st.composite
def odd(draw: st.DrawFn, path: str) -> tuple[str, bytes]:
    """A right body with some of its pieces replaced by others: mostly texts by texts, and numbers by numbers."""
    bodies = [*RIGHT_NUMBERS[path], ("", OF_TEXT)] if "infer" in path else RIGHT_NUMBERS[path]
    kind, body = draw(st.sampled_from(bodies))
    if not draw(st.integers(0, 20)):
        return kind, draw(st.binary())
    pieces = PIECES.findall(body)
    words = [place for place, piece in enumerate(pieces) if piece[:1] == b'"' or piece.isalnum()]
    for _change in range(draw(st.integers(1, 3))):
        if draw(st.integers(0, 5)):
            place = draw(st.sampled_from(words))
            others = st.sampled_from(ODD_TEXTS if pieces[place][:1] == b'"' else ODD_NUMBERS)
        else:
            place, others = draw(st.integers(0, len(pieces) - 1)), st.sampled_from(ODD) | st.binary(max_size=6)
        pieces[place] = draw(others)
    return kind, b"".join(pieces) + draw(st.sampled_from([b"", b"\n", 40_000 * b" "]))


@pytest.mark.parametrize("path", list(RIGHT_NUMBERS))
def test_any_bytes_to_a_model_of_numbers_are_no_fault_of_the_server(
    path: str, start: Callable[..., Any], bundle_of: Callable[..., Path], mixed: Any
) -> None:
    rows = mixed[["width", "count"]].assign(huge=mixed["count"].astype("uint64"))
    model = LinearRegression().fit(rows, rows["width"])
    server = start(bundle_of(model, rows, version="3"), MODEL_SERVICE="numbers", WORKERS="1", THREADS="1")
    answered: set[int] = set()

    def ask(kind: str, body: bytes) -> int:
        connection.request("POST", path, body, {"Content-Type": kind} if kind else {})
        answer = connection.getresponse()
        content = answer.read()
        answered.add(answer.status)
        assert answer.status < 500, (body[:500], content)
        assert answer.status == 200 or json.loads(content).keys() >= shape, (body[:500], content)
        return answer.status

    shape = {"error"} if "infer" in path else SHAPES[path]
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        assert {ask(*right) for right in RIGHT_NUMBERS[path]} == {200}

        @settings(max_examples=8 * EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(odd(path))
        def check(asked: tuple[str, bytes]) -> None:
            ask(*asked)

        check()
    assert {200, 400} <= answered
    assert server.ready() == 200
    assert "Traceback" not in server.log.read_text()


def test_a_column_may_have_any_name(start: Callable[..., Any], bundle_of: Callable[..., Path], mixed: Any) -> None:
    names = ['a "b"', "c\\d", "e\nf", "ü \u2028"]
    rows = mixed[["width", "height", "count", "weight"]].fillna(0.0).set_axis(names, axis=1)
    server = start(bundle_of(LinearRegression().fit(rows, rows[names[0]]), rows), MODEL_SERVICE="one", WORKERS="1")
    values = [0.5, 6.0, 3, 1.0]
    tensors = [
        {"name": name, "datatype": "FP64", "shape": [1], "data": [value]}
        for name, value in zip(names, values, strict=True)
    ]
    asked = [
        ("/predict", {"instances": [values]}),
        ("/predict", {"instances": [dict(zip(names, values, strict=True))]}),
        ("/v2/models/one/infer", {"inputs": tensors}),
        ("/invocations", {"dataframe_split": {"columns": names, "data": [values]}}),
    ]
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        for path, body in asked:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            assert (answer.status, b"0.5" in content or b"0.49999" in content) == (200, True), content
        for path in ("/openapi.json", "/metrics"):
            connection.request("GET", path)
            answer = connection.getresponse()
            assert (answer.status, bool(answer.read())) == (200, True)


numbers = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("model", "columns", "values", "scorer"),
    [
        ("regression", ["width", "height"], [numbers, numbers], "auto"),
        ("regression", ["width", "height"], [numbers, numbers], "native"),
        ("encoded_classifier", ["width", "city"], [numbers, st.sampled_from(["Bonn", "Köln"]) | secrets], "auto"),
        ("encoded_classifier", ["width", "city"], [numbers, st.sampled_from(["Bonn", "Köln"]) | secrets], "native"),
        ("squares", ["width", "height"], [numbers, numbers], "native"),
    ],
)
def test_any_value_of_a_column_s_type_is_answered_or_refused(
    model: str,
    columns: list[str],
    values: list[st.SearchStrategy[Any]],
    scorer: str,
    start: Callable[..., Any],
    bundle_of: Callable[..., Path],
    mixed: Any,
    request: pytest.FixtureRequest,
) -> None:
    bundle = bundle_of(request.getfixturevalue(model), mixed[columns])
    server = start(bundle, MODEL_SERVICE="one", WORKERS="1", SCORER=scorer)
    answered: set[int] = set()

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(rows=st.lists(st.tuples(*values).map(list), min_size=1, max_size=3))
    def check(rows: list[list[Any]]) -> None:
        by_column = zip(columns, zip(*rows, strict=True), strict=True)
        tensors = [
            {
                "name": name,
                "datatype": "BYTES" if name == "city" else "FP64",
                "shape": [len(rows)],
                "data": list(found),
            }
            for name, found in by_column
        ]
        for path, body, refusal in (
            ("/predict", {"instances": rows}, 422),
            ("/v2/models/one/infer", {"inputs": tensors}, 400),
            ("/invocations", {"dataframe_split": {"columns": columns, "data": rows}}, 400),
        ):
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            answered.add(answer.status)
            assert answer.status in (200, refusal), content
            assert SECRET.encode() not in content

    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        check()
    assert answered == {200, 400, 422}
    assert SECRET not in server.log.read_text()
