"""``make bench-serving``: our server beside Python's other model servers, one core for the server, one for the client.

Every server runs in an environment of its own, is checked to answer as scikit-learn does, and is then measured alone,
in turns with the others, so that what else the machine does falls on all. Figures are ratios of medians.
"""

from __future__ import annotations

import argparse
import os
import sys

from model_server.web.settings import SCORERS

from benchmarks.figures import Figures, machine
from benchmarks.serving import forms, measure, table
from benchmarks.serving.client import CLIENT_CORE
from testbed.command import StepError, install, run


def main() -> int:
    options = _parser().parse_args()
    try:
        if options.command == "table":
            table.write()
            return 0
        if options.command == "forms":
            figures = Figures("serving_forms")
            figures.note(machine=machine())
            forms.forms(figures)
            return figures.close()
        if (os.cpu_count() or 1) <= CLIENT_CORE:
            raise StepError("expected two processors, one for the server and one for the client, found one")
        soaked = "serving_soak" if options.scorer == "auto" else f"serving_soak_{options.scorer}"
        figures = Figures(soaked if options.command == "soak" else "serving")
        figures.note(machine=machine(), wrk=_wrk_version())
        if options.command == "soak":
            measure.soak(figures, options.minutes, options.scorer)
            return figures.close()
        effort = measure.Effort(1, 1) if options.quick else measure.Effort(options.rounds, options.seconds)
        figures.note(rounds=effort.rounds, seconds=effort.seconds)
        for name in options.only or measure.FIGURES:
            measure.FIGURES[name](figures, effort)
    except (StepError, ValueError) as error:
        print(f"bench-serving: {error}", file=sys.stderr)
        return 1
    # A part of a run, or one too short to tell, is not what README is made from.
    is_whole = not (options.only or options.quick)
    status = figures.close(store=is_whole)
    if is_whole:
        table.write()
    print(table.table(figures.lines), file=sys.stderr)
    return status


def _wrk_version() -> str:
    install("wrk")
    return run(["dpkg-query", "--show", "--showformat=${Version}", "wrk"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "command",
        nargs="?",
        choices=("run", "soak", "forms", "table"),
        default="run",
        help="run: the figures, and README's table of them (default); soak: memory under load; "
        "forms: whether the form that a bundle is given is the fastest; table: README's alone",
    )
    parser.add_argument("--only", action="append", choices=list(measure.FIGURES), help="this figure alone; repeatable")
    parser.add_argument("--rounds", type=int, default=measure.Effort.rounds, help="turns of every server")
    parser.add_argument("--seconds", type=int, default=measure.Effort.seconds, help="how long a turn is")
    parser.add_argument("--quick", action="store_true", help="one short round of each; stores nothing")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to soak")
    parser.add_argument("--scorer", choices=SCORERS, default="auto", help="soak: what serves, as the server's SCORER")
    return parser


if __name__ == "__main__":
    sys.exit(main())
