"""``make bench-judge``: how often the canary's judge is wrong, on simulated traffic.

Each case is simulated RUNS times, each time of another service. A false alarm is a run of equal sides in which any test
fails; a miss is a run of a worse canary in which the test that should fail does not, whether the verdict is ``pass`` or
``inconclusive`` then. The ``rank_judge`` beside it (rank.py) sees the very same requests.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.judge import judge

from benchmarks.figures import Figures, machine
from benchmarks.judge.rank import rank_judge_fails
from benchmarks.judge.traffic import Traffic, answer, p99_doubled, service, slower_by, spread_widened

SEED = 20_260
RUNS = 1_000
SIDE = 5_000

Change = Callable[[Traffic], Traffic]


@dataclass(frozen=True)
class Case:
    """A pair of sides; ``test`` is the one that should fail, none if the canary is as good."""

    name: str
    test: str | None
    change: Change
    baseline: Change = lambda traffic: traffic
    sizes: tuple[int, int] = (SIDE, SIDE)
    runs: int = RUNS
    figure: tuple[str, str] | None = None


def errors(share: float) -> Change:
    return lambda traffic: replace(traffic, errors=share)


def classes(*shares: float) -> Change:
    return lambda traffic: replace(traffic, classes=shares)


def same(traffic: Traffic) -> Traffic:
    return traffic


def negligible(traffic: Traffic) -> Traffic:
    """What nobody minds, and any test of significance alone finds in enough requests."""
    first, *others = traffic.classes
    moved = tuple(share + 0.005 / len(others) for share in others)
    return replace(slower_by(traffic, 1.03), errors=traffic.errors + 0.0002, classes=(first - 0.005, *moved))


UNEQUAL = (95_000, SIDE)
CASES = (
    Case("the same", None, same, figure=("judge_false_alarm_share", "<= 0.02")),
    Case("errors 1 % -> 2 %", "errors", errors(0.02), errors(0.01), figure=("judge_miss_share_errors", "<= 0.05")),
    Case("p99 doubled, p50 kept", "latency", p99_doubled, figure=("judge_miss_share_latency", "<= 0.05")),
    Case(
        "class 37 % -> 42 %",
        "predictions",
        classes(0.42, 0.58),
        classes(0.37, 0.63),
        figure=("judge_miss_share_classes", "<= 0.05"),
    ),
    Case("spread doubled, mean kept", "latency", spread_widened),
    Case("all twice as slow", "latency", lambda traffic: slower_by(traffic, 2)),
    Case("sparse errors 0.02 % -> 0.2 %", "errors", errors(0.002), errors(0.0002)),
    Case("the same", None, same, sizes=UNEQUAL, runs=4 * RUNS),
    Case("errors 1 % -> 2 %", "errors", errors(0.02), errors(0.01), sizes=UNEQUAL),
    Case("p99 doubled, p50 kept", "latency", p99_doubled, sizes=UNEQUAL),
    Case("class 37 % -> 42 %", "predictions", classes(0.42, 0.58), classes(0.37, 0.63), sizes=UNEQUAL),
    Case("sparse errors 0.02 % -> 0.2 %", "errors", errors(0.002), errors(0.0002), sizes=UNEQUAL),
    Case("negligible", None, negligible, classes(0.37, 0.63), sizes=(100_000, 100_000), runs=RUNS // 5),
    *(Case("the same", None, same, sizes=(size, size)) for size in (200, 1_000, 2_000)),
)


def main() -> int:
    figures = Figures("judge")
    figures.note(machine=machine(), seed=SEED)
    for number, case in enumerate(CASES):
        missed, facts = simulate(case, np.random.default_rng([SEED, number]))
        figures.note(**facts)
        if case.figure:
            name, bar = case.figure
            figures.add(name, missed, bar)
    return figures.close()


def simulate(case: Case, random: np.random.Generator) -> tuple[float, dict[str, Any]]:
    """The share of runs in which the judge was wrong, and the line of facts."""
    outcomes: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    unsure: Counter[str] = Counter()
    rank_failed: Counter[str] = Counter()
    seconds = 0.0
    for _run in range(case.runs):
        before = case.baseline(service(random))
        after = case.change(before)
        baseline, canary = (answer(side, size, random) for side, size in zip((before, after), case.sizes, strict=True))
        sides = baseline.side, canary.side
        started = time.perf_counter()
        verdict = judge(*sides)
        seconds += time.perf_counter() - started
        outcomes[verdict.outcome] += 1
        failed.update({finding.name for finding in verdict.findings if finding.outcome == "fail"})
        unsure.update({finding.name for finding in verdict.findings if finding.outcome == "inconclusive"})
        failed["any"] += verdict.outcome == "fail"
        alarms = rank_judge_fails(baseline, canary)
        rank_failed.update(name for name, is_high in alarms.items() if is_high)
        rank_failed["any"] += any(alarms.values())

    def wrong(fails: Counter[str]) -> float:
        alarmed = fails[case.test or "any"] / case.runs
        return round(1 - alarmed if case.test else alarmed, 4)

    def by_test(counts: Counter[str]) -> dict[str, float]:
        return {name: round(counts[name] / case.runs, 4) for name in ("errors", "latency", "predictions")}

    kind = "missed" if case.test else "false_alarms"
    return wrong(failed), {
        "case": case.name,
        "requests": case.sizes,
        "runs": case.runs,
        kind: wrong(failed),
        **{outcome: round(outcomes[outcome] / case.runs, 4) for outcome in ("pass", "inconclusive", "fail")},
        "failed_by_test": by_test(failed),
        "inconclusive_by_test": by_test(unsure),
        f"rank_judge_{kind}": wrong(rank_failed),
        "milliseconds": round(1000 * seconds / case.runs, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
