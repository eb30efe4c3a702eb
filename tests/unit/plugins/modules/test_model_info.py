# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""model_info, against a host in a temporary folder, a fake systemctl and a real HTTP server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._files import only_one
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import Layout
from ansible_collections.modelfleet.onprem.plugins.modules import model_info

ENV = "0123456789abcdef"

pytestmark = pytest.mark.usefixtures("systemd")


@pytest.fixture
def info(run_module: Callable[..., Any]) -> Callable[..., Any]:
    """What model_info says of the host."""

    def run(check_mode: bool = False, **options: Any) -> Any:
        return run_module(model_info, {"python": "python3", **options}, check_mode)["model_host"]

    return run


def files(layout: Layout) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in sorted(layout.root.rglob("*"))}


def test_an_empty_host_has_nothing_and_systemd_is_not_asked(info: Callable[..., Any], systemd: Any) -> None:
    host = info()
    assert (host["services"], host["envs"]) == ({}, [])
    assert set(host["python"]) == {"tag", "version", "machine", "glibc"}
    assert host["free_bytes"]["envs"] > 0
    assert host["one_disk"]
    assert systemd.calls("show") == []


def test_releases_and_slots_are_read_with_one_call_of_systemctl(
    slot: Callable[..., Any], info: Callable[..., Any], release: str, systemd: Any
) -> None:
    slot()
    slot(slot="green", settings={"WORKERS": 1})
    calls = len(systemd.calls("show"))
    service = info()["services"]["tumour"]
    assert len(systemd.calls("show")) == calls + 1
    assert [(entry["release"], entry["version"], entry["env"]) for entry in service["releases"]] == [
        (release, "3", ENV)
    ]
    assert service["releases"][0]["digest"].startswith(release.rpartition("-")[2])
    assert service["slots"]["blue"]["settings"]["WORKERS"] == "2"
    assert service["slots"]["green"]["ready"]


def test_check_mode_says_the_same_and_nothing_is_changed(
    slot: Callable[..., Any], info: Callable[..., Any], run_module: Callable[..., Any], layout: Layout, systemd: Any
) -> None:
    slot()
    before, calls = files(layout), systemd.calls("start", "stop", "enable", "disable")
    assert {**info(check_mode=True), "free_bytes": None} == {**info(), "free_bytes": None}
    result = run_module(model_info, {"python": "python3", "_ansible_diff": True}, check_mode=True)
    assert (result["changed"], "diff" in result) == (False, False)
    assert files(layout) == before
    assert systemd.calls("start", "stop", "enable", "disable") == calls


@pytest.mark.parametrize(
    ("asked", "found"), [(None, ["tumour"]), (["tumour", "other"], ["tumour"]), (["other"], []), ([], [])]
)
def test_the_services_that_are_asked_for_are_read(
    slot: Callable[..., Any], info: Callable[..., Any], asked: list[str] | None, found: list[str]
) -> None:
    slot()
    assert list(info(services=asked)["services"]) == found


def test_a_slot_that_never_had_a_release_is_null(slot: Callable[..., Any], info: Callable[..., Any]) -> None:
    slot()
    assert info()["services"]["tumour"]["slots"]["green"] is None


def test_a_slot_that_does_not_run_is_not_asked(
    slot: Callable[..., Any], info: Callable[..., Any], release: str, model_server: Any
) -> None:
    slot()
    slot(state="stopped")
    asked = len(model_server.asked)
    blue = info()["services"]["tumour"]["slots"]["blue"]
    assert (blue["unit"], blue["ready"], blue["digest"]) == ("inactive", False, None)
    assert (blue["release"], blue["env"], blue["started"]) == (release, ENV, None)
    assert len(model_server.asked) == asked


def test_a_server_that_is_not_ready_is_said_so(
    slot: Callable[..., Any], info: Callable[..., Any], model_server: Any
) -> None:
    slot()
    model_server.answers["/v2/health/ready"] = (503, {"ready": False})
    blue = info()["services"]["tumour"]["slots"]["blue"]
    assert (blue["unit"], blue["ready"]) == ("active", False)


def test_a_release_whose_manifest_cannot_be_read_has_no_digest(
    info: Callable[..., Any], release: str, layout: Layout
) -> None:
    (layout.release("tumour", release) / "bundle/manifest.json").write_text("{")
    (found,) = info()["services"]["tumour"]["releases"]
    assert (found["release"], found["digest"]) == (release, None)


def test_an_environment_that_is_not_finished_does_not_count(
    info: Callable[..., Any], make_env: Callable[..., str], layout: Layout
) -> None:
    make_env()
    layout.env("a" * 16).mkdir()
    assert info()["envs"] == [ENV]


