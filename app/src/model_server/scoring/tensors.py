# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Open Inference Protocol's tensors: from an inference request's bytes to a request, from outputs to a response's.

https://github.com/kserve/open-inference-protocol, with the extension that its servers share: binary tensor data, whose
bytes follow the JSON document, tensor after tensor, little-endian, text with its length in four bytes before it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np

from model_server.bundle.contract import INTEGERS, Contract, Input
from model_server.scoring.encode import to_json
from model_server.scoring.errors import BodyError, ContractError, column_is_missing, shown
from model_server.scoring.matrix import Array, array_of_rows, matrix_reader, number_array
from model_server.scoring.scorer import Outputs
from model_server.scoring.table import EXACT, Request, Table, column_array, is_nan, table_of_columns

_FLOATS: dict[str, np.dtype[Any]] = {"FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8")}
_INTEGERS: dict[str, np.dtype[Any]] = {dtype.upper(): np.dtype(dtype).newbyteorder("<") for dtype in INTEGERS}
_NUMBERS: dict[str, np.dtype[Any]] = {**_FLOATS, **_INTEGERS}
_DATATYPES = (*_NUMBERS, "BOOL", "BYTES")
_LARGEST_UINT64 = (1 << 64) - 1

DATATYPE = {**{dtype: dtype.upper() for dtype in INTEGERS}, "float32": "FP32", "float64": "FP64", "bool": "BOOL"}
"""The protocol's names of the contract's dtypes; all others are ``BYTES``."""

_OF_CATEGORIES: dict[type, str] = {bool: "BOOL", int: "INT64", float: "FP64"}


def datatype(column: Input) -> str:
    """The datatype that a column's tensor has in metadata, where any that holds its values may come."""
    kinds = {type(category) for category in column.categories or ()}
    if len(kinds) == 1:
        return _OF_CATEGORIES.get(kinds.pop(), "BYTES")
    return DATATYPE.get(column.dtype, "BYTES")


Values = list[Any] | Array
"""A tensor's values, row by row. Missing ones are None in a list and NaN in an array."""


class Asked(NamedTuple):
    """An inference request. ``outputs`` are the names of what is wanted, and for each whether its data is binary."""

    request: Request
    id: str | None
    outputs: dict[str, bool]


class _Parameters(msgspec.Struct):
    """Those with a meaning here; all others are taken and have none."""

    binary_data: bool = False
    binary_data_output: bool = False
    binary_data_size: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] | None = None


_DEFAULTS = _Parameters()


class _Tensor(msgspec.Struct, gc=False):
    name: str
    shape: list[Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]]
    datatype: str
    data: msgspec.Raw = msgspec.Raw()
    parameters: _Parameters | None = None


class _Wanted(msgspec.Struct):
    name: str
    parameters: _Parameters | None = None


class _Body(msgspec.Struct):
    inputs: Annotated[list[_Tensor], msgspec.Meta(min_length=1)]
    id: str | None = None
    outputs: list[_Wanted] | None = None
    parameters: _Parameters | None = None


_body = msgspec.json.Decoder(_Body).decode
_encode = msgspec.json.Encoder().encode


