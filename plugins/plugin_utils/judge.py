# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a canary does as well as the release beside it: errors, latency and predictions over the same window.

Each of the three is a share of requests that is compared between the sides: those that ended in an error, those slower
than an edge of the histogram, those that went to the classes that gained. So one exact test and one interval serve all:

- it **fails** when it is worse beyond chance (p-value at most ``level``) and by more than ``tolerance``: with many
  requests a difference that nobody minds is significant, too;
- it **passes** when a worsening of more than ``margin`` is ruled out at the policy's ``confidence``: not having found a
  difference is no proof that there is none (D. J. Schuirmann, 1987, A comparison of the two one-sided tests procedure
  and the power approach for assessing the equivalence of average bioavailability);
- between the two it is **inconclusive**: there are too few requests to tell.

A canary that is as good fails with a probability of at most the sum of the three levels, 2 % by default (C. E.
Bonferroni, 1936, Teoria statistica delle classi e calcolo delle probabilità). S. Holm's stepwise procedure (1979) would
change no verdict: it rejects something exactly when Bonferroni's does.

Pure, on the standard library alone. docs/judge.md has the measured shares of false alarms and of misses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

Outcome = Literal["pass", "fail", "inconclusive"]

QUANTILES = (0.5, 0.99)
# Below this expected count the chi-square approximation is not to be trusted (W. G. Cochran, 1954, Some methods for
# strengthening the common chi-square tests).
LEAST_EXPECTED = 5


