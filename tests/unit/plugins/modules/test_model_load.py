# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""model_load, on a fake host with a fake systemd-run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._files import only_one
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import Layout
from ansible_collections.modelfleet.onprem.plugins.module_utils._verdict import ADVICE
from ansible_collections.modelfleet.onprem.plugins.modules import model_load
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.policy import parse_policy

UNIT = "[Service]\nType=notify\nUser=model-server\nMemoryMax=2G\nNoNewPrivileges=true\n[Install]\nWantedBy=x\n"
DOCUMENT = {
    "environment": None,
    "load": None,
    "python": {"expected": "3.11", "found": "3.11.2"},
    "packages": {"numpy": {"expected": "2.4.6", "found": "2.4.6"}},
    "seconds": 0.5,
    "rows": 20,
    "peak": 40_000_000,
    "answering": 1_000_000,
}
UNIT_NAME = "model-trial-tumour-green.service"


class Trials:
    """What systemd-run does, and what it was told."""

    def __init__(self, systemd: Any) -> None:
        self._systemd = systemd
        self.says(DOCUMENT)

    def says(self, document: Any) -> None:
        (self._systemd.folder / "document").write_text(json.dumps(document))

    def fails(self, result: str, status: int) -> None:
        state = {"ActiveState": "failed", "Result": result, "ExecMainStatus": str(status)}
        (self._systemd.folder / "failure").write_text(json.dumps(state))

    @property
    def runs(self) -> list[list[str]]:
        path = self._systemd.folder / "runs"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(autouse=True)
def trials(systemd: Any) -> Trials:
    return Trials(systemd)


