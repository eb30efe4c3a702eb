# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from model_server.bundle.contract import Contract, Input, Output, encode_contract, parse_contract
from model_server.bundle.manifest import BundleError, Manifest
from model_server.scoring.decode import decode, decoder
from model_server.scoring.encode import encode
from model_server.scoring.errors import BodyError, ContractError, ModelError, RefusedError
from model_server.scoring.forms.native import Native
from model_server.scoring.load import load
from model_server.scoring.scorer import Scorer
from model_server.scoring.table import model_input

ONE_OF_EACH = (
    Input("x", "float64"),
    Input("y", "float32", nullable=True),
    Input("n", "int8"),
    Input("b", "bool"),
    Input("s", "string"),
    Input("c", "category", categories=(1, 2)),
)
OUTPUTS = (Output("predictions", "float64", (-1,)), Output("probabilities", "float64", (-1, 2)))
EACH = Contract(True, ONE_OF_EACH, OUTPUTS)
GOOD = [0.5, None, 3, True, "a", 1]


def body(*instances: Any, **more: Any) -> bytes:
    return json.dumps({"instances": instances, **more}).encode()


def rows_of(data: bytes, contract: Contract) -> Any:
    """What a model with this contract is given for a body, which is the same by both ways of decoding."""
    slow, fast = decode(data, contract), decoder(contract)(data)
    found = [model_input(request.table, contract) for request in (slow, fast)]
    if contract.columns:
        pd.testing.assert_frame_equal(*found)
    else:
        np.testing.assert_array_equal(*found)
    return found[0]


def answer_of(scorer: Scorer, data: bytes) -> Any:
    return json.loads(encode(scorer.predict(decoder(scorer.contract)(data))))


def changed(column: str, value: Any) -> list[Any]:
    return [value if known.name == column else good for known, good in zip(ONE_OF_EACH, GOOD, strict=True)]


def test_every_dtype_becomes_a_column_of_its_own() -> None:
    rows = rows_of(body(GOOD, [1, 2.5, 4.0, False, "b", 2]), EACH)
    assert [str(rows[name].dtype) for name in "xynb"] == ["float64", "float32", "int8", "bool"]
    assert rows["y"].isna().tolist() == [True, False]
    assert rows["s"].tolist() == ["a", "b"]
    assert rows["c"].cat.categories.tolist() == [1, 2]


def test_records_are_rows_in_any_order_of_their_columns() -> None:
    record = dict(zip((column.name for column in reversed(ONE_OF_EACH)), reversed(GOOD), strict=True))
    pd.testing.assert_frame_equal(rows_of(body(record), EACH), rows_of(body(GOOD), EACH))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("x", "0.5", "row 1, column 'x': expected a number, found text"),
        ("x", True, "row 1, column 'x': expected a number, found true"),
        ("x", None, "row 1, column 'x': expected a number, found null"),
        ("x", [1], "row 1, column 'x': expected a number, found a list"),
        ("x", {"a": 1}, "row 1, column 'x': expected a number, found an object"),
        ("x", 10**400, "row 1, column 'x': expected a number, found a number too large"),
        ("y", 1e39, "row 1, column 'y': expected a number or null, found a number too large"),
        ("n", 1.5, "row 1, column 'n': expected a whole number from -128 to 127, found a number with a fraction"),
        ("n", 128, "row 1, column 'n': expected a whole number from -128 to 127, found a whole number of 3 digits"),
        ("n", False, "row 1, column 'n': expected a whole number from -128 to 127, found false"),
        ("b", 1, "row 1, column 'b': expected true or false, found a whole number of 1 digit"),
        ("s", 1, "row 1, column 's': expected text, found a whole number of 1 digit"),
        ("s", None, "row 1, column 's': expected text, found null"),
        ("c", 3, "row 1, column 'c': expected one of 1, 2, found a whole number of 1 digit"),
        ("c", True, "row 1, column 'c': expected one of 1, 2, found true"),
        ("c", [1], "row 1, column 'c': expected one of 1, 2, found a list"),
        ("s", ["a"] * 1000, "row 1, column 's': expected text, found a list"),
    ],
)
def test_a_wrong_value_is_named(column: str, value: Any, message: str) -> None:
    with pytest.raises(ContractError) as found:
        decoder(EACH)(body(GOOD, changed(column, value)))
    assert str(found.value).startswith(message)
    assert len(str(found.value)) < 150
    assert (found.value.details["row"], found.value.details["column"]) == (1, column)
    assert message.startswith(f"row 1, column '{column}': expected {found.value.details['expected']}, found ")


