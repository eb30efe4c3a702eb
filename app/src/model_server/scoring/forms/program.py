# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a model is compiled to that numpy alone can run: blocks of columns, steps, perhaps trees, and an outcome.

Each part does what scikit-learn's does, in the same order and precision. Of its checks one is left, at the end: a value
that became infinite or NaN on the way is refused.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from model_server.bundle.contract import Contract
from model_server.scoring.forms.blocks import Blocks
from model_server.scoring.forms.operations import Array, Steps, read_steps
from model_server.scoring.forms.outcome import Outcome
from model_server.scoring.forms.trees import Trees
from model_server.scoring.scorer import Outputs
from model_server.scoring.table import Table, matrix


@dataclass(frozen=True)
class Program:
    """A predictor. ``rows`` makes numbers of a table, ``steps`` change them, and ``raw`` runs the trees of a model.

    ``is_sound`` tells which of the numbers that the steps end with are what a model may answer; None: all of them are.
    """

    rows: Callable[[Table], Array]
    steps: Steps
    raw: Callable[[Array], Array] | None
    outcome: Outcome
    cheap_rows: int
    is_sound: Callable[[Array], Array] | None

    def start(self) -> None:
        """Nothing: arrays in memory are inherited, and shared as long as nobody writes to them."""

    def predict(self, table: Table, probabilities: bool) -> Outputs:
        rows = self.rows(table)
        for operation, values in self.steps:
            rows = operation(rows, values)
        # As bytes, for that is several times sooner done than all() of a few values.
        if self.is_sound and 0 in self.is_sound(rows).tobytes():
            raise ValueError("a value is too large for the model")
        raw = self.raw(rows) if self.raw else rows
        outputs = {"predictions": self.outcome.decide(raw)}
        if probabilities:
            outputs["probabilities"] = self.outcome.link(raw)
        return outputs


def read_program(data: bytes, contract: Contract) -> Program:
    """The program in the bytes of a ``.npz``."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    nullable = any(column.nullable for column in contract.inputs)
    document = json.loads(arrays.pop("program").tobytes())
    steps = read_steps(document["steps"], arrays)
    blocks = Blocks.read(document["blocks"], arrays) if document["blocks"] else None
    trees = Trees.read(document["trees"], arrays, nullable) if document["trees"] else None
    work = sum(values.size for step, values in steps) + (trees.work if trees else 0)
    return Program(
        rows=blocks.rows if blocks else (matrix if document["dtype"] == "float64" else _float32_rows),
        steps=steps,
        raw=trees.raw if trees else None,
        outcome=Outcome.read(document["outcome"], arrays),
        # Two nanoseconds for a number or a node, and the columns of text are looked up one by one.
        cheap_rows=int(1e6 / (2 * work + 2000 * len(document["blocks"]) + 100)),
        is_sound=_sound(trees is not None, bool(blocks) or len(steps) > (0 if trees else _LINEAR), nullable),
    )


_LINEAR = 2
"""Steps that are a linear model itself: a product and a sum."""


def _sound(has_trees: bool, is_changed: bool, nullable: bool) -> Callable[[Array], Array] | None:
    """What is asked is finite. What is made of it before the model has it may be not, and then scikit-learn refuses it.

    A linear model is checked at its very end, for there all that was infinite still shows; missing values are trees'
    to take.
    """
    if not is_changed:
        return None
    return _not_infinite if has_trees and nullable else np.isfinite


def _not_infinite(rows: Array) -> Array:
    infinite: Array = np.isinf(rows)
    return ~infinite


def _float32_rows(table: Table) -> Array:
    return matrix(table).astype(np.float32)
