from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from random import Random

import pytest
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.judge import (
    DEFAULT,
    Histogram,
    Limits,
    Policy,
    Share,
    Side,
    chi_square,
    judge,
    judge_errors,
    judge_latency,
    judge_predictions,
    most_more,
    p_value,
    quantile,
)
from scipy import stats

EDGES = (0.01, 0.025, 0.05, 0.1, 0.25, math.inf)
# Of 5,000 requests: half within 10 ms, p99 at 60 ms.
HEALTHY = (2_500, 4_500, 4_900, 4_990, 5_000, 5_000)
SLOW_TAIL = (2_500, 4_500, 4_840, 4_920, 4_980, 5_000)


def side(
    errors: int = 50,
    requests: int = 5_000,
    latency: tuple[int, ...] = HEALTHY,
    predictions: Mapping[str, int] | None = None,
) -> Side:
    return Side(requests, errors, Histogram(EDGES, latency), predictions)


EMPTY = Side(0, 0, Histogram(EDGES, (0,) * 6), {})


@pytest.mark.parametrize(
    ("baseline", "canary"),
    [
        (Share(50, 5_000), Share(100, 5_000)),
        (Share(0, 5_000), Share(7, 5_000)),
        (Share(20, 95_000), Share(10, 5_000)),
        (Share(10, 5_000), Share(20, 95_000)),
        (Share(1_000, 100_000), Share(1_300, 100_000)),
        (Share(1_000, 100_000), Share(990, 100_000)),
        (Share(99_000, 100_000), Share(99_300, 100_000)),
        (Share(3, 3), Share(4, 4)),
        (Share(0, 3), Share(0, 4)),
        (Share(0, 1), Share(1, 1)),
        (Share(5, 5), Share(0, 5)),
    ],
)
def test_the_chance_of_so_many_is_fishers(baseline: Share, canary: Share) -> None:
    assert p_value(baseline, canary) == pytest.approx(_fisher(baseline, canary), rel=1e-7)


def test_the_chance_of_so_many_is_fishers_on_any_table() -> None:
    random = Random(5)
    for _table in range(300):
        totals = random.choice([3, 40, 900, 30_000]), random.choice([2, 50, 700, 20_000])
        rates = random.choice([0, 0.001, 0.3, 0.9, 1]), random.choice([0, 0.002, 0.3, 0.8, 1])
        hits = [
            sum(random.random() < rate for _hit in range(min(n, 900))) for n, rate in zip(totals, rates, strict=True)
        ]
        baseline, canary = (Share(hit, total) for hit, total in zip(hits, totals, strict=True))
        assert p_value(baseline, canary) == pytest.approx(_fisher(baseline, canary), rel=1e-7, abs=1e-300)


def _fisher(baseline: Share, canary: Share) -> float:
    table = [[share.count, share.total - share.count] for share in (canary, baseline)]
    return float(stats.fisher_exact(table, alternative="greater").pvalue)


@pytest.mark.parametrize(("baseline", "canary"), [(Share(0, 0), Share(3, 5)), (Share(3, 5), Share(0, 0))])
def test_nothing_is_unlikely_without_requests(baseline: Share, canary: Share) -> None:
    assert p_value(baseline, canary) == 1.0
    assert most_more(baseline, canary, 0.95) == math.inf


@pytest.mark.parametrize(("count", "total"), [(0, 10), (10, 10), (3, 10), (50, 5_000), (1, 95_000)])
def test_the_limits_of_a_share_are_wilsons(count: int, total: int) -> None:
    # A two-sided interval of 90 % is two one-sided limits of 95 %.
    wanted = stats.binomtest(count, total).proportion_ci(0.9, method="wilson")
    assert Share(count, total).limits(0.95) == pytest.approx((wanted.low, wanted.high), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    # Newcombe's own examples of his method 10 (his table II, 95 % two-sided).
    ("canary", "baseline", "upper"),
    [
        (Share(56, 70), Share(48, 80), 0.3339),
        (Share(9, 10), Share(3, 10), 0.8090),
        (Share(5, 56), Share(0, 29), 0.1926),
        (Share(0, 10), Share(0, 10), 0.2775),
        (Share(10, 10), Share(0, 20), 1.0000),
    ],
)
def test_the_most_more_is_newcombes(canary: Share, baseline: Share, upper: float) -> None:
    assert most_more(baseline, canary, 0.975) == pytest.approx(upper, abs=5e-5)


