# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A loaded model with its contract: from a request's rows to the model's outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from model_server.bundle.contract import Contract
from model_server.bundle.manifest import Manifest
from model_server.scoring.errors import ModelError, RefusedError
from model_server.scoring.table import Request, Table

Outputs = dict[str, np.ndarray[Any, Any]]
"""Arrays by their names in the contract: ``predictions``, ``scores`` and, if they were asked for, ``probabilities``."""


class Predictor(Protocol):
    """A model in a form that serves. ``predict`` keeps nothing between calls: threads may share a predictor.

    ``cheap_rows`` is how many rows take about a millisecond at most, 0 if even one may take longer.
    """

    @property
    def cheap_rows(self) -> int: ...

    def start(self) -> None:
        """Make what a process cannot inherit. Called once in each worker, after the fork."""

    def predict(self, table: Table, probabilities: bool) -> Outputs: ...


class Scored(NamedTuple):
    """A request with what the model gave for it."""

    request: Request
    outputs: Outputs


@dataclass(frozen=True)
class Scorer:
    """Threads may share a scorer: it keeps nothing between calls. ``form`` names the predictor's."""

    manifest: Manifest
    contract: Contract
    predictor: Predictor
    form: str = "native"

    def start(self) -> None:
        """Called once in each worker, after the fork and before its first request."""
        self.predictor.start()

    def cheap(self, count: int) -> bool:
        """Whether so many rows take about a millisecond at most, so that an event loop can wait for them."""
        return count <= self.predictor.cheap_rows

    def predict(self, request: Request) -> Outputs:
        """The model's outputs, a row of each for each row asked; a RefusedError or a ModelError if it gives none."""
        try:
            outputs = self.predictor.predict(request.table, request.probabilities)
        except ValueError as error:
            # So scikit-learn refuses what it cannot compute with, as a number too large for float32.
            raise RefusedError("the model refuses a value of these rows") from error
        except Exception as error:
            # The cause goes to the log; its text can hold the client's data, or anything else of the model's.
            raise ModelError(f"the model failed with {type(error).__name__}") from error
        for name, array in outputs.items():
            if array.ndim == 0 or len(array) != request.count:
                raise ModelError(f"{name}: expected {request.count} rows, found an array of shape {array.shape}")
        return outputs