@dataclass(frozen=True)
class Histogram:
    """Latencies of a window as Prometheus counts them.

    ``edges`` are the upper edges of the buckets (``le``) in seconds, rising, the last one infinite; ``counts`` are the
    requests at or below each, so that the last one is all of them.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        edges, counts = self.edges, self.counts
        if len(edges) < 2 or edges[0] <= 0 or edges[-1] != math.inf or list(edges) != sorted(set(edges)):
            raise ValueError(f"latency: expected rising edges above 0, the last one infinite, found {_listed(edges)}")
        if len(counts) != len(edges):
            raise ValueError(f"latency: expected a count for each of {len(edges)} edges, found {len(counts)}")
        if counts[0] < 0 or list(counts) != sorted(counts):
            raise ValueError(f"latency: expected cumulative counts, found {_listed(counts)}")

    @property
    def total(self) -> int:
        return self.counts[-1]

    @property
    def slower(self) -> tuple[int, ...]:
        """Requests above each of the edges but the infinite one."""
        return tuple(self.total - count for count in self.counts[:-1])


@dataclass(frozen=True)
class Side:
    """What one side answered within the window.

    ``predictions`` counts them by class, or by bin of a score; it is None for a service that does not report them,
    which are not judged then.
    """

    requests: int
    errors: int
    latency: Histogram
    predictions: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.errors <= self.requests:
            raise ValueError(f"errors: expected 0 to {self.requests}, the number of requests, found {self.errors}")
        for name, count in (self.predictions or {}).items():
            if count < 0:
                raise ValueError(f"predictions of {name}: expected a count of at least 0, found {count}")


@dataclass(frozen=True)
class Share:
    """``count`` out of ``total``."""

    count: int
    total: int

    @property
    def value(self) -> float:
        return self.count / self.total if self.total else 0.0

    def limits(self, confidence: float) -> tuple[float, float]:
        """The lower and the upper limit of the true share, each one-sided with ``confidence``.

        E. B. Wilson, 1927, Probable inference, the law of succession, and statistical inference.
        """
        if not self.total:
            return 0.0, 1.0
        z, n, p = NormalDist().inv_cdf(confidence), self.total, self.value
        middle = p + z * z / (2 * n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        low, high = ((middle + sign * half) / (1 + z * z / n) for sign in (-1, 1))
        return max(0.0, low), min(1.0, high)


@dataclass(frozen=True)
class Limits:
    """When one test fails (``level`` and ``tolerance``) and when it passes (``margin``); the module says how."""

    level: float
    tolerance: float
    margin: float

    def __post_init__(self) -> None:
        if not 0 < self.level < 0.5:
            raise ValueError(f"level: expected a number between 0 and 0.5, found {self.level}")
        if not 0 <= self.tolerance <= self.margin:
            raise ValueError(f"tolerance: expected 0 to the margin of {self.margin}, found {self.tolerance}")


@dataclass(frozen=True)
class Policy:
    """What counts as worse.

    Of ``errors`` and ``predictions`` tolerance and margin are shares of the requests (0.01 is one point); the margin of
    errors is the share of the baseline where that is more, so that it rules out doubling. Of ``latency`` they are
    factors of time (2 is twice as slow). ``confidence`` is that with which a pass rules out more than the margin.
    """

    errors: Limits = Limits(level=0.014, tolerance=0.0005, margin=0.002)
    latency: Limits = Limits(level=0.003, tolerance=1.15, margin=2.0)
    predictions: Limits = Limits(level=0.003, tolerance=0.02, margin=0.05)
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not 0.5 < self.confidence < 1:
            raise ValueError(f"confidence: expected a number between 0.5 and 1, found {self.confidence}")
        if self.latency.tolerance < 1:
            raise ValueError(f"tolerance of latency: expected a factor of at least 1, found {self.latency.tolerance}")

    def over(self, looks: int) -> Policy:
        """The policy for each of ``looks`` judgements, so that all together alarm no oftener than one does."""
        if looks < 1:
            raise ValueError(f"looks: expected at least 1, found {looks}")
        errors, latency, predictions = (
            replace(limits, level=limits.level / looks) for limits in (self.errors, self.latency, self.predictions)
        )
        return replace(self, errors=errors, latency=latency, predictions=predictions)


@dataclass(frozen=True)
class Finding:
    """What one test found.

    ``worse_by`` is the estimate and ``bound`` the most that is not ruled out (None: anything), both in the unit of the
    limits; ``p_value`` is the chance of such a difference between equal sides; ``line`` says all that to a reader.
    """

    name: str
    outcome: Outcome
    worse_by: float
    p_value: float
    bound: float | None
    limits: Limits
    baseline: Mapping[str, float]
    canary: Mapping[str, float]
    line: str


@dataclass(frozen=True)
class Verdict:
    """``fail`` if a test failed, ``pass`` if all passed, else ``inconclusive``."""

    outcome: Outcome
    findings: tuple[Finding, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines of the findings that made the verdict."""
        return tuple(finding.line for finding in self.findings if finding.outcome == self.outcome)


DEFAULT = Policy()


def judge(baseline: Side, canary: Side, policy: Policy = DEFAULT) -> Verdict:
    """Compare both sides over the same window.

    Raises ValueError, in one line, if one side reports what the other does not.
    """
    findings = [
        judge_errors(Share(baseline.errors, baseline.requests), Share(canary.errors, canary.requests), policy),
        judge_latency(baseline.latency, canary.latency, policy),
    ]
    if baseline.predictions is not None and canary.predictions is not None:
        findings.append(judge_predictions(baseline.predictions, canary.predictions, policy))
    elif baseline.predictions is not canary.predictions:
        without = "baseline" if baseline.predictions is None else "canary"
        raise ValueError(f"predictions: expected counts of both sides or of none, found none of the {without}")
    outcomes = {finding.outcome for finding in findings}
    outcome: Outcome = "fail" if "fail" in outcomes else "inconclusive" if "inconclusive" in outcomes else "pass"
    return Verdict(outcome, tuple(findings))


def judge_errors(baseline: Share, canary: Share, policy: Policy = DEFAULT) -> Finding:
    """The share of requests that ended in an error, one-sided: fewer errors are no fault."""
    limits = replace(policy.errors, margin=max(policy.errors.margin, baseline.value))
    return _finding(
        "errors",
        limits,
        canary.value - baseline.value,
        p_value(baseline, canary),
        most_more(baseline, canary, policy.confidence),
        {"requests": baseline.total, "errors": baseline.count, "share": baseline.value},
        {"requests": canary.total, "errors": canary.count, "share": canary.value},
        f"{_shown(canary)} against {_shown(baseline)}",
    )


