"""Simulated services and what they answer: latencies, errors, predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.judge import Histogram, Side
from model_server.web.metrics import SECONDS
from numpy.typing import NDArray

EDGES = (*SECONDS, math.inf)


@dataclass(frozen=True)
class Traffic:
    """How a side answers.

    Latencies are lognormal around ``median`` seconds with ``spread`` (sigma of the logarithm); of a share of ``tail``
    requests (garbage collection, a cold cache, a retry) it is ``tail_factor`` times as long, with ``tail_spread``.
    ``classes`` are the probabilities of the classes.
    """

    median: float
    spread: float
    tail: float
    tail_factor: float
    tail_spread: float
    errors: float
    classes: tuple[float, ...]

    def slower(self, seconds: float) -> float:
        """The share of requests that take longer."""
        return (1 - self.tail) * _beyond(seconds, self.median, self.spread) + self.tail * _beyond(
            seconds, self.median * self.tail_factor, self.tail_spread
        )

    def quantile(self, share: float) -> float:
        """The seconds within which ``share`` of the requests are answered, to a thousandth."""
        low, high = 1e-6, 1e4
        while high > 1.001 * low:
            middle = math.sqrt(low * high)
            low, high = (middle, high) if self.slower(middle) > 1 - share else (low, middle)
        return high

    @property
    def mean(self) -> float:
        body = math.exp(self.spread**2 / 2)
        tail = self.tail_factor * math.exp(self.tail_spread**2 / 2)
        return self.median * ((1 - self.tail) * body + self.tail * tail)


@dataclass(frozen=True)
class Window:
    """Single requests of one side, in the order of their time."""

    seconds: NDArray[np.float64]
    errors: NDArray[np.bool_]
    classes: NDArray[np.int64]

    @property
    def side(self) -> Side:
        """As the metrics count them."""
        counts = np.searchsorted(np.sort(self.seconds), SECONDS, side="right")
        classes = np.bincount(self.classes)
        return Side(
            requests=len(self.seconds),
            errors=int(self.errors.sum()),
            latency=Histogram(EDGES, (*(int(count) for count in counts), len(self.seconds))),
            predictions={f"class {number}": int(count) for number, count in enumerate(classes)},
        )


def service(random: np.random.Generator) -> Traffic:
    """Some service that may be there: median of 2 to 200 ms, p99 of some 3 to 15 times that, 0.01 to 5 % errors."""
    return Traffic(
        median=float(np.exp(random.uniform(math.log(0.002), math.log(0.2)))),
        spread=random.uniform(0.25, 0.6),
        tail=random.uniform(0.015, 0.04),
        tail_factor=random.uniform(3, 10),
        tail_spread=random.uniform(0.3, 0.6),
        errors=float(np.exp(random.uniform(math.log(0.0001), math.log(0.05)))),
        classes=tuple(float(share) for share in random.dirichlet([3.0] * int(random.integers(2, 7)))),
    )


def answer(traffic: Traffic, requests: int, random: np.random.Generator) -> Window:
    """``requests`` that come one by one, each drawn by itself."""
    tail = random.random(requests) < traffic.tail
    spread = np.where(tail, traffic.tail_spread, traffic.spread)
    middle = traffic.median * np.where(tail, traffic.tail_factor, 1.0)
    classes = np.searchsorted(np.cumsum(traffic.classes)[:-1], random.random(requests), side="right")
    return Window(
        seconds=middle * np.exp(spread * random.standard_normal(requests)),
        errors=random.random(requests) < traffic.errors,
        classes=classes,
    )


def p99_doubled(traffic: Traffic) -> Traffic:
    """The tail so much slower that p99 is twice what it was; the requests outside of it are as before."""
    wanted, low, high = 2 * traffic.quantile(0.99), 1.0, 100.0
    while high > 1.0001 * low:
        middle = math.sqrt(low * high)
        slowed = replace(traffic, tail_factor=traffic.tail_factor * middle)
        low, high = (middle, high) if slowed.quantile(0.99) < wanted else (low, middle)
    return replace(traffic, tail_factor=traffic.tail_factor * high)


def spread_widened(traffic: Traffic) -> Traffic:
    """Twice the spread with the very same mean: the median is lower, the slow requests are slower."""
    wider = replace(traffic, spread=2 * traffic.spread, tail_spread=1.5 * traffic.tail_spread)
    return replace(wider, median=wider.median * traffic.mean / wider.mean)


def slower_by(traffic: Traffic, factor: float) -> Traffic:
    """All requests take ``factor`` times as long."""
    return replace(traffic, median=traffic.median * factor)


def _beyond(seconds: float, median: float, spread: float) -> float:
    return math.erfc(math.log(seconds / median) / (spread * math.sqrt(2))) / 2