def test_a_host_on_which_all_is_well_has_no_problems(slot: Callable[..., Any], info: Callable[..., Any]) -> None:
    slot()
    assert info(verify=True)["problems"] == []


def _flip(_layout: Layout, place: Path) -> str:
    model = place / "bundle/model.pkl"
    content = model.read_bytes()
    model.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    return f"{place / 'bundle'}: model.pkl: expected sha256 "


def _leave_partial(_layout: Layout, place: Path) -> str:
    partial = place.with_name(f".partial-{place.name}")
    partial.mkdir()
    return f"{partial}: expected no rest of a run that was killed"


def _leave_partial_env(layout: Layout, _place: Path) -> str:
    partial = layout.envs / f".partial-{ENV}"
    partial.mkdir()
    return f"{partial}: expected no rest of a run that was killed"


def _lose_env(layout: Layout, place: Path) -> str:
    (layout.env(ENV) / "env.json").unlink()
    return f"{place}: expected an environment that is complete, found {ENV}"


def _point_nowhere(layout: Layout, _place: Path) -> str:
    link = layout.slot("tumour", "green")
    link.symlink_to("releases/9-aaaaaaaaaaaa")
    return f"{link}: expected a release of this host, found 9-aaaaaaaaaaaa"


@pytest.mark.parametrize("harm", [_flip, _leave_partial, _leave_partial_env, _lose_env, _point_nowhere])
def test_what_should_not_be_is_found_where_it_is_asked_for(
    slot: Callable[..., Any], info: Callable[..., Any], release: str, layout: Layout, harm: Callable[..., str]
) -> None:
    slot()
    message = harm(layout, layout.release("tumour", release))
    (problem,) = info(verify=True)["problems"]
    assert problem.startswith(message)
    assert info()["problems"] == []


@pytest.mark.parametrize(
    ("unit", "those"),
    [("model-server@forgotten-blue.service", "slots"), ("model-trial-forgotten-blue.service", "trials for slots")],
)
def test_a_unit_of_no_slot_is_found(
    slot: Callable[..., Any], info: Callable[..., Any], systemd: Any, unit: str, those: str
) -> None:
    slot()
    systemd.run(unit)
    assert info(verify=True)["problems"] == [f"{unit}: expected no unit but those of {those}"]


def test_a_trial_that_runs_is_told_with_its_service(
    slot: Callable[..., Any], info: Callable[..., Any], systemd: Any
) -> None:
    slot()
    systemd.run("model-trial-tumour-green.service")
    found = info(verify=True)
    assert (found["trials"], found["problems"], info()["trials"]) == (["tumour"], [], [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"python": "/nowhere/python3"}, "/nowhere/python3: expected a program that runs, found: No such file or dir"),
        ({"python": "false"}, "false -I -S ended with 1: "),
        ({"services": ["Tumour"]}, "service: expected up to 40 lower-case letters, digits, - and _, found 'Tumour'"),
    ],
)
def test_what_cannot_be_read_is_said(run_module: Callable[..., Any], options: dict[str, Any], message: str) -> None:
    result = run_module(model_info, {"python": "python3", **options})
    assert (result["failed"], result["msg"].startswith(message)) == (True, True)


def test_contracts_are_read_where_they_are_asked_for(slot: Callable[..., Any], info: Callable[..., Any]) -> None:
    slot()
    assert "contract" not in info()["services"]["tumour"]["slots"]["blue"]
    slots = info(contracts=True)["services"]["tumour"]["slots"]
    assert (slots["blue"]["contract"], slots["green"]) == ({}, None)


def test_a_contract_that_is_not_as_it_was_built_is_null(
    slot: Callable[..., Any], info: Callable[..., Any], release: str, layout: Layout
) -> None:
    slot()
    (layout.release("tumour", release) / "bundle/contract.json").write_text("{ ")
    assert info(contracts=True)["services"]["tumour"]["slots"]["blue"]["contract"] is None


def test_what_starts_or_stops_a_slot_is_waited_for(
    slot: Callable[..., Any], run_module: Callable[..., Any], layout: Layout
) -> None:
    slot()
    asked = {"python": "python3", "services": ["tumour", "prices"], "wait": 1}
    with only_one(layout.service("tumour"), "starting or stopping a slot"):
        said = run_module(model_info, asked)["msg"]
        # Who only wants to see what is there does not wait.
        assert run_module(model_info, {**asked, "wait": 0})["model_host"]["services"]["tumour"]["slots"]["blue"]
    assert said == f"{layout.service('tumour')}: another run has been starting or stopping a slot for more than 1 s"
    assert run_module(model_info, asked)["model_host"]["services"]["tumour"]["slots"]["blue"]
