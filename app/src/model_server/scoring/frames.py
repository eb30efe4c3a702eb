# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MLflow's bodies: from ``dataframe_split``, ``dataframe_records``, ``instances``, ``inputs`` or CSV to a request.

https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally, "Accepted input formats". As there, columns that the
model does not take are left out, ``index`` and ``params`` have no meaning, and ``NaN`` is a missing value in JSON, too.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import msgspec
import numpy as np

from model_server.bundle.contract import FLOATS, INTEGERS, Contract, Input
from model_server.scoring.errors import BodyError, ContractError, column_is_missing, kind_of, shown
from model_server.scoring.matrix import array_of_rows, matrix_reader
from model_server.scoring.table import EXACT, Request, Table, column_array, is_numeric, table_of_columns

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")

MISSING = frozenset({"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN", "<NA>", "N/A", "n/a"})
MISSING |= {"NA", "NULL", "null", "NaN", "nan", "-NaN", "-nan", "None"}
"""What pandas reads as a missing value in CSV."""

_BOOLEANS = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}

_Number = float | None


class _Split(msgspec.Struct, forbid_unknown_fields=True):
    data: list[list[_Number]]
    columns: list[str] | None = None
    index: msgspec.Raw = msgspec.Raw()


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    """A body of nothing but numbers, which is most of them."""

    dataframe_split: _Split | None = None
    dataframe_records: list[dict[str, _Number]] | None = None
    instances: list[list[_Number] | dict[str, _Number]] | None = None
    inputs: list[list[_Number] | dict[str, _Number]] | dict[str, list[_Number]] | None = None
    params: msgspec.Raw = msgspec.Raw()


_body = msgspec.json.Decoder(_Body).decode
_lists = msgspec.json.Decoder(list[list[float]]).decode


def frame_decoder(contract: Contract) -> Callable[[bytes], Request]:
    """The function that decodes bodies of JSON for ``contract``."""
    read_matrix = matrix_reader(contract)
    names = contract.names
    takes_numbers = is_numeric(contract) and all(column.dtype != "bool" for column in contract.inputs)

    def decode(body: bytes) -> Request:
        found = numbers(body) if takes_numbers else None
        if found is None:
            return _request(_columns(_document(body), contract), contract)
        return Request(read_matrix(found), len(found))

    def numbers(body: bytes) -> np.ndarray[Any, Any] | None:
        """The numbers, of shape (rows, columns); None if there is anything else, which the other way can word."""
        try:
            document = _body(body)
            rows = _rows_of_numbers(document)
            # Whole numbers beyond these have lost digits on their way through float.
            found = rows if isinstance(rows, np.ndarray) else array_of_rows(rows, len(names))
            is_table = len(found) and found.shape[1:] == (len(names),)
            return found if is_table and not (np.abs(found) >= EXACT).any() else None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, LookupError, ValueError, TypeError):
            return None

    def _rows_of_numbers(document: _Body) -> Any:
        rows: Any
        given = [form for form in FORMS if getattr(document, form) is not None]
        if len(given) != 1:
            raise LookupError
        split = document.dataframe_split
        if split is not None:
            if split.columns is None or tuple(split.columns) == names:
                return split.data
            if len(set(split.columns)) < len(split.columns):
                raise LookupError
            rows = array_of_rows(split.data, len(split.columns))
            if rows.shape[1:] != (len(split.columns),):
                raise LookupError
            return rows[:, [split.columns.index(name) for name in names]]
        rows = getattr(document, given[0])
        if isinstance(rows, dict):
            return np.array([rows[name] for name in names], np.float64).T
        return [[row[name] for name in names] if isinstance(row, dict) else row for row in rows]

    return decode


def csv_decoder(contract: Contract) -> Callable[[bytes], Request]:
    """The function that decodes CSV, as ``DataFrame.to_csv`` writes it: a line of column names, then the rows."""
    read_matrix = matrix_reader(contract)
    takes_numbers = is_numeric(contract) and all(column.dtype != "bool" for column in contract.inputs)

    def decode(body: bytes) -> Request:
        found = numbers(body) if takes_numbers else None
        if found is not None:
            return Request(read_matrix(found), len(found))
        header, rows = _csv(body)
        by_column = zip(_places(header, contract), contract.inputs, strict=True)
        columns = [[_value(row[place], column) for row in rows] for place, column in by_column]
        return _request(columns, contract)

    def numbers(body: bytes) -> np.ndarray[Any, Any] | None:
        """As of JSON: lines of nothing but numbers are that, once there are brackets around them."""
        first, _end, lines = body.partition(b"\n")
        if b"[" in lines or b"]" in lines:
            return None
        try:
            header = next(csv.reader([first.decode("utf-8-sig")], strict=True))
            lines = lines.strip().replace(b"\r\n", b"\n").replace(b"\n", b"],[")
            if b"\r" in lines:
                # The end of a line to csv, and a blank to JSON.
                return None
            found = array_of_rows(_lists(b"[[" + lines + b"]]"), len(header))
            if found.shape[1:] != (len(header),) or (np.abs(found) >= EXACT).any():
                return None
            return found[:, _places(header, contract)]
        except (msgspec.MsgspecError, csv.Error, ValueError, StopIteration):
            return None

    return decode


def _request(columns: Sequence[list[Any]], contract: Contract) -> Request:
    count = len(columns[0])
    if not count:
        raise BodyError("expected at least one row, found none")
    found = zip(contract.inputs, columns, strict=True)
    table: Table = table_of_columns([column_array(column, values) for column, values in found], contract)
    return Request(table, count)


