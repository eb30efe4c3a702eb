# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Choose the form that a model serves in: a fast one that is proven to answer as the model itself does.

Compared are all rows of the given data and rows sampled around them. Labels must be equal, numbers within tolerance.
"""

from __future__ import annotations

import timeit
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from statistics import geometric_mean
from typing import Any

import numpy as np

from model_server.bundle.contract import FLOATS, INTEGERS, Contract, Input
from model_server.bundle.manifest import BundleError
from model_server.scoring.errors import line_of
from model_server.scoring.formats import predictor_of
from model_server.scoring.forms.compiler import NotCompiledError
from model_server.scoring.forms.onnx import OnnxModel
from model_server.scoring.forms.registry import FORMS, NATIVE, Form
from model_server.scoring.scorer import Outputs, Predictor
from model_server.scoring.table import Table, table_of_columns

SAMPLED = 12_000
"""Rows sampled around the data."""
ALONE = 200
"""Rows of each sample that are compared one at a time, too, for a single row can take another way through a form."""
CHUNK = 5_000
UNSEEN = "?\x00unseen"
"""Text that no data has."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Choice:
    """``form`` serves, from the file ``data``; None for native. ``tried`` is what the manifest says of each form."""

    form: str
    data: bytes | None
    tried: list[dict[str, Any]]


def choose(
    model: Any,
    contract: Contract,
    columns: Sequence[Array],
    tolerance: Mapping[str, float],
    wanted: str | None = None,
    timings: bool = False,
) -> Choice:
    """Try the compiled forms in their order, and keep the first that is equal; the model itself if none is.

    No speed decides: else the same inputs would give another bundle on another day. With ``timings``, of which no two
    builds agree, it does: all forms are tried, 1 row and 1,000 rows are timed in each that is equal, and the fastest is
    kept, the model itself among them.

    ``columns`` are the given rows, an array for each input. With ``wanted`` that form is used or a BundleError says why
    it cannot be.
    """
    tried: list[dict[str, Any]] = []
    native = predictor_of(model, contract)
    rows = table_of_columns(columns, contract)
    if timings:
        tried.append({"form": NATIVE, "equal": True, "microseconds": _timed(native, rows, len(columns[0]))})
    if wanted == NATIVE or isinstance(model, OnnxModel):
        return Choice(NATIVE, None, tried)

    @cache
    def samples() -> list[_Sample]:
        return list(_samples(native, contract, columns))

    def proven(form: Form) -> tuple[bytes, Predictor, dict[str, Any]]:
        """The first of the form's files that is equal; the NotCompiledError of the last if none is."""
        reason = NotCompiledError("")
        for data in form.compile(model, contract):
            expected = samples()
            try:
                predictor = _started(form.load, data, contract)
                return data, predictor, _compare(predictor, expected, contract, tolerance)
            except NotCompiledError as error:
                reason = error
        raise reason

    equal: dict[str, bytes | None] = {}
    for name, form in FORMS.items():
        if wanted not in (None, name):
            continue
        try:
            data, predictor, found = proven(form)
        except NotCompiledError as error:
            tried.append({"form": name, "equal": False, "reason": str(error)})
            continue
        tried.append({"form": name, "equal": True, **found})
        equal[name] = data
        if not timings:
            break
        tried[-1]["microseconds"] = _timed(predictor, rows, len(columns[0]))
    if wanted and not equal:
        raise BundleError(f"scorer {wanted}: {tried[-1]['reason']}")
    if not wanted:
        equal[NATIVE] = None
    taken = {each["form"]: overall(each["microseconds"]) for each in tried if "microseconds" in each}
    # The first one, where nothing was timed.
    kept = min(equal, key=lambda name: taken.get(name, 0.0))
    return Choice(kept, equal[kept], tried)


@dataclass(frozen=True)
class _Sample:
    """Rows, and what the model itself gives for them."""

    what: str
    table: Table
    count: int
    expected: Outputs


