# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What numpy and scikit-learn read from the environment, once, when they are imported."""

from __future__ import annotations

import os


def set_up_libraries() -> None:
    """To be called before any of them is imported."""
    # A worker's threads are the parallelism.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    let_scikit_learn_check()


def let_scikit_learn_check() -> None:
    """Whatever the environment says: a step can make NaN of a number, and what comes next would answer even that."""
    os.environ.pop("SKLEARN_ASSUME_FINITE", None)