def judge_latency(baseline: Histogram, canary: Histogram, policy: Policy = DEFAULT) -> Finding:
    """The whole histogram, one-sided: being faster is no fault.

    At each edge the shares of slower requests are compared, and p-values are times the number of edges compared, after
    Bonferroni. That finds a change in the far tail, or of the spread alone, which tests on the mean, on ranks or
    on the largest distance of two distributions (Kolmogorov and Smirnov) pass: there, a p99 that doubles moves one
    request in a hundred. How much slower: the edge over the time that as many requests of the baseline had taken.

    Raises ValueError if the edges differ.
    """
    if baseline.edges != canary.edges:
        found = f"{_listed(baseline.edges)} and {_listed(canary.edges)}"
        raise ValueError(f"latency: expected the same edges of both sides, found {found}")
    edges = baseline.edges[:-1]
    before = [Share(count, baseline.total) for count in baseline.slower]
    after = [Share(count, canary.total) for count in canary.slower]
    # Where all requests of both sides, or none, are slower there is nothing to compare.
    everything = baseline.total + canary.total
    compared = [i for i in range(len(edges)) if 0 < before[i].count + after[i].count < everything]
    curve = [share.value for share in before]
    changes = [
        (min(1.0, len(compared) * p_value(before[i], after[i])), edges[i] / quantile(edges, curve, after[i].value))
        for i in compared
        if after[i].value > before[i].value
    ]
    relevant = [change for change in changes if change[1] > policy.latency.tolerance]
    chance, worse_by = min(relevant or changes, default=(1.0, 1.0))
    return _finding(
        "latency",
        policy.latency,
        worse_by,
        chance,
        most_slower(edges, before, after, policy.confidence),
        _times(baseline),
        _times(canary),
        f"{_shown_times(canary)} against {_shown_times(baseline)}",
    )


def judge_predictions(baseline: Mapping[str, int], canary: Mapping[str, int], policy: Policy = DEFAULT) -> Finding:
    """How the predictions spread over the classes, two-sided, by Pearson's chi-square test of homogeneity.

    K. Pearson, 1900, On the criterion that a given system of deviations ... can be reasonably supposed to have arisen
    from random sampling. Classes too rare for it are taken together. The size of a change is the share of predictions
    that moved, net, to the classes that gained: the total variation distance. The population stability index is not
    used: its customary bound of 0.1 passes a class that goes from 37 % to 42 %, an index of 0.01.
    """
    sizes = sum(baseline.values()), sum(canary.values())
    cells = _cells(baseline, canary)
    gained = [name for name, (b, c) in cells.items() if c * sizes[0] > b * sizes[1]]
    # Without a change any classes show how much one is ruled out; the most frequent is the hardest case.
    classes = gained or sorted(cells, key=lambda name: sum(cells[name]))[-1:]
    before, after = (Share(sum(cells[name][side] for name in classes), sizes[side]) for side in (0, 1))
    return _finding(
        "predictions",
        policy.predictions,
        after.value - before.value,
        chi_square(list(cells.values())),
        most_more(before, after, policy.confidence),
        _spread(baseline),
        _spread(canary),
        f"{_named(classes)}: {_shown(after)} against {_shown(before)}",
    )