def test_the_chance_of_a_spread_is_chi_squares() -> None:
    random = Random(7)
    for classes in (*range(2, 12), 40, 200):
        for shift in (0, 0.5, 3):
            cells = [(random.randint(20, 900), 20 + int(random.random() * (300 + shift * i))) for i in range(classes)]
            wanted = stats.chi2_contingency(list(zip(*cells, strict=True)), correction=False).pvalue
            assert chi_square(cells) == pytest.approx(wanted, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("cells", [[], [(5, 9)], [(0, 5), (0, 9)], [(10, 20), (30, 60)]])
def test_a_spread_that_cannot_differ_is_certain(cells: list[tuple[int, int]]) -> None:
    assert chi_square(cells) == 1.0


@pytest.mark.parametrize(
    ("slower", "share", "seconds"),
    [
        ((0.5, 0.1, 0.02), 0.1, 0.02),
        ((0.5, 0.1, 0.02), 0.6, 0.01),
        ((0.5, 0.1, 0.02), 0.01, math.inf),
        # In the middle between the odds 1:1 and 1:9 are those of 1:3, and sqrt(10 * 20) ms.
        ((0.5, 0.1, 0.02), 0.25, 0.01414213562),
        ((1.0, 0.0, 0.0), 0.5, 0.01414213562),
    ],
)
def test_a_time_is_read_between_the_edges(slower: tuple[float, ...], share: float, seconds: float) -> None:
    assert quantile((0.01, 0.02, 0.04), slower, share) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("baseline", "canary", "outcome"),
    [
        (Share(50, 5_000), Share(100, 5_000), "fail"),
        (Share(50, 5_000), Share(55, 5_000), "pass"),
        (Share(100, 5_000), Share(0, 5_000), "pass"),
        (Share(0, 2_000), Share(0, 2_000), "pass"),
        # Too few requests, unless all of them fail.
        (Share(0, 300), Share(0, 300), "inconclusive"),
        (Share(0, 10), Share(10, 10), "fail"),
        (Share(0, 0), Share(0, 0), "inconclusive"),
        (Share(0, 0), Share(5, 5), "inconclusive"),
        (Share(5, 5), Share(0, 0), "inconclusive"),
        # Sparse: 0.02 % and 0.2 %.
        (Share(1, 5_000), Share(10, 5_000), "fail"),
        (Share(1, 5_000), Share(7, 5_000), "inconclusive"),
        (Share(19, 95_000), Share(6, 5_000), "fail"),
        # Beyond chance, and nobody minds.
        (Share(1_000, 1_000_000), Share(1_300, 1_000_000), "pass"),
        # Both fail all of the time: the canary is no worse.
        (Share(5_000, 5_000), Share(5_000, 5_000), "pass"),
    ],
)
def test_errors(baseline: Share, canary: Share, outcome: str) -> None:
    assert judge_errors(baseline, canary).outcome == outcome


@pytest.mark.parametrize(
    ("baseline", "canary", "outcome"),
    [
        (HEALTHY, HEALTHY, "pass"),
        # One request in a hundred is slower, the others are as before.
        (HEALTHY, SLOW_TAIL, "fail"),
        (SLOW_TAIL, HEALTHY, "pass"),
        # The spread alone: as many are faster as are slower.
        (HEALTHY, (3_000, 4_250, 4_700, 4_900, 4_990, 5_000), "fail"),
        # All in the first bucket, below which there is nothing to see.
        ((5_000,) * 6, (5_000,) * 6, "pass"),
        ((5_000,) * 6, (0, 0, 5_000, 5_000, 5_000, 5_000), "fail"),
        ((0, 0, 0, 0, 0, 5_000), (0, 0, 0, 0, 0, 5_000), "inconclusive"),
        ((40, 45, 50, 50, 50, 50), (40, 45, 50, 50, 50, 50), "inconclusive"),
        ((0,) * 6, HEALTHY, "inconclusive"),
        (HEALTHY, (0,) * 6, "inconclusive"),
        ((0,) * 6, (0,) * 6, "inconclusive"),
    ],
)
def test_latency(baseline: tuple[int, ...], canary: tuple[int, ...], outcome: str) -> None:
    assert judge_latency(Histogram(EDGES, baseline), Histogram(EDGES, canary)).outcome == outcome


