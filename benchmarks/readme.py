"""README's parts that are made from stored figures: each is between two marks of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.figures import RESULTS
from testbed.command import ROOT

README = ROOT / "README.md"


def marks(name: str) -> tuple[str, str]:
    """The lines before and after the part with the figures of this name."""
    return f"<!-- {name} figures: begin -->\n", f"<!-- {name} figures: end -->\n"


def stored(name: str, results: Path = RESULTS) -> list[dict[str, Any]]:
    """The lines that a benchmark stored."""
    return [json.loads(line) for line in (results / f"{name}.jsonl").read_text().splitlines()]


def read(name: str, readme: Path = README) -> str:
    """What is between the marks. Raises ValueError when they are not there."""
    return _parts(name, readme)[1]


def write(name: str, section: str, readme: Path = README) -> None:
    """Put the section between its marks. Raises ValueError when they are not there."""
    before, _, after = _parts(name, readme)
    readme.write_text(f"{before}{section}{after}")


def _parts(name: str, readme: Path) -> tuple[str, str, str]:
    begin, end = marks(name)
    text = readme.read_text()
    if not 0 <= text.find(begin) < text.find(end):
        raise ValueError(f"{readme}: expected the lines {begin.strip()} and {end.strip()}")
    before, _, rest = text.partition(begin)
    section, _, after = rest.partition(end)
    return f"{before}{begin}", section, f"{end}{after}"
