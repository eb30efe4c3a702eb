# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases measured in turns, with times that are made up: which are slower, and which are disturbed alike."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._latency import (
    ALPHA,
    TURN_SECONDS,
    TURNS,
    Ask,
    Slower,
    measure,
    more_than_one_in,
    more_than_other,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._replay import percentile

Milliseconds = Callable[[int, int], float]
"""How long a request takes, by the row and by how many requests there were before."""


def release(takes: Milliseconds, asked: list[int] | None = None) -> Ask:
    """A release that is asked for rows which are their own numbers."""
    asked = [] if asked is None else asked

    def ask(row: int) -> float:
        asked.append(row)
        return takes(row, len(asked) - 1) / 1000

    return ask


def compared(new: Milliseconds, old: Milliseconds, rows: int = 20) -> Slower:
    """As the gate compares them, with a factor of 3."""
    times, old_times = measure([release(new), release(old)], range(rows))
    return Slower.of(3 * max(percentile(old_times, 0.99), 1), times, old_times)


def disturbed(seed: int, share: float, usual: float = 1) -> Milliseconds:
    """A model that takes its time, on a machine that now and then has other things to do for 50 ms."""
    random = Random(seed)
    return lambda _row, _number: usual + 50 * (random.random() < share)


def test_one_that_takes_twenty_times_as_long_at_two_requests_in_a_hundred_fails() -> None:
    found = compared(lambda _row, number: 20 if number % 50 == 10 else 1, lambda _row, _number: 1)
    assert (found.count, found.requests, found.old_count, found.old_requests) == (12, 600, 0, 600)
    assert not found.passes
    assert str(found) == "12 of 600 slower than 3 ms (old release 0 of 600)"


def test_what_disturbs_both_alike_fails_hardly_any() -> None:
    found = [compared(disturbed(seed, 0.015), disturbed(1000 + seed, 0.015)) for seed in range(200)]
    assert sum(not each.passes for each in found) <= 2
    # Slow ones have few requests.
    found = [compared(disturbed(seed, 0.015, 70), disturbed(1000 + seed, 0.015, 70)) for seed in range(200)]
    assert all(each.passes for each in found)


def test_one_that_is_slower_and_disturbed_fails_nearly_always() -> None:
    slow = [compared(lambda _row, number: 20 if number % 20 == 1 else 1, disturbed(seed, 0.005)) for seed in range(100)]
    assert sum(not each.passes for each in slow) >= 95


def test_a_slow_model_is_asked_for_its_last_rows_too() -> None:
    found = compared(lambda row, _number: 1200 if row >= 10 else 60, lambda _row, _number: 60)
    assert not found.passes
    assert compared(lambda _row, _number: 170, lambda _row, _number: 60).passes


@pytest.mark.parametrize(
    ("milliseconds", "asked"),
    [(1, 50), (10, 15), (60, 3), (1000, 1)],
)
def test_a_turn_of_a_slow_one_ends_early_and_the_next_goes_on_from_there(milliseconds: float, asked: int) -> None:
    rows: list[int] = []
    (times,) = measure([release(lambda _row, _number: milliseconds, rows)], range(20))
    assert len(times) == TURNS * asked
    assert rows[-len(times) :] == [number % 20 for number in range(len(times))]
    assert sum(times) <= 1000 * TURNS * TURN_SECONDS + TURNS * milliseconds


def test_they_take_turns_and_are_warm_before() -> None:
    asked: list[str] = []

    def named(name: str) -> Ask:
        def ask(_row: object) -> float:
            asked.append(name)
            return 0.001

        return ask

    measure([named("new"), named("old")], range(20))
    assert asked == 10 * ["new"] + 10 * ["old"] + TURNS * (50 * ["new"] + 50 * ["old"])


@pytest.mark.parametrize(
    ("slow", "passes", "said"),
    [
        (6, True, "6 of 600 slower than 5 ms"),
        (7, True, "7 of 600 slower than 5 ms, which may be chance"),
        (20, False, "20 of 600 slower than 5 ms"),
    ],
)
def test_without_an_old_release_a_limit_is_one_in_a_hundred_and_what_chance_adds(
    slow: int, passes: bool, said: str
) -> None:
    found = Slower.of(5, slow * [9.0] + (600 - slow) * [1.0])
    assert (found.passes, str(found)) == (passes, said)


@pytest.mark.parametrize(
    ("found", "chance"),
    [
        # Fisher's lady tastes three of four cups of tea right.
        (more_than_other(3, 4, 1, 4), 17 / 70),
        (more_than_other(4, 4, 0, 4), 1 / 70),
        (more_than_other(0, 5, 3, 5), 1),
        (more_than_other(12, 600, 4, 600), 0.0372),
        (more_than_one_in(100, 1, 100), 1 - 0.99**100),
        (more_than_one_in(100, 0, 5), 1),
        (more_than_one_in(2, 4, 4), 1 / 16),
        (more_than_one_in(100, 600, 600), 0),
    ],
)
def test_chances_are_exact(found: float, chance: float) -> None:
    assert found == pytest.approx(chance, rel=0.01)


def test_seven_in_six_hundred_beside_none_are_no_chance() -> None:
    assert more_than_other(7, 600, 0, 600) < ALPHA < more_than_other(6, 600, 0, 600)
