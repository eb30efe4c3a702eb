"""``make bench-rollout``: what a rollout costs in requests (none) and in time, on the demo's fleet.

Each strategy runs under clients that send as fast as they are answered, on kept and on new connections, until at least
20,000 requests were sent; an answer that is not what scikit-learn itself says of that version counts as failed. Times
are ratios of medians of commands that take turns in one run, so that what else the machine does falls on both.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ansible_collections.modelfleet.onprem.plugins.module_utils._env import env_name, read_python
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import Layout
from ansible_collections.modelfleet.onprem.plugins.modules import model_env
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.wheelhouse import (
    Target,
    cache_folder,
    find_server,
    gather,
    merge_locks,
)
from model_server.bundle.lock import lock as lock_of

from benchmarks.figures import Figures, machine
from testbed import engine, fleet, image, models
from testbed.command import ROOT, STATE, StepError
from testbed.inventory import read_fleet
from testbed.load import Load
from testbed.playbook import ansible, playbook

INVENTORY = ROOT / "inventories" / "demo"
BUNDLES = STATE / "bundles"
URL = "http://127.0.0.1:18080/tumour/predict"
REQUESTS = 20_000
ROUNDS = 5
BEFORE_SECONDS = 5.0


def main() -> int:
    figures = Figures("rollout")
    figures.note(machine=machine())
    try:
        _prepare()
        for strategy, change in (
            ("rolling", lambda: _deploy("2", strategy="rolling")),
            ("blue_green", lambda: _deploy("3", strategy="blue_green")),
            ("rollback_warm", _roll_back),
        ):
            _under_load(figures, strategy, change)
        playbook(INVENTORY, "retire", service="tumour")
        _under_load(figures, "rollback_cold", _roll_back)
        _ratios(figures)
        _env_build(figures)
    except StepError as error:
        print(f"bench-rollout: {error}", file=sys.stderr)
        return 1
    return figures.close()


def _prepare() -> None:
    engine.ensure()
    image.ensure()
    fleet.up(read_fleet(INVENTORY))
    models.build_all(BUNDLES)
    playbook(INVENTORY, "provision")
    _deploy("1", strategy="basic")


def _deploy(version: str, **options: str) -> float:
    bundle = str(BUNDLES / f"tumour-{version}")
    return playbook(INVENTORY, "deploy", service="tumour", bundle=bundle, **options).seconds


def _roll_back(**options: str) -> float:
    return playbook(INVENTORY, "rollback", service="tumour", **options).seconds


def _under_load(figures: Figures, strategy: str, change: Callable[[], float]) -> None:
    request, answers = ((BUNDLES / name).read_text() for name in ("request.json", "answers.json"))
    load = Load(URL, request.encode(), keepalive=12, fresh=4, rate=0, timeout=30, expected=json.loads(answers))
    with load:
        time.sleep(BEFORE_SECONDS)
        load.mark("during")
        seconds = change()
        load.mark("after")
        while load.sent < REQUESTS and load.failed == 0:
            time.sleep(0.1)
    result = load.result
    phases = {phase["name"]: phase for phase in result["phases"]}
    figures.note(
        strategy=strategy,
        seconds=round(seconds, 2),
        requests=result["sent"],
        requests_during=phases["during"]["sent"],
        failed=result["failed"],
        **{f"{key}_before": phases["start"][key] for key in ("p50_ms", "p99_ms")},
        **{f"{key}_during": phases["during"][key] for key in ("p50_ms", "p99_ms")},
        versions=result["versions"],
        **({"failures": result["failures"]} if result["failed"] else {}),
    )
    figures.add(f"requests_sent_{strategy}", result["sent"], f">= {REQUESTS}")
    figures.add(f"requests_failed_{strategy}", result["failed"], "== 0")


def _ratios(figures: Figures) -> None:
    """A rollback to a warm slot and a deploy that changes nothing, over Ansible's own ping of the balancer."""
    _deploy("2", strategy="blue_green")
    _deploy("3", strategy="blue_green")
    inventory = ["--inventory", str(INVENTORY)]
    taken: dict[str, list[float]] = {"ping": [], "warm": [], "noop": []}
    for turn in range(ROUNDS):
        ping = ansible("ansible", *inventory, "load_balancers", "--module-name", "ansible.builtin.ping")
        taken["ping"].append(ping.seconds)
        taken["warm"].append(_roll_back(to="23"[turn % 2]))
        taken["noop"].append(_deploy("23"[turn % 2]))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    figures.note(seconds={name: [round(value, 2) for value in values] for name, values in taken.items()})
    figures.add("rollback_warm_over_ping", round(medians["warm"] / medians["ping"], 2), "<= 2")
    figures.add("noop_deploy_over_ping", round(medians["noop"] / medians["ping"], 2), "<= 5")


def _env_build(figures: Figures) -> None:
    """An environment of scikit-learn and the server out of local wheels, over venv and pip with the same wheels.

    Both build below one folder, and take turns in who begins. What was written before is on the disk when a turn
    starts, and nothing is removed until the end: ext4 passes over the inodes of files that were removed a moment ago,
    one by one, so that whoever comes next would pay for who came before. So it would in ``/tmp``.
    """
    cache = cache_folder()
    server = find_server(ROOT / "app", cache)
    lock = merge_locks(lock_of([], ["scikit-learn"], "bench-rollout"), server.lock)
    python = read_python(sys.executable)
    name = env_name(lock, server.sha256, python.tag, python.machine)
    wheels = gather(name, lock, server, Target(python.tag, python.machine, python.glibc), cache)
    builders: dict[str, Callable[[Path], None]] = {
        "model_env": lambda folder: model_env.build(Layout(folder), name, wheels, None, sys.executable),
        "pip": lambda folder: _venv_and_pip(folder, wheels),
    }
    taken: dict[str, list[float]] = {builder: [] for builder in builders}
    STATE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=STATE) as folder:
        for turn in range(ROUNDS):
            for builder in sorted(builders, reverse=bool(turn % 2)):
                place = Path(folder, f"{builder}-{turn}")
                os.sync()
                started = time.perf_counter()
                builders[builder](place)
                taken[builder].append(time.perf_counter() - started)
    medians = {builder: statistics.median(seconds) for builder, seconds in taken.items()}
    figures.note(seconds={builder: [round(it, 2) for it in seconds] for builder, seconds in taken.items()})
    figures.add("env_build_over_pip", round(medians["model_env"] / medians["pip"], 3), "<= 0.2")


def _venv_and_pip(place: Path, wheels: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    offline = ["--quiet", "--disable-pip-version-check", "--no-index", "--find-links", str(wheels)]
    what = ["--requirement", str(wheels / "env.lock"), *map(str, wheels.glob("modelfleet_model_server-*.whl"))]
    subprocess.run([place / "bin" / "pip", "install", *offline, *what], check=True)


if __name__ == "__main__":
    sys.exit(main())
