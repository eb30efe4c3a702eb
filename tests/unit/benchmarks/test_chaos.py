"""What chaos tries, and what it says of a trial: the trials themselves need a fleet, and are `make chaos`."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.chaos import trial as trials
from benchmarks.chaos.__main__ import KILLS, MOMENTS, plan, table
from benchmarks.chaos.faults import FAULTS, KILLED_CONTROLLER, Fault, kill
from benchmarks.chaos.table import section
from testbed.command import ROOT, StepError


def planned(seed: int = 1) -> list[trials.Trial]:
    return list(plan(random.Random(seed)))


def test_controllers_are_killed_over_all_strategies_half_of_them_resumed_and_half_rolled_back() -> None:
    kills = Counter((it.strategy, it.then) for it in planned() if it.fault is KILLED_CONTROLLER)
    assert sum(kills.values()) == KILLS
    strategies = set(trials.STRATEGIES.values())
    assert set(kills) == set(itertools.product(strategies, ("resume", "rollback")))
    assert max(kills.values()) - min(kills.values()) <= 1
    ways = Counter(it.then for it in planned() if it.fault is KILLED_CONTROLLER)
    assert ways == {"resume": KILLS / 2, "rollback": KILLS / 2}


def test_every_fault_comes_before_in_and_after_a_hosts_turn_and_once_before_any_comes_again() -> None:
    others = [it for it in planned() if it.fault is not KILLED_CONTROLLER]
    assert len(others) == len(FAULTS) * len(MOMENTS)
    for turn, (low, high) in enumerate(MOMENTS):
        these = others[turn * len(FAULTS) : (turn + 1) * len(FAULTS)]
        assert {it.fault.name for it in these} == {fault.name for fault in FAULTS}
        assert all(low <= it.moment <= high for it in these)


def test_every_fault_meets_every_strategy_that_loses_nothing_and_the_worst_comes_first() -> None:
    others = [it for it in planned() if it.fault is not KILLED_CONTROLLER]
    met = {(it.fault.name, it.service) for it in others}
    assert met == {(fault.name, service) for fault in FAULTS for service in trials.COUNTED}
    assert {planned(seed)[0].fault.name for seed in range(20)} == {"the active balancer loses its power"}


def test_the_seed_gives_the_same_trials_again() -> None:
    assert planned(7) == planned(7)
    assert planned(7) != planned(8)


def test_the_services_of_the_inventory_have_the_strategies_that_are_said() -> None:
    inventory = yaml.safe_load((ROOT / "inventories" / "chaos" / "hosts.yml").read_text())
    services = inventory["all"]["vars"]["modelfleet_services"]
    assert {name: it.get("strategy", "blue_green") for name, it in services.items()} == trials.STRATEGIES
    assert {it["keep_releases"] for it in services.values()} == {len(trials.NEXT) - 1}


class Clients:
    """Clients that lost as many requests."""

    def __init__(self, failed: int) -> None:
        self.result = {"sent": 100, "failed": failed, "failures": []}

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_error: object) -> None:
        pass


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Try a fault on a deploy that ends with a status; what came of it, and the playbooks that were run."""

    def run(
        fault: Fault,
        ended: int = 0,
        *,
        then: str = "resume",
        locked: bool = False,
        failed: int = 0,
        forgets: tuple[str, ...] = (),
    ) -> Any:
        ran: list[str] = []
        serves = ["1"]
        moves = {"rollback": "1", "resume": "2", "deploy": "2", "status": None}
        does = "import time; time.sleep(60)" if fault is KILLED_CONTROLLER else f"raise SystemExit({ended})"

        def deploy(_service: str, version: str) -> subprocess.Popen[str]:
            if not ended and fault is not KILLED_CONTROLLER:
                serves.append(version)
            command = [sys.executable, "-c", does]
            return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)

        def playbook(_inventory: Path, name: str, **_variables: Any) -> None:
            ran.append(name)
            serves.append(moves[name] or serves[-1])

        def on(_fleet: Any, name: str, *command: str) -> str:
            assert command == ("cat", trials.RECORDS)
            # A deploy adds what it replaces; what was gone back to is the last one for a while.
            earlier = ["2-bb", *(["1-aa"] if len(serves) > 1 else [])]
            return json.dumps({"swap": {"slots": {}, "history": [] if name in forgets and serves[1:] else earlier}})

        monkeypatch.setattr(trials, "on", on)
        monkeypatch.setattr(trials, "load", lambda *_: Clients(failed))
        monkeypatch.setattr(trials, "serving", lambda *_: serves[-1])
        monkeypatch.setattr(trials, "playbook", playbook)
        monkeypatch.setattr(trials, "_is_locked", lambda *_: locked)
        monkeypatch.setattr(trials, "deploy", deploy)
        monkeypatch.setattr(trials, "balancers_say", lambda *_: ["what balancers say of it"])
        return trials.run(trials.Trial("swap", fault, 0, then), 1, random.Random(1)), ran

    return run


