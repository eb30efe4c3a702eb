# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What two releases answer to the same rows, compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._replay import (
    Answered,
    Flips,
    Thresholds,
    are_labels,
    changes,
    compare,
    percentile,
    rows_needed,
    segments,
    wilson,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest


@given(st.integers(1, 5000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_the_interval_is_that_of_scipy(shares: tuple[int, int]) -> None:
    count, total = shares
    interval = binomtest(count, total).proportion_ci(0.95, method="wilson")
    assert wilson(count, total) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_nothing_to_go_by_is_any_share() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("count", "rows", "most", "verdict"),
    [
        (0, 2000, 0.01, True),
        (9, 2000, 0.01, True),
        (19, 2000, 0.01, False),
        (60, 2000, 0.01, False),
        (0, 99, 0.5, None),
        (0, 200, 0.01, None),
        (1, 200, 0.01, None),
        (60, 99, 0.01, None),
        (1, 10, 0.01, None),
        (60, 200, 0.01, False),
        (0, 0, 0.01, None),
    ],
    ids=[
        "none",
        "few",
        "below, but its bound above",
        "3 %",
        "too few rows",
        "too few for this rate",
        "too few to condemn",
        "too few rows, though most flip",
        "too few rows, though one flips",
        "few rows can condemn",
        "no rows",
    ],
)
def test_few_rows_condemn_and_never_acquit(count: int, rows: int, most: float, verdict: bool | None) -> None:
    assert Flips(count, rows).judge(most, 100) is verdict


@given(st.integers(0, 300), st.integers(0, 300), st.floats(0.001, 0.999))
def test_more_flips_are_never_better(count: int, more: int, most: float) -> None:
    order = {False: 0, None: 1, True: 2}
    rows = 700
    assert order[Flips(count + more, rows).judge(most, 100)] <= order[Flips(count, rows).judge(most, 100)]


@given(st.floats(0.0005, 1), st.integers(1, 2000))
def test_rows_that_are_needed_are_those_without_which_nothing_passes(most: float, min_rows: int) -> None:
    limits = Thresholds(max_flip_rate=most, min_rows=min_rows)
    needed = rows_needed(limits)
    assert needed is not None
    assert Flips(0, needed).judge(most * (1 + 1e-9), min_rows) is True
    assert Flips(0, needed - 1).judge(most * (1 - 1e-9), min_rows) is not True


def test_no_number_of_rows_says_that_none_ever_flips() -> None:
    limits = Thresholds(max_flip_rate=0)
    assert rows_needed(limits) is None
    found = compare(labels(), labels(), limits, True)
    assert (found.passed, found.found.partition("; ")[2]) == (
        None,
        "too few rows to tell, and no number of them is enough",
    )


def labels(*flipped: int, rows: int = 1000) -> Answered:
    return Answered([int(row in flipped) for row in range(rows)])


def test_flips_are_counted_and_told() -> None:
    found = compare(labels(), labels(*range(30)), Thresholds(), True)
    assert (found.passed, found.details["flips"], found.details["rows"]) == (False, 30, 1000)
    assert found.expected == "labels flip in at most 1.00% of at least 100 rows"
    assert found.found == "30 of 1000 rows flip (3.00%, at most 4.25%)"


def test_a_row_that_only_the_new_release_refuses_has_flipped() -> None:
    new = Answered([None, *[0] * 999])
    found = compare(labels(), new, Thresholds(max_flip_rate=0.0001, min_rows=1), True)
    assert (found.details["flips"], found.details["refused"]) == (1, 1)
    assert "1 of these refused" in found.found


def test_too_few_rows_are_inconclusive() -> None:
    found = compare(labels(rows=20), labels(rows=20), Thresholds(), True)
    assert found.passed is None
    assert found.found == "0 of 20 rows flip (0.00%, at most 16.11%); too few rows to tell, 381 needed"


@pytest.mark.parametrize("limits", [{}, {"max_change": 0.1}, {"max_p99_change": 0.1}])
def test_too_few_rows_condemn_no_release(limits: dict[str, float]) -> None:
    old, new = Answered([0] * 99, [[0.75, 0.25]] * 99), Answered([1] * 99, [[0.25, 0.75]] * 99)
    found = compare(old, new, Thresholds(**limits), True, "town", ["Bonn"] * 99)
    assert found.passed is None
    # What is said of all rows is not said of the segment again.
    assert found.found.endswith("; too few rows to tell, 381 needed")


@pytest.mark.parametrize(
    ("limits", "passed"),
    [({}, True), ({"max_change": 0.5}, True), ({"max_change": 0.2}, False), ({"max_p99_change": 0.01}, True)],
)
def test_scores_are_compared_when_there_is_a_limit(limits: dict[str, float], passed: bool) -> None:
    old = Answered([0] * 1000, [[0.75, 0.25]] * 1000)
    new = Answered([0] * 1000, [[0.5, 0.5], *[[0.75, 0.25]] * 999])
    found = compare(old, new, Thresholds(**limits), True)
    assert (found.passed, found.details["max_change"], found.details["p99_change"]) == (passed, 0.25, 0.0)


@pytest.mark.parametrize(
    ("scores", "unlike"),
    [(None, 1000), ([[0.5, 0.25, 0.25]] * 1000, 1000), ([[0.75, 0.25]] * 999 + [None], 1), ([0.75] * 1000, 1000)],
    ids=["none", "another number of classes", "one lacks", "a score of an anomaly"],
)
@pytest.mark.parametrize("limits", [{"max_change": 0.5}, {"max_p99_change": 0.5}, {}])
def test_scores_that_cannot_be_compared_are_inconclusive(
    scores: list[Any] | None, unlike: int, limits: dict[str, float]
) -> None:
    old = Answered([0] * 1000, [[0.75, 0.25]] * 1000)
    found = compare(old, Answered([0] * 1000, scores), Thresholds(**limits), True, "town", ["Bonn"] * 1000)
    words = f"; {unlike} rows whose scores cannot be compared: none, or of another number of classes"
    assert (found.passed, found.found.endswith(words)) == ((None, True) if limits else (True, False))
    assert found.details["unscored"] == unlike


def test_scores_that_move_too_far_fail_though_others_cannot_be_compared() -> None:
    old, new = [[0.75, 0.25]] * 1000, [None, [0.25, 0.75], *[[0.75, 0.25]] * 998]
    found = compare(Answered([0] * 1000, old), Answered([0] * 1000, new), Thresholds(max_change=0.2), True)
    assert found.passed is False
    few = compare(Answered([0] * 150, old[:150]), Answered([0] * 150, new[:150]), Thresholds(max_change=0.2), True)
    assert (few.passed, "too few" in few.found) == (False, False)


def test_where_the_old_release_gives_no_scores_there_are_none_that_change() -> None:
    assert compare(labels(), Answered([0] * 1000, [[0.75, 0.25]] * 1000), Thresholds(max_change=0.2), True).passed
    assert compare(labels(), labels(), Thresholds(max_change=0.2), True).passed


def test_numbers_and_what_is_none_cannot_be_compared() -> None:
    old = Answered([float(number) for number in range(1000)])
    for new in (["high"] * 1000, [[1.0, 2.0]] * 1000):
        found = compare(old, Answered(new), Thresholds(max_change=1), False)
        assert (found.passed, found.details["unscored"]) == (None, 1000)


def test_numbers_change_in_standard_deviations_of_the_old_answers() -> None:
    old = Answered([0.0, 200.0] * 500)
    new = Answered([value + 50 for value in old.predictions])
    assert changes(old, new, labels=False) == pytest.approx([0.5] * 1000)
    found = compare(old, new, Thresholds(max_change=0.4), labels=False)
    assert (found.passed, found.found) == (False, "0 of 1000 rows refused; scores change by up to 0.5, p99 0.5")


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50), st.floats(0.001, 1000))
def test_the_scale_of_what_is_predicted_does_not_matter(values: list[float], scale: float) -> None:
    old, new = Answered(values), Answered([value * 1.5 + 1 for value in values])
    larger = [Answered([value * scale for value in each.predictions]) for each in (old, new)]
    spread = max(values) - min(values)
    if spread > 1e-3:
        assert changes(larger[0], larger[1], False) == pytest.approx(changes(old, new, False), rel=1e-6, abs=1e-6)


