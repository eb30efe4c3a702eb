# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiling trees and their ensembles: the nodes of all trees, put in the same arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from model_server.bundle.contract import Contract
from model_server.scoring.forms.compiler import NotCompiledError, Writer, estimator_of
from model_server.scoring.forms.operations import Array


def compile_trees(model: Any, contract: Contract) -> bytes:
    """The program of a model that is a tree or an ensemble of them; a NotCompiledError for any other."""
    steps, estimator = estimator_of(model)
    kind = type(estimator).__name__
    if kind not in _KINDS:
        raise NotCompiledError(f"{kind} is no tree and no ensemble of trees")
    if kind.startswith("HistGradientBoosting") and estimator._preprocessor is not None:
        steps = [*steps, estimator._preprocessor]
    writer = Writer(contract)
    writer.transformers(steps)
    _KINDS[kind](writer, estimator)
    return writer.written()


@dataclass(frozen=True)
class _Nodes:
    """One tree, as its estimator has it."""

    left: Array
    right: Array
    is_leaf: Array
    feature: Array
    threshold: Array
    goes_left: Array
    values: Array
    categories: Array | None = None


def _nodes_of(tree: Any) -> _Nodes:
    """The nodes of a ``tree_``."""
    goes_left = getattr(tree, "missing_go_to_left", np.zeros(tree.node_count, dtype=bool))
    # A float32 is at most a float64 exactly if it is at most the largest float32 that is not above it.
    threshold = tree.threshold.astype(np.float32)
    threshold = np.where(threshold > tree.threshold, np.nextafter(threshold, np.float32(-np.inf)), threshold)
    return _Nodes(
        tree.children_left,
        tree.children_right,
        tree.children_left == -1,
        tree.feature,
        threshold.astype(np.float32),
        goes_left.astype(bool),
        tree.value,
    )


def _write_nodes(writer: Writer, trees: Iterable[_Nodes], values: Callable[[Array], Array], **more: Any) -> None:
    """Put the nodes of all trees in the same arrays, level by level, the two below a node side by side."""
    parts: dict[str, list[Array]] = {name: [] for name in ("feature", "threshold", "left", "values", "goes_left")}
    categories = []
    roots = []
    total = depth = 0
    for tree in trees:
        order, place = [np.array([0])], np.zeros(len(tree.left), dtype=np.int64)
        while len(inner := order[-1][~tree.is_leaf[order[-1]]]):
            order.append(np.stack([tree.left[inner], tree.right[inner]], axis=1).ravel().astype(np.int64))
        depth = max(depth, len(order) - 1)
        nodes = np.concatenate(order)
        count = len(nodes)
        place[nodes] = np.arange(count)
        leaf = tree.is_leaf[nodes]
        parts["feature"].append(np.where(leaf, 0, tree.feature[nodes]).astype(np.int32))
        parts["threshold"].append(np.where(leaf, tree.threshold.dtype.type(np.inf), tree.threshold[nodes]))
        left = np.where(leaf, np.arange(count), place[np.where(leaf, 0, tree.left[nodes])])
        parts["left"].append((total + left).astype(np.int32))
        parts["values"].append(values(tree.values[nodes]))
        # A missing value that has arrived at a leaf stays there.
        parts["goes_left"].append(tree.goes_left[nodes] | leaf)
        if tree.categories is not None:
            categories.append(np.where(leaf, -1, tree.categories[nodes]).astype(np.int32))
        roots.append(total)
        total += count
    arrays = {name: np.concatenate(found) for name, found in parts.items()} | {"roots": np.array(roots, np.int32)}
    if categories:
        arrays["categories"] = np.concatenate(categories)
    writer.trees = {"depth": depth, "arrays": {name: writer.array(found) for name, found in {**arrays, **more}.items()}}


