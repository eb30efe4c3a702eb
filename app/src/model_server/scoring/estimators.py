# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The estimators that a model is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


def one_job(model: Any) -> None:
    """Set ``n_jobs`` of every estimator in ``model`` to 1, fitted ones and those in containers too.

    A worker's threads are its parallelism: an estimator that starts its own takes them from the others.
    """
    for estimator in estimators(model):
        if "n_jobs" in vars(estimator):
            estimator.n_jobs = 1


def estimators(model: Any) -> Iterator[Any]:
    """Every estimator in ``model``, itself first."""
    seen: set[int] = set()
    found = [model]
    while found:
        item = found.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            found.extend(item.values())
        elif isinstance(item, (list, tuple)):
            found.extend(item)
        elif isinstance(item, np.ndarray):
            if item.dtype == object:
                found.extend(item.flat)
        elif hasattr(item, "get_params") and hasattr(item, "__dict__"):
            yield item
            found.extend(vars(item).values())