def p_value(baseline: Share, canary: Share) -> float:
    """The chance that ``canary`` has so large a share, or a larger one, if both sides are equal: exact, one-sided.

    R. A. Fisher, 1935, The logic of inductive inference: given how many there are on both sides together, their number
    on one side is hypergeometric. The tail is summed from its largest term on until more terms change nothing.
    """
    hits, total = baseline.count + canary.count, baseline.total + canary.total
    least, most = max(0, hits - baseline.total), min(hits, canary.total)
    if canary.count <= least:
        return 1.0

    def chance(count: int) -> float:
        ways = _log_choose(hits, count) + _log_choose(total - hits, canary.total - count)
        return math.exp(ways - _log_choose(total, canary.total))

    def growth(count: int) -> float:
        """The chance of one more over the chance of ``count``."""
        fewer = total - hits - canary.total + count + 1
        return (hits - count) * (canary.total - count) / ((count + 1) * fewer)

    if canary.count * total > hits * canary.total:
        tail = term = chance(canary.count)
        for count in range(canary.count, most):
            term *= growth(count)
            tail += term
            if term < tail * 1e-17:
                break
        return min(1.0, tail)
    rest = term = chance(canary.count - 1)
    for count in range(canary.count - 2, least - 1, -1):
        term /= growth(count)
        rest += term
        if term < rest * 1e-17:
            break
    return max(0.0, 1.0 - rest)


def most_more(baseline: Share, canary: Share, confidence: float) -> float:
    """How much larger the canary's share may be: the upper limit of the difference, one-sided.

    R. G. Newcombe, 1998, Interval estimation for the difference between independent proportions: comparison of eleven
    methods (his tenth). It holds with few or no hits, where the usual standard error is 0; infinite if a side is empty.
    """
    if not baseline.total or not canary.total:
        return math.inf
    low, high = baseline.limits(confidence)[0], canary.limits(confidence)[1]
    return canary.value - baseline.value + math.hypot(high - canary.value, baseline.value - low)


def most_slower(edges: Sequence[float], baseline: Sequence[Share], canary: Sequence[Share], confidence: float) -> float:
    """How many times as slow the canary may be at the worst of QUANTILES: infinite if the requests do not tell.

    ``edges`` in seconds, and the shares of requests that are slower. The canary's upper limit over the baseline's lower
    one, each read off the curve of the shares' own limits, which are one-sided with ``confidence``.
    """
    if not baseline[0].total or not canary[0].total:
        return math.inf
    least = [share.limits(confidence)[0] for share in baseline]
    most = [share.limits(confidence)[1] for share in canary]
    # Beyond the last edge a histogram does not say how slow.
    return max(quantile(edges, most, 1 - q) / min(edges[-1], quantile(edges, least, 1 - q)) for q in QUANTILES)


def quantile(edges: Sequence[float], slower: Sequence[float], share: float) -> float:
    """The time in seconds that ``share`` of the requests exceed: at least the first edge, infinite beyond the last.

    ``slower`` are the shares of requests above each of ``edges``. Within a bucket the logarithm of their odds is taken
    to fall evenly with the logarithm of time, as it nearly does in both tails of latencies.
    """
    reached = [i for i, beyond in enumerate(slower) if beyond <= share]
    if not reached:
        return math.inf
    i = reached[0]
    if i == 0:
        return edges[0]
    above, wanted, below = (_log_odds(value) for value in (slower[i - 1], share, slower[i]))
    way = (above - wanted) / (above - below) if above > below else 1.0
    return float(edges[i - 1] * (edges[i] / edges[i - 1]) ** way)


def chi_square(cells: Sequence[tuple[int, int]]) -> float:
    """The chance of counts so far apart if both sides spread alike over the cells, by Pearson's chi-square test.

    The tail of the distribution in its closed form for whole degrees of freedom (M. Abramowitz and I. A. Stegun, 1964,
    Handbook of Mathematical Functions, 26.4.4 and 26.4.5).
    """
    sizes = [sum(cell[side] for cell in cells) for side in (0, 1)]
    freedom = len(cells) - 1
    if freedom < 1 or not all(sizes):
        return 1.0
    statistic = 0.0
    for cell in cells:
        for side in (0, 1):
            expected = sum(cell) * sizes[side] / sum(sizes)
            statistic += (cell[side] - expected) ** 2 / expected
    half = statistic / 2
    if half == 0:
        return 1.0
    tail = math.erfc(math.sqrt(half)) if freedom % 2 else 0.0
    powers = [i / 2 for i in range(freedom % 2, freedom, 2)]
    return min(1.0, tail + sum(math.exp(power * math.log(half) - half - math.lgamma(power + 1)) for power in powers))