def test_each_segment_is_judged_apart() -> None:
    towns = ["Bonn"] * 500 + ["Köln"] * 450 + ["Ulm"] * 50
    found = compare(labels(), labels(*range(6)), Thresholds(max_flip_rate=0.015), True, "town", towns)
    assert found.details["segments"]["Bonn"] == {"rows": 500, "flips": 6, "max_change": None, "p99_change": None}
    assert found.passed is False
    assert "where town is Bonn: 6 of 500 rows flip (1.20%" in found.found
    # Those of Köln are enough, and of Ulm they are not.
    assert found.found.endswith("; too few rows to tell where town is Ulm (50), 253 needed")


@pytest.mark.parametrize(
    ("flipped", "passed"),
    [((), None), ((999,), None), (range(995, 1000), None), ((*range(30), 999), False), (range(20), False)],
    ids=["none", "one of ten", "five of ten", "of all", "of a segment"],
)
def test_a_segment_that_is_too_small_leaves_it_open(flipped: Sequence[int], passed: bool | None) -> None:
    towns = ["Bonn"] * 500 + ["Köln"] * 490 + ["Ulm"] * 10
    found = compare(labels(), labels(*flipped), Thresholds(max_flip_rate=0.02), True, "town", towns)
    assert found.passed is passed
    assert "too few rows to tell where town is Ulm (10), 189 needed" in found.found
    assert "where town is Ulm: " not in found.found


