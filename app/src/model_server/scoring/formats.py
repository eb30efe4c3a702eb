# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The formats that a manifest can declare. The declaration decides, the bytes never do."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from model_server.bundle.contract import Contract
from model_server.scoring.forms.native import Native
from model_server.scoring.forms.onnx import OnnxModel, load_onnx
from model_server.scoring.scorer import Predictor


@dataclass(frozen=True)
class Format:
    """How a model was written.

    ``load`` takes the bytes of the file, ``suffix`` is that of its name in a bundle, and ``platform`` is its name in
    the Open Inference Protocol. ``packages`` are what ``load`` imports, beside what the model itself needs.
    ``is_pickle``: the bytes are one pickle and nothing else, so that its opcodes name the modules the model needs.
    ``untrusted`` gives the types in the bytes that are built only if somebody trusts them; then ``load`` takes a second
    argument, the types that are trusted. ``predictor`` serves the bytes where there is no object to call.
    """

    load: Callable[..., Any]
    suffix: str
    platform: str
    packages: tuple[str, ...] = ()
    is_pickle: bool = False
    untrusted: Callable[[bytes], list[str]] | None = None
    predictor: Callable[[bytes, Contract], Predictor] | None = None

    def model(self, data: bytes, trusted: Sequence[str] = ()) -> Any:
        """The model in ``data``."""
        return self.load(data, list(trusted)) if self.untrusted else self.load(data)


def predictor_of(model: Any, contract: Contract) -> Predictor:
    """What a loaded model predicts with when it is not compiled."""
    return model.predictor(contract) if isinstance(model, OnnxModel) else Native(model, contract)


def _load_joblib(data: bytes) -> Any:
    import joblib  # Only models in this format need it.

    return joblib.load(io.BytesIO(data))


def _load_skops(data: bytes, trusted: list[str]) -> Any:
    import skops.io  # Only models in this format need it.

    return skops.io.loads(data, trusted=trusted)


def _untrusted_of_skops(data: bytes) -> list[str]:
    import skops.io

    return sorted(skops.io.get_untrusted_types(data=data))


FORMATS = {
    "pickle": Format(pickle.loads, "pkl", "sklearn_pickle", is_pickle=True),
    "joblib": Format(_load_joblib, "joblib", "sklearn_joblib", packages=("joblib",)),
    "skops": Format(_load_skops, "skops", "sklearn_skops", packages=("skops",), untrusted=_untrusted_of_skops),
    "onnx": Format(OnnxModel, "onnx", "onnxruntime_onnx", packages=("onnxruntime",), predictor=load_onnx),
}