def _list_decoders(value: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Decoders of a list of values, and of a list of rows of them."""
    return msgspec.json.Decoder(list[value]).decode, msgspec.json.Decoder(list[list[value]]).decode


def _integer(datatype: str) -> Any:
    limits = np.iinfo(_INTEGERS[datatype])
    # msgspec knows no limit beyond 64 bits with a sign; _values refuses what is beyond those of UINT64.
    highest = None if datatype == "UINT64" else int(limits.max)
    return Annotated[int, msgspec.Meta(ge=int(limits.min), le=highest)]


_DECODERS = {
    **dict.fromkeys(_FLOATS, _list_decoders(float | None)),
    **{datatype: _list_decoders(_integer(datatype)) for datatype in _INTEGERS},
    "BOOL": _list_decoders(bool | None),
    "BYTES": _list_decoders(str | None),
}


def tensor_decoder(contract: Contract) -> Callable[[bytes, int | None], Asked]:
    """The function that decodes inference requests for ``contract``.

    It takes the body and, of one with binary data, the length of the JSON document at its start. The rows are one
    tensor of shape (rows, columns) with any name, or a tensor for each column, of shape (rows) or (rows, 1), with its
    name. A number fits a column that holds it exactly, whatever its datatype. All outputs are given if none is named.
    """
    places = {column.name: place for place, column in enumerate(contract.inputs)}
    all_outputs = tuple(output.name for output in contract.outputs)
    read_matrix = matrix_reader(contract)

    def decode(body: bytes, json_length: int | None = None) -> Asked:
        document, binary = _document(body, json_length)
        table, count = rows(document.inputs, binary)
        outputs = wanted(document)
        return Asked(Request(table, count, "probabilities" in outputs), document.id, outputs)

    def rows(tensors: list[_Tensor], binary: memoryview) -> tuple[Table, int]:
        count = _rows(tensors)
        values = []
        for tensor in tensors:
            found, binary = _values(tensor, binary)
            values.append(found)
        if len(binary):
            raise BodyError(f"expected as much binary data as the inputs say, found {len(binary)} bytes more")
        first = tensors[0]
        if len(tensors) == 1 and len(first.shape) == 2 and (first.shape[1] > 1 or first.name not in places):
            return one_tensor(first, values[0], count), count
        return a_tensor_each(tensors, values), count

    def one_tensor(tensor: _Tensor, values: Values, count: int) -> Table:
        width = len(contract.inputs)
        if tensor.shape[1] != width:
            raise ContractError(
                f"input {shown(tensor.name)}: expected a shape of [{count}, {width}], found {tensor.shape}",
                expected=width, found=tensor.shape[1],
            )  # fmt: skip
        if tensor.datatype in _NUMBERS:
            return read_matrix(_numbers(tensor, values).reshape(count, width))
        columns = zip(*[iter(_plain(values))] * width, strict=True)
        by_column = zip(contract.inputs, zip(*columns, strict=True), strict=True)
        return table_of_columns([column_array(column, list(found)) for column, found in by_column], contract)

    def a_tensor_each(tensors: list[_Tensor], values: list[Values]) -> Table:
        found: list[int | None] = [None] * len(places)
        for number, tensor in enumerate(tensors):
            place = places.get(tensor.name)
            if place is None:
                raise ContractError(
                    f"input {shown(tensor.name)} is no column of the contract",
                    expected="columns of the contract alone", found=f"input {shown(tensor.name)}",
                )  # fmt: skip
            if found[place] is not None:
                raise BodyError(f"input {tensor.name!r} is there twice")
            if len(tensor.shape) == 2 and tensor.shape[1] != 1:
                raise BodyError(f"input {tensor.name!r}: expected a shape of [{tensor.shape[0]}], found {tensor.shape}")
            found[place] = number
        order = [number for number in found if number is not None]
        if len(order) < len(found):
            raise column_is_missing("input", contract.names[found.index(None)])
        matrix = _side_by_side([tensors[number] for number in order], [values[number] for number in order])
        if matrix is not None:
            return read_matrix(matrix)
        ordered = (
            (column, tensors[number], values[number]) for column, number in zip(contract.inputs, order, strict=True)
        )
        return table_of_columns([_column(*each) for each in ordered], contract)

    def wanted(document: _Body) -> dict[str, bool]:
        binary = (document.parameters or _DEFAULTS).binary_data_output
        if not document.outputs:
            return dict.fromkeys(all_outputs, binary)
        for output in document.outputs:
            if output.name not in all_outputs:
                raise BodyError(f"outputs: expected {' or '.join(all_outputs)}, found {shown(output.name)}")
        return {
            output.name: binary if output.parameters is None else output.parameters.binary_data
            for output in document.outputs
        }

    return decode


def _document(body: bytes, json_length: int | None) -> tuple[_Body, memoryview]:
    """The JSON document of a body, and the binary data that follows it."""
    whole = memoryview(body)
    end = len(body) if json_length is None else json_length
    if end > len(body):
        raise BodyError(f"expected a JSON document of {end} bytes, found {len(body)} bytes")
    try:
        return _body(whole[:end]), whole[end:]
    except msgspec.ValidationError as error:
        raise BodyError(f"the body: {_reworded(error)}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BodyError(f"the body is not valid JSON: {error}") from None


def _rows(tensors: list[_Tensor]) -> int:
    """How many rows the tensors have, the same of each."""
    count = None
    for tensor in tensors:
        if tensor.datatype not in _DECODERS:
            known = ", ".join(_DATATYPES)
            raise BodyError(
                f"input {shown(tensor.name)}: datatype: expected one of {known}, found {shown(tensor.datatype)}"
            )
        if len(tensor.shape) not in (1, 2) or 0 in tensor.shape:
            raise BodyError(
                f"input {shown(tensor.name)}: expected a shape of [rows] or [rows, columns], found {tensor.shape[:9]}"
            )
        if count not in (None, tensor.shape[0]):
            raise BodyError(
                f"input {shown(tensor.name)}: expected {count} rows, as in the first input, found {tensor.shape[0]}"
            )
        count = tensor.shape[0]
    return count or 0


def _values(tensor: _Tensor, binary: memoryview) -> tuple[Values, memoryview]:
    """The values of a tensor, as many as its shape says, and the binary data after it."""
    size = tensor.parameters.binary_data_size if tensor.parameters else None
    count = tensor.shape[0] * (tensor.shape[1] if len(tensor.shape) == 2 else 1)
    if size is not None:
        if size > len(binary):
            raise BodyError(f"input {shown(tensor.name)}: expected {size} bytes of binary data, found {len(binary)}")
        values = _binary_values(tensor, binary[:size], count)
        return values, binary[size:]
    if not memoryview(tensor.data).nbytes:
        raise BodyError(f"input {shown(tensor.name)}: data is missing")
    flat, nested = _DECODERS[tensor.datatype]
    try:
        if len(tensor.shape) == 2 and _is_nested(tensor.data):
            rows = nested(tensor.data)
            width = tensor.shape[1]
            if len(rows) != tensor.shape[0] or any(len(row) != width for row in rows):
                raise BodyError(
                    f"input {shown(tensor.name)}: data: expected rows and columns as shape says, found others"
                )
            found: list[Any] = [value for row in rows for value in row]
        else:
            found = flat(tensor.data)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BodyError(f"input {shown(tensor.name)}: data {_reworded(error)}") from None
    except UnicodeDecodeError:
        # What was not decoded with the document, its decoder has not looked into either.
        raise BodyError(f"input {shown(tensor.name)}: data: expected text in UTF-8, found other bytes") from None
    if tensor.datatype == "UINT64" and max(found, default=0) > _LARGEST_UINT64:
        raise BodyError(f"input {shown(tensor.name)}: data: expected values of UINT64, found a larger one")
    if len(found) != count:
        raise BodyError(f"input {shown(tensor.name)}: data: expected {count} values, as shape says, found {len(found)}")
    return found, binary


def _is_nested(data: msgspec.Raw) -> bool:
    return bytes(memoryview(data)[1:100]).lstrip()[:1] == b"["


def _binary_values(tensor: _Tensor, data: memoryview, count: int) -> Values:
    if tensor.datatype == "BYTES":
        return _texts(tensor, data, count)
    dtype = np.dtype(bool) if tensor.datatype == "BOOL" else _NUMBERS[tensor.datatype]
    if len(data) != count * dtype.itemsize:
        raise BodyError(
            f"input {shown(tensor.name)}: expected {count * dtype.itemsize} bytes, as shape says, found {len(data)}"
        )
    # Not the booleans themselves: a byte that is neither 0 nor 1 must not get into an array of them.
    return np.frombuffer(data, np.uint8) != 0 if tensor.datatype == "BOOL" else np.frombuffer(data, dtype)


def _texts(tensor: _Tensor, data: memoryview, count: int) -> list[str]:
    texts = []
    start = 0
    try:
        while start < len(data):
            (length,) = struct.unpack_from("<I", data, start)
            start += 4 + length
            if start > len(data):
                raise BodyError(f"input {shown(tensor.name)}: expected {start} bytes of binary data, found {len(data)}")
            texts.append(str(data[start - length : start], "utf-8"))
    except struct.error:
        raise BodyError(
            f"input {shown(tensor.name)}: expected four bytes of length before each text, found fewer"
        ) from None
    except UnicodeDecodeError:
        raise BodyError(f"input {shown(tensor.name)}: expected text in UTF-8, found other bytes") from None
    if len(texts) != count:
        raise BodyError(f"input {shown(tensor.name)}: expected {count} values, as shape says, found {len(texts)}")
    return texts


def _column(column: Input, tensor: _Tensor, values: Values) -> Array:
    if tensor.datatype in _NUMBERS and column.dtype != "category":
        return number_array(column, _numbers(tensor, values))
    return column_array(column, _plain(values))


def _side_by_side(tensors: list[_Tensor], values: list[Values]) -> Array | None:
    """Tensors of numbers in JSON as columns of one float64 array, if it holds them all exactly."""
    if not all(tensor.datatype in _NUMBERS for tensor in tensors) or not all(isinstance(each, list) for each in values):
        return None
    matrix = array_of_rows(values, len(values[0])).T
    for place, tensor in enumerate(tensors):
        if tensor.datatype in ("FP16", "FP32"):
            matrix[:, place] = _narrowed(matrix[:, place], _FLOATS[tensor.datatype])
        elif tensor.datatype in ("INT64", "UINT64") and (np.abs(matrix[:, place]) >= EXACT).any():
            return None
    return matrix


def _numbers(tensor: _Tensor, values: Values) -> Array:
    """The values in the tensor's own datatype, so that a number is the same one whether it came as text or binary."""
    if isinstance(values, np.ndarray):
        return values
    if tensor.datatype in _FLOATS:
        return _narrowed(array_of_rows([values], len(values))[0], _FLOATS[tensor.datatype])
    return np.array(values, _INTEGERS[tensor.datatype])


def _narrowed(values: Array, dtype: np.dtype[Any]) -> Array:
    # What is beyond the narrower type becomes infinity, which fits no column.
    with np.errstate(over="ignore"):
        return values.astype(dtype)


def _plain(values: Values) -> list[Any]:
    if isinstance(values, list):
        return values
    return [None if is_nan(value) else value for value in values.tolist()]


def _reworded(error: Exception) -> str:
    """What msgspec says is wrong, as every other error says it: where, expected, found."""
    if isinstance(error, RecursionError):
        return "expected a list of values, found lists in lists"
    what, _at, where = str(error).partition(" - at `$")
    what = what.replace("Expected", "expected").replace("got", "found").replace("Object missing", "missing")
    where = where.rstrip("`").lstrip(".")
    return f"{where}: {what}".removeprefix(": ").replace("`", "")


class _Output(msgspec.Struct, omit_defaults=True, gc=False):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, int] | None = None
    data: list[Any] | None = None


