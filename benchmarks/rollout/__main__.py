"""``make bench-rollout``: what a rollout costs in requests (none) and in time, on the demo's fleet.

Each strategy runs under clients that send as fast as they are answered, on kept and on new connections, until at least
20,000 requests were sent; an answer that is not what scikit-learn itself says of that version counts as failed. Times
are ratios of medians of commands that take turns in one run, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import SIGNATURE, read_seal
from ansible_collections.modelfleet.onprem.plugins.module_utils._env import env_name, read_python
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import Layout
from ansible_collections.modelfleet.onprem.plugins.module_utils._signature import sign
from ansible_collections.modelfleet.onprem.plugins.modules import model_env
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.wheelhouse import (
    Target,
    cache_folder,
    find_server,
    gather,
    merge_locks,
)
from model_server.bundle.lock import lock as lock_of

from benchmarks import readme
from benchmarks.figures import RESULTS, Figures, machine
from benchmarks.rollout import several, size, swap, table
from testbed import engine, fleet, models
from testbed.command import ROOT, STATE, StepError
from testbed.inventory import read_fleet
from testbed.load import Load
from testbed.playbook import ansible, playbook

NAME = "rollout"
INVENTORY = ROOT / "inventories" / "demo"
BUNDLES = STATE / "bundles"
URL = "http://127.0.0.1:18080/tumour/predict"
REQUESTS = 20_000
ROUNDS = 5
REPLAYED = 2000
BEFORE_SECONDS = 5.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rollout", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "command",
        nargs="?",
        choices=("run", *PARTS, "table"),
        default="run",
        help="run: all figures (default); one part of them; table: write README's table from the stored figures",
    )
    command = parser.parse_args().command
    status = 0
    try:
        if command != "table":
            engine.ensure()
            models.build_all(BUNDLES)
            status = max([_measure(part) for part in (PARTS if command == "run" else [command])])
    except StepError as error:
        print(f"bench-rollout: {error}", file=sys.stderr)
        return 1
    found = [readme.stored(part) for part in PARTS if (RESULTS / f"{part}.jsonl").exists()]
    readme.write(NAME, table.section(line for lines in found for line in lines))
    return status


def _measure(part: str) -> int:
    figures = Figures(part)
    figures.note(machine=machine())
    PARTS[part](figures)
    return figures.close()


def _rollouts(figures: Figures) -> None:
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
    _journal(figures)
    _env_build(figures)


def _gated(figures: Figures) -> None:
    _prepare()
    _gates(figures)


def _prepare() -> None:
    fleet.up(read_fleet(INVENTORY))
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
        while load.sent < REQUESTS and load.failed == 0 and load.now < load.plan.seconds:
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


def _journal(figures: Figures) -> None:
    """What the journal's own tasks take of a deploy that has everything to do but to place the release.

    Their durations are Ansible's own, summed: runs with and without them would differ by less than runs do anyway. What
    the modules write that move routes and drain servers is some milliseconds more, and in none of these.
    """
    added = []
    for turn in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            os.environ.update(ANSIBLE_CALLBACKS_ENABLED="ansible.builtin.junit", JUNIT_OUTPUT_DIR=folder)
            try:
                _deploy("32"[turn % 2], strategy="blue_green")
            finally:
                del os.environ["ANSIBLE_CALLBACKS_ENABLED"], os.environ["JUNIT_OUTPUT_DIR"]
            cases = [case for path in Path(folder).glob("*.xml") for case in ElementTree.parse(path).iter("testcase")]
        added.append(sum(float(case.get("time", 0)) for case in cases if "journal" in case.get("name", "")))
    figures.note(journal_seconds=[round(seconds, 2) for seconds in added])
    figures.add("journal_seconds_added", round(statistics.median(added), 2), "<= 1")


def _gates(figures: Figures) -> None:
    """What gates add to a blue/green deploy: all that are put by default, a signature and 2,000 rows replayed, over the
    least, which are digest, ready and version.

    The two deploys take turns, from one release to the other and back. The idle slot is stopped before each, and what a
    host remembers of having tried a release is removed, for a release is new to it as a rule.
    """
    least = dict.fromkeys(("contract", "environment", "load", "golden", "latency"), "off")
    replay = {"mode": "enforce", "rows": REPLAYED, "min_rows": REPLAYED, "max_flip_rate": 0.5, "inconclusive": "fail"}
    with _signed("1", "2") as allowed_signers:
        services: dict[str, dict[str, Any]] = {
            "least": {"gates": least},
            "all": {"gates": {"replay": replay}, "allowed_signers": allowed_signers},
        }
        _deploy_with({}, "1")
        taken: dict[str, list[float]] = {policy: [] for policy in services}
        for turn in range(2 * ROUNDS):
            # Each policy meets both releases, and both orders.
            policy = list(services)[(turn + turn // 2) % 2]
            playbook(INVENTORY, "retire", service="tumour")
            _forget_trials()
            _fill_captures()
            taken[policy].append(_deploy_with(services[policy], "21"[turn % 2]))
    medians = {policy: statistics.median(seconds) for policy, seconds in taken.items()}
    figures.note(seconds={policy: [round(it, 2) for it in seconds] for policy, seconds in taken.items()})
    figures.add("gates_seconds_added", round(medians["all"] - medians["least"], 2), "<= 6")


@contextmanager
def _signed(*versions: str) -> Iterator[str]:
    """Bundles signed with a key of the benchmark's own for a while; its line of allowed signers.

    Their digests stay as they are, and no signature is left, however it ends: others sign these bundles with keys of
    their own.
    """
    bundles = [BUNDLES / f"tumour-{version}" for version in versions]
    try:
        with tempfile.TemporaryDirectory() as folder:
            key = Path(folder, "bench")
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", key], check=True)
            for bundle in bundles:
                (bundle / SIGNATURE).write_bytes(sign(read_seal(bundle).manifest, key))
            allowed_signers = f"bench {key.with_suffix('.pub').read_text()}"
        yield allowed_signers
    finally:
        for bundle in bundles:
            (bundle / SIGNATURE).unlink(missing_ok=True)


def _deploy_with(keys: dict[str, Any], version: str) -> float:
    """Deploy a version of the service as the inventory has it, with more ``keys``, and all requests captured."""
    service = {"port": 8101, "capture_share": 1, **keys}
    bundle = str(BUNDLES / f"tumour-{version}")
    services = {"tumour": service}
    return playbook(INVENTORY, "deploy", service="tumour", bundle=bundle, modelfleet_services=services).seconds


def _forget_trials() -> None:
    find = "find /var/lib/modelfleet -name trial.json -delete"
    ansible("ansible", "--inventory", str(INVENTORY), "model_hosts", "--become", "--args", find)


def _fill_captures() -> None:
    """Have every host capture at least as many rows as are replayed: the balancer gives each its turn."""
    body = (BUNDLES / "requests.json").read_bytes()
    hosts = len(read_fleet(INVENTORY).hosts)
    for _request in range(hosts * -(-REPLAYED // len(json.loads(body)["instances"]))):
        headers = {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(URL, body, headers), timeout=30) as answer:
            answer.read()


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


PARTS: dict[str, Callable[[Figures], None]] = {
    NAME: _rollouts,
    "rollout_gates": _gated,
    "rollout_several": several.measure,
    "rollout_swap": swap.measure,
    "rollout_size": size.measure,
}
"""What is measured by itself and kept in a file of this name, so that one may be measured anew."""

if __name__ == "__main__":
    sys.exit(main())
