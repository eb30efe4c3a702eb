# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Captured requests, read to be sent again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._captured import Columns, read_columns, read_rows

COLUMNS = Columns(("width", "height"))


def line(*rows: list[Any], columns: tuple[str, ...] = ("width", "height"), digest: str = "aaaa", **outputs: Any) -> str:
    outputs.setdefault("predictions", [sum(row) for row in rows])
    return json.dumps({"columns": columns, "instances": rows, "digest": digest, "outputs": outputs})


def written(tmp_path: Path, *files: list[str]) -> list[Path]:
    """Files, the newest first."""
    paths = []
    for number, lines in enumerate(files):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("\n".join(lines) + "\n")
        paths.append(path)
    return paths


def test_the_newest_rows_come_first_and_no_more_than_asked_for(tmp_path: Path) -> None:
    files = written(tmp_path, [line([3, 3]), line([4, 4], [5, 5])], [line([1, 1]), line([2, 2])])
    assert read_rows(files, 9, COLUMNS, None).instances == [[4, 4], [5, 5], [3, 3], [2, 2], [1, 1]]
    assert read_rows(files, 4, COLUMNS, None).instances == [[4, 4], [5, 5], [3, 3], [2, 2]]


def test_columns_are_put_into_the_order_of_the_new_contract(tmp_path: Path) -> None:
    files = written(tmp_path, [line([1, 2, 3], columns=("height", "old", "width"))])
    assert read_rows(files, 9, COLUMNS, None).instances == [[3, 1]]


def test_a_new_column_that_may_be_missing_is(tmp_path: Path) -> None:
    files = written(tmp_path, [line([1, 2])])
    columns = Columns(("width", "age", "height"), frozenset({"age"}))
    assert read_rows(files, 9, columns, None).instances == [[1, None, 2]]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "none: the service captures none (capture_share), or none yet"),
        ([line([1], columns=("width",)), line([2], [3], columns=("width",))], "3 rows without the column height"),
        ([line([1, 2], digest="aabb")], "none: the service captures none"),
    ],
    ids=["none", "redacted", "another release's"],
)
def test_why_there_are_none_is_told(tmp_path: Path, lines: list[str], why: str) -> None:
    found = read_rows(written(tmp_path, lines), 9, COLUMNS, "aaaa")
    assert (list(found.instances), found.answered) == ([], None)
    assert why in found.why_none


def test_answers_are_those_of_the_last_release_before(tmp_path: Path) -> None:
    files = written(tmp_path, [line([1, 2], probabilities=[[0.5, 0.5]])], [line([3, 4], digest="older")])
    found = read_rows(files, 9, COLUMNS, None).answered
    assert found is not None
    assert (found.predictions, found.scores) == ([3, None], [[0.5, 0.5], None])


def test_what_is_no_line_or_gone_is_passed_over(tmp_path: Path) -> None:
    files = written(tmp_path, [line([1, 2]), "[]", '{"columns": ["wid'])
    assert read_rows([tmp_path / "gone.jsonl", *files], 9, COLUMNS, None).instances == [[1, 2]]


def test_a_contract_says_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "contract.json"
    path.write_text(
        json.dumps(
            {
                "inputs": [{"name": "width"}, {"name": "age", "nullable": True}],
                "outputs": [{"name": "predictions", "classes": [0, 1]}, {"name": "probabilities"}],
            }
        )
    )
    assert read_columns(path) == Columns(("width", "age"), frozenset({"age"}), [0, 1], True)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"contract\.json: expected a contract, found: KeyError\('outputs'\)"):
        read_columns(path)
