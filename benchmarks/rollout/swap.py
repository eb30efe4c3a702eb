"""How long two balancers answer from both releases when a route moves: clients of both note when each answer came."""

from __future__ import annotations

import http.client
import statistics
import threading
import time
from dataclasses import dataclass, field

from benchmarks.figures import Figures
from testbed import fleet
from testbed.command import ROOT, STATE
from testbed.inventory import read_fleet
from testbed.playbook import playbook

INVENTORY = ROOT / "inventories" / "chaos"
BUNDLES = STATE / "bundles"
SERVICE = "swap"
CLIENTS = 4
ROUNDS = 5


@dataclass
class Clients:
    """Clients that each keep a connection to one balancer, and ask it over and over."""

    addresses: list[str]
    answers: list[tuple[float, str]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Clients:
        places = [address for address in self.addresses for _client in range(CLIENTS // len(self.addresses))]
        self._threads = [threading.Thread(target=self._ask, args=(address,)) for address in places]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stopped.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, address: str) -> None:
        row = (BUNDLES / "request.json").read_bytes()
        connection = http.client.HTTPConnection(address, timeout=30)
        while not self.stopped.is_set():
            connection.request("POST", f"/{SERVICE}/predict", row, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            self.answers.append((time.monotonic(), str(answer.headers["X-Model-Version"])))
            # Fast enough to see milliseconds, and slow enough to leave the balancers their processor.
            time.sleep(0.002)
        connection.close()


def measure(figures: Figures) -> None:
    """The median of several deploys, in milliseconds from the first new answer to the last old one."""
    found = read_fleet(INVENTORY)
    try:
        fleet.up(found)
        playbook(INVENTORY, "provision")
        for version in "12":
            _deploy(version)
        swaps = []
        addresses = [host.address for host in found.hosts if host.name.startswith("lb")]
        for turn in range(ROUNDS):
            version = "12"[turn % 2]
            with Clients(addresses) as clients:
                time.sleep(1)
                _deploy(version)
                time.sleep(1)
            new = min(at for at, answered in clients.answers if answered == version)
            old = max(at for at, answered in clients.answers if answered != version)
            swaps.append(1000 * max(0.0, old - new))
    finally:
        fleet.down(found)
    figures.note(swaps_milliseconds=[round(swap, 1) for swap in swaps])
    figures.add("swap_milliseconds", round(statistics.median(swaps), 1), "<= 50")


def _deploy(version: str) -> None:
    playbook(INVENTORY, "deploy", service=SERVICE, bundle=str(BUNDLES / f"tumour-{version}"))
