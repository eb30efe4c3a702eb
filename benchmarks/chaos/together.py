"""Two deploys that are started in the same moment: one wins, and the other is refused before it changes anything."""

from __future__ import annotations

import time

from benchmarks.chaos.trial import (
    BUNDLES,
    INVENTORY,
    Outcome,
    balancers_say,
    deploy,
    end_of,
    entrance,
    load,
    serving,
    too_many,
)
from testbed.command import StepError
from testbed.inventory import read_fleet
from testbed.playbook import playbook

FAULT = "two deploys in the same second"


def run(service: str, number: int) -> Outcome:
    """Deploy versions 1 and 2 at once where version 3 serves; exactly one of them serves afterwards."""
    fleet = read_fleet(INVENTORY)
    started, started_at = time.monotonic(), time.time()
    problem = ""
    playbook(INVENTORY, "deploy", service=service, bundle=str(BUNDLES / "tumour-3"))
    with load(fleet, service) as clients:
        runs = {version: deploy(service, version) for version in ("1", "2")}
        ended = {version: end_of(process) for version, process in runs.items()}
        winners = [version for version, process in runs.items() if process.returncode == 0]
        serves = serving(entrance(fleet), service)
        if len(winners) != 1:
            problem = f"expected one deploy to win, found {winners or 'none'}: {ended}"
        elif serves != winners[0]:
            problem = f"expected version {winners[0]}, which won, to serve, found {serves}"
        else:
            try:
                playbook(INVENTORY, "status", service=service, verify=True)
            except StepError as error:
                problem = str(error)
    if lost := too_many(0, clients.result):
        problem = "; ".join(filter(None, [problem, lost, *balancers_say(fleet, started_at)]))
    return Outcome(
        trial=f"blue_green: {FAULT}, {number + 1}",
        fault=FAULT,
        seconds=round(time.monotonic() - started, 1),
        sent=clients.result["sent"],
        lost=clients.result["failed"],
        allowed=0,
        serves=serves,
        done="one went on",
        problem=problem,
    )
