# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What confines a trial, and what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._slot import Start
from ansible_collections.modelfleet.onprem.plugins.module_utils._systemd import Ended, UnitState
from ansible_collections.modelfleet.onprem.plugins.module_utils._trial import (
    Memory,
    Trial,
    bind,
    confinement,
    fingerprint,
    judge_environment,
    judge_load,
    memory_max,
    parse_available,
    read_trial,
    takes,
)

UNIT = (Path(__file__).parents[4] / "roles/model_host/templates/model-server@.service.j2").read_text()
PASSED = {
    "environment": None,
    "load": None,
    "python": {"expected": "3.11", "found": "3.13.5"},
    "packages": {name: {"expected": "1.9", "found": "1.9"} for name in ("numpy", "scipy", "scikit-learn")},
    "seconds": 0.5,
    "rows": 20,
    "peak": 40_000_000,
    "answering": 1_000_000,
}
START = Start("3-0a1b2c3d4e5f", "9c56cc51b374c3ba", {"BIND": "0.0.0.0:8101", "WORKERS": "2"}, {"MemoryMax": "1G"})


def test_a_trial_is_confined_as_the_unit_that_is_installed() -> None:
    found = confinement(UNIT, {"MemoryMax": "512M"})
    confining = [line for line in found if line.split("=")[0].startswith(("Protect", "Restrict", "SystemCall"))]
    assert confining == [line for line in UNIT.splitlines() if line in confining]
    assert len(confining) > 15
    assert {"NoNewPrivileges=true", "MemoryDenyWriteExecute=true", "MemorySwapMax=0"} <= set(found)
    assert [line for line in found if line.startswith("MemoryMax")] == ["MemoryMax=512M"]
    assert found[-1] == "PrivateNetwork=true"


def test_a_trial_has_a_user_of_its_own_and_no_group_of_the_slots() -> None:
    assert {"User=model-server", "Group=model-server"} <= set(UNIT.splitlines())
    unit = UNIT.replace("User=", "SupplementaryGroups=adm\nUser=")
    whose = {"DynamicUser", "Group", "SupplementaryGroups", "User"}
    assert [line for line in confinement(unit, {}) if line.partition("=")[0] in whose] == ["DynamicUser=true"]
    # It has no home, and libraries look for one.
    assert "Environment=HOME=/nonexistent" in confinement(unit, {})


def test_what_makes_the_unit_a_service_is_left_out() -> None:
    names = {line.partition("=")[0] for line in confinement(UNIT, {})}
    assert names.isdisjoint({"ExecStart", "EnvironmentFile", "Restart", "Type", "StateDirectory", "WantedBy"})
    assert memory_max(confinement(UNIT, {})) == "2G"
    # What it sets for every service, it sets for a trial.
    assert "Environment=CAPTURE_DIR=/var/lib/model-server/%i" in confinement(UNIT, {})


def ended(result: str = "success", status: int = 0, output: str = "", said: str = "") -> Ended:
    failed = None if result == "success" else UnitState("failed", "failed", result, status, 0, "")
    return Ended(output, said, failed)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (ended("oom-kill", 9), "that it needs more than 1G: the kernel killed it for want of memory"),
        (ended("signal", 9), "that it needs more than 1G: the kernel killed it for want of memory"),
        (ended("timeout", 15), "that it did not answer within 60 s"),
        (ended("timeout", 15, said="reading\n"), "that it did not answer within 60 s: reading"),
        (ended("signal", 11), "its process was ended by signal 11"),
        (ended("exit-code", 1, said="Traceback\nValueError: no\n"), "its process ended with status 1: ValueError: no"),
        (ended(output="", said="bye"), "that its process ended before it had answered: bye"),
        (ended(output="[1]"), "that its process ended before it had answered"),
        (ended(output="[" * 100_000), "that its process ended before it had answered"),
    ],
    ids=[
        "no memory",
        "no memory, cgroup v1",
        "no time",
        "no time, last words",
        "crash",
        "status",
        "it ends itself",
        "another document",
        "one that is too deep",
    ],
)
def test_how_a_trial_ended_is_said_in_words(end: Ended, words: str) -> None:
    trial = read_trial(end, "1G", 60)
    assert (trial.ended, trial.passed) == (words, False)
    finding = judge_load(trial, "1G", 60, 2, Memory(10**12), None)
    expected = "a model that loads and answers within 60 s and 1G, and fits into the host's memory"
    assert (finding.passed, finding.expected, finding.found) == (False, expected, words)
    assert judge_environment(trial, "3-0a1b2c3d4e5f").passed is None


