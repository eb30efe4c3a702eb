"""``make chaos``: what breaks in the middle of rollouts, and what clients lose by it.

Each trial deploys to a service under load, breaks something at a random moment, mends it, and has the rollout finished
or undone. It is survived if the right version serves then, ``status.yml -e verify=true`` finds that routes, files,
hosts and journal agree, the balancers know what served before and nothing that was undone, and no request was lost but
those in flight on what was killed. The seed that is printed gives the same trials again, at the same shares of what a
deploy takes. ``--minutes`` ends it early: every fault comes once before any comes again.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator

from benchmarks import readme
from benchmarks.chaos import together
from benchmarks.chaos.faults import ACTIVE_BALANCER, FAULTS, KILLED_CONTROLLER, install_needs
from benchmarks.chaos.table import section
from benchmarks.chaos.trial import BUNDLES, COUNTED, INVENTORY, STRATEGIES, Outcome, Trial, run
from benchmarks.figures import Figures, machine
from testbed import engine, fleet, image, models
from testbed.command import StepError, say
from testbed.inventory import read_fleet
from testbed.playbook import playbook

KILLS = 60
PAIRS = 20
MOMENTS = ((0.0, 0.15), (0.15, 0.85), (0.85, 1.1))
"""Before a host's turn, in the midst of it, and after it, as shares of what a deploy takes."""


def plan(chance: random.Random) -> Iterator[Trial]:
    """Every trial, in an order in which each fault and each way out comes early."""
    names = list(STRATEGIES)
    kills = iter(
        [
            # Both ways out in turns, and in the next round each strategy the other one.
            Trial(
                names[place % len(names)],
                KILLED_CONTROLLER,
                chance.uniform(0, 1.05),
                ("resume", "rollback")[(place + place // len(names)) % 2],
            )
            for place in range(KILLS)
        ]
    )
    # Shuffled, for a run that ends early tries the first ones alone; but for the worst, which comes in every run.
    turns = [(turn, fault) for turn in range(len(MOMENTS)) for fault in chance.sample(FAULTS, len(FAULTS))]
    turns.sort(key=lambda it: (it[0], it != (0, ACTIVE_BALANCER)))
    # Each fault meets each of these strategies.
    faults = [
        Trial(
            COUNTED[(turn + FAULTS.index(fault)) % len(COUNTED)],
            fault,
            chance.uniform(*MOMENTS[turn]),
            "again" if place % 2 else "rollback",
        )
        for place, (turn, fault) in enumerate(turns)
    ]
    for trial in faults:
        yield trial
        yield from itertools.islice(kills, 1)
    yield from kills


def prepare() -> dict[str, float]:
    """Bring the fleet up with version 1 of every service; the seconds that a deploy to each takes, model and all."""
    engine.ensure()
    image.ensure()
    fleet.up(read_fleet(INVENTORY))
    install_needs(read_fleet(INVENTORY))
    models.build_all(BUNDLES)
    playbook(INVENTORY, "provision")
    # The first one all at once, environments and all, which no trial has to wait for.
    bundles = {version: str(BUNDLES / f"tumour-{version}") for version in ("3", "1")}
    playbook(INVENTORY, "deploy", services={service: {"bundle": bundles["3"]} for service in STRATEGIES})
    return {
        service: playbook(INVENTORY, "deploy", service=service, bundle=bundles["1"]).seconds for service in STRATEGIES
    }


def table(outcomes: list[Outcome]) -> list[str]:
    """A line a trial, and what it came to."""
    rows = [("trial", "seconds", "sent", "lost", "may be lost", "the deploy", "outcome")]
    for outcome in outcomes:
        allowed = "any" if outcome.allowed is None else str(outcome.allowed)
        figures = (f"{outcome.seconds:.0f}", str(outcome.sent), str(outcome.lost), allowed, outcome.done)
        rows.append((outcome.trial, *figures, outcome.problem or "survived"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="of all randomness")
    parser.add_argument("--minutes", type=float, help="begin no trial after so long")
    parser.add_argument("--keep", action="store_true", help="leave the fleet up")
    parser.add_argument("--no-store", action="store_true", help="keep the stored figures as they are")
    options = parser.parse_args()
    say(f"seed {options.seed}")
    chance = random.Random(options.seed)
    figures = Figures("chaos")
    figures.note(machine=machine(), seed=options.seed)
    started = time.monotonic()

    def late() -> bool:
        return options.minutes is not None and time.monotonic() - started > 60 * options.minutes

    outcomes: list[Outcome] = []
    try:
        usual = prepare()
        for trial in plan(chance):
            if late():
                break
            outcomes.append(run(trial, usual[trial.service], chance))
            say(table(outcomes[-1:])[1])
        for number in range(PAIRS):
            if late() and number:
                break
            outcomes.append(together.run("swap", number))
            say(table(outcomes[-1:])[1])
    except StepError as error:
        say(f"chaos: {error}")
        return 1
    finally:
        if not options.keep:
            fleet.down(read_fleet(INVENTORY))
    for line in table(outcomes):
        say(line)
    for outcome in outcomes:
        figures.note(
            fault=outcome.fault,
            trial=outcome.trial,
            done=outcome.done,
            sent=outcome.sent,
            lost=outcome.lost,
            excess=outcome.excess,
            survived=not outcome.problem,
            **({"problem": outcome.problem} if outcome.problem else {}),
        )
    survived = sum(not outcome.problem for outcome in outcomes)
    figures.note(ended=dict(Counter(outcome.done for outcome in outcomes)))
    figures.note(requests_sent=sum(outcome.sent for outcome in outcomes), requests_failed=sum(o.lost for o in outcomes))
    figures.add("chaos_tried", len(outcomes), ">= 1")
    figures.add("chaos_survived", survived, f">= {len(outcomes)}")
    figures.add("chaos_requests_lost", sum(outcome.excess for outcome in outcomes), "== 0")
    status = figures.close(store=not options.no_store)
    if not options.no_store:
        readme.write("chaos", section(figures.lines))
    return status


if __name__ == "__main__":
    sys.exit(main())
