"""What a host costs in a deploy to 100 hosts, over one in a deploy to 10.

A machine holds no hundred hosts, so each is known by five names: 2 hosts are 10, and 20 are 100. Each name is connected
to, read, asked and judged as a host of its own; what a name finds done by another one of the same host is done.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.figures import Figures
from testbed import fleet
from testbed.command import ROOT, STATE
from testbed.inventory import read_fleet
from testbed.playbook import playbook

DEMO = ROOT / "inventories" / "demo" / "hosts.yml"
BUNDLES = STATE / "bundles"
SMALL, LARGE = 10, 100
NAMES = 5
NAME = "modelfleet-sized"
SERVICE = "sized"
# Not kept warm, so that every deploy starts what it moves to.
KEYS = {"port": 8101, "model": "tumour", "workers": 1, "max_wait_ms": 10000, "keep_warm": False}


def measure(figures: Figures) -> None:
    """Both deploys start a release that the hosts hold beside the one that serves, put its gates to it and move."""
    with tempfile.TemporaryDirectory(dir=STATE) as folder:
        seconds = {hosts: _deploy_to(Path(folder), hosts) / hosts for hosts in (SMALL, LARGE)}
    figures.note(host_seconds={str(hosts): round(each, 3) for hosts, each in seconds.items()}, names_of_a_host=NAMES)
    figures.add("host_seconds_100_over_10", round(seconds[LARGE] / seconds[SMALL], 2), "<= 1.3")


def _deploy_to(folder: Path, hosts: int) -> float:
    """The seconds of the deploy to so many hosts."""
    real, named = folder / f"{hosts}-real.yml", folder / f"{hosts}-named.yml"
    real.write_text(json.dumps(_inventory(hosts // NAMES, 1)))
    named.write_text(json.dumps(_inventory(hosts // NAMES, NAMES)))
    described = read_fleet(real)
    try:
        fleet.up(described)
        # First by one name each, for packages are installed and releases are tried by one at a time.
        playbook(real, "provision")
        for version in "12":
            _deploy(real, version)
        playbook(named, "provision")
        return _deploy(named, "1")
    finally:
        fleet.down(described)


def _inventory(hosts: int, names: int) -> dict[str, Any]:
    """As the demo's inventory, with so many model hosts, each of so many names."""
    document: dict[str, Any] = yaml.safe_load(DEMO.read_text().replace("{{ inventory_dir }}/../..", str(ROOT)))
    everything = document["all"]
    everything["vars"] = {
        "testbed": {"name": NAME, "subnet": "10.213.80.0/24"},
        "modelfleet_services": {SERVICE: KEYS},
    }
    groups = everything["children"]
    groups["load_balancers"]["hosts"] = {"lb1": {"ansible_host": "10.213.80.10"}}
    groups["model_hosts"]["hosts"] = {
        f"model{host}-{name}": {"ansible_host": f"10.213.80.{100 + host}"}
        for host in range(hosts)
        for name in range(names)
    }
    return document


def _deploy(inventory: Path, version: str) -> float:
    bundle = str(BUNDLES / f"tumour-{version}")
    return playbook(inventory, "deploy", service=SERVICE, bundle=bundle, strategy="blue_green").seconds
