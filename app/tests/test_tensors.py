# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_server.bundle.contract import Contract, Input, Output
from model_server.scoring.decode import decode
from model_server.scoring.errors import BodyError, ContractError, RefusedError, ScoringError
from model_server.scoring.tensors import Asked, tensor_decoder, tensor_encoder

OUTPUTS = (Output("predictions", "string", (-1,)), Output("probabilities", "float64", (-1, 2)))
EACH = Contract(
    True,
    (
        Input("x", "float64"),
        Input("y", "float32", nullable=True),
        Input("n", "int8"),
        Input("b", "bool"),
        Input("s", "string"),
        Input("c", "category", categories=(1, 2)),
    ),
    OUTPUTS,
)
NUMBERS = Contract(
    False, (Input("x", "float64"), Input("y", "float32", nullable=True), Input("n", "int64")), OUTPUTS[:1]
)


def tensor(name: str, datatype: str, data: Any, shape: list[int] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape or [len(data)], "datatype": datatype, "data": data, **more}


def each(**changes: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Two rows of EACH, one tensor a column; None leaves a column out."""
    tensors = {
        "x": tensor("x", "FP64", [0.5, 1]),
        "y": tensor("y", "FP32", [None, 2.5]),
        "n": tensor("n", "UINT8", [3, 4]),
        "b": tensor("b", "BOOL", [True, False]),
        "s": tensor("s", "BYTES", ["a", "b"]),
        "c": tensor("c", "INT32", [1, 2]),
        **changes,
    }
    return [found for found in tensors.values() if found]


def body(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": inputs, **more}).encode()


def decoded(contract: Contract, data: bytes, length: int | None = None) -> Asked:
    return tensor_decoder(contract)(data, length)


def same_table(found: Any, wanted: Any) -> None:
    assert type(found) is type(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        assert [repr(value) for value in one.ravel().tolist()] == [repr(value) for value in other.ravel().tolist()]


def predict_body(*rows: list[Any]) -> bytes:
    return json.dumps({"instances": rows}).encode()


def test_a_tensor_for_each_column_in_any_order() -> None:
    wanted = decode(predict_body([0.5, None, 3, True, "a", 1], [1, 2.5, 4, False, "b", 2]), EACH)
    found = decoded(EACH, body(*reversed(each())))
    assert found.request.count == 2
    same_table(found.request.table, wanted.table)


@pytest.mark.parametrize(
    "given_",
    [
        tensor("rows", "FP64", [0.5, None, 3, 1, 2.5, 4], [2, 3]),
        tensor("x", "FP64", [[0.5, None, 3], [1, 2.5, 4]], [2, 3]),
        tensor("rows", "FP64", [[0.5, None, 3], [1, 2.5, 4]], [2, 3], parameters={"content_type": "np"}),
    ],
)
def test_one_tensor_of_rows_and_columns_flat_or_nested(given_: dict[str, Any]) -> None:
    wanted = decode(predict_body([0.5, None, 3], [1, 2.5, 4]), NUMBERS)
    same_table(decoded(NUMBERS, body(given_)).request.table, wanted.table)


def test_one_tensor_of_text() -> None:
    contract = Contract(True, (Input("a", "string"), Input("b", "string", nullable=True)), OUTPUTS[:1])
    found = decoded(contract, body(tensor("rows", "BYTES", ["a", None, "b", "c"], [2, 2]))).request.table
    same_table(found, decode(predict_body(["a", None], ["b", "c"]), contract).table)


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [
        *((f"{sign}INT{bits}", f"{sign.lower()}int{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)),
        ("FP16", "float16"),
        ("FP32", "float32"),
        ("FP64", "float64"),
    ],
)
def test_a_number_is_the_same_as_text_and_as_bytes(datatype: str, dtype: str) -> None:
    contract = Contract(False, (Input("x", "float64"),), OUTPUTS[:1])
    values = np.array([0, 1, 100] if "INT" in datatype else [0.1, -2.5, 100], dtype)
    text = decoded(contract, body(tensor("x", datatype, [0.1, -2.5, 100] if "FP" in datatype else [0, 1, 100])))
    head = body({"name": "x", "shape": [3], "datatype": datatype, "parameters": {"binary_data_size": values.nbytes}})
    binary = decoded(contract, head + values.tobytes(), len(head))
    same_table(text.request.table, binary.request.table)
    np.testing.assert_array_equal(text.request.table, values.astype(np.float64)[:, None])


def test_text_and_booleans_as_bytes() -> None:
    texts = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in ("ä", ""))
    s = {"name": "s", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(texts)}}
    b = {"name": "b", "shape": [2, 1], "datatype": "BOOL", "parameters": {"binary_data_size": 2}}
    contract = Contract(True, (Input("b", "bool"), Input("s", "string")), OUTPUTS[:1])
    head = body(s, b)
    found = decoded(contract, head + texts + b"\x01\x00", len(head))
    same_table(found.request.table, decode(predict_body([True, "ä"], [False, ""]), contract).table)


@pytest.mark.parametrize("value", [2**53 + 1, -(2**63), 2**63 - 1])
@pytest.mark.parametrize("shape", [[1], [1, 3]])
def test_a_whole_number_keeps_all_its_digits(value: int, shape: list[int]) -> None:
    columns = (Input("n", "int64"), Input("m", "int64"), Input("l", "int64"))
    contract = Contract(False, columns, OUTPUTS[:1])
    if len(shape) == 2:
        data = body(tensor("rows", "INT64", [value, 1, 2], shape))
    else:
        data = body(*(tensor(name, "INT64", [number]) for name, number in (("n", value), ("m", 1), ("l", 2))))
    same_table(decoded(contract, data).request.table, decode(predict_body([value, 1, 2]), contract).table)


FLOATS = tensor("x", "FP64", [1.5, 2.5])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the body is not valid JSON"),
        (b"[]", "the body: expected object, found array"),
        (b'{"inputs": []}', "the body: inputs: expected array of length >= 1"),
        (b'{"inputs": [{"shape": [1], "datatype": "FP64"}]}', r"the body: inputs\[0\]: missing required field name"),
        (b'{"inputs":' + b"[" * 100_000, "the body"),
        (body({"name": "x", "shape": [1], "datatype": "FP64", "data": [0]}, id=5), "the body: id: expected str"),
        (body(tensor("x", "FP128", [1])), 'input "x": datatype: expected one of FP16, .*, BYTES, found "FP128"'),
        (
            body(tensor("x", "FP64", [1], [1, 1, 1])),
            r"expected a shape of \[rows\] or \[rows, columns\], found \[1, 1, 1\]",
        ),
        (body(tensor("x", "FP64", [], [0])), r'input "x": expected a shape of \[rows\] or .*, found \[0\]'),
        (body(tensor("x", "FP64", [1], [2])), 'input "x": data: expected 2 values, as shape says, found 1'),
        (body(tensor("x", "FP64", [[1]], [2, 1])), 'input "x": data: expected rows and columns as shape says'),
        (body(tensor("x", "FP64", ["a"])), r'input "x": data \[0\]: expected float | null, found str'),
        (body(tensor("x", "INT8", [128])), r'input "x": data \[0\]: expected int <= 127'),
        (body(*each(n=tensor("n", "UINT64", [1, 2**64]))), "data: expected values of UINT64, found a larger one"),
        (body(tensor("x", "INT8", [1.0])), r"data \[0\]: expected int, found float"),
        (body({"name": "x", "shape": [1], "datatype": "FP64"}), 'input "x": data is missing'),
        (body(FLOATS, tensor("n", "INT8", [1])), 'input "n": expected 2 rows, as in the first input, found 1'),
        (body(FLOATS, FLOATS), "input 'x' is there twice"),
        (body(*each(), outputs=[{"name": "scores"}]), 'outputs: expected predictions or probabilities, found "scores"'),
    ],
)
def test_a_body_of_another_form_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BodyError, match=message):
        decoded(EACH, data)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (b'{"name":"s","shape":[1],"datatype":"BYTES","data":["\xff"]}', 'input "s": data: expected text in UTF-8'),
        (b'{"name":"s","shape":[1,1],"datatype":"BYTES","data":[["\xff"]]}', 'input "s": data: expected text in UTF-8'),
        (b'{"name":"x","shape":[1],"datatype":"FP64","data":["\xff"]}', r'input "x": data \[0\]: expected float'),
        (b'{"name":"x","shape":[1],"datatype":"UINT64","data":[%b]}' % (401 * b"9"), "UINT64, found a larger one"),
        (b'{"name":"x","shape":[1,1],"datatype":"UINT64","data":[[%b]]}' % (401 * b"9"), "UINT64, found a larger one"),
        (b'{"name":"x","shape":[1],"datatype":"UINT64","data":[18446744073709551616]}', "UINT64, found a larger one"),
        (b'{"name":"x","shape":[%b],"datatype":"FP64","data":[1]}' % (4000 * b"9"), r"shape\[0\]: expected int <= 214"),
        (b'{"name":"x","shape":[1,%b],"datatype":"FP64","data":[1]}' % (4000 * b"9"), r"shape\[1\]: expected int <="),
        (
            b'{"name":"x","shape":[2147483648,2147483648],"datatype":"FP64","data":[1]}',
            "expected 4611686018427387904 va",
        ),
        (
            b'{"name":"x","shape":[1],"datatype":"FP64","parameters":{"binary_data_size":%b}}' % (4000 * b"9"),
            "binary_data_size: expected int <= 9223372036854775807",
        ),
    ],
)
def test_what_no_json_or_number_may_be_is_refused(inputs: bytes, message: str) -> None:
    with pytest.raises(BodyError, match=message):
        decoded(Contract(False, (Input("x", "float64"),), OUTPUTS[:1]), b'{"inputs":[%b]}' % inputs)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (each(x=None), "input 'x' is missing"),
        (each(z=tensor("z", "FP64", [1, 2])), 'input "z" is no column of the contract'),
        (each(x=tensor("x", "BYTES", ["1", "2"])), "row 0, column 'x': expected a number, found text"),
        (each(x=tensor("x", "BOOL", [True, False])), "row 0, column 'x': expected a number, found true"),
        (each(x=tensor("x", "FP64", [1, None])), "row 1, column 'x': expected a number, found null"),
        (each(y=tensor("y", "FP64", [1, 1e39])), "row 1, column 'y': expected a number or null, found a number too l"),
        (each(y=tensor("y", "FP32", [1, 1e39])), "row 1, column 'y': expected a number or null, found a number too l"),
        (each(n=tensor("n", "FP32", [1, 1.5])), "row 1, column 'n': expected a whole number from -128 to 127, found a"),
        (each(n=tensor("n", "INT16", [1, 300])), "row 1, column 'n': expected a whole number from -128 to 127"),
        (each(b=tensor("b", "INT8", [0, 1])), "row 0, column 'b': expected true or false"),
        (each(s=tensor("s", "INT8", [0, 1])), "row 0, column 's': expected text"),
        (each(c=tensor("c", "INT8", [1, 3])), "row 1, column 'c': expected one of 1, 2"),
        ([tensor("rows", "FP64", [1, 2], [1, 2])], r'input "rows": expected a shape of \[1, 6\], found \[1, 2\]'),
    ],
)
def test_rows_that_do_not_fit_the_contract_are_refused(inputs: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        decoded(EACH, body(*inputs))


@pytest.mark.parametrize(
    ("size", "data", "length", "message"),
    [
        (8, b"", None, "expected 8 bytes of binary data, found 0"),
        (4, b"abcd", None, "expected 8 bytes, as shape says, found 4"),
        (8, b"abcdefghi", None, "expected as much binary data as the inputs say, found 1 bytes more"),
        (8, b"", 10_000, "expected a JSON document of 10000 bytes, found"),
    ],
)
def test_wrong_binary_data_is_refused(size: int, data: bytes, length: int | None, message: str) -> None:
    contract = Contract(False, (Input("x", "float64"),), OUTPUTS[:1])
    head = body({"name": "x", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": size}})
    with pytest.raises(BodyError, match=message):
        decoded(contract, head + data, length or len(head))


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_no_number_does_not_come_in_as_bytes(value: float, datatype: str) -> None:
    contract = Contract(False, (Input("x", "float64"),), OUTPUTS[:1])
    data = np.array([value], f"<f{int(datatype[2:]) // 8}").tobytes()
    head = body({"name": "x", "shape": [1], "datatype": datatype, "parameters": {"binary_data_size": len(data)}})
    with pytest.raises(ContractError, match="row 0, column 'x': expected a number, found "):
        decoded(contract, head + data, len(head))


@pytest.mark.parametrize("texts", [b"\x01\x00", b"\xff\xff\xff\xffa", b"\x01\x00\x00\x00\xff"])
def test_broken_text_in_bytes_is_refused(texts: bytes) -> None:
    contract = Contract(True, (Input("s", "string"),), OUTPUTS[:1])
    head = body({"name": "s", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(texts)}})
    with pytest.raises(BodyError, match='input "s": expected '):
        decoded(contract, head + texts, len(head))


@pytest.mark.parametrize(
    ("more", "outputs"),
    [
        ({}, {"predictions": False, "probabilities": False}),
        ({"parameters": {"binary_data_output": True, "x": [1]}}, {"predictions": True, "probabilities": True}),
        ({"outputs": [{"name": "probabilities"}]}, {"probabilities": False}),
        ({"outputs": [{"name": "predictions", "parameters": {"binary_data": True}}]}, {"predictions": True}),
    ],
)
def test_the_outputs_that_are_asked_for(more: dict[str, Any], outputs: dict[str, bool]) -> None:
    asked = decoded(EACH, body(*each(), id="me", **more))
    assert (asked.id, asked.outputs) == ("me", outputs)
    assert asked.request.probabilities == ("probabilities" in outputs)


def test_a_response_as_json_and_with_bytes() -> None:
    encode = tensor_encoder(EACH, "size", "3")
    found = {"predictions": np.array(["ä", "b"]), "probabilities": np.array([[0.25, np.nan], [1, 0]])}
    asked = decoded(EACH, body(*each(), id="me"))
    document, length = encode(asked, found)
    assert length is None
    assert json.loads(document) == {
        "model_name": "size",
        "model_version": "3",
        "id": "me",
        "outputs": [
            {"name": "predictions", "datatype": "BYTES", "shape": [2], "data": ["ä", "b"]},
            {"name": "probabilities", "datatype": "FP64", "shape": [2, 2], "data": [0.25, None, 1, 0]},
        ],
    }
    document, length = encode(asked._replace(outputs={"predictions": True, "probabilities": True}), found)
    assert length
    head, rest = json.loads(document[:length]), document[length:]
    assert [output["parameters"]["binary_data_size"] for output in head["outputs"]] == [11, 32]
    assert rest == b"\2\0\0\0\xc3\xa4\1\0\0\0b" + found["probabilities"].tobytes()


def test_infinity_is_no_answer() -> None:
    asked = decoded(EACH, body(*each()))
    with pytest.raises(RefusedError, match="row 1, output 'probabilities': expected a finite number, found infinity"):
        tensor_encoder(EACH, "m", "1")(
            asked, {"predictions": np.array(["a", "b"]), "probabilities": np.array([[0, 1], [np.inf, 0]])}
        )


@pytest.mark.parametrize("is_binary", [False, True])
def test_text_of_numpys_own_is_text(is_binary: bool) -> None:
    labels = np.array([np.str_("ä"), "b"], dtype=object)
    wanted = [{"name": "predictions", "parameters": {"binary_data": is_binary}}]
    document, length = tensor_encoder(EACH, "m", "1")(
        decoded(EACH, body(*each(), outputs=wanted)), {"predictions": labels}
    )
    if is_binary:
        assert document[length:] == b"\2\0\0\0" + "ä".encode() + b"\1\0\0\0b"
    else:
        assert json.loads(document)["outputs"][0]["data"] == ["ä", "b"]


numbers = st.none() | st.integers(-(2**64), 2**64) | st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=4))
def test_every_way_of_sending_numbers_gives_the_table_of_predict_or_the_same_refusal(rows: list[Any]) -> None:
    def outcome(way: Any, *arguments: Any) -> Any:
        try:
            found = way(*arguments)
        except ScoringError as error:
            return str(error)
        return (found if not isinstance(found, Asked) else found.request).table

    wanted = outcome(decode, predict_body(*rows), NUMBERS)
    flat = [value for row in rows for value in row]
    one = outcome(decoded, NUMBERS, body(tensor("rows", "FP64", flat, [len(rows), 3])))
    ordered = zip("xyn", zip(*rows, strict=True), strict=True)
    several = outcome(decoded, NUMBERS, body(*(tensor(name, "FP64", list(values)) for name, values in ordered)))
    # As FP64 a number has lost what float64 does not hold, so these are all that can be compared.
    if all(value is None or (float(value) == value and abs(value) < 2**53) for value in flat):
        for found in (one, several):
            if isinstance(wanted, str):
                assert found == wanted
            else:
                np.testing.assert_array_equal(found, wanted)
