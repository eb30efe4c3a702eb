# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_server.bundle.contract import Contract, Input, Output
from model_server.scoring.decode import decode
from model_server.scoring.errors import BodyError, ContractError, ScoringError
from model_server.scoring.frames import csv_decoder, frame_decoder
from model_server.scoring.table import Request

OUTPUTS = (Output("predictions", "float64", (-1,)),)
NUMBERS = Contract(False, (Input("x", "float64"), Input("y", "float32", nullable=True), Input("n", "int64")), OUTPUTS)
MIXED = Contract(
    True,
    (
        Input("x", "float64", nullable=True),
        Input("b", "bool"),
        Input("s", "string", nullable=True),
        Input("c", "category", categories=("low", "high")),
        Input("k", "category", categories=(1, 2)),
    ),
    OUTPUTS,
)
ROWS: dict[str, list[list[Any]]] = {
    "numbers": [[0.5, None, 3], [1, 2.5, 4]],
    "mixed": [[0.5, True, "a, b", "low", 1], [None, False, None, "high", 2]],
}
CONTRACTS = {"numbers": NUMBERS, "mixed": MIXED}


def same(found: Request, wanted: Request) -> None:
    assert (found.count, type(found.table)) == (wanted.count, type(wanted.table))
    for one, other in zip(found.table, wanted.table, strict=True):
        assert one.dtype == other.dtype
        assert [repr(value) for value in one.tolist()] == [repr(value) for value in other.tolist()]


def predicted(rows: list[list[Any]], contract: Contract) -> Request:
    return decode(json.dumps({"instances": rows}).encode(), contract)


def forms(rows: list[list[Any]], names: list[str]) -> dict[str, dict[str, Any]]:
    records = [dict(zip(names, row, strict=True)) for row in rows]
    backwards = [row[::-1] for row in rows]
    return {
        "split": {"dataframe_split": {"columns": names, "data": rows}},
        "split with an index": {"dataframe_split": {"columns": names, "data": rows, "index": [*range(len(rows))]}},
        "split without names": {"dataframe_split": {"data": rows}},
        "split backwards": {"dataframe_split": {"columns": names[::-1], "data": backwards}},
        "split with more": {"dataframe_split": {"columns": ["more", *names], "data": [[None, *row] for row in rows]}},
        "records": {"dataframe_records": records},
        "records with more": {"dataframe_records": [{"more": 5, **record} for record in records]},
        "instances": {"instances": rows},
        "instances by name": {"instances": records},
        "inputs": {"inputs": rows},
        "inputs by name": {"inputs": {name: [record[name] for record in records] for name in names}},
        "inputs of lists": {"inputs": {name: [[record[name]] for record in records] for name in names}},
        "inputs as records": {"inputs": records},
        "params": {"instances": rows, "params": {"anything": [1]}},
    }


@pytest.mark.parametrize("rows", ["numbers", "mixed"])
@pytest.mark.parametrize("form", list(forms([], [])))
def test_every_form_gives_the_rows(rows: str, form: str) -> None:
    contract = CONTRACTS[rows]
    document = forms(ROWS[rows], list(contract.names))[form]
    found = frame_decoder(contract)(json.dumps(document).encode())
    same(found, predicted(ROWS[rows], contract))


def test_one_row_and_one_column_need_no_lists() -> None:
    one = Contract(False, (Input("x", "float64"),), OUTPUTS)
    same(frame_decoder(one)(b'{"instances": [1, 2]}'), predicted([[1], [2]], one))
    row = b'{"inputs": {"x": 1, "y": 2, "n": 3}}'
    same(frame_decoder(NUMBERS)(row), predicted([[1, 2, 3]], NUMBERS))


def test_nan_is_a_missing_value_as_mlflow_s_client_writes_it() -> None:
    body = b'{"dataframe_split": {"columns": ["x", "y", "n"], "data": [[1, NaN, 3]]}}'
    same(frame_decoder(NUMBERS)(body), predicted([[1, None, 3]], NUMBERS))


@pytest.mark.parametrize("rows", ["numbers", "mixed"])
@pytest.mark.parametrize(("ending", "missing"), [("\n", ""), ("\r\n", "NaN"), ("\n", "null")])
def test_csv_gives_the_rows(rows: str, ending: str, missing: str) -> None:
    contract = CONTRACTS[rows]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=ending)
    writer.writerow(["", *contract.names])
    writer.writerows(
        [number, *(missing if value is None else value for value in row)] for number, row in enumerate(ROWS[rows])
    )
    same(csv_decoder(contract)(text.getvalue().encode()), predicted(ROWS[rows], contract))


