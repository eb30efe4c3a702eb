# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure releases in turns, and tell one that is slower from a machine that has other things to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

WARM_UP = 10
TURNS = 12
TURN_REQUESTS = 50
TURN_SECONDS = 0.15
ONE_IN = 100
"""p99 is within a limit where at most one in so many requests is slower."""
ALPHA = 0.01
"""More slow requests than that fail a release only where chance would give so many more rarely than this."""

Ask = Callable[[Any], float]
"""Asks a release for one row, and says how many seconds it took."""


def measure(releases: Sequence[Ask], rows: Sequence[Any]) -> list[list[float]]:
    """For each of ``releases`` the milliseconds of its requests, of a row each.

    They are asked in turns, so that what else the machine does falls on all alike. A turn ends early for a slow one,
    and the next goes on with the row after.
    """
    for ask in releases:
        _take_turn(ask, cycle(rows), WARM_UP)
    taken: list[list[float]] = [[] for _ask in releases]
    places = [cycle(rows) for _ask in releases]
    for _turn in range(TURNS):
        for ask, place, times in zip(releases, places, taken):
            times += _take_turn(ask, place, TURN_REQUESTS)
    return taken


def _take_turn(ask: Ask, rows: Iterator[Any], requests: int) -> list[float]:
    times: list[float] = []
    while len(times) < requests and sum(times) < 1000 * TURN_SECONDS:
        times.append(1000 * ask(next(rows)))
    return times


@dataclass(frozen=True)
class Slower:
    """How many of a release's requests took longer than ``limit`` milliseconds, and how many of the old release's.

    Without requests of an old release it is compared with the one in ONE_IN that may.
    """

    limit: float
    count: int
    requests: int
    old_count: int = 0
    old_requests: int = 0

    @classmethod
    def of(cls, limit: float, times: Sequence[float], old: Sequence[float] = ()) -> Slower:
        return cls(limit, sum(ms > limit for ms in times), len(times), sum(ms > limit for ms in old), len(old))

    @property
    def passes(self) -> bool:
        """Whether p99 is within the limit, or so few requests exceed it that it may be chance."""
        return self._is_within or self.chance >= ALPHA

    @property
    def chance(self) -> float:
        """The chance of so many slow requests, or more, of a release that has no larger share of them."""
        if self.old_requests:
            return more_than_other(self.count, self.requests, self.old_count, self.old_requests)
        return more_than_one_in(ONE_IN, self.count, self.requests)

    @property
    def _is_within(self) -> bool:
        return ONE_IN * self.count <= self.requests

    def __str__(self) -> str:
        old = f" (old release {self.old_count} of {self.old_requests})" if self.old_requests else ""
        may_be_chance = ", which may be chance" if self.passes and not self._is_within else ""
        return f"{self.count} of {self.requests} slower than {self.limit:.3g} ms{old}{may_be_chance}"


def more_than_other(count: int, total: int, other_count: int, other_total: int) -> float:
    """The chance that ``count`` of ``total``, or more, are on this side if both sides have the same share: exact.

    R. A. Fisher, 1935, The logic of inductive inference, Journal of the Royal Statistical Society 98, 39-82: given how
    many there are on both sides together, their number on one side is hypergeometric.
    """
    hits, everything = count + other_count, total + other_total
    most = min(hits, total)
    ways = sum(math.comb(hits, k) * math.comb(everything - hits, total - k) for k in range(count, most + 1))
    return ways / math.comb(everything, total)


def more_than_one_in(share: int, count: int, total: int) -> float:
    """The chance of ``count`` or more of ``total`` if one in ``share`` is expected: the exact binomial tail.

    C. J. Clopper and E. S. Pearson, 1934, The use of confidence or fiducial limits illustrated in the case of the
    binomial, Biometrika 26, 404-413.
    """
    # Whole numbers, for as floating-point ones they would not fit.
    ways: int = sum(math.comb(total, k) * (share - 1) ** (total - k) for k in range(count, total + 1))
    everything: int = share**total
    return ways / everything