def _document(body: bytes) -> dict[str, Any]:
    """The JSON object, with None for NaN."""
    try:
        document = json.loads(body, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise BodyError(f"the body is not valid JSON: {error}") from None
    expected = f"expected an object with one of {', '.join(FORMS)}"
    if not isinstance(document, dict):
        raise BodyError(f"{expected}, found {kind_of(document)}")
    given = [form for form in FORMS if form in document]
    if len(given) != 1:
        raise BodyError(f"{expected}, found {' and '.join(given) or 'none of them'}")
    if unknown := sorted(document.keys() - {*given, "params"}):
        raise BodyError(f"expected {given[0]} and params alone, found {shown(unknown[0])}")
    return document


def _constant(name: str) -> None:
    if name != "NaN":
        raise ValueError(f"{name} is no value")


def _columns(document: dict[str, Any], contract: Contract) -> list[list[Any]]:
    """The values of each column of the contract, whatever form they came in."""
    form = next(form for form in FORMS if form in document)
    found = document[form]
    if form == "dataframe_split":
        return _columns_of_split(found, contract)
    if form == "inputs" and isinstance(found, dict):
        return _columns_of_columns(found, contract)
    if not isinstance(found, list) or not found:
        _wrong(form, "a list of at least one row", found)
    if form == "dataframe_records" or isinstance(found[0], dict):
        return _columns_of_records(form, found, contract)
    return _columns_of_rows(form, found, range(len(contract.inputs)), len(contract.inputs))


def _columns_of_split(split: Any, contract: Contract) -> list[list[Any]]:
    form = "dataframe_split"
    if not isinstance(split, dict) or "data" not in split or split.keys() - {"columns", "index", "data"}:
        _wrong(form, "an object with data, and columns and index if given", split)
    names, rows = split.get("columns"), split["data"]
    if names is None:
        names = list(contract.names)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        _wrong(f"{form}: columns", "a list of names", names)
    if not isinstance(rows, list) or not rows:
        _wrong(f"{form}: data", "a list of at least one row", rows)
    return _columns_of_rows(form, rows, _places(names, contract), len(names))


def _columns_of_rows(form: str, rows: list[Any], places: Iterable[int], width: int) -> list[list[Any]]:
    if width == 1 and not any(isinstance(row, (list, dict)) for row in rows):
        return [rows]
    for number, row in enumerate(rows):
        if not isinstance(row, list):
            _wrong(f"{form}: row {number}", "a list", row, row=number)
        if len(row) != width:
            raise ContractError(
                f"{form}: row {number}: expected {width} values, found {len(row)}",
                row=number, expected=width, found=len(row),
            )  # fmt: skip
    return [[row[place] for row in rows] for place in places]


def _columns_of_records(form: str, rows: list[Any], contract: Contract) -> list[list[Any]]:
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            _wrong(f"{form}: row {number}", "an object", row, row=number)
        for column in contract.inputs:
            if column.name not in row:
                raise column_is_missing(f"{form}: row {number}: column", column.name, row=number)
    return [[row[name] for row in rows] for name in contract.names]


def _columns_of_columns(columns: dict[str, Any], contract: Contract) -> list[list[Any]]:
    """Lists of values, or of lists of one value as tensors have them; or the values of one row."""
    found: list[list[Any]] = []
    for name in contract.names:
        if name not in columns:
            raise column_is_missing("inputs: column", name)
        given = columns[name]
        values = given if isinstance(given, list) else [given]
        found.append([value[0] if isinstance(value, list) and len(value) == 1 else value for value in values])
        if len(found[-1]) != len(found[0]):
            raise ContractError(
                f"inputs: column {name!r}: expected {len(found[0])} values, as in the first, found {len(found[-1])}",
                column=name,
            )
    return found


def _csv(body: bytes) -> tuple[list[str], list[list[str]]]:
    """The column names, and the rows, as many values in each."""
    try:
        # Not splitlines, which ends a line where Unicode does, in the middle of a text.
        lines = io.StringIO(body.decode("utf-8-sig"), newline="")
        header, *rows = [row for row in csv.reader(lines, strict=True) if row]
    except UnicodeDecodeError:
        raise BodyError("the body: expected CSV in UTF-8, found other bytes") from None
    except csv.Error as error:
        raise BodyError(f"the body is not valid CSV: {error}") from None
    except ValueError:
        raise BodyError("the body: expected a line of column names, found none") from None
    if not rows:
        raise BodyError("expected at least one row, found none")
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise BodyError(f"row {number}: expected {len(header)} values, found {len(row)}", row=number)
    return header, rows


def _places(names: list[str], contract: Contract) -> list[int]:
    """Where the columns of the contract are among ``names``."""
    for name in contract.names:
        if name not in names:
            raise column_is_missing("column", name)
        if names.count(name) > 1:
            raise ContractError(f"column {name!r} is there twice", column=name)
    return [names.index(name) for name in contract.names]


def _value(text: str, column: Input) -> Any:
    """What ``text`` is in a column of that dtype; itself if it is nothing of the kind, for column_array to refuse."""
    if text in MISSING:
        return None
    kinds = {type(category) for category in column.categories or ()}
    if column.dtype == "bool" or bool in kinds:
        return _BOOLEANS.get(text, text)
    for kind in (int, float):
        if column.dtype in INTEGERS + FLOATS or kind in kinds:
            try:
                return kind(text)
            except ValueError:
                continue
    return text


def _wrong(where: str, expected: str, found: object, **details: Any) -> NoReturn:
    raise BodyError(f"{where}: expected {expected}, found {kind_of(found)}", **details)
