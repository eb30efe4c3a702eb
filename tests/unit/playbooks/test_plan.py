# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planning: what a gate on the controller refuses ends the run before anything is placed; a check shows the steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._verdict import ADVICE

from tests.unit.playbooks.conftest import POLICY
from tests.unit.plugins.states import ONE, TWO, balancer_state, host_state, slot_state

ID = "20260102T030405Z-0a1b2c3d"
REQUEST = {
    "action": "deploy",
    "service": "tumour",
    "services": ["tumour"],
    "hosts": ["m1", "m2"],
    "balancers": ["lb1"],
    "machines": ["lb1", "m1", "m2"],
    "strategy": "blue_green",
    "release": asdict(TWO),
    "lock": "",
    "rollout": {"id": ID, "who": "anna", "from": "ops1", "process": None},
    "server": {"wheel": "/server.whl", "sha256": "c" * 64},
    "policy": POLICY,
    "overrides": [],
}
# Its contract cannot be read.
HOST = {"model_host": host_state(ONE, blue=slot_state(ONE, contract=None))}
REFUSED = "expected the contract of 1-aaaaaaaaaaaa, which serves, found none that is as it was built on m1, m2"


@pytest.fixture
def plan(play: Callable[..., Any]) -> Callable[..., Any]:
    def run(**options: Any) -> Any:
        answering = {"model_info": [HOST, HOST], "lb_info": [{"load_balancer": balancer_state(blue=ONE)}]}
        variables = {"modelfleet_services": {"tumour": {"port": 8101}}}
        return play("plan", REQUEST, {}, answering=answering, variables=variables, **options)

    return run


@pytest.mark.parametrize("check", [False, True], ids=["run", "check mode"])
def test_what_a_gate_refuses_ends_the_run_after_the_table(plan: Callable[..., Any], check: bool) -> None:
    run = plan(check=check)
    assert run.code != 0
    said = f"gate contract: {REFUSED}: {ADVICE['contract']}; nothing was changed"
    assert said in run.output
    assert run.output.index("\ncontract ") < run.output.index(said)
    assert ("tumour: 2-bbbbbbbbbbbb in green; now 1-aaaaaaaaaaaa in blue serves" in run.output) == check


def test_what_a_gate_refuses_is_kept_as_a_rollout_that_holds_nothing(plan: Callable[..., Any]) -> None:
    told = [step for step in plan().told if step["module"] == "lb_rollout"]
    assert [(step["state"], step["reason"]) for step in told] == [
        ("refused", f"gate contract: {REFUSED}: {ADVICE['contract']}")
    ]
    assert (told[0]["rollout"]["id"], told[0]["rollout"]["services"]["tumour"]["release"]) == (ID, TWO.name)
    assert [gate["verdict"] for gate in told[0]["gates"] if gate["gate"] == "contract"] == ["fail"]


@pytest.mark.parametrize("gone", [[], ["lb1"]], ids=["with a balancer", "whose balancer is down"])
def test_a_bundle_that_is_not_trusted_ends_the_run_before_any_host_is_read(
    command: Callable[..., Any], tmp_path: Path, gone: list[str]
) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    run = command("deploy", {}, gone=gone, bundle=str(bundle))
    said = f"bundle: {bundle}: manifest.json is missing: {ADVICE['digest']}"
    assert run.code != 0
    assert f"{said}; nothing was changed" in run.output
    assert run.output.index("\ndigest ") < run.output.index(f"{said}; nothing was changed")
    assert [(step["module"], step["state"], step["reason"]) for step in run.told] == (
        [] if gone else [("lb_rollout", "refused", said)]
    )
    for step in run.told:
        assert step["gates"][0]["verdict"] == "fail"
        assert step["rollout"]["services"]["tumour"]["bundle"] == str(bundle)


def test_what_is_wrong_with_a_request_ends_the_run_in_one_line(command: Callable[..., Any], tmp_path: Path) -> None:
    run = command("deploy", {}, bundle=str(tmp_path / "nowhere"))
    assert run.code != 0
    assert (
        f'"msg": "bundle: expected the folder of a bundle or its .tar, found nothing at {tmp_path}/nowhere"'
        in run.output
    )
    assert run.told == []


def test_contracts_are_read_for_a_deploy(plan: Callable[..., Any]) -> None:
    assert [step["contracts"] for step in plan().told if step["module"] == "model_info"] == [True, True]
