# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare what two releases answer to the same rows: labels that flip, and how far scores move."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Z_95 = 1.959963984540054
"""The standard normal quantile of a two-sided 95 % interval."""

MOST_SEGMENTS = 20
"""A column of numbers with more values than this is cut at its quartiles; any other is left as it is."""


@dataclass(frozen=True)
class Answered:
    """What a release answered to some rows, a value or a list a row; None in place of a row that it refused.

    ``scores`` are probabilities, or the scores of one that finds anomalies; None where there are none.
    """

    predictions: Sequence[Any]
    scores: Sequence[Any] | None = None


@dataclass(frozen=True)
class Thresholds:
    """What may change: shares from 0 to 1, and changes of score as ``changes`` measures them (None: any)."""

    max_flip_rate: float = 0.01
    max_change: float | None = None
    max_p99_change: float | None = None
    min_rows: int = 100


@dataclass(frozen=True)
class Flips:
    """How many of ``rows`` rows have another label, or are refused by the new release alone."""

    count: int
    rows: int

    @property
    def rate(self) -> float:
        return self.count / self.rows if self.rows else 0.0

    @property
    def bounds(self) -> tuple[float, float]:
        return wilson(self.count, self.rows)

    def judge(self, most: float, min_rows: int) -> bool | None:
        """Whether the rate is at most ``most``, by its upper bound; None if there are too few rows to say so.

        Fewer than ``min_rows`` say nothing. Fewer than it takes for the bound of no flip at all to be low enough
        (``rows_needed``) condemn a release if even the lower bound is too high, and never acquit it.
        """
        lower, upper = self.bounds
        if self.rows < min_rows:
            return None
        if wilson(0, self.rows)[1] > most:
            return False if lower > most else None
        return upper <= most

    def __str__(self) -> str:
        return f"{self.count} of {self.rows} rows flip ({self.rate:.2%}, at most {self.bounds[1]:.2%})"


def wilson(count: int, total: int, z: float = Z_95) -> tuple[float, float]:
    """The Wilson score interval of a share, ``count`` of ``total``; 0 to 1 if there is nothing to go by.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American
    Statistical Association 22 (1927), 209-212. It holds for few events and few rows, where the interval of the normal
    approximation does not.
    """
    if not total:
        return 0.0, 1.0
    share = count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    spread = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (0.0 if count == 0 else max(0.0, middle - spread)), (1.0 if count == total else min(1.0, middle + spread))


def rows_needed(limits: Thresholds) -> int | None:
    """How many rows it takes at least to tell that ``limits`` hold; None if no number of them is enough.

    The upper bound of none of n is z² / (n + z²).
    """
    most = limits.max_flip_rate
    return max(limits.min_rows, math.ceil(Z_95 * Z_95 * (1 - most) / most)) if most else None


def flips(old: Answered, new: Answered, labels: bool) -> list[bool]:
    """For each row whether its label is another one. A row that the new release refuses has flipped, labels or not."""
    return [after is None or (labels and before != after) for before, after in zip(old.predictions, new.predictions)]


def changes(old: Answered, new: Answered, labels: bool) -> list[float | None]:
    """How far each row's score moved; None where not both releases give one, nothing where none does.

    Of a classifier it is the largest difference between the probabilities of a class. Predicted numbers and scores of
    anomalies have no scale of their own: theirs are differences in standard deviations of the old answers, so that a
    threshold means the same for prices and for kilograms.
    """
    before, after = (old.scores, new.scores) if labels else (old.predictions, new.predictions)
    if before is None or after is None:
        return []
    pairs = [_pair(was, now) for was, now in zip(before, after)]
    whole = [pair for pair in pairs if pair]
    if not whole:
        return []
    # Probabilities are lists; one score a row is a number.
    if labels and any(isinstance(was, (list, tuple)) for was in before):
        units = [1.0] * len(whole[0][0])
    else:
        units = [statistics.pstdev(column) or 1.0 for column in zip(*(was for was, _now in whole))]
    return [max(abs(a - b) / unit for a, b, unit in zip(*pair, units)) if pair else None for pair in pairs]


def _pair(was: Any, now: Any) -> tuple[list[float], list[float]] | None:
    if was is None or now is None:
        return None
    try:
        before, after = _numbers(was), _numbers(now)
    except (TypeError, ValueError):
        return None
    return (before, after) if len(before) == len(after) else None


def unscored(old: Answered, new: Answered, labels: bool) -> list[bool]:
    """For each row whether the new release answers it without a score like the old one's: none, or of other classes."""
    before, after = (old.scores, new.scores) if labels else (old.predictions, new.predictions)
    nothing = [None] * len(old.predictions)
    return [
        was is not None and answer is not None and _pair(was, now) is None
        for was, now, answer in zip(before or nothing, after or nothing, new.predictions)
    ]


def _numbers(value: Any) -> list[float]:
    return [float(number) for number in value] if isinstance(value, (list, tuple)) else [float(value)]


