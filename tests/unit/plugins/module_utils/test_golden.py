# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._golden import mismatches

TOLERANCE = {"relative": 1e-6, "absolute": 1e-9}


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ([1, 0], [1, 0]),
        ([0.25], [0.25 + 1e-8]),
        ([1e-10], [0.0]),
        ([1], [1.0]),
        (["malignant", None, True], ["malignant", None, True]),
        ([[0.1, 0.9]], [[0.1, 0.9]]),
        ([], []),
    ],
)
def test_answers_within_the_tolerance_match(expected: list[Any], found: list[Any]) -> None:
    assert mismatches(expected, found, TOLERANCE) == []


@pytest.mark.parametrize(
    ("expected", "found", "line"),
    [
        ([0.25], [0.75], "row 0: expected 0.25, found 0.75 (tolerance: relative 1e-06, absolute 1e-09)"),
        ([2, 1], [2, 0], "row 1: expected 1, found 0"),
        ([10**15], [10**15 + 1], "row 0: expected 1000000000000000, found 1000000000000001"),
        (["benign"], ["malignant"], 'row 0: expected "benign", found "malignant"'),
        ([1], [True], "row 0: expected 1, found true"),
        ([0.5], [None], "row 0: expected 0.5, found null"),
        ([None], [0.5], "row 0: expected null, found 0.5"),
        ([0.5], [float("nan")], "row 0: expected 0.5, found NaN (tolerance: relative 1e-06, absolute 1e-09)"),
        ([[0.5, 0.5]], [[0.5, 0.25]], "row 0, output 1: expected 0.5, found 0.25 (tolerance: "),
        ([[0.5, 0.5]], [[0.5]], "row 0: expected [0.5, 0.5], found [0.5]"),
        ([1, 2], [1], "expected 2 rows, found 1"),
        ([1, 2], {"error": "no"}, 'expected 2 rows, found {"error": "no"}'),
    ],
)
def test_a_difference_names_row_expected_and_found(expected: list[Any], found: list[Any], line: str) -> None:
    (found_line,) = mismatches(expected, found, TOLERANCE)
    assert found_line.startswith(line)


def test_at_most_limit_lines_are_told() -> None:
    assert mismatches([0] * 9, [1] * 9, TOLERANCE, limit=2) == [
        "row 0: expected 0, found 1",
        "row 1: expected 0, found 1",
    ]


def test_long_values_are_cut() -> None:
    (line,) = mismatches(["a" * 500], ["b"], TOLERANCE)
    assert len(line) < 120
