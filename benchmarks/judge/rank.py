"""What the judge is compared with: ranks of the points of time series, in the manner of Kayenta's NetflixACAJudge.

A metric is one number for each interval of the window. It fails if Mann and Whitney's test puts the canary's points
above the baseline's: if the 98 % confidence interval of their shift (H. B. Mann and D. R. Whitney, 1947; the interval
of L. E. Moses by J. L. Hodges and E. L. Lehmann, 1963) lies above a quarter of its estimate. Written anew from the
description of that judge, with its defaults of confidence and tolerance, and the 50 points that its authors ask for.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from benchmarks.judge.traffic import Window

POINTS = 50
CONFIDENCE = 0.98
TOLERANCE = 0.25


def rank_judge_fails(baseline: Window, canary: Window) -> dict[str, bool]:
    """Which of the metrics fail: mean latency, error rate (both upwards), the share of any class (both ways)."""
    classes = range(int(max(baseline.classes.max(), canary.classes.max())) + 1)
    return {
        "latency": _is_high(_points(baseline.seconds), _points(canary.seconds)),
        "errors": _is_high(_points(baseline.errors), _points(canary.errors)),
        "predictions": any(_differs(_points(baseline.classes == it), _points(canary.classes == it)) for it in classes),
    }


def _points(values: NDArray[np.float64] | NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.array([part.mean() for part in np.array_split(values, POINTS)])


def _is_high(baseline: NDArray[np.float64], canary: NDArray[np.float64]) -> bool:
    m, n = len(canary), len(baseline)
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    least, middle = int(m * n / 2 - z * math.sqrt(m * n * (m + n + 1) / 12)), m * n // 2
    shifts = np.partition(np.subtract.outer(canary, baseline), [least, middle], axis=None)
    return bool(shifts[least] > TOLERANCE * abs(shifts[middle]))


def _differs(baseline: NDArray[np.float64], canary: NDArray[np.float64]) -> bool:
    return _is_high(baseline, canary) or _is_high(-baseline, -canary)
