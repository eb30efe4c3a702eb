# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What numpy and scikit-learn read from the environment, once, when they are imported."""

from __future__ import annotations

import os


def set_up_libraries() -> None:
    """To be called before any of them is imported."""
    # A worker's threads are the parallelism, and decoding has checked already that numbers are finite.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("SKLEARN_ASSUME_FINITE", "1")
