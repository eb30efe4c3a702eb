# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role model_service as a user's own playbook includes it, its arguments checked by Ansible."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.playbooks.conftest import Run, hosts_of, run_ansible

RELEASE = {
    "service": "tumour",
    "slot": "blue",
    "src": "/bundle",
    "env": "9c56cc51b374c3ba",
    "release": "3-0a1b2c3d4e5f",
    "settings": {"BIND": "0.0.0.0:8101"},
}
STAGE = ["model_env", "model_release"]
START = ["model_load", "model_slot", "model_probe"]


@pytest.fixture
def include(collection: Path) -> Callable[..., Run]:
    """Include the phases of the role, one after another, with the same list on one host."""
    folder = collection.parents[2]

    def run(phases: Sequence[str], releases: Sequence[Mapping[str, Any]], answering: str = "") -> Run:
        if answering:
            (folder / "model_load.answer.0").write_text(answering)
        tasks = [
            {"ansible.builtin.include_role": {"name": "modelfleet.onprem.model_service", "tasks_from": phase}}
            for phase in phases
        ]
        play = {
            "hosts": "m1",
            "gather_facts": False,
            "ignore_unreachable": True,
            "vars": {"model_service_releases": list(releases)},
            "tasks": tasks,
        }
        (folder / "play.yml").write_text(yaml.safe_dump([play]))
        return run_ansible(folder, "play.yml", {"all": {"hosts": hosts_of([])}}, {})

    return run


@pytest.mark.parametrize(
    ("phases", "modules"),
    [(["stage", "start", "stop"], [*STAGE, *START, "model_slot"]), (["main"], [*STAGE, *START])],
    ids=["phase by phase", "the whole"],
)
def test_one_list_serves_every_phase(include: Callable[..., Run], phases: list[str], modules: list[str]) -> None:
    run = include(phases, [RELEASE])
    assert (run.code, [step["module"] for step in run.told]) == (0, modules)
    assert "WARNING" not in run.output


@pytest.mark.parametrize(
    ("phase", "lacking"),
    [("stage", "env"), ("stage", "src"), ("start", "release"), ("start", "slot"), ("stop", "slot")],
)
def test_what_a_phase_needs_is_asked_for(include: Callable[..., Run], phase: str, lacking: str) -> None:
    run = include([phase], [{key: value for key, value in RELEASE.items() if key != lacking}])
    assert (run.code != 0, run.told) == (True, [])
    assert f"missing required arguments: {lacking}" in run.output


def test_what_was_not_loaded_on_a_host_that_did_not_answer_is_not_started(include: Callable[..., Run]) -> None:
    run = include(["start"], [RELEASE], answering='{"unreachable": true}')
    assert [step["module"] for step in run.told] == ["model_load"]