def test_slightly_slower_passes_however_sure_it_is() -> None:
    def slowed(factor: float) -> Histogram:
        slower = stats.lognorm(s=0.5, scale=0.012 * factor).cdf(EDGES)
        return Histogram(EDGES, tuple(int(share * 1_000_000) for share in slower))

    finding = judge_latency(slowed(1), slowed(1.03))
    assert (finding.outcome, finding.p_value < 1e-9) == ("pass", True)
    assert judge_latency(slowed(1), slowed(1.3)).outcome == "fail"


@pytest.mark.parametrize(
    ("baseline", "canary", "outcome"),
    [
        ({"M": 1_850, "B": 3_150}, {"M": 2_100, "B": 2_900}, "fail"),
        ({"M": 1_850, "B": 3_150}, {"M": 1_600, "B": 3_400}, "fail"),
        ({"M": 1_850, "B": 3_150}, {"M": 1_870, "B": 3_130}, "pass"),
        ({"M": 1_850, "B": 3_150}, {"M": 37, "B": 63}, "inconclusive"),
        ({"M": 50, "B": 50}, {"M": 50, "B": 50}, "inconclusive"),
        # Beyond chance, and nobody minds.
        ({"M": 370_000, "B": 630_000}, {"M": 375_000, "B": 625_000}, "pass"),
        # One class only, and another one only.
        ({"M": 5_000}, {"M": 5_000}, "pass"),
        ({"M": 5_000}, {"B": 5_000}, "fail"),
        ({"M": 5_000, "B": 0}, {"M": 5_000}, "pass"),
        ({}, {}, "inconclusive"),
        ({"M": 5_000}, {}, "inconclusive"),
        ({"M": 0}, {"M": 0}, "inconclusive"),
        # Classes that are rare one by one are compared together.
        ({"M": 4_000}, {"M": 3_600, **{f"new {i}": 4 for i in range(100)}}, "fail"),
    ],
)
def test_predictions(baseline: dict[str, int], canary: dict[str, int], outcome: str) -> None:
    assert judge_predictions(baseline, canary).outcome == outcome


def test_rare_classes_are_named_together() -> None:
    baseline = {"M": 3_000, "B": 2_000}
    finding = judge_predictions(baseline, {**baseline, **{f"new {i}": 4 for i in range(5)}})
    assert "canary new 0, new 1, new 2, 2 more: 20 of 5020 (0.40%) against 0 of 5000 (0.00%)" in finding.line
    assert finding.canary["new 1"] == 4 / 5_020


def test_a_fault_of_one_test_is_a_fault_and_a_doubt_of_one_a_doubt() -> None:
    baseline = side(predictions={"M": 1_850, "B": 3_150})
    assert judge(baseline, baseline).outcome == "pass"
    assert judge(baseline, replace(baseline, errors=100)).outcome == "fail"
    assert judge(baseline, replace(baseline, predictions={"M": 37, "B": 63})).outcome == "inconclusive"
    assert judge(baseline, replace(baseline, errors=100, predictions={"M": 37, "B": 63})).outcome == "fail"
    assert judge(EMPTY, EMPTY).outcome == "inconclusive"
    assert [finding.name for finding in judge(side(), side()).findings] == ["errors", "latency"]


