"""README's table of faults, made from the stored trials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def section(lines: Iterable[Mapping[str, Any]]) -> str:
    """A row a fault, as Markdown, then where it was found and by which seed."""
    kept = list(lines)
    tried: dict[str, list[Mapping[str, Any]]] = {}
    for line in kept:
        if "fault" in line:
            tried.setdefault(line["fault"], []).append(line)
    rows: list[tuple[str, ...]] = [
        ("fault", "tried", "survived", "requests sent", "lost", "lost beyond those in flight on what was killed")
    ]
    rows.append(("---",) * len(rows[0]))
    for fault, trials in sorted(tried.items()):
        survived = sum(trial["survived"] for trial in trials)
        sums = [f"{sum(trial[key] for trial in trials):,}" for key in ("sent", "lost", "excess")]
        rows.append((fault, str(len(trials)), str(survived) if survived == len(trials) else f"**{survived}**", *sums))
    facts = {key: value for line in kept for key, value in line.items() if key in ("machine", "seed", "ended")}
    ended = ", ".join(f"{how} {count}" for how, count in facts["ended"].items())
    machine = facts["machine"]
    return (
        "".join(f"| {' | '.join(row)} |\n" for row in rows)
        + f"\nSeed {facts['seed']}. How the deploys ended: {ended}. "
        + f"{machine['processor']}, {machine['processors']} processors, which all share.\n"
    )