def _finding(
    name: str,
    limits: Limits,
    worse_by: float,
    chance: float,
    bound: float,
    baseline: Mapping[str, float],
    canary: Mapping[str, float],
    shown: str,
) -> Finding:
    """The outcome by the rule that all tests share, and the line that says it."""

    def size(value: float) -> str:
        return f"{value:.2f} times as slow" if name == "latency" else f"{100 * value:.2f} points more"

    if chance <= limits.level and worse_by > limits.tolerance:
        outcome: Outcome = "fail"
        why = f"{size(worse_by)}, tolerated {size(limits.tolerance)}; p {chance:.2g}, level {limits.level:.2g}"
    elif bound <= limits.margin:
        outcome, why = "pass", f"at most {size(bound)}, allowed {size(limits.margin)}"
    else:
        most = f"up to {size(bound)}" if math.isfinite(bound) else "any worsening"
        outcome, why = "inconclusive", f"too few requests to rule out {most}, allowed {size(limits.margin)}"
    line = f"{name}: {outcome}: canary {shown}: {why}"
    known = bound if math.isfinite(bound) else None
    return Finding(name, outcome, worse_by, chance, known, limits, baseline, canary, line)


def _cells(baseline: Mapping[str, int], canary: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """The counts of both sides by class, the rare classes together as one."""
    counts = {name: (baseline.get(name, 0), canary.get(name, 0)) for name in sorted({*baseline, *canary})}
    cells = {name: cell for name, cell in counts.items() if any(cell)}
    sizes = sum(baseline.values()), sum(canary.values())
    least = LEAST_EXPECTED * sum(sizes) / min(sizes) if min(sizes) else math.inf
    rare: list[str] = []
    for name in sorted(cells, key=lambda name: sum(cells[name])):
        together = sum(sum(cells[other]) for other in rare)
        if sum(cells[name]) >= least and (not rare or together >= least):
            break
        rare.append(name)
    if len(rare) < 2:
        return cells
    kept = {name: cell for name, cell in cells.items() if name not in rare}
    pooled = sum(cells[name][0] for name in rare), sum(cells[name][1] for name in rare)
    return {**kept, _named(sorted(rare)): pooled}


def _spread(predictions: Mapping[str, int]) -> dict[str, float]:
    total = sum(predictions.values())
    return {name: Share(count, total).value for name, count in sorted(predictions.items())}


def _times(latency: Histogram) -> dict[str, float]:
    """The number of requests, and QUANTILES in seconds; those beyond the last edge, or of no requests, are left out."""
    edges, slower = latency.edges[:-1], [Share(count, latency.total).value for count in latency.slower]
    times = {f"p{100 * q:g}": quantile(edges, slower, 1 - q) for q in QUANTILES if latency.total}
    return {"requests": latency.total, **{name: time for name, time in times.items() if math.isfinite(time)}}


def _shown_times(latency: Histogram) -> str:
    times = [f"{name} {1000 * time:.3g} ms" for name, time in _times(latency).items() if name != "requests"]
    return " ".join([*times, f"of {latency.total} requests"])


def _shown(share: Share) -> str:
    return f"{share.count} of {share.total} ({share.value:.2%})"


def _named(classes: Sequence[str]) -> str:
    more = len(classes) - 3
    return ", ".join([*classes[:3], *([f"{more} more"] if more > 0 else [])]) or "no class"


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values) or "none"


def _log_odds(share: float) -> float:
    """Of none and of all it is that of one in a million, and of all but one."""
    within = min(max(share, 1e-6), 1 - 1e-6)
    return math.log(within / (1 - within))


def _log_choose(total: int, chosen: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)
