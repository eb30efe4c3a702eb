# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fast way and the slow way of decoding, on the same bodies: the same request, or the same error."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model_server.bundle.contract import FLOATS, INTEGERS, Contract, Input, Output
from model_server.scoring.decode import decode, decoder
from model_server.scoring.errors import ScoringError
from model_server.scoring.matrix import array_of_rows

NUMERIC = st.one_of(
    st.builds(Input, name=st.just("x"), dtype=st.sampled_from(FLOATS), nullable=st.booleans()),
    st.builds(Input, name=st.just("x"), dtype=st.sampled_from((*INTEGERS, "bool"))),
)
OUTPUTS = (Output("predictions", "float64", (-1,)), Output("probabilities", "float64", (-1, 2)))
VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-300, 300),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0.0, -0.0, 3.5e38, 1e308, 2.0**53, 2**53 + 1, -(2**53) - 1, 2**64]),
    st.booleans(),
    st.none(),
    st.text(max_size=2),
)


def outcome(decoding: Any, body: bytes) -> Any:
    try:
        request = decoding(body)
    except ScoringError as error:
        return type(error), str(error), error.details
    # Bit for bit: NaN and the sign of 0 as well.
    table = request.table if isinstance(request.table, np.ndarray) else np.stack([a.astype("U") for a in request.table])
    return table.dtype, table.shape, table.tobytes(), request.count, request.probabilities


@st.composite
def bodies(draw: st.DrawFn) -> tuple[Contract, bytes]:
    inputs = draw(st.lists(NUMERIC, min_size=1, max_size=3))
    named = tuple(Input(f"c {place}", column.dtype, column.nullable) for place, column in enumerate(inputs))
    width = draw(st.sampled_from([len(named)] * 6 + [len(named) + 1]))
    rows: list[Any] = draw(st.lists(st.lists(VALUES, min_size=width, max_size=width), max_size=3))
    if draw(st.booleans()):
        rows = [dict(zip([column.name for column in named], row, strict=False)) for row in rows]
    document: dict[str, Any] = {"instances": rows}
    if draw(st.booleans()):
        document["probabilities"] = draw(st.sampled_from([True, False, 1, None]))
    return Contract(False, named, OUTPUTS), json.dumps(document).encode()


@given(bodies())
def test_both_ways_give_the_same(case: tuple[Contract, bytes]) -> None:
    contract, body = case
    assert outcome(decoder(contract), body) == outcome(lambda data: decode(data, contract), body)


NUMBERS = st.one_of(st.floats(), st.integers(-(2**53), 2**53), st.booleans(), st.none())


@given(st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=1, max_size=4))
def test_rows_are_the_array_that_numpy_makes_of_them(rows: list[list[Any]]) -> None:
    found, expected = array_of_rows(rows, 3), np.array(rows, np.float64)
    assert (found.tobytes(), found.shape, found.dtype) == (expected.tobytes(), expected.shape, expected.dtype)
    assert found.flags.writeable


def test_rows_of_another_width_stay_so_and_uneven_ones_are_no_array() -> None:
    assert array_of_rows([[1.0, 2.0, 3.0]], 2).shape == (1, 3)
    with pytest.raises(ValueError, match="inhomogeneous"):
        array_of_rows([[1.0, 2.0], [3.0]], 2)


@pytest.mark.parametrize("name", ['a "b"', "c\\d", "e\nf", "\x00", "ü \u2028", ""])
def test_both_ways_take_a_column_of_any_name(name: str) -> None:
    contract = Contract(True, (Input(name, "float64"), Input("y", "int8")), OUTPUTS)
    for row in ([1.5, 2], {name: 1.5, "y": 2}, {name: 1.5}, {name: "x", "y": 2}):
        body = json.dumps({"instances": [row]}).encode()
        assert outcome(decoder(contract), body) == outcome(lambda data, is_=contract: decode(data, is_), body)


CONTRACT = Contract(False, (Input("x", "float64"), Input("y", "int8")), OUTPUTS)


@given(st.text(alphabet='{}[]":,.0123456789-+eE truefalsenull\\instancexy', max_size=60))
@example('{"instances": [[1e999, 1]]}')
@example('{"instances": [[1, 1]], "instances": [[2, 2]]}')
@example('{"instances": [{"x": 1, "y": 1, "x": 2}]}')
@example('{"instances": [[1, 1.0]]}')
@example('{"instances": [[0.1e-400, 1]]}')
@example('\ufeff{"instances": [[1, 1]]}')
@example('{"instances": [[1, 1]]}\n\n')
@example('{"instances": [[01, 1]]}')
def test_both_ways_read_the_same_json(text: str) -> None:
    body = text.encode()
    assert_both_ways_are_the_same(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"\xff":1}',
        b'{"instances":[[1,1]],"\xff":1}',
        b'{"instances":[{"x":1,"\xff":1}]}',
        b'{"instances":[["\xff",1]]}',
        rb'{"instances":[[1,1]],"\ud800":1}',
        rb'{"instances":[{"x":1,"y":1,"\ud800":1}]}',
        b'{"instances":[[1,%b]]}' % (401 * b"9"),
        b'{"instances":[[%b,1]]}' % (401 * b"9"),
        b'{"instances":[[%b,1]]}' % (5000 * b"9"),
        b'{"instances":%b' % (100_000 * b"["),
        b'{"instances":[[1,1]],"probabilities":%b' % (100_000 * b"["),
    ],
)
def test_what_is_no_json_is_refused_both_ways(body: bytes) -> None:
    assert_both_ways_are_the_same(body)


def assert_both_ways_are_the_same(body: bytes) -> None:
    assert outcome(decoder(CONTRACT), body) == outcome(lambda data: decode(data, CONTRACT), body)
