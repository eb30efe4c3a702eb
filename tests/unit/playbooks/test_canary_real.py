# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plays of a canary with a real HAProxy, real modules and users: it does well, it does not, it is steered."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._control import Control, ControlFile
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal import begin, read_rollout
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal_folder import JournalFolder, now
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.canary import parse_canary

from tests.unit.plugins.balancer import Machine, ModelServer, pools_of, release, wait_until_up

ROOT = Path(__file__).parents[3]
SHORT = {
    "by": "header:X-User",
    "steps": [{"share": 20, "for": 3}, {"share": 50, "for": 2}],
    "extend": 10,
    # There are few requests, and the time that they take is made up.
    "judge": {"errors": {"margin": 0.2}, "predictions": {"tolerance": 0.1, "margin": 0.3}},
}
ROLLOUT = "20260102T030405Z-00000001"
LONG = {**SHORT, "steps": [{"share": 20, "for": 600}]}


class Fleet:
    """Release 1 in blue and release 2 in green, and users who send requests until it ends."""

    def __init__(self, folder: Path) -> None:
        self.models = {slot: [ModelServer("tumour", version)] for slot, version in (("blue", 1), ("green", 2))}
        for servers in self.models.values():
            servers[0].predicts = 0
        pools = pools_of({"tumour": self.models})
        for pool in pools:
            pool["canary"] = parse_canary("canary", SHORT).rules("tumour")
        self.machine = Machine(folder, pools)
        self.control = ControlFile(self.machine.params["rollouts_dir"], "tumour")
        self.journal = JournalFolder(self.machine.params["rollouts_dir"])
        self.answers: list[tuple[int, str]] = []
        self._ended = threading.Event()
        self._users = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        connection = self.machine.connect()
        number = 0
        while not self._ended.wait(0.005):
            number += 1
            connection.request("GET", "/tumour/predict", headers={"X-User": f"user-{number % 500}"})
            response = connection.getresponse()
            self.answers.append((response.status, json.loads(response.read())["version"]))
        connection.close()

    def start(self) -> None:
        self.machine.start()
        wait_until_up(self.machine)
        self._users.start()

    def map(self, name: str) -> list[list[str]]:
        return [line.split()[1:] for line in self.machine.ask(f"show map {self.machine.state_dir}/{name}").splitlines()]

    def begin(self) -> dict[str, Any]:
        """A rollout that holds the service from now on."""
        services = {"tumour": {"release": release(2), "slot": "green", "was": {"release": release(1), "slot": "blue"}}}
        rollout = {"id": ROLLOUT, "action": "deploy", "strategy": "canary", "services": services}
        with self.journal.alone() as journal:
            self.journal.write(begin(journal, read_rollout(rollout, "test"), now()))
        return rollout

    def told(self) -> tuple[str, list[tuple[str, str]]]:
        """How the rollout ended, and its steps, as the journal has them."""
        found = self.journal.read().find(ROLLOUT)
        assert found
        return found.verdict, [(step.name, step.state) for step in found.steps]

    def wait_for_share(self, share: int) -> None:
        deadline = time.monotonic() + 60
        while self.map("canary.map") != [["tumour_blue", str(share)]]:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def stop(self) -> None:
        self._ended.set()
        if self._users.ident:
            self._users.join()
        self.machine.stop()
        for servers in self.models.values():
            servers[0].stop()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    folder = tmp_path / "balancer"
    folder.mkdir()
    found = Fleet(folder)
    try:
        found.start()
        yield found
    finally:
        found.stop()