def are_labels(predictions: Sequence[Any], classes: object) -> bool:
    """Whether predictions are labels: a contract names their ``classes``, or they are no floating-point numbers."""
    if classes:
        return True
    first = next((value for value in predictions if value is not None), None)
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    return first is not None and not isinstance(first, float)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of ``values`` that ``share`` of them do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def segments(values: Sequence[Any]) -> dict[str, list[int]]:
    """The rows of each segment, by the value of a column in each row. Many numbers are cut at their quartiles."""
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    cuts = []
    if len(set(numbers)) > MOST_SEGMENTS:
        ordered = sorted(numbers)
        cuts = [ordered[len(ordered) * quarter // 4] for quarter in (1, 2, 3)]
    found: dict[str, list[int]] = {}
    for row, value in enumerate(values):
        found.setdefault(_segment(value, cuts), []).append(row)
    return dict(sorted(found.items()))


def _segment(value: Any, cuts: Sequence[float]) -> str:
    if not cuts or isinstance(value, (bool, str)) or value is None:
        return str(value)
    place = sum(value >= cut for cut in cuts)
    below = f"below {cuts[0]:g}"
    return below if place == 0 else f"from {cuts[place - 1]:g}"


@dataclass(frozen=True)
class Part:
    """All rows, or those of a segment: how many labels flip, and how far scores move (None: no scores).

    ``unscored`` rows have a score of the old release alone.
    """

    flips: Flips
    max_change: float | None
    p99_change: float | None
    unscored: int

    @classmethod
    def of(
        cls, rows: Sequence[int], flipped: Sequence[bool], moved: Sequence[float | None], lacking: Sequence[bool]
    ) -> Part:
        found = [change for row in rows if moved and (change := moved[row]) is not None]
        most, p99 = (max(found), percentile(found, 0.99)) if found else (None, None)
        flips_found = Flips(sum(flipped[row] for row in rows), len(rows))
        return cls(flips_found, most, p99, sum(lacking[row] for row in rows))

    def is_small(self, limits: Thresholds) -> bool:
        """Whether there are too few rows to say that labels hardly flip."""
        return self.flips.judge(limits.max_flip_rate, limits.min_rows) is None

    def judge(self, limits: Thresholds) -> bool | None:
        """Whether all of ``limits`` hold; None if there are too few rows, or scores, to say so.

        Of fewer than ``min_rows`` scores say nothing either: one of a few rows may always be far from what it was.
        """
        if self.flips.rows < limits.min_rows:
            return None
        judged = [
            self.flips.judge(limits.max_flip_rate, limits.min_rows),
            self._within(self.max_change, limits.max_change),
            self._within(self.p99_change, limits.max_p99_change),
        ]
        return False if False in judged else None if None in judged else True

    def _within(self, found: float | None, most: float | None) -> bool | None:
        # Where the old release gives no scores either, there are none that change.
        if most is not None and found is not None and found > most:
            return False
        return True if most is None or not self.unscored else None

    @property
    def moves(self) -> list[str]:
        if self.max_change is None or self.p99_change is None:
            return []
        return [f"scores change by up to {self.max_change:.3g}, p99 {self.p99_change:.3g}"]


@dataclass(frozen=True)
class Comparison:
    """What a replay found. ``passed`` is None if there are too few rows, or scores, to tell, of all or of a segment."""

    passed: bool | None
    expected: str
    found: str
    details: Mapping[str, Any]


def compare(
    old: Answered,
    new: Answered,
    thresholds: Thresholds,
    labels: bool,
    segment: str | None = None,
    segment_values: Sequence[Any] = (),
) -> Comparison:
    """Judge the new release's answers by the old one's. ``segment_values`` are a column's values, by row.

    The whole and each segment must be within the thresholds. One that is not fails the release; else one that is too
    small to tell leaves it open.
    """
    limits = thresholds
    by_row = flips(old, new, labels), changes(old, new, labels), unscored(old, new, labels)
    whole = Part.of(range(len(old.predictions)), *by_row)
    refused = sum(value is None for value in new.predictions)
    parts = {name: Part.of(rows, *by_row) for name, rows in segments(segment_values).items()}
    judged = {name: part.judge(limits) for name, part in parts.items()}
    of_whole = whole.judge(limits)
    bad = [name for name in parts if judged[name] is False]
    small = [name for name in parts if judged[name] is None and parts[name].is_small(limits)]
    what = "labels flip in" if labels else "rows are refused, of"
    expected = [f"{what} at most {limits.max_flip_rate:.2%} of at least {limits.min_rows} rows"]
    expected += [f"score changes of at most {limits.max_change:g}"] if limits.max_change is not None else []
    expected += [f"p99 of at most {limits.max_p99_change:g}"] if limits.max_p99_change is not None else []
    found = [str(whole.flips) if labels else f"{refused} of {whole.flips.rows} rows refused"]
    found += [f"{refused} of these refused"] if refused and labels else []
    found += whole.moves
    found += [", ".join([f"where {segment} is {name}: {parts[name].flips}", *parts[name].moves]) for name in bad[:5]]
    if whole.unscored and (limits.max_change, limits.max_p99_change) != (None, None):
        found.append(f"{whole.unscored} rows whose scores cannot be compared: none, or of another number of classes")
    needed = rows_needed(limits)
    enough = f"{needed} needed" if needed else "and no number of them is enough"
    if of_whole is None and whole.is_small(limits):
        # Then so are those of every segment.
        found.append(f"too few rows to tell, {enough}")
    elif small:
        told = ", ".join(f"{name} ({parts[name].flips.rows})" for name in small[:5])
        more = f" and {len(small) - 5} more" if len(small) > 5 else ""
        found.append(f"too few rows to tell where {segment} is {told}{more}, {enough}")
    passed = False if bad or of_whole is False else None if None in judged.values() else of_whole
    details = {
        "rows": whole.flips.rows,
        "flips": whole.flips.count,
        "flip_rate": whole.flips.rate,
        "flip_rate_upper": whole.flips.bounds[1],
        "refused": refused,
        "max_change": whole.max_change,
        "p99_change": whole.p99_change,
        "unscored": whole.unscored,
        **({"segments": {name: _figures(part) for name, part in parts.items()}} if parts else {}),
    }
    return Comparison(passed, "; ".join(expected), "; ".join(found), details)


def _figures(part: Part) -> dict[str, Any]:
    flipped = {"rows": part.flips.rows, "flips": part.flips.count}
    return {**flipped, "max_change": part.max_change, "p99_change": part.p99_change}