def _write_averaged(writer: Writer, estimator: Any) -> None:
    trees = getattr(estimator, "estimators_", [estimator])
    several = estimator.n_outputs_ > 1
    labels = hasattr(estimator, "classes_")

    def values(found: Array) -> Array:
        # Outputs and classes of a node; a single output has no axis of its own, nor has a number that is no class.
        if not labels:
            return found[:, :, 0]
        return found if several else found[:, 0, : estimator.n_classes_]

    _write_nodes(writer, (_nodes_of(tree.tree_) for tree in trees), values)
    if labels:
        classes = estimator.classes_ if several else [estimator.classes_]
        writer.outcome = {
            "decide": "largest_each" if several else "largest",
            "link": "none" if several else "shares",
            "classes": [writer.array(found) for found in classes],
        }
    else:
        writer.outcome = {"decide": "value", "link": "none"}


def _write_gradient_boosting(writer: Writer, estimator: Any) -> None:
    init = estimator.init_
    if not isinstance(init, str) and type(init).__name__ not in ("DummyClassifier", "DummyRegressor"):
        raise NotCompiledError(f"it starts from a {type(init).__name__}")
    start = estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_), dtype=np.float32))[0]
    trees = (_nodes_of(tree.tree_) for tree in estimator.estimators_.ravel())
    rate = estimator.learning_rate
    _write_nodes(writer, trees, lambda found: rate * found[:, 0, 0], start=start.astype(np.float64))
    _write_boosted_outcome(writer, estimator, len(start), "not_negative")


def _write_histogram_boosting(writer: Writer, estimator: Any) -> None:
    nodes = []
    bits: list[Array] = []
    for predictor in (predictor for iteration in estimator._predictors for predictor in iteration):
        found = predictor.nodes
        rows = np.where(found["is_categorical"] == 1, found["bitset_idx"].astype(np.int64) + len(bits), -1)
        bits.extend(_bits(words) for words in predictor.raw_left_cat_bitsets)
        nodes.append(
            _Nodes(
                found["left"],
                found["right"],
                found["is_leaf"].astype(bool),
                found["feature_idx"],
                found["num_threshold"],
                found["missing_go_to_left"].astype(bool),
                found["value"],
                rows,
            )
        )
    start = estimator._baseline_prediction.ravel().astype(np.float64)
    if bits:
        _write_nodes(writer, nodes, lambda found: found, start=start, in_left=np.stack(bits))
    else:
        _write_nodes(writer, (_without_categories(tree) for tree in nodes), lambda found: found, start=start)
    _write_boosted_outcome(writer, estimator, len(start), "positive")


def _without_categories(tree: _Nodes) -> _Nodes:
    return replace(tree, categories=None)


def _bits(words: Array) -> Array:
    """Eight words of 32 bits as 256 booleans, the lowest bit first."""
    return np.unpackbits(words.astype("<u4").view(np.uint8), bitorder="little").astype(bool)


def _write_boosted_outcome(writer: Writer, estimator: Any, outputs: int, decide: str) -> None:
    link = type(estimator._loss.link).__name__
    if hasattr(estimator, "classes_"):
        links = {"LogitLink": "logistic", "HalfLogitLink": "logistic_of_twice", "MultinomialLogit": "softmax"}
        if link not in links:
            raise NotCompiledError(f"its link is a {link}")
        writer.outcome = {
            "decide": decide if outputs == 1 else "largest",
            "link": links[link],
            "classes": [writer.array(estimator.classes_)],
        }
    else:
        # Gradient boosting gives the raw value, whatever its loss.
        is_log = link == "LogLink" and type(estimator).__name__.startswith("Hist")
        writer.outcome = {"decide": "exp" if is_log else "value", "link": "none"}


_KINDS: dict[str, Callable[[Writer, Any], None]] = {
    **dict.fromkeys(
        (
            "DecisionTreeClassifier",
            "DecisionTreeRegressor",
            "ExtraTreeClassifier",
            "ExtraTreeRegressor",
            "ExtraTreesClassifier",
            "ExtraTreesRegressor",
            "RandomForestClassifier",
            "RandomForestRegressor",
        ),
        _write_averaged,
    ),
    **dict.fromkeys(("GradientBoostingClassifier", "GradientBoostingRegressor"), _write_gradient_boosting),
    **dict.fromkeys(("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"), _write_histogram_boosting),
}