# What splitlines takes for the end of a line, and csv does not.
NO_ENDS = ("a\x0bb", "a\x0cb", "\x1ca\x1d\x1e", "a\x85b", "a\u2028b", "\u2029")


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("text", "quote"),
    [*((text, quote) for text in NO_ENDS for quote in ("", '"')), ("a\nb", '"'), ("\r", '"'), ("\r\n", '"')],
)
def test_a_row_of_csv_ends_where_a_line_does_and_nowhere_else(text: str, quote: str, ending: str) -> None:
    contract = Contract(True, (Input("s", "string"), Input("x", "float64")), OUTPUTS)
    body = ending.join(["s,x", f"{quote}{text}{quote},1", "b,2", ""]).encode()
    same(csv_decoder(contract)(body), predicted([[text, 1], ["b", 2]], contract))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not valid JSON"),
        (b"\xff", "the body is not valid JSON"),
        (b"[" * 100_000, "the body is not valid JSON"),
        (b'{"instances": [[Infinity]]}', "Infinity is no value"),
        (b"[]", "expected an object with one of dataframe_split, .*, inputs, found an empty list"),
        (b"{}", "expected an object with one of .*, found none of them"),
        (b'{"instances": [], "inputs": []}', "expected an object with one of .*, found instances and inputs"),
        (b'{"instances": [], "signature_name": 1}', 'expected instances and params alone, found "signature_name"'),
        (b'{"instances": []}', "instances: expected a list of at least one row, found an empty list"),
        (b'{"inputs": {"x": [], "y": [], "n": []}}', "expected at least one row, found none"),
        (b'{"dataframe_records": {}}', "dataframe_records: expected a list of at least one row, found an object"),
        (
            b'{"dataframe_records": [1]}',
            "dataframe_records: row 0: expected an object, found a whole number of 1 digit",
        ),
        (b'{"dataframe_split": 1}', "dataframe_split: expected an object with data, and columns and index if given"),
        (b'{"dataframe_split": {"data": []}}', "dataframe_split: data: expected a list of at least one row"),
        (b'{"dataframe_split": {"data": [[1]], "columns": [1]}}', "dataframe_split: columns: expected a list of names"),
        (b'{"instances": [1]}', "instances: row 0: expected a list, found a whole number"),
    ],
)
def test_a_body_of_another_form_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(BodyError, match=message):
        frame_decoder(NUMBERS)(body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"instances": [[1, 2]]}', "instances: row 0: expected 3 values, found 2"),
        (b'{"instances": [[1, 2, 3], [1, 2, 3.5]]}', "row 1, column 'n': expected a whole number"),
        (b'{"instances": [[1, 2, true]]}', "row 0, column 'n': expected a whole number from .*, found true"),
        (b'{"instances": [["1", 2, 3]]}', "row 0, column 'x': expected a number, found text"),
        (b'{"dataframe_records": [{"x": 1, "n": 1}]}', "dataframe_records: row 0: column 'y' is missing"),
        (b'{"dataframe_split": {"data": [[1]], "columns": ["x"]}}', "column 'y' is missing"),
        (
            b'{"dataframe_split": {"data": [[1, 1, 1, 1]], "columns": ["x", "x", "y", "n"]}}',
            "column 'x' is there twice",
        ),
        (b'{"inputs": {"x": [1], "y": [1]}}', "inputs: column 'n' is missing"),
        (b'{"inputs": {"x": [1], "y": [1], "n": [1, 2]}}', "inputs: column 'n': expected 1 values, as in the first"),
    ],
)
def test_rows_that_do_not_fit_the_contract_are_refused(body: bytes, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        frame_decoder(NUMBERS)(body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body: expected a line of column names, found none"),
        (b"x,y,n\n", "expected at least one row, found none"),
        (b"\xff", "the body: expected CSV in UTF-8, found other bytes"),
        (b'x,y,n\n"1,2,3\n', "the body is not valid CSV"),
        (b"x,y,n\n1,2\n", "row 0: expected 3 values, found 2"),
        (b"\xef\xbb\xbfx,y,n\n1,2\n", "row 0: expected 3 values, found 2"),
        ("x,y,n\n1,\u2028,3\n".encode(), "row 0, column 'y': expected a number or null, found text"),
        (b"x,y,n\n1,2,\r3\n", "row 1: expected 3 values, found 1"),
        (b"x,y,n\n1,2,3],[4,5,6\n", "row 0: expected 3 values, found 6"),
        (b"x,y\n1,2\n", "column 'n' is missing"),
        (b"x,y,n,n\n1,2,3,4\n", "column 'n' is there twice"),
        (b"x,y,n\n1,2,3\na,2,3\n", "row 1, column 'x': expected a number, found text"),
        (b"x,y,n\ninf,2,3\n", "row 0, column 'x': expected a number, found a number too large"),
        (b"x,y,n\n,2,3\n", "row 0, column 'x': expected a number, found null"),
        (b"x,y,n\n1,2,3.5\n", "row 0, column 'n': expected a whole number from .*, found a number with a fraction"),
    ],
)
def test_wrong_csv_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(ScoringError, match=message):
        csv_decoder(NUMBERS)(body)


numbers = st.none() | st.integers(-(2**64), 2**64) | st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(numbers, numbers, numbers).map(list), min_size=1, max_size=4))
def test_every_way_of_sending_numbers_gives_the_table_of_predict_or_the_same_refusal(rows: list[list[Any]]) -> None:
    def outcome(way: Any, *arguments: Any) -> Any:
        try:
            table = way(*arguments).table
        except ScoringError as error:
            return str(error)
        # One of a number that float64 does not hold is a tuple of columns.
        return [list(map(repr, column.tolist())) for column in (table if isinstance(table, tuple) else table.T)]

    wanted = outcome(predicted, rows, NUMBERS)
    for document in forms(rows, list(NUMBERS.names)).values():
        assert outcome(frame_decoder(NUMBERS), json.dumps(document).encode()) == wanted
    text = io.StringIO()
    csv.writer(text).writerows([NUMBERS.names, *(["" if value is None else value for value in row] for row in rows)])
    assert outcome(csv_decoder(NUMBERS), text.getvalue().encode()) == wanted
