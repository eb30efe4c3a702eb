"""README's table of the rollouts' figures, made from the stored ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_COLUMNS = ("", "requests", "of these during it", "failed", "seconds", "p50 / p99 ms before", "p50 / p99 ms during")
_RATIOS = {
    "rollback_warm_over_ping": "a rollback to a warm slot, over `ansible -m ping` on the same inventory",
    "noop_deploy_over_ping": "a deploy that finds nothing to do, over the same",
    "gates_seconds_added": "what the other gates, a replay of 2,000 rows too, add to a blue/green deploy that has "
    "`digest`, `ready` and `version`, in seconds",
    "journal_seconds_added": "what the journal and its locks add to a deploy behind one balancer, in seconds",
    "env_build_over_pip": "an environment with scikit-learn, over `venv` and `pip` with the same wheels",
    "multi_service_over_single": "a deploy of three services as one, over that of one of them",
    "swap_milliseconds": "from the first new answer to the last old one, over two balancers of one clock, in ms",
    "host_seconds_100_over_10": "a host in a deploy to 100 (20 machines of 5 names each), over one in a deploy to 10",
}


def section(lines: Iterable[Mapping[str, Any]]) -> str:
    """A row a strategy, then a row a ratio, as Markdown, and the machine they were found on."""
    kept = list(lines)
    rows = [_COLUMNS, ("---",) * len(_COLUMNS), *(_row(line) for line in kept if "strategy" in line)]
    figures = {line["name"]: line for line in kept if line.get("name") in _RATIOS}
    ratios = [("time of", "figure", "to be", "holds"), ("---",) * 4]
    for name, line in figures.items():
        ratios.append((_RATIOS[name], str(line["value"]), line["bar"], "yes" if line["holds"] else "**no**"))
    found = [line["machine"] for line in kept if "machine" in line]
    machines = dict.fromkeys(f"{machine['processor']}, {machine['processors']} processors" for machine in found)
    return (
        f"{_table(rows)}\n{_table(ratios)}\n{'; '.join(machines)}, which the "
        "clients, Ansible and the whole fleet share.\n"
    )


def _row(line: Mapping[str, Any]) -> tuple[str, ...]:
    times = [
        " / ".join(_whole(line[f"{share}_ms_{when}"]) for share in ("p50", "p99")) for when in ("before", "during")
    ]
    counts = [f"{line[key]:,}" for key in ("requests", "requests_during", "failed")]
    return (line["strategy"], *counts, f"{line['seconds']:.1f}", *times)


def _whole(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.0f}"


def _table(rows: Iterable[Iterable[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