def test_a_trial_that_passed_says_what_it_cost() -> None:
    trial = read_trial(ended(output=json.dumps(PASSED)), "1G", 60)
    assert trial.passed
    environment = judge_environment(trial, "3-0a1b2c3d4e5f")
    words = "Python 3.11, the bundle's, or newer, numpy 1.9, scikit-learn 1.9 and 1 other packages of the lock"
    assert (environment.passed, environment.expected) == (True, words)
    assert environment.found == "Python 3.13.5, which is newer, and the same packages"
    load = judge_load(trial, "1G", 60, 2, Memory(30_000_000, freed=12_000_000), None)
    assert (load.passed, load.found) == (True, "0.5 s to load, 40.0 MB, 20 rows answered")
    assert (load.details["needed_bytes"], load.details["available_bytes"]) == (42_000_000, 42_000_000)


@pytest.mark.parametrize(
    ("found", "words"), [("3.11.2", "Python 3.11.2, and"), ("3.12.0", "Python 3.12.0, which is newer, and")]
)
def test_a_newer_python_than_the_bundles_is_said_to_be_one(found: str, words: str) -> None:
    environment = judge_environment(Trial({**PASSED, "python": {"expected": "3.11", "found": found}}), "3-0a1b2c3d4e5f")
    assert (environment.passed, environment.found) == (True, f"{words} the same packages")


def test_one_that_does_not_fit_beside_the_other_is_refused() -> None:
    load = judge_load(Trial(PASSED), "1G", 60, 2, Memory(41_999_999), "2026-11-01T10:00:00Z")
    words = "(tried 2026-11-01T10:00:00Z); 42.0 MB needed with 2 workers, 42.0 MB left beside what runs"
    assert (load.passed, load.found) == (False, f"0.5 s to load, 40.0 MB, 20 rows answered {words}")


def test_one_that_does_not_fit_beside_those_that_start_before_it_is_refused() -> None:
    load = judge_load(Trial(PASSED), "1G", 60, 2, Memory(80_000_000, freed=3_999_999, promised=42_000_000), None)
    words = "42.0 MB left beside what runs and the 42.0 MB of those that start before it"
    assert (load.passed, load.found.rpartition("workers, ")[2]) == (False, words)
    assert Memory(1, promised=2).left == 0


@pytest.mark.parametrize(
    ("verdict", "taken"),
    [
        ({"gate": "load", "details": {"needed_bytes": 50, "freed_bytes": 20}}, 30),
        ({"gate": "load", "details": {"needed_bytes": 50, "freed_bytes": 80}}, 0),
        ({"gate": "load", "verdict": "off"}, 0),
        ({"gate": "environment", "details": {"python": "3.11"}}, 0),
    ],
    ids=["less what its slot gives back", "which may be more", "a gate that is off", "another gate"],
)
def test_what_a_release_takes_once_it_has_started(verdict: dict[str, Any], taken: int) -> None:
    assert takes([verdict]) == taken


@pytest.mark.parametrize(
    ("changes", "environment", "load"),
    [
        ({"environment": "numpy: expected 1, found 2 installed"}, "numpy: expected 1, found 2 installed", None),
        (
            {"load": "model.pkl cannot be loaded: no"},
            "Python 3.13.5, which is newer, and the same packages",
            "model.pkl cannot be loaded: no",
        ),
        (
            {"load": "requirements.lock: no", "python": None},
            "that the trial ended before it could say",
            "requirements.lock: no",
        ),
    ],
)
def test_each_problem_is_its_gates(changes: dict[str, Any], environment: str, load: str | None) -> None:
    trial = Trial({**PASSED, **changes})
    assert judge_environment(trial, "3-0a1b2c3d4e5f").found == environment
    if load:
        assert judge_load(trial, "1G", 60, 2, Memory(10**12), None).found == load


BEFORE = {name: PASSED[name] for name in ("environment", "load", "python", "packages")}
OLDER = {"environment": "Python: expected 3.13 or newer, found 3.11"}