def _started(load: Callable[[bytes, Contract], Predictor], data: bytes, contract: Contract) -> Predictor:
    try:
        predictor = load(data, contract)
        predictor.start()
    except Exception as error:
        raise NotCompiledError(f"it cannot be loaded: {line_of(error)[:200]}") from error
    return predictor


def _compare(
    predictor: Predictor, samples: Sequence[_Sample], contract: Contract, tolerance: Mapping[str, float]
) -> dict[str, Any]:
    """How many rows were compared and the largest difference; a NotCompiledError for the first that differs."""
    largest = 0.0
    for sample in samples:
        spans = [(0, sample.count), *((row, row + 1) for row in evenly(sample.count, ALONE))]
        for first, last in spans:
            try:
                found = predictor.predict(_part(sample.table, first, last), contract.has_probabilities)
            except Exception as error:
                raise NotCompiledError(f"it fails on rows of {sample.what}: {line_of(error)[:200]}") from error
            for name, wanted in sample.expected.items():
                expected = wanted[first:last]
                difference = _difference(expected, found[name], tolerance)
                if difference is None:
                    raise NotCompiledError(f"its {name} differ on rows of {sample.what}")
                largest = max(largest, difference)
    return {"rows": sum(sample.count for sample in samples), "largest_difference": largest}


def _difference(expected: Array, found: Array, tolerance: Mapping[str, float]) -> float | None:
    """The largest difference of two outputs, 0 for equal labels; None if they are not the same within tolerance."""
    if expected.shape != found.shape:
        return None
    if expected.dtype.kind != "f":
        return 0.0 if np.array_equal(expected, found) else None
    if found.dtype.kind != "f" or not np.array_equal(np.isfinite(expected), np.isfinite(found)):
        return None
    finite = np.isfinite(expected)
    wanted, got = expected[finite].astype(np.float64), found[finite].astype(np.float64)
    difference = np.abs(wanted - got)
    if (difference > np.maximum(tolerance["relative"] * np.abs(wanted), tolerance["absolute"])).any():
        return None
    return float(difference.max(initial=0.0))


def _samples(native: Predictor, contract: Contract, columns: Sequence[Array]) -> Iterator[_Sample]:
    """The given rows, and rows around them; a NotCompiledError if the model itself fails on some that it must take."""
    for what, arrays in _around(contract, columns):
        for first in range(0, len(arrays[0]), CHUNK):
            part = [array[first : first + CHUNK] for array in arrays]
            table = table_of_columns(part, contract)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    expected = native.predict(table, contract.has_probabilities)
            except Exception as error:
                raise NotCompiledError(f"the model itself fails on {what}: {line_of(error)[:200]}") from error
            yield _Sample(what, table, len(part[0]), expected)


def _around(contract: Contract, columns: Sequence[Array]) -> Iterator[tuple[str, list[Array]]]:
    """Groups of rows that the contract allows: what they are, and an array for each column."""
    random = np.random.default_rng(20_260)
    third = SAMPLED // 3
    yield "the data", list(columns)
    inputs = contract.inputs
    resampled = [random.choice(array, third) for array in columns]
    yield "the data's values in other combinations", _with_missing(random, inputs, resampled)
    chosen = random.integers(0, len(columns[0]), third)
    near = [_near(random, column, array, array[chosen]) for column, array in zip(inputs, columns, strict=True)]
    yield "values near the data", _with_missing(random, inputs, near)
    edges = [_edges(random, column, array, third) for column, array in zip(inputs, columns, strict=True)]
    yield "the edges of the contract's ranges and beyond", _with_missing(random, inputs, edges)
    free = [column.dtype == "string" and column.categories is None for column in inputs]
    if any(free):
        unknown = [
            np.where(random.random(third) < 0.3, np.array(UNSEEN, dtype=object), array) if is_free else array
            for is_free, array in zip(free, resampled, strict=True)
        ]
        yield "text that the data does not have", unknown


