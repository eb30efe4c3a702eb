# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees and their ensembles: arrays of nodes, and all trees walked down together, a level at a time.

Nodes of all trees lie in the same arrays, the two below a node side by side, so that going right is adding 1. A leaf is
its own left child and its threshold is infinite, so a lane that has arrived stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_server.scoring.forms.operations import Array, narrowed

LANES = 1 << 15
"""Rows times trees that are walked at once: what stays in a processor's cache."""


@dataclass(frozen=True)
class Trees:
    """Arrays over all nodes, but ``roots``. ``values`` is what a node gives: outputs, or outputs and classes.

    ``rounds``: trees of boosting, ``start`` has an entry for each tree of a round, and values are added to it. Else
    the trees' values are averaged. ``goes_left`` tells where missing values go, if rows may have any. ``categories``
    is the row of ``in_left`` for a node that splits categories, -1 for others.
    """

    feature: Array
    threshold: Array
    left: Array
    values: Array
    roots: Array
    depth: int
    start: Array | None
    goes_left: Array | None
    categories: Array | None
    in_left: Array | None

    @classmethod
    def read(cls, document: dict[str, Any], arrays: Mapping[str, Array], nullable: bool) -> Trees:
        found: dict[str, Any] = {name: arrays[place] for name, place in document["arrays"].items()}
        if not nullable and "categories" not in found:
            found.pop("goes_left", None)
        # What take() wants: any other type would be converted at each call.
        indexes = {name: found[name].astype(np.intp) for name in ("feature", "left", "roots")}
        absent = dict.fromkeys(("start", "goes_left", "categories", "in_left"))
        return cls(**{**absent, **found, **indexes}, depth=document["depth"])

    @property
    def work(self) -> int:
        """Nodes that a row visits."""
        return len(self.roots) * max(self.depth, 1) * 3

    def raw(self, rows: Array) -> Array:
        """Rows to raw values: rows and outputs, or rows, outputs and classes."""
        rows = np.ascontiguousarray(narrowed(rows, self.threshold.dtype))
        count = max(1, LANES // len(self.roots))
        if len(rows) <= count:
            return self._sums(rows)
        return np.concatenate([self._sums(rows[first : first + count]) for first in range(0, len(rows), count)])

    def _sums(self, rows: Array) -> Array:
        leaves = self._leaves(rows)
        values = self.values.take(leaves, axis=0)
        if self.start is None:
            return _sum(values) / len(self.roots)
        per_round = len(self.start)
        values = values.reshape(-1, per_round, len(rows))
        first = self.start.repeat(len(rows)).reshape(1, per_round, len(rows))
        return _sum(np.concatenate([first, values])).T

    def _leaves(self, rows: Array) -> Array:
        """The leaf of each tree and row: trees by rows, one after the other, as they are added up."""
        missing = self.goes_left is not None and bool(np.isnan(rows).any())
        if len(rows) == 1 and len(self.left) < 1000 * self.depth:
            # Few nodes: where each of them leads is sooner found than what it takes to ask only those on the way.
            following = self.left + self._right(rows[0].take(self.feature), None, missing)
            nodes = self.roots[:, np.newaxis]
            for _level in range(self.depth):
                nodes = following.take(nodes)
            return nodes
        first = np.arange(0, rows.size, rows.shape[1])
        flat = rows.ravel()
        nodes = np.repeat(self.roots[:, np.newaxis], len(rows), axis=1)
        for _level in range(self.depth):
            found = flat.take(self.feature.take(nodes) + first)
            nodes = self.left.take(nodes) + self._right(found, nodes, missing)
        return nodes

    def _right(self, found: Array, nodes: Array | None, missing: bool) -> Array:
        """Whether the values ``found`` go right at ``nodes``, or one value at each node there is."""
        right: Array = found > _at(self.threshold, nodes)
        if self.categories is not None and self.in_left is not None:
            row = _at(self.categories, nodes)
            codes = np.where((row < 0) | np.isnan(found), 0, found).astype(np.intp)
            right = np.where(row < 0, right, ~self.in_left[row, codes])
        if missing and self.goes_left is not None:
            right = np.where(np.isnan(found), ~_at(self.goes_left, nodes), right)
        return right


def _at(values: Array, nodes: Array | None) -> Array:
    return values if nodes is None else values.take(nodes)


def _sum(values: Array) -> Array:
    """The sum over the first axis, strictly in its order, for scikit-learn adds one tree after the other."""
    if values[0].size == 1:
        # numpy adds up a single column in pairs.
        last: Array = np.add.accumulate(values)[-1]
        return last
    total: Array = np.add.reduce(values)
    return total