def test_of_many_segments_that_are_too_small_some_are_named() -> None:
    towns = [str(row % 8) for row in range(400)] + ["Bonn"] * 600
    found = compare(labels(), labels(), Thresholds(max_flip_rate=0.02, min_rows=60), True, "town", towns)
    told = "too few rows to tell where town is 0 (50), 1 (50), 2 (50), 3 (50), 4 (50) and 3 more, 189 needed"
    assert (found.passed, found.found.partition("; ")[2]) == (None, told)


def test_a_segment_with_enough_rows_to_condemn_and_too_few_to_acquit() -> None:
    towns = ["Bonn"] * 850 + ["Ulm"] * 150
    few, many = (
        compare(labels(), labels(*range(850, 850 + count)), Thresholds(max_flip_rate=0.02), True, "town", towns)
        for count in (1, 11)
    )
    assert (few.passed, many.passed) == (None, False)
    assert "where town is Ulm: 11 of 150 rows flip" in many.found


@pytest.mark.parametrize(
    ("limits", "rows", "passed"),
    [
        ({"max_p99_change": 0.1}, range(9), False),
        # Ulm has too few rows to tell.
        # One row in a hundred of a segment is above its p99.
        ({"max_p99_change": 0.1}, range(1), None),
        ({"max_change": 0.1}, range(1), False),
        ({"max_change": 0.3}, range(9), None),
        ({"max_p99_change": 0.1}, [950], None),
        # It is among all rows, too.
        ({"max_change": 0.1}, [950], False),
    ],
)
def test_the_scores_of_each_segment_are_judged_apart(
    limits: dict[str, float], rows: Sequence[int], passed: bool | None
) -> None:
    towns = ["Bonn"] * 500 + ["Köln"] * 450 + ["Ulm"] * 50
    old = Answered([0] * 1000, [[0.75, 0.25]] * 1000)
    new = Answered([0] * 1000, [[0.5, 0.5] if row in rows else [0.75, 0.25] for row in range(1000)])
    found = compare(old, new, Thresholds(max_flip_rate=0.02, **limits), True, "town", towns)
    assert (found.passed, found.details["p99_change"]) == (passed, 0.0)
    town = towns[rows[0]]
    assert found.details["segments"][town]["max_change"] == 0.25
    is_told = passed is False and town != "Ulm"
    assert (f"where town is {town}: 0 of {towns.count(town)} rows flip" in found.found) is is_told


def test_rows_without_a_score_are_left_out_of_their_segment() -> None:
    old, new = Answered([1.0, 2.0, 3.0, 4.0]), Answered([1.0, None, 3.0, 9.0])
    assert [change is None for change in changes(old, new, labels=False)] == [False, True, False, False]
    limits = Thresholds(max_flip_rate=0.9, max_change=1, min_rows=1)
    parts = compare(old, new, limits, False, "town", ["Bonn", "Bonn", "Ulm", "Ulm"]).details["segments"]
    assert parts["Bonn"]["max_change"] == 0.0
    assert parts["Ulm"]["max_change"] > 1


def test_many_numbers_are_cut_at_their_quartiles() -> None:
    found = segments([float(number) for number in range(100)])
    assert {name: len(rows) for name, rows in found.items()} == {
        "below 25": 25,
        "from 25": 25,
        "from 50": 25,
        "from 75": 25,
    }
    assert list(segments([1, 2, 1, None, True])) == ["1", "2", "None", "True"]


@pytest.mark.parametrize(
    ("predictions", "classes", "expected"),
    [
        ([1, 0], None, True),
        (["a"], None, True),
        ([1.5], None, False),
        ([[1.5, 2.0]], None, False),
        ([None, 2.5], None, False),
        ([0.0, 1.0], [0.0, 1.0], True),
    ],
)
def test_labels_are_told_from_numbers(predictions: list[Any], classes: object, expected: bool) -> None:
    assert are_labels(predictions, classes) is expected


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([5.0, 1.0, 3.0], 0.99) == 5.0
    assert percentile(list(map(float, range(100))), 0.5) == 49.0
