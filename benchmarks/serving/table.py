"""README's table of the serving figures, made from the stored ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks import readme
from benchmarks.serving.models import MODELS
from benchmarks.serving.peers import PEERS

NAME = "serving"
_OURS = "model_server"
_WORKLOADS = {
    "linear": "linear",
    "forest": "forest",
    "gradient_boosting": "boosting",
    "hist_gradient_boosting": "histogram boosting",
    "native": "native",
    "linear_1000": "linear, 1,000 rows",
}
"""The columns, and what they are called."""


def table(lines: Iterable[Mapping[str, Any]]) -> str:
    """Requests a second of each server and workload that there is, then what else was measured, as Markdown."""
    kept = list(lines)
    runs = {line["workload"]: line for line in kept if line.get("workload") in _WORKLOADS}
    columns = [name for name in _WORKLOADS if name in runs]
    text = ""
    if columns:
        rows = [["requests/s", *(_WORKLOADS[name] for name in columns)], ["---"] * (1 + len(columns))]
        for server, title in {_OURS: "this server", **{name: peer.title for name, peer in PEERS.items()}}.items():
            rates = [runs[name]["requests_per_second"].get(server) for name in columns]
            rows.append([title, *("" if rate is None else f"{rate:,}" for rate in rates)])
        rows.append(["**over the best peer**", *(f"**{runs[name]['ratio']:.2f}**" for name in columns)])
        text = "".join(f"| {' | '.join(row)} |\n" for row in rows) + "\n"
    figures = [line for line in kept if "bar" in line]
    text += "| figure | value | to be | holds |\n| --- | --- | --- | --- |\n"
    for line in figures:
        text += f"| `{line['name']}` | {line['value']} | {line['bar']} | {'yes' if line['holds'] else '**no**'} |\n"
    return text


def section(lines: Iterable[Mapping[str, Any]]) -> str:
    """The tables with the facts of the machine they were found on."""
    kept = list(lines)
    facts = next(line for line in kept if "machine" in line)
    machine, effort = facts["machine"], next(line for line in kept if "rounds" in line and "seconds" in line)
    half = next(line for line in kept if line.get("workload") == "half_load")
    p50, p99 = half["p50_us"], half["p99_us"]
    models = "; ".join(f"{_WORKLOADS[name]}: {MODELS[name].title}" for name in _WORKLOADS if name in MODELS)
    return (
        f"{table(kept)}\n{machine['processor']}, {machine['processors']} processors, Python {machine['python']}: a "
        f"worker on one of them, wrk {facts['wrk'].partition('-')[0]} with 8 kept connections on the other, medians of "
        f"{effort['rounds']} rounds in turns. One row of 30 features a request. {models}. At half load, "
        f"{half['rate']:,} requests/s, p50 is {p50[_OURS]} µs and p99 {p99[_OURS]} µs; of a bare loop of epoll that "
        f"answers the same bytes, {p50['floor']} and {p99['floor']} µs.\n"
    )


def write() -> None:
    """Make README's section anew."""
    readme.write(NAME, section(readme.stored(NAME)))
