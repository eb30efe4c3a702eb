"""One way to report a figure: a JSON line on standard output, kept under ``benchmarks/results/``."""

from __future__ import annotations

import json
import operator
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
_BARS: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}


class Figures:
    """The lines of one benchmark, in the order they were found."""

    def __init__(self, name: str) -> None:
        self.path = RESULTS / f"{name}.jsonl"
        self.lines: list[dict[str, Any]] = []

    def add(self, name: str, value: float, bar: str) -> None:
        """A figure and what it must be: ``bar`` is like ``<= 2``."""
        sign, limit = bar.split()
        self._say({"name": name, "value": value, "bar": bar, "holds": _BARS[sign](value, float(limit))})

    def note(self, **facts: Any) -> None:
        """A line of facts that no bar is set for."""
        self._say(facts)

    def close(self, *, store: bool = True) -> int:
        """Store the lines, if so asked; the exit status says whether all figures hold."""
        if store:
            self.path.parent.mkdir(exist_ok=True)
            self.path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        return 0 if all(line.get("holds", True) for line in self.lines) else 1

    def _say(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        print(json.dumps(line), flush=True)


def machine() -> dict[str, Any]:
    """What the figures were found on."""
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processors": len(
            [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("processor")]
        ),
        "processor": model[0].split(":", 1)[1].strip() if model else platform.machine(),
        "memory_gib": round(int(memory.split()[1]) / 2**20),
        "python": platform.python_version(),
    }
