# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model's contract: the columns it takes and the outputs it gives, as ``contract.json`` has them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from model_server.bundle.manifest import BundleError

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float32", "float64")
DATES = tuple(f"datetime64[{unit}]" for unit in ("s", "ms", "us", "ns"))
DTYPES = (*INTEGERS, *FLOATS, *DATES, "bool", "string", "category")

Value = bool | int | float | str


@dataclass(frozen=True)
class Input:
    """A column. ``minimum`` and ``maximum`` are what the training data had: they describe, they refuse nothing.

    A column with ``categories`` takes these alone: every ``category`` column, and a ``string`` one whose model refuses
    text that it has not seen. One of dates takes ISO 8601 text without a time zone. Only a ``nullable`` column takes
    null, its missing value.
    """

    name: str
    dtype: str
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[Value, ...] | None = None
    ordered: bool | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise BundleError(f"input {self.name!r}: dtype: expected one of {', '.join(DTYPES)}, found {self.dtype!r}")
        if self.nullable and self.dtype in INTEGERS:
            raise BundleError(f"input {self.name!r}: expected a dtype that has missing values, found {self.dtype}")
        if self.categories is None and self.dtype == "category":
            raise BundleError(f"input {self.name!r}: expected categories for dtype category, found none")
        if self.categories is not None and self.dtype not in ("category", "string"):
            raise BundleError(f"input {self.name!r}: expected no categories for dtype {self.dtype}")


@dataclass(frozen=True)
class Output:
    """An output. ``shape`` is of all rows together: ``(-1,)`` is a value a row, ``(-1, 3)`` three values a row.

    ``classes`` are the labels that it may have; of a row of several labels those of each.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    classes: tuple[Value, ...] | tuple[tuple[Value, ...], ...] | None = None


@dataclass(frozen=True)
class Contract:
    """``columns`` tells whether the model takes a DataFrame with these columns or a plain array in their order.

    ``series``: it takes a one-dimensional array of its only column, as what turns texts into numbers does. The outputs
    are ``predictions`` and, of a model that gives them, ``probabilities``; of one that finds anomalies, ``scores``.
    """

    columns: bool
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    series: bool = False

    def __post_init__(self) -> None:
        if self.series and (self.columns or len(self.inputs) != 1):
            raise BundleError("series: expected a single input, and no columns")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.inputs)

    @property
    def has_probabilities(self) -> bool:
        return any(output.name == "probabilities" for output in self.outputs)

    @property
    def has_scores(self) -> bool:
        return any(output.name == "scores" for output in self.outputs)


def encode_contract(contract: Contract) -> dict[str, Any]:
    """The document of ``contract.json``, without what does not apply to a column or an output."""
    return {
        "columns": contract.columns,
        **({"series": True} if contract.series else {}),
        "inputs": [_present(asdict(column)) for column in contract.inputs],
        "outputs": [_present(asdict(output)) for output in contract.outputs],
    }


def parse_contract(data: bytes, where: str) -> Contract:
    """The contract in the bytes of a ``contract.json``; ``where`` names it in errors."""
    try:
        document = json.loads(data)
        if not isinstance(document["columns"], bool) or not document["inputs"] or not document["outputs"]:
            raise BundleError("expected columns (true or false), inputs and outputs")
        return Contract(
            columns=document["columns"],
            inputs=tuple(Input(**_tuples(column)) for column in document["inputs"]),
            outputs=tuple(Output(**_tuples(output)) for output in document["outputs"]),
            series=document.get("series", False) is True,
        )
    except KeyError as error:
        raise BundleError(f"{where}: contract.json: {error} is missing") from None
    except (TypeError, ValueError) as error:
        raise BundleError(f"{where}: contract.json: {error}") from None


def _present(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if value is not None}


def _tuples(document: dict[str, Any]) -> dict[str, Any]:
    return {key: _tuple(value) for key, value in document.items()}


def _tuple(value: Any) -> Any:
    """A list, and the lists in it, as tuples."""
    if not isinstance(value, list):
        return value
    return tuple(tuple(each) if isinstance(each, list) else each for each in value)