HARMLESS = Fault("nothing happens", lambda _scene: None)


@pytest.mark.parametrize(("ended", "then", "done"), [(0, "resume", "went on"), (2, "rollback", "put back")])
def test_a_deploy_that_ended_by_itself_needs_nobody(tried: Any, ended: int, then: str, done: str) -> None:
    outcome, ran = tried(HARMLESS, ended, then=then)
    assert (outcome.done, ran, outcome.problem) == (done, ["status"], "")


def test_after_a_deploy_that_put_everything_back_the_next_one_works(tried: Any) -> None:
    outcome, ran = tried(HARMLESS, 2, then="again")
    assert (outcome.done, ran, outcome.problem) == ("put back, deployed", ["deploy", "status"], "")


@pytest.mark.parametrize(
    ("then", "locked", "done", "ran"),
    [
        ("rollback", False, "nothing to undo", []),
        ("rollback", True, "rolled back", ["rollback"]),
        ("resume", True, "resumed", ["resume"]),
        ("resume", False, "deployed again", ["deploy"]),
        ("again", True, "deployed again", ["deploy"]),
    ],
)
def test_a_deploy_whose_controller_was_killed_is_ended_as_a_person_would(
    tried: Any, then: str, locked: bool, done: str, ran: list[str]
) -> None:
    outcome, played = tried(KILLED_CONTROLLER, then=then, locked=locked)
    assert (outcome.done, played, outcome.problem) == (done, [*ran, "status"], "")


@pytest.mark.parametrize(("forgets", "found"), [(("lb2",), '{"lb1": ["2"], "lb2": []}'), (("lb1", "lb2"), "")])
def test_what_served_before_is_noted_by_all_balancers_and_stays_where_a_deploy_was_undone(
    tried: Any, forgets: tuple[str, ...], found: str
) -> None:
    outcome, _ran = tried(KILLED_CONTROLLER, then="rollback", locked=True, forgets=forgets)
    assert outcome.problem == (
        'expected the balancers to know as earlier versions {"lb1": ["2"], "lb2": ["2"]}, found '
        + (found or '{"lb1": [], "lb2": []}')
    )


def test_what_a_deploy_replaced_is_noted(tried: Any) -> None:
    outcome, _ran = tried(KILLED_CONTROLLER, locked=True, forgets=("lb1",))
    assert outcome.problem == (
        'expected the balancers to know as earlier versions {"lb1": ["2", "1"], "lb2": ["2", "1"]}, found '
        '{"lb1": [], "lb2": ["2", "1"]}'
    )


def test_a_fault_that_could_not_be_brought_about_is_mended_and_counts(tried: Any) -> None:
    def breaks(_scene: Any) -> None:
        raise StepError("docker pause: no such container")

    mended: list[int] = []
    outcome, _ran = tried(Fault("it cannot be done", breaks, lambda _scene: mended.append(1)))
    assert outcome.problem.startswith("docker pause: no such container; the deploy had ended with")
    assert (outcome.done, mended) == ("not mended", [1])


@pytest.mark.parametrize(("loses", "failed", "excess"), [("", 1, 1), ("the host", 8, 0), ("the host", 9, 1)])
def test_only_what_was_in_flight_on_what_is_killed_may_be_lost(
    tried: Any, loses: str, failed: int, excess: int
) -> None:
    outcome, _ran = tried(replace(HARMLESS, loses=loses), failed=failed)
    assert (outcome.excess, bool(outcome.problem)) == (excess, excess > 0)
    assert outcome.problem.endswith("what balancers say of it" if excess else "")


def test_the_section_of_the_readme_has_a_row_a_fault() -> None:
    trial = {"fault": "a host hangs", "sent": 1000, "lost": 3, "excess": 0, "survived": True}
    found = section(
        [
            {"machine": {"processor": "P", "processors": 2}, "seed": 7},
            trial,
            {**trial, "lost": 9, "excess": 1, "survived": False},
            {"ended": {"went on": 2}},
        ]
    )
    assert "| a host hangs | 2 | **1** | 2,000 | 12 | 1 |" in found.splitlines()
    assert "Seed 7. How the deploys ended: went on 2. P, 2 processors" in found


def test_the_table_says_how_each_trial_ended(tried: Any) -> None:
    outcome, _ran = tried(HARMLESS)
    heading, line = table([outcome])
    assert heading.split()[:2] == ["trial", "seconds"]
    assert line.endswith("  survived")
    assert "went on" in line


def test_a_controller_is_killed_with_all_that_it_has_started() -> None:
    """Ansible's workers have sessions of their own, and what they start has them as well."""
    leaf = "import time; print('runs', flush=True); time.sleep(60)"
    worker = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {leaf!r}], start_new_session=True)"
    command = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}], start_new_session=True)"
    with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "runs\n"
        kill(process)
        # The pipe ends when all that hold it have ended.
        assert process.stdout.read() == ""
    kill(process)
