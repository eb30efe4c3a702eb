# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Columns of every kind as rows of numbers, as a ColumnTransformer makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_server.scoring.forms.operations import Array, Steps, read_steps
from model_server.scoring.table import Table, is_nan

MISSING = "missing"
"""Stands for NaN, which equals nothing, where categories are looked up: a tuple with it is a key, and no value is."""


def key(value: Any) -> Any:
    """What a value is looked up by. Equal numbers are the same category, whatever their types."""
    return (MISSING,) if value is None or is_nan(value) else value


@dataclass(frozen=True)
class Encoder:
    """One column of categories, as one number or as a column for each. An ``unknown`` of None is an error."""

    column: int
    codes: Mapping[Any, float]
    width: int
    fill: Any
    unknown: float | None

    def lookup(self, values: list[Any]) -> list[float]:
        filled = values if self.fill is None else [self.fill if is_nan(value) else value for value in values]
        if self.unknown is None:
            try:
                return [self.codes[key(value)] for value in filled]
            except KeyError:
                # As scikit-learn does. Of text the contract says what is known, so only another kind comes here.
                raise ValueError("a category that the model has not seen") from None
        return [self.codes.get(key(value), self.unknown) for value in filled]


@dataclass(frozen=True)
class Block:
    """Some columns on their way to numbers: either encoded as categories or changed by steps."""

    columns: list[int]
    kind: str
    encoders: list[Encoder]
    steps: Steps

    def rows(self, table: Table) -> list[Array]:
        if self.kind == "numbers":
            if isinstance(table, np.ndarray):
                rows = table[:, self.columns]
            else:
                rows = np.stack([table[column].astype(np.float64) for column in self.columns], axis=1)
            for operation, values in self.steps:
                rows = operation(rows, values)
            return [rows]
        return [self._encoded(encoder, table) for encoder in self.encoders]

    def _encoded(self, encoder: Encoder, table: Table) -> Array:
        values = table[:, encoder.column] if isinstance(table, np.ndarray) else table[encoder.column]
        codes = np.array(encoder.lookup(values.tolist()), dtype=np.float64)
        if self.kind == "ordinal":
            return codes[:, np.newaxis]
        # A code beyond the columns, of an unknown category, leaves all of them at 0.
        hot: Array = codes[:, np.newaxis] == np.arange(encoder.width)
        return hot.astype(np.float64)


@dataclass(frozen=True)
class Blocks:
    blocks: list[Block]

    @classmethod
    def read(cls, documents: list[dict[str, Any]], arrays: Mapping[str, Array]) -> Blocks:
        """Each document has ``columns``, ``kind`` (numbers, ordinal, one_hot), ``encoders`` and ``steps``."""
        return cls([_block(document, arrays) for document in documents])

    def rows(self, table: Table) -> Array:
        """Rows of numbers, the blocks side by side."""
        return np.concatenate([rows for block in self.blocks for rows in block.rows(table)], axis=1)


def _block(document: dict[str, Any], arrays: Mapping[str, Array]) -> Block:
    encoders = []
    for encoder in document["encoders"]:
        codes = {key(category): float(code) for category, code in encoder["codes"]}
        unknown = encoder["unknown"]
        encoders.append(
            Encoder(
                encoder["column"],
                {category: np.nan if code < 0 else code for category, code in codes.items()},
                encoder["width"],
                encoder["fill"],
                np.nan if unknown == MISSING else unknown,
            )
        )
    return Block(document["columns"], document["kind"], encoders, read_steps(document["steps"], arrays))
