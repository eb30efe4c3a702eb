# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a program's raw values to predictions and probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_server.scoring.forms.operations import Array


@dataclass(frozen=True)
class Outcome:
    """From raw values, an array of rows or of rows and outputs, to predictions and probabilities."""

    decide: Callable[[Array], Array]
    link: Callable[[Array], Array]

    @classmethod
    def read(cls, document: dict[str, Any], arrays: Mapping[str, Array]) -> Outcome:
        """``decide`` and ``link`` are names of the tables below; ``classes`` is of each output that is a label."""
        classes = [arrays[name] for name in document.get("classes", [])]
        return cls(_DECISIONS[document["decide"]](classes), LINKS[document["link"]])


def _flat(raw: Array) -> Array:
    return raw.ravel() if raw.ndim == 2 and raw.shape[1] == 1 else raw


def _labels(raw: Array, classes: list[Array]) -> Array:
    chosen = [labels.take(raw[:, output].argmax(axis=1)) for output, labels in enumerate(classes)]
    return np.stack(chosen, axis=1)


_DECISIONS: dict[str, Callable[[list[Array]], Callable[[Array], Array]]] = {
    "raw": lambda classes: lambda raw: raw,
    "value": lambda classes: _flat,
    "exp": lambda classes: lambda raw: np.exp(_flat(raw)),
    # Two classes: scikit-learn's families differ in what they do with exactly 0.
    "positive": lambda classes: lambda raw: classes[0].take(raw.ravel() > 0),
    "not_negative": lambda classes: lambda raw: classes[0].take(raw.ravel() >= 0),
    "largest": lambda classes: lambda raw: classes[0].take(raw.argmax(axis=1)),
    "largest_each": lambda classes: lambda raw: _labels(raw, classes),
}


def _logistic(raw: Array) -> Array:
    # Where the exponential would overflow, the result is 0 to all digits in any case.
    return 1.0 / (1.0 + np.exp(np.minimum(-raw, 88.0 if raw.dtype == np.float32 else 700.0)))


def _two_classes(raw: Array) -> Array:
    positive = _logistic(raw.ravel())
    return np.stack([1 - positive, positive], axis=1)


def _softmax(raw: Array) -> Array:
    exponentials = np.exp(raw - raw.max(axis=1, keepdims=True))
    probabilities: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def _one_versus_rest(raw: Array) -> Array:
    each = _logistic(raw)
    total = each.sum(axis=1, keepdims=True)
    return np.where(total == 0, 1 / each.shape[1], each / np.where(total == 0, 1, total))


LINKS: dict[str, Callable[[Array], Array]] = {
    "none": lambda raw: raw,
    "shares": lambda raw: raw,
    "logistic": _two_classes,
    "logistic_of_twice": lambda raw: _two_classes(2 * raw),
    "softmax": _softmax,
    "one_versus_rest": _one_versus_rest,
}
