"""What a deploy of three services takes, over one of them alone: the demo's fleet, with three services on it."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.figures import Figures
from testbed import fleet
from testbed.command import ROOT, STATE
from testbed.inventory import read_fleet
from testbed.playbook import playbook

INVENTORY = ROOT / "inventories" / "demo"
BUNDLES = STATE / "bundles"
# Not kept warm, so that every deploy starts what it moves to.
SERVICES = {
    name: {"port": port, "model": "tumour", "workers": 1, "keep_warm": False}
    for name, port in (("one", 8301), ("two", 8311), ("three", 8321))
}
ROUNDS = 3


def measure(figures: Figures) -> None:
    """Both deploys take turns, from one release to another that the hosts hold, which starts beside it and moves.

    The services are removed from the fleet again.
    """
    known = {"tumour": {"port": 8101}, **SERVICES}
    fleet.up(read_fleet(INVENTORY))
    try:
        playbook(INVENTORY, "provision", modelfleet_services=known)
        for version in "12":
            _deploy(known, list(SERVICES), version)
        taken: dict[str, list[float]] = {"one": [], "three": []}
        for turn in range(ROUNDS):
            version = "12"[turn % 2]
            taken["one"].append(_deploy(known, ["one"], version))
            # So that the three have the same to do: each of them leaves the other version.
            _deploy(known, ["one"], "21"[turn % 2])
            taken["three"].append(_deploy(known, list(SERVICES), version))
    finally:
        for service in SERVICES:
            playbook(INVENTORY, "retire", modelfleet_services=known, service=service)
        playbook(INVENTORY, "provision")
    figures.note(seconds={name: [round(it, 2) for it in seconds] for name, seconds in taken.items()})
    ratio = statistics.median(taken["three"]) / statistics.median(taken["one"])
    figures.add("multi_service_over_single", round(ratio, 2), "<= 1.5")


def _deploy(known: dict[str, Any], services: list[str], version: str) -> float:
    asked = {service: {"bundle": str(BUNDLES / f"tumour-{version}")} for service in services}
    return playbook(INVENTORY, "deploy", modelfleet_services=known, services=asked).seconds