def tensor_encoder(
    contract: Contract, model: str, version: str
) -> Callable[[Asked, Outputs], tuple[bytes, int | None]]:
    """The function that encodes inference responses.

    It gives the body and, if that has binary data, the length of the JSON document at its start.
    """
    datatypes = {output.name: DATATYPE.get(output.dtype, "BYTES") for output in contract.outputs}

    class Response(msgspec.Struct, omit_defaults=True, gc=False):
        model_name: str
        model_version: str
        outputs: list[_Output]
        id: str | None = None

    def encode(asked: Asked, found: Outputs) -> tuple[bytes, int | None]:
        outputs, binary = [], []
        for name, is_binary in asked.outputs.items():
            array, datatype = found[name], datatypes[name]
            if is_binary:
                data = _bytes(array, datatype)
                binary.append(data)
                outputs.append(_Output(name, datatype, array.shape, parameters={"binary_data_size": len(data)}))
            else:
                outputs.append(_Output(name, datatype, array.shape, data=_list(array, name, datatype)))
        document = _encode(Response(model, version, outputs, asked.id))
        return (b"".join([document, *binary]), len(document)) if binary else (document, None)

    return encode


def _list(array: Array, name: str, datatype: str) -> list[Any]:
    """The values row by row, as JSON has them."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        to_json(array, name)  # Raises for infinity. NaN is null.
    values: list[Any] = array.ravel().tolist()
    return [_text(value) for value in values] if datatype == "BYTES" and array.dtype.kind != "U" else values


def _bytes(array: Array, datatype: str) -> bytes:
    if datatype == "BYTES":
        encoded = [_text(value).encode() for value in array.ravel().tolist()]
        return b"".join(struct.pack("<I", len(text)) + text for text in encoded)
    return array.astype(bool if datatype == "BOOL" else _NUMBERS[datatype]).tobytes()


def _text(value: Any) -> str:
    # A str of numpy's own is a str as well, but none that JSON is written of.
    return str(value)