@pytest.fixture
def deploy(fleet: Fleet, play: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Run the canary's plays with the real modules of a balancer, which find this one where they look for one."""
    plugins = tmp_path / "ansible_collections/modelfleet/onprem/plugins"
    for name in ("lb_canary", "lb_control", "lb_rollout", "lb_watch"):
        (plugins / f"modules/{name}.py").unlink()
        (plugins / f"modules/{name}.py").symlink_to(ROOT / f"plugins/modules/{name}.py")
    (plugins / "module_utils").unlink()
    shutil.copytree(ROOT / "plugins/module_utils", plugins / "module_utils")
    haproxy = plugins / "module_utils/_haproxy.py"
    text = haproxy.read_text()
    for default, name in (
        ("/run/haproxy/admin.sock", "socket"),
        ("/run/haproxy-master.sock", "master_socket"),
        ("/var/lib/modelfleet/lb", "state_dir"),
        ("/var/lib/modelfleet/rollouts", "rollouts_dir"),
    ):
        text = text.replace(default, fleet.machine.params[name])
    haproxy.write_text(text)

    def run(definition: Any) -> Any:
        canary = parse_canary("canary", definition).plan()
        ports = {slot: servers[0].port for slot, servers in fleet.models.items()}
        request = {
            "balancers": ["lb1"],
            "ready_timeout": 5,
            "drain_timeout": 1,
            "canary": {**canary, "metrics_ports": ports},
        }
        plan = {
            "service": "tumour",
            "slot": "green",
            "release": {"name": release(2), "version": "2", "digest": "0"},
            "was": {"release": release(1), "slot": "blue"},
            "envs": {"m1": "e1"},
            "share": ["lb1"],
            "steps": canary["steps"],
            "begin": ["lb1"],
            "rollout": fleet.begin(),
        }
        return play("canary", request, plan)

    return run


def stopped(run: Any) -> bool:
    return any(step["module"] == "model_slot" and step["state"] == "stopped" for step in run.told)


def test_a_release_that_does_as_well_goes_through_its_steps(fleet: Fleet, deploy: Callable[..., Any]) -> None:
    run = deploy(SHORT)
    assert run.code == 0, run.output
    assert fleet.map("canary.map") == [["tumour_blue", "5000"]]
    # The move is the next step, which the last share lasts until.
    assert fleet.told() == ("running", [("canary 20 %", "done"), ("canary 50 %", "started")])
    assert not stopped(run)
    assert {status for status, _version in fleet.answers} == {200}


def test_a_release_that_predicts_otherwise_gets_no_user_any_more(fleet: Fleet, deploy: Callable[..., Any]) -> None:
    fleet.models["green"][0].predicts = 1
    run = deploy(SHORT)
    assert run.code != 0
    assert "judge, at 20 %: predictions: fail: canary 1: " in run.output
    assert f"all requests go to {release(1)} as before" in run.output
    assert (fleet.map("canary.map"), stopped(run)) == ([], True)
    assert fleet.told() == ("failed", [("canary 20 %", "done"), ("canary 0 %", "failed")])
    assert {status for status, _version in fleet.answers} == {200}


def test_a_release_that_fails_at_once_is_not_waited_for(fleet: Fleet, deploy: Callable[..., Any]) -> None:
    fleet.models["green"][0].status = 500
    run = deploy(LONG)
    assert "judge, at 20 %: lb1: errors: canary " in run.output
    assert (run.code != 0, fleet.map("canary.map"), stopped(run)) == (True, [], True)


@pytest.mark.parametrize("word", ["abort", "promote"])
def test_an_operator_has_the_last_word_also_when_the_canary_is_paused(
    fleet: Fleet, deploy: Callable[..., Any], word: str
) -> None:
    definition = {**LONG, "steps": [{"share": 20, "for": 2}, {"share": 30, "for": 600}]}
    with ThreadPoolExecutor(1) as terminal:
        running = terminal.submit(deploy, definition)
        fleet.wait_for_share(2000)
        fleet.control.write(Control("pause", "kim"))
        time.sleep(6)
        assert fleet.map("canary.map") == [["tumour_blue", "2000"]]
        fleet.control.write(Control(word, "kim"))
        run = running.result()
    assert fleet.map("canary.map") == ([] if word == "abort" else [["tumour_blue", "2000"]])
    assert (run.code == 0, stopped(run)) == (word == "promote", word == "abort")
    assert ("judge, at 20 %: aborted by kim; " in run.output) == (word == "abort")
