# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The form of every model: the model itself, as it was loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from model_server.bundle.contract import Contract
from model_server.scoring.scorer import Outputs
from model_server.scoring.table import Table, model_input


@dataclass(frozen=True)
class Native:
    """Predicts with the methods of ``model``."""

    model: Any
    contract: Contract
    cheap_rows: int = 0

    def start(self) -> None:
        """Nothing: a model in memory is inherited."""

    def predict(self, table: Table, probabilities: bool) -> Outputs:
        rows = model_input(table, self.contract)
        outputs = {"predictions": np.asarray(self.model.predict(rows))}
        if probabilities:
            outputs["probabilities"] = np.asarray(self.model.predict_proba(rows))
        if self.contract.has_scores:
            outputs["scores"] = np.asarray(self.model.decision_function(rows))
        return outputs
