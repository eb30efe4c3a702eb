# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A loaded model with its contract: a function from request bytes to response bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from model_server.bundle.contract import Contract
from model_server.bundle.manifest import Manifest
from model_server.scoring.decode import decode
from model_server.scoring.encode import encode
from model_server.scoring.errors import ModelError


class Scored(NamedTuple):
    body: bytes
    rows: int


@dataclass(frozen=True)
class Scorer:
    """Threads may share a scorer: it keeps nothing between calls."""

    manifest: Manifest
    contract: Contract
    model: Any

    def score(self, body: bytes) -> Scored:
        """The response to ``body``; a ScoringError tells why there is none."""
        request = decode(body, self.contract)
        outputs = self.predict(request.rows, request.probabilities)
        for name, array in outputs.items():
            if array.ndim == 0 or len(array) != request.count:
                raise ModelError(f"{name}: expected {request.count} rows, found an array of shape {array.shape}")
        return Scored(encode(outputs), request.count)

    def predict(self, rows: Any, probabilities: bool) -> dict[str, Any]:
        """The model's outputs as arrays by their names in the contract."""
        try:
            outputs = {"predictions": np.asarray(self.model.predict(rows))}
            if probabilities:
                outputs["probabilities"] = np.asarray(self.model.predict_proba(rows))
        except Exception as error:
            # The cause goes to the log; its text can hold the client's data, or anything else of the model's.
            raise ModelError(f"the model failed with {type(error).__name__}") from error
        return outputs