@pytest.mark.parametrize(
    ("instances", "message"),
    [
        ([GOOD, [1, 2]], "row 1: expected 6 values, found 2"),
        ([GOOD, 5], "row 1: expected a list, as row 0 is one, found a whole number of 1 digit"),
        ([{"x": 1}], "row 0: column 'y' is missing"),
        ([dict(zip("xynbscd", [*GOOD, 1], strict=True))], 'row 0: column "d" is not in the contract'),
        ([dict(zip("xynbsc", GOOD, strict=True)), GOOD], "row 1: expected an object, as row 0 is one, found a list"),
        (["abcdef"], "row 0: expected a list, as row 0 is one"),
    ],
)
def test_rows_of_another_shape_are_refused(instances: list[Any], message: str) -> None:
    with pytest.raises(ContractError, match=message) as found:
        decoder(EACH)(body(*instances))
    assert {"row", "expected", "found"} <= found.value.details.keys()


def test_a_missing_and_an_unknown_column_are_told_in_parts() -> None:
    with pytest.raises(ContractError) as found:
        decoder(EACH)(body({"x": 1}))
    assert found.value.details == {"row": 0, "column": "y", "expected": "column 'y'", "found": "none"}
    with pytest.raises(ContractError) as found:
        decoder(EACH)(body(dict(zip("xynbscd", [*GOOD, 1], strict=True))))
    expected = {"row": 0, "expected": "columns of the contract alone", "found": 'column "d"'}
    assert found.value.details == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the body is not valid JSON"),
        (b"\xff", "the body is not valid JSON"),
        (b"[" * 100_000, "the body is not valid JSON"),
        (b'{"instances": [[NaN]]}', "NaN is no JSON value; null is a missing value"),
        (b'{"instances": [[-Infinity]]}', "-Infinity is no JSON value"),
        (b"[[1]]", 'expected an object with "instances", a list of rows'),
        (b'{"instances": []}', '"instances": expected a list of at least one row'),
        (b'{"instances": {}}', '"instances": expected a list of at least one row'),
        (b'{"instances": [[1]], "proba": true}', 'expected "instances" and "probabilities" alone, found "proba"'),
        (
            b'{"instances": [[1]], "probabilities": 1}',
            '"probabilities": expected true or false, found a whole number of 1 digit',
        ),
    ],
)
def test_a_body_of_another_form_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BodyError, match=message):
        decoder(EACH)(data)


@pytest.mark.parametrize("value", ["1e999", "-1e999", "1" + "0" * 309])
def test_a_number_beyond_floats_is_no_number(value: str) -> None:
    contract = Contract(False, (Input("x", "float64"),), OUTPUTS)
    with pytest.raises(ContractError, match=r"row 1, column 'x': expected a number, found "):
        decoder(contract)(f'{{"instances": [[1], [{value}]]}}'.encode())


def test_an_array_has_the_dtype_that_holds_all_columns() -> None:
    numbers = Contract(False, (Input("n", "int8"), Input("x", "float32", nullable=True)), OUTPUTS)
    rows = rows_of(body([1, 2.5], [2, None]), numbers)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, np.array([[1, 2.5], [2, np.nan]], dtype=np.float32))
    text = Contract(False, (Input("n", "int8"), Input("s", "string")), OUTPUTS)
    assert rows_of(body([1, "a"]), text).dtype == object