@pytest.mark.parametrize("end", [ended("signal", 11), ended()], ids=["a crash", "it ends itself"])
def test_what_is_known_before_the_process_ends_is_the_environments(end: Ended) -> None:
    trial = read_trial(replace(end, output=json.dumps({**BEFORE, **OLDER}) + "\n"), "1G", 60)
    assert (trial.passed, trial.refused) == (False, False)
    assert judge_environment(trial, "3-0a1b2c3d4e5f").found == OLDER["environment"]
    assert "its process" in judge_load(trial, "1G", 60, 2, Memory(10**12), None).found


def test_the_last_document_is_what_counts() -> None:
    lines = [json.dumps(BEFORE), json.dumps({**PASSED, "load": "no"}), "[1]", "bye"]
    assert read_trial(ended(output="\n".join(lines)), "1G", 60).document == {**PASSED, "load": "no"}


@pytest.mark.parametrize(
    "printed",
    [
        {**PASSED, "peak": "much"},
        {**PASSED, "seconds": [1]},
        {**PASSED, "load": 5},
        {**PASSED, "python": {"expected": "3.11"}},
        {**PASSED, "packages": {"numpy": "2"}},
        {**PASSED, "packages": {"numpy": {"expected": None, "found": "2"}}},
        {**PASSED, "packages": "none"},
        {name: value for name, value in PASSED.items() if name != "answering"},
    ],
)
def test_what_a_model_prints_that_is_no_trials_document_is_none(printed: dict[str, Any]) -> None:
    trial = read_trial(ended(output=json.dumps(printed)), "1G", 60)
    assert (trial.passed, trial.ended) == (False, "that its process ended before it had answered")
    judge_environment(trial, "3-0a1b2c3d4e5f")
    assert judge_load(trial, "1G", 60, 2, Memory(10**12), None).passed is False


def test_an_older_python_is_the_environments_and_the_model_loads() -> None:
    trial = read_trial(ended(output=json.dumps({**PASSED, **OLDER})), "1G", 60)
    assert (trial.passed, trial.refused) == (True, False)
    assert (judge_environment(trial, "3-0a1b2c3d4e5f").passed, judge_environment(trial, "3").found) == (
        False,
        OLDER["environment"],
    )
    assert judge_load(trial, "1G", 60, 2, Memory(10**12), None).passed
    assert bind({"environment": {"mode": "off"}}, trial) == {"environment": {"mode": "off"}}


REFUSED = {name: value for name, value in PASSED.items() if name not in ("seconds", "rows", "answering")}


@pytest.mark.parametrize(
    "policies", [{"environment": {"mode": "warn"}, "load": {"mode": "warn"}}, {"load": {"mode": "warn"}}]
)
def test_what_the_server_refuses_itself_is_refused_in_any_mode(policies: dict[str, Any]) -> None:
    document = {**REFUSED, "environment": "numpy: expected 1, found 2 installed"}
    trial = read_trial(ended(output=json.dumps(document)), "1G", 60)
    assert (trial.passed, trial.refused) == (False, True)
    assert list(bind(policies, trial).items()) == [("environment", {"mode": "enforce"}), ("load", {"mode": "warn"})]
    found = "numpy: expected 1, found 2 installed, which the model server refuses whatever the gate's mode is"
    assert judge_environment(trial, "3-0a1b2c3d4e5f").found == found
    # One that did not load has not passed the other gate, whoever asks that one alone.
    assert judge_load(trial, "1G", 60, 2, Memory(10**12), None).passed is False


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (START, True),
        (replace(START, settings={"BIND": "0.0.0.0:8102", "WORKERS": "2"}), True),
        (replace(START, settings={"BIND": "0.0.0.0:8101", "WORKERS": "4"}), False),
        (replace(START, env="fedcba9876543210"), False),
        (replace(START, release="4-0a1b2c3d4e5f"), False),
    ],
    ids=["itself", "another port", "other settings", "another environment", "another release"],
)
def test_what_a_passed_trial_is_good_for(other: Start, same: bool) -> None:
    confined = confinement(UNIT, START.limits)
    assert (fingerprint(other, confined, 60) == fingerprint(START, confined, 60)) is same
    assert fingerprint(START, confinement(UNIT, {}), 60) != fingerprint(START, confined, 60)


def test_available_memory_is_what_linux_says() -> None:
    assert parse_available("MemTotal: 8 kB\nMemAvailable:       2 kB\n") == 2048
    assert parse_available("") == 0