@pytest.mark.parametrize(
    ("baseline", "canary", "line"),
    [
        (
            side(),
            side(errors=100),
            "errors: fail: canary 100 of 5000 (2.00%) against 50 of 5000 (1.00%): "
            "1.00 points more, tolerated 0.05 points more; p 2.4e-05, level 0.014",
        ),
        (
            side(errors=0, requests=300),
            side(errors=0, requests=300),
            "errors: inconclusive: canary 0 of 300 (0.00%) against 0 of 300 (0.00%): "
            "too few requests to rule out up to 0.89 points more, allowed 0.20 points more",
        ),
        (
            side(),
            side(latency=SLOW_TAIL),
            "latency: fail: canary p50 10 ms p99 137 ms of 5000 requests "
            "against p50 10 ms p99 61.7 ms of 5000 requests: "
            "1.87 times as slow, tolerated 1.15 times as slow; p 2.1e-14, level 0.003",
        ),
        (
            side(predictions={"M": 1_850, "B": 3_150}),
            side(predictions={"M": 2_100, "B": 2_900}),
            "predictions: fail: canary M: 2100 of 5000 (42.00%) against 1850 of 5000 (37.00%): "
            "5.00 points more, tolerated 2.00 points more; p 3.2e-07, level 0.003",
        ),
        (
            EMPTY,
            EMPTY,
            "errors: inconclusive: canary 0 of 0 (0.00%) against 0 of 0 (0.00%): "
            "too few requests to rule out any worsening, allowed 0.20 points more",
        ),
    ],
)
def test_the_verdict_says_why(baseline: Side, canary: Side, line: str) -> None:
    assert judge(baseline, canary).lines[0] == line


def test_a_verdict_can_be_kept_as_json() -> None:
    for sides in ((EMPTY, EMPTY), (side(), side(latency=(0, 0, 0, 0, 0, 5_000)))):
        kept = json.loads(json.dumps(asdict(judge(*sides)), allow_nan=False))
        assert kept["findings"][0]["baseline"]["requests"] == sides[0].requests


def test_several_looks_share_the_levels() -> None:
    policy = DEFAULT.over(4)
    assert policy.errors == replace(DEFAULT.errors, level=0.0035)
    assert sum(it.level for it in (policy.errors, policy.latency, policy.predictions)) == pytest.approx(0.005)
    assert policy.confidence == DEFAULT.confidence


def test_the_policy_has_the_last_word() -> None:
    strict = replace(DEFAULT, errors=Limits(level=0.014, tolerance=0, margin=0.0001))
    assert judge_errors(Share(1_000, 1_000_000), Share(1_300, 1_000_000), strict).outcome == "fail"
    patient = replace(DEFAULT, errors=Limits(level=1e-6, tolerance=0, margin=0.002))
    assert judge_errors(Share(50, 5_000), Share(100, 5_000), patient).outcome == "inconclusive"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Histogram((), ()), "latency: expected rising edges above 0, the last one infinite, found none"),
        (lambda: Histogram((0.1, 0.2), (1, 2)), "the last one infinite, found 0.1, 0.2"),
        (
            lambda: Histogram((0.2, 0.1, math.inf), (1, 2, 3)),
            "expected rising edges .* found 0.2, 0.1, inf",
        ),
        (lambda: Histogram((0.0, math.inf), (1, 2)), "found 0, inf"),
        (lambda: Histogram((0.1, math.inf), (1,)), "latency: expected a count for each of 2 edges, found 1"),
        (lambda: Histogram((0.1, math.inf), (2, 1)), "latency: expected cumulative counts, found 2, 1"),
        (lambda: Histogram((0.1, math.inf), (-1, 1)), "latency: expected cumulative counts, found -1, 1"),
        (lambda: side(errors=6, requests=5), "errors: expected 0 to 5, the number of requests, found 6"),
        (lambda: side(errors=-1), "errors: expected 0 to 5000, the number of requests, found -1"),
        (lambda: side(predictions={"M": -1}), "predictions of M: expected a count of at least 0, found -1"),
        (lambda: Limits(0.6, 0, 1), "level: expected a number between 0 and 0.5, found 0.6"),
        (lambda: Limits(0.01, 0.2, 0.1), "tolerance: expected 0 to the margin of 0.1, found 0.2"),
        (lambda: Policy(confidence=1), "confidence: expected a number between 0.5 and 1, found 1"),
        (lambda: Policy(latency=Limits(0.01, 0.15, 2)), "of latency: expected a factor of at least 1, found 0.15"),
        (lambda: DEFAULT.over(0), "looks: expected at least 1, found 0"),
        (
            lambda: judge(side(), Side(5, 0, Histogram((0.1, math.inf), (5, 5)))),
            "latency: expected the same edges of both sides, found 0.01, 0.025, 0.05, 0.1, 0.25, inf and 0.1, inf",
        ),
        (
            lambda: judge(side(predictions={"M": 1}), side()),
            "predictions: expected counts of both sides or of none, found none of the canary",
        ),
    ],
)
def test_what_cannot_be_judged_is_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