def test_probabilities_of_a_model_that_has_none_are_refused() -> None:
    contract = Contract(False, (Input("x", "float64"),), OUTPUTS[:1])
    with pytest.raises(ContractError, match='"probabilities": this model gives none'):
        decoder(contract)(body([1], probabilities=True))


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([1.5, np.nan]), b'{"predictions":[1.5,null]}'),
        (np.array([[1, 2]]), b'{"predictions":[[1,2]]}'),
        (np.array(["a", "b"], dtype=object), b'{"predictions":["a","b"]}'),
        (np.array([True]), b'{"predictions":[true]}'),
    ],
)
def test_answers_are_standard_json(array: Any, expected: bytes) -> None:
    assert encode({"predictions": array}) == expected


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.array(["2020-01-01"], dtype="datetime64[D]"),
            "expected numbers, text or booleans, found datetime64",
        ),
        (np.array([{1}], dtype=object), "the model gave what JSON cannot hold"),
        (np.array([np.nan], dtype=object), "the model gave what JSON cannot hold"),
    ],
)
def test_answers_that_json_cannot_hold_are_errors(array: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        encode({"predictions": array})


@pytest.mark.parametrize("dtype", [object, "U1"])
def test_text_that_is_no_unicode_and_comes_back_is_the_fault_of_the_values(dtype: Any) -> None:
    with pytest.raises(RefusedError, match="the model answers with text that is no Unicode"):
        encode({"predictions": np.array(["\ud800"], dtype=dtype)})


def test_infinity_is_the_fault_of_the_values() -> None:
    message = "row 1, output 'predictions': expected a finite number, found infinity: the values of the row are too la"
    with pytest.raises(RefusedError, match=message) as found:
        encode({"predictions": np.array([1.0, np.inf])})
    assert found.value.details.keys() == {"row", "output", "expected", "found"}


def test_a_classifier_gives_labels_and_probabilities(scorer: Scorer, classifier: Any) -> None:
    answer = answer_of(scorer, body([0.5, 8.0], [0.1, 2.0], probabilities=True))
    rows = pd.DataFrame([[0.5, 8.0], [0.1, 2.0]], columns=["width", "height"])
    assert answer["predictions"] == classifier.predict(rows).tolist() == ["tall", "short"]
    assert answer["probabilities"] == classifier.predict_proba(rows).tolist()


def test_a_regression_on_an_array(bundle_of: Callable[..., Path], regression: Any, numbers: pd.DataFrame) -> None:
    answer = answer_of(load(bundle_of(regression, numbers)), body([1, 2], [0, 4]))
    assert answer == {"predictions": pytest.approx([4.0, 8.0])}


def test_columns_of_every_kind_with_missing_values(
    bundle_of: Callable[..., Path], mixed_classifier: Any, mixed: pd.DataFrame
) -> None:
    scorer = load(bundle_of(mixed_classifier, mixed))
    row = {"width": 0.1, "height": 6, "count": 3, "smoker": True, "city": "Aachen", "grade": "low", "weight": None}
    assert answer_of(scorer, body(row)) == {"predictions": [True]}


class Broken:
    """A model with a failure of its own."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def predict(self, rows: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (KeyError("a value of the client"), "^the model failed with KeyError$"),
        ([1, 2, 3], "predictions: expected 1 rows, found an array of shape"),
        (5, "predictions: expected 1 rows, found an array of shape"),
    ],
)
def test_a_failing_model_is_told_without_the_data(answer: Any, message: str) -> None:
    manifest = Manifest("tiny", "1", "pickle", "model.pkl", "3.11", (), "0" * 64)
    contract = Contract(False, (Input("x", "float64"),), OUTPUTS)
    with pytest.raises(ModelError, match=message):
        answer_of(Scorer(manifest, contract, Native(Broken(answer), contract)), body([1]))


def test_what_the_model_itself_refuses_is_the_fault_of_the_values() -> None:
    manifest = Manifest("tiny", "1", "pickle", "model.pkl", "3.11", (), "0" * 64)
    contract = Contract(False, (Input("x", "float64"),), OUTPUTS)
    broken = Native(Broken(ValueError("could not convert string to float: 'a value of the client'")), contract)
    with pytest.raises(RefusedError, match=r"^the model refuses a value of these rows$"):
        answer_of(Scorer(manifest, contract, broken), body([1]))


def test_a_contract_is_read_as_it_was_written() -> None:
    assert parse_contract(json.dumps(encode_contract(EACH)).encode(), "here") == EACH


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": 1}, "expected columns"),
        ({"inputs": []}, "expected columns .*, inputs and outputs"),
        ({"inputs": [{"name": "x", "dtype": "complex64"}]}, "input 'x': dtype: expected one of .*, found 'complex64'"),
        (
            {"inputs": [{"name": "x", "dtype": "int8", "nullable": True}]},
            "expected a dtype that has missing values",
        ),
        ({"inputs": [{"name": "x", "dtype": "category"}]}, "input 'x': expected categories for dtype category"),
        (
            {"inputs": [{"name": "x", "dtype": "int8", "categories": [1]}]},
            "input 'x': expected no categories for dtype int8",
        ),
        ({"inputs": [{"name": "x"}]}, "missing 1 required positional argument: 'dtype'"),
    ],
)
def test_a_wrong_contract_is_refused(change: dict[str, Any], message: str) -> None:
    document = {**encode_contract(EACH), **change}
    with pytest.raises(BundleError, match=f"^here: contract.json: .*{message}"):
        parse_contract(json.dumps(document).encode(), "here")


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("datetime64[ns]", "2026-05-31", "2026-05-31T00:00:00.000000000"),
        ("datetime64[ns]", "2261-12-31T23:59:59.999999", "2261-12-31T23:59:59.999999000"),
        ("datetime64[us]", "0001-01-01", "0001-01-01T00:00:00.000000"),
    ],
)
def test_a_date_is_the_one_that_was_sent(dtype: str, value: str, expected: str) -> None:
    rows = decode(body([value]), Contract(True, (Input("d", dtype),), OUTPUTS)).table[0]
    assert str(rows[0]) == expected


@pytest.mark.parametrize("value", ["2262-01-01", "1677-12-31", "2026-02-30", "2026-05-31T00:00:00Z", "NaT", "", 5])
def test_what_is_no_date_that_fits_is_refused(value: Any) -> None:
    contract = Contract(True, (Input("d", "datetime64[ns]"),), OUTPUTS)
    with pytest.raises(ContractError, match=r"row 0, column 'd': expected a date as in 2026-05-31 or .* to 2261, "):
        decode(body([value]), contract)