@pytest.fixture
def try_(
    run_module: Callable[..., Any], release: str, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Run model_load for the release that is on the host, which has 100 MB left."""
    layout.unit_file().parent.mkdir(parents=True, exist_ok=True)
    layout.unit_file().write_text(UNIT)
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemAvailable:   100000 kB\n")
    monkeypatch.setattr(model_load, "MEMINFO", meminfo)

    def run(check_mode: bool = False, **options: Any) -> Any:
        params = {
            "service": "tumour",
            "slot": "green",
            "release": release,
            "settings": {"BIND": "0.0.0.0:8102", "WORKERS": 2, "TOKEN": "a secret"},
            "limits": {"MemoryMax": "1G"},
            "timeout": 60,
        }
        return run_module(model_load, {**params, **options}, check_mode=check_mode)

    return run


def verdicts(result: dict[str, Any]) -> dict[str, str]:
    return {gate["gate"]: gate["verdict"] for gate in result["gates"]}


def test_a_release_is_tried_as_its_slot_would_run(
    try_: Callable[..., Any], trials: Trials, layout: Layout, release: str
) -> None:
    result = try_()
    assert (verdicts(result), result["changed"]) == ({"environment": "pass", "load": "pass"}, False)
    assert {gate["where"] for gate in result["gates"]} == {str(layout.release("tumour", release))}
    (told,) = trials.runs
    assert told[told.index("--") + 1 :] == [f"{layout.env('0123456789abcdef')}/bin/python", "-m", "model_server.trial"]
    properties = [word.removeprefix("--property=") for word in told if word.startswith("--property=")]
    assert {"DynamicUser=true", "NoNewPrivileges=true", "MemoryMax=1G", "PrivateNetwork=true"} <= set(properties)
    assert "User=model-server" not in properties
    assert {"RuntimeMaxSec=60", f"EnvironmentFile={layout.trial_settings('tumour', 'green')}"} <= set(properties)
    # Secrets are in a file of root's that is gone afterwards.
    assert "a secret" not in " ".join(told)
    assert not layout.trial_settings("tumour", "green").exists()


def test_what_has_passed_is_not_tried_again(try_: Callable[..., Any], trials: Trials) -> None:
    assert [try_()["tried"], try_()["tried"]] == [True, False]
    assert "(tried 20" in try_()["gates"][1]["found"]
    # On another port it is the same, with other limits or settings it is not.
    assert try_(settings={"BIND": "0.0.0.0:8101", "WORKERS": 2, "TOKEN": "a secret"})["tried"] is False
    assert try_(limits={"MemoryMax": "2G"})["tried"] is True
    assert try_(limits={"MemoryMax": "2G"}, settings={"WORKERS": 3})["tried"] is True
    assert len(trials.runs) == 3


def test_a_trial_that_another_run_began_is_waited_for(
    try_: Callable[..., Any], trials: Trials, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_load, "STALE_SECONDS", -59)
    with only_one(layout.service("tumour"), "trying a release"):
        said = try_()["msg"]
    assert said == f"{layout.service('tumour')}: another run has been trying a release for more than 1 s"
    assert trials.runs == []
    assert try_()["tried"]


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (("oom-kill", 9), "found that it needs more than 1G: the kernel killed it for want of memory"),
        (("timeout", 15), "found that it did not answer within 60 s"),
    ],
)
def test_one_that_is_ended_is_refused_each_time(
    try_: Callable[..., Any], trials: Trials, systemd: Any, failure: tuple[str, int], words: str
) -> None:
    trials.fails(*failure)
    result = try_()
    assert verdicts(result) == {"environment": "inconclusive", "load": "fail"}
    assert result["msg"].endswith(f"{words}: {ADVICE['load']}")
    assert try_()["tried"] is True
    assert systemd.calls("stop", "reset-failed") == 2 * [f"stop {UNIT_NAME}", f"reset-failed {UNIT_NAME}"]


@pytest.mark.parametrize("mode", ["enforce", "warn"])
def test_a_byte_that_was_changed_on_the_host_is_the_digests_to_tell(
    try_: Callable[..., Any], trials: Trials, layout: Layout, release: str, mode: str
) -> None:
    path = layout.release("tumour", release) / "bundle/model.pkl"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    trials.says({**DOCUMENT, "load": "model.pkl: expected sha256 0, found 1"})
    result = try_(gates={"environment": {"mode": mode}, "load": {"mode": mode}})
    assert verdicts(result) == {"digest": "fail"}
    assert result["msg"].endswith(ADVICE["digest"])
    assert ADVICE["load"] not in result["msg"]


@pytest.mark.parametrize("text", ["{}", None], ids=["another", "none"])
def test_a_manifest_that_was_changed_on_the_host_is_the_digests_to_tell(
    try_: Callable[..., Any], trials: Trials, layout: Layout, release: str, text: str | None
) -> None:
    path = layout.release("tumour", release) / "bundle/manifest.json"
    path.write_text(text) if text else path.unlink()
    result = try_()
    assert verdicts(result) == {"digest": "fail"}
    assert result["msg"].endswith(f": {ADVICE['digest']}")
    assert trials.runs == []


@pytest.mark.parametrize(
    ("mode", "found"),
    [
        ("enforce", {"environment": "fail"}),
        ("warn", {"environment": "warn", "load": "pass"}),
        ("off", {"environment": "off", "load": "pass"}),
    ],
)
def test_an_older_python_is_the_policys_to_judge(
    try_: Callable[..., Any], trials: Trials, mode: str, found: dict[str, str]
) -> None:
    trials.says({**DOCUMENT, "environment": "Python: expected 3.13 or newer, found 3.11"})
    gates = {"environment": {"mode": mode}, "load": {"mode": "enforce"}}
    assert verdicts(try_(gates=gates)) == found
    # It is known to load, and not by that to be of the right environment.
    again = try_(gates=gates)
    assert (verdicts(again), again["tried"]) == (found, False)


@pytest.mark.parametrize("mode", ["enforce", "warn", "off"])
def test_another_package_ends_it_before_it_is_loaded(try_: Callable[..., Any], trials: Trials, mode: str) -> None:
    unloaded = {name: value for name, value in DOCUMENT.items() if name not in ("seconds", "rows", "answering")}
    trials.says({**unloaded, "environment": "numpy: expected 2.4.6, found 2.0.0 installed"})
    result = try_(gates={"environment": {"mode": mode}, "load": {"mode": "enforce"}})
    assert verdicts(result) == {"environment": "fail"}
    assert result["msg"].endswith(f"whatever the gate's mode is: {ADVICE['environment']}")
    assert "gate environment: " in result["msg"]
    assert (
        "expected Python 3.11, the bundle's, or newer, numpy 2.4.6, found numpy: expected 2.4.6, found 2.0.0"
        in result["msg"]
    )


def test_one_that_does_not_fit_is_refused_though_it_passed_before(
    try_: Callable[..., Any], systemd: Any, tmp_path: Path
) -> None:
    assert verdicts(try_())["load"] == "pass"
    (tmp_path / "meminfo").write_text("MemAvailable:   30000 kB\n")
    assert try_()["msg"].endswith(f"42.0 MB needed with 2 workers, 30.7 MB left beside what runs: {ADVICE['load']}")
    # What the slot has now is given back.
    state = {"ActiveState": "active", "SubState": "running", "Result": "success", "MemoryCurrent": "20000000"}
    (systemd.folder / "model-server@tumour-green.service").write_text(json.dumps({**IDLE, **state}))
    assert verdicts(try_())["load"] == "pass"


IDLE = {"ExecMainStatus": "0", "NRestarts": "0", "InvocationID": ""}


def test_a_gate_that_is_off_tries_nothing(try_: Callable[..., Any], trials: Trials) -> None:
    result = try_(gates={"load": {"mode": "off"}})
    assert (verdicts(result), trials.runs) == ({"load": "off"}, [])


def test_check_mode_tries_what_is_there_and_keeps_nothing(
    try_: Callable[..., Any], layout: Layout, release: str
) -> None:
    assert verdicts(try_(check_mode=True)) == {"environment": "pass", "load": "pass"}
    assert not layout.trial("tumour", release).exists()
    assert try_(check_mode=True, release="9-0a1b2c3d4e5f")["gates"] == []


@pytest.fixture
def try_several(
    try_: Callable[..., Any], place_as: Callable[[str], str], run_module: Callable[..., Any], tmp_path: Path
) -> Callable[..., Any]:
    """Run model_load for three services of the same release, on a host with so many bytes."""
    # It makes the host as it is for one.
    assert callable(try_)
    releases = {service: place_as(service) for service in ("tumour", "iris", "wine")}

    def run(available: int, check_mode: bool = False, **options: Any) -> Any:
        (tmp_path / "meminfo").write_text(f"MemAvailable:   {available // 1000} kB\n")
        several = [{"service": name, "slot": "green", "release": releases[name], **options} for name in releases]
        return run_module(model_load, {"several": several}, check_mode=check_mode)

    return run


def loaded(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["service"], verdicts(each)["load"]) for each in result["several"]]


@pytest.mark.parametrize("check_mode", [False, True])
def test_several_that_fit_one_by_one_and_not_together_are_refused(
    try_several: Callable[..., Any], trials: Trials, check_mode: bool
) -> None:
    # Each needs 42 MB.
    result = try_several(100_000_000, check_mode=check_mode)
    assert result["failed"]
    assert loaded(result) == [("tumour", "pass"), ("iris", "pass"), ("wine", "fail")]
    assert (result["service"], result["slot"], result["gates"]) == ("wine", "green", result["several"][2]["gates"])
    words = "42.0 MB needed with 2 workers, 18.4 MB left beside what runs and the 84.0 MB of those that start before it"
    assert f"{words}: {ADVICE['load']}" in result["msg"]
    # It was tried all the same: whether it fits is the last that is looked at.
    assert len(trials.runs) == 3
    assert [each["tried"] for each in result["several"]] == [True, True, True]


def test_what_passed_on_an_earlier_day_takes_its_memory_all_the_same(
    try_several: Callable[..., Any], trials: Trials
) -> None:
    assert loaded(try_several(10**9)) == [("tumour", "pass"), ("iris", "pass"), ("wine", "pass")]
    assert loaded(try_several(100_000_000)) == [("tumour", "pass"), ("iris", "pass"), ("wine", "fail")]
    assert len(trials.runs) == 3


def test_what_a_slot_gives_back_is_not_taken_from_those_after_it(try_several: Callable[..., Any], systemd: Any) -> None:
    state = {"ActiveState": "active", "SubState": "running", "Result": "success", "MemoryCurrent": "40000000"}
    (systemd.folder / "model-server@tumour-green.service").write_text(json.dumps({**IDLE, **state}))
    result = try_several(100_000_000)
    assert loaded(result) == [("tumour", "pass"), ("iris", "pass"), ("wine", "pass")]
    assert [each["gates"][1]["details"]["available_bytes"] for each in result["several"]] == [
        142_400_000,
        100_400_000,
        58_400_000,
    ]


def test_the_first_of_several_that_is_refused_ends_the_run(try_several: Callable[..., Any], trials: Trials) -> None:
    trials.says({**DOCUMENT, "load": "model.pkl cannot be loaded: no"})
    result = try_several(10**9)
    assert (loaded(result), result["service"], len(trials.runs)) == ([("tumour", "fail")], "tumour", 1)


def test_a_whole_policy_may_be_given(try_: Callable[..., Any]) -> None:
    result = try_(gates=parse_policy({"load": {"mode": "warn"}}))
    assert {gate["gate"]: gate["mode"] for gate in result["gates"]} == {"environment": "enforce", "load": "warn"}


def test_a_release_that_is_not_there_is_told(try_: Callable[..., Any]) -> None:
    result = try_(release="9-0a1b2c3d4e5f")
    assert "expected the release to be on this host, found none" in result["msg"]
    assert (result["service"], result["slot"], result["gates"]) == ("tumour", "green", [])
