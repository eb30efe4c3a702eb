"""What README says was measured is what is stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import readme
from benchmarks.figures import RESULTS
from benchmarks.rollout import table
from benchmarks.rollout.__main__ import PARTS

LINES = [
    {"machine": {"processor": "Some CPU", "processors": 2, "python": "3.11.7"}},
    {
        "strategy": "rolling",
        "seconds": 44.84,
        "requests": 20042,
        "requests_during": 16799,
        "failed": 0,
        "p50_ms_before": 15.2,
        "p99_ms_before": 229.9,
        "p50_ms_during": None,
        "p99_ms_during": None,
        "versions": {"1": 20042},
    },
    {"name": "requests_failed_rolling", "value": 0, "bar": "== 0", "holds": True},
    {"name": "noop_deploy_over_ping", "value": 2.15, "bar": "<= 5", "holds": True},
    {"name": "gates_seconds_added", "value": 4.2, "bar": "<= 6", "holds": True},
    {"name": "env_build_over_pip", "value": 0.25, "bar": "<= 0.2", "holds": False},
]


def test_the_table_has_a_row_a_strategy_and_what_does_not_hold() -> None:
    lines = table.section(LINES).splitlines()
    assert "| rolling | 20,042 | 16,799 | 0 | 44.8 | 15 / 230 | - / - |" in lines
    assert "| a deploy that finds nothing to do, over the same | 2.15 | <= 5 | yes |" in lines
    words = (
        "what the other gates, a replay of 2,000 rows too, add to a blue/green deploy that has `digest`, `ready` and "
        "`version`, in seconds"
    )
    assert f"| {words} | 4.2 | <= 6 | yes |" in lines
    assert lines[-3].endswith("| 0.25 | <= 0.2 | **no** |")
    assert lines[-1].startswith("Some CPU, 2 processors")


def test_a_part_is_written_between_its_own_marks(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    begin, end = readme.marks("one")
    other = "".join(readme.marks("other"))
    file.write_text(f"before\n{begin}old\n{end}after\n{other}")
    readme.write("one", "new\n", file)
    readme.write("one", "newer\n", file)
    assert file.read_text() == f"before\n{begin}newer\n{end}after\n{other}"
    assert readme.read("one", file) == "newer\n"


def test_a_readme_without_the_marks_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text("nothing\n")
    with pytest.raises(
        ValueError, match="expected the lines <!-- one figures: begin --> and <!-- one figures: end -->"
    ):
        readme.write("one", "new\n", file)


def test_figures_are_read_as_they_were_stored(tmp_path: Path) -> None:
    (tmp_path / "rollout.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    assert readme.stored("rollout", tmp_path) == LINES


def test_readme_says_what_was_measured() -> None:
    parts = [readme.stored(path.stem) for name in PARTS if (path := RESULTS / f"{name}.jsonl").exists()]
    assert readme.read("rollout") == table.section(line for lines in parts for line in lines)