def _with_missing(random: np.random.Generator, inputs: Sequence[Input], arrays: list[Array]) -> list[Array]:
    """Missing values in a fifth of each column that may have them."""
    found = []
    for column, array in zip(inputs, arrays, strict=True):
        if column.nullable and array.dtype.kind in "fO":
            missing = np.array(np.nan, dtype=array.dtype)
            array = np.where(random.random(len(array)) < 0.2, missing, array)
        found.append(array)
    return found


def _near(random: np.random.Generator, column: Input, given: Array, array: Array) -> Array:
    """Numbers moved by a hundredth of their spread, some by a whole one; anything else as it is."""
    if column.dtype not in INTEGERS + FLOATS:
        return array
    spread = float(np.nanstd(given.astype(np.float64))) or 1.0
    scale = random.choice([0.01, 1.0], len(array)) * spread
    return _as(column, array.astype(np.float64) + random.normal(size=len(array)) * scale)


def _edges(random: np.random.Generator, column: Input, given: Array, count: int) -> Array:
    """Extremes, what is half their distance beyond, zero, and halfway between neighbours, where trees split.

    Of categories all that the contract has, for the data may lack some.
    """
    if column.categories:
        return random.choice(np.array(column.categories, dtype=object), count)
    if column.dtype not in INTEGERS + FLOATS:
        return random.choice(given, count)
    present = np.unique(given[~np.isnan(given)] if given.dtype.kind == "f" else given).astype(np.float64)
    if not len(present):
        return random.choice(given, count)
    low, high = present[0], present[-1]
    beyond = (high - low) / 2
    # A float32 between two neighbours is where a tree split them, or next to it.
    between = (present[1:] + present[:-1]) / 2 if len(present) > 1 else present
    ends = np.array([low, high, low - beyond, high + beyond, 0.0 if low >= 0 else -beyond])
    return _as(column, np.where(random.random(count) < 0.3, random.choice(ends, count), random.choice(between, count)))


def _as(column: Input, values: Array) -> Array:
    """Numbers as the column has them."""
    dtype = np.dtype(column.dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        rounded: Array = np.clip(np.round(values), float(limits.min), float(limits.max) * (1 - 1e-15)).astype(dtype)
        return rounded
    narrowed: Array = values.astype(dtype)
    return narrowed


def evenly(length: int, count: int) -> list[int]:
    """``count`` evenly spaced indexes below ``length``, or all if there are fewer."""
    return [int(place) for place in np.linspace(0, length - 1, min(count, length))]


def _part(table: Table, first: int, last: int) -> Table:
    return table[first:last] if isinstance(table, np.ndarray) else tuple(array[first:last] for array in table)


def _timed(predictor: Predictor, table: Table, count: int) -> dict[str, float]:
    """``microseconds`` on one core, as a worker of the server predicts."""
    from threadpoolctl import threadpool_limits  # It comes with scikit-learn, and so where bundles are built alone.

    with threadpool_limits(1):
        return microseconds(predictor, table, count)


def microseconds(predictor: Predictor, table: Table, count: int) -> dict[str, float]:
    """How long predictions for 1 row and for 1,000 of the ``count`` rows of ``table`` take, the best of some tries."""
    thousand = np.resize(np.arange(count), 1000)
    many = table[thousand] if isinstance(table, np.ndarray) else tuple(array[thousand] for array in table)
    found = {}
    for rows, part in ((1, _part(table, 0, 1)), (1000, many)):
        timer = timeit.Timer(partial(predictor.predict, part, False))
        once = timer.timeit(1)
        calls = max(1, int(0.02 / max(once, 1e-6)))
        # What takes long is measured well enough by one call more.
        repeats = 5 if once < 0.2 else 1
        found[str(rows)] = round(min(timer.repeat(repeats, calls)) / calls * 1e6, 1)
    return found


def overall(taken: Mapping[str, float]) -> float:
    """One number for what ``microseconds`` gives, by which forms are compared: 1 row and 1,000 rows count alike.

    It is the geometric mean, of which the ratio for two forms is the geometric mean of both ratios.
    """
    return geometric_mean(taken.values())
