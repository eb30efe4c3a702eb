# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The formats that a manifest can declare. The declaration decides, the bytes never do."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Format:
    """How a model was written.

    ``load`` takes the bytes of the file, ``suffix`` is that of its name in a bundle, and ``platform`` is its name in
    the Open Inference Protocol. ``packages`` are what ``load`` imports, beside what the model itself needs.
    ``is_pickle``: the bytes are one pickle and nothing else, so that its opcodes name the modules the model needs.
    """

    load: Callable[[bytes], Any]
    suffix: str
    platform: str
    packages: tuple[str, ...] = ()
    is_pickle: bool = False


def _load_joblib(data: bytes) -> Any:
    import joblib  # Only models in this format need it.

    return joblib.load(io.BytesIO(data))


FORMATS = {
    "pickle": Format(pickle.loads, "pkl", "sklearn_pickle", is_pickle=True),
    "joblib": Format(_load_joblib, "joblib", "sklearn_joblib", packages=("joblib",)),
}
