# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replacing the active slot: what fails is put back, and a host that nobody knows anything of gets no requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.rollout import plan_deploy

from tests.unit.playbooks.conftest import POLICY, golden
from tests.unit.plugins.states import ONE, SERVICE, TWO, balancer_state, host_state, slot_state

BEFORE = {"release": "1-aaaaaaaaaaaa", "settings": {}, "limits": {}}
PLAN = {
    "service": "tumour",
    "slot": "blue",
    "release": {"name": "2-bbbbbbbbbbbb", "version": "2", "digest": "b" * 64},
    "was": {"release": "1-aaaaaaaaaaaa", "slot": "blue"},
    "running": [],
    "in_place": ["m1", "m2"],
    "batches": ["100%"],
    "put_back": {"m1": BEFORE, "m2": BEFORE},
    "settings": {},
    "limits": {},
    "baseline_slot": "",
    "verdicts": [],
}
REQUEST = {
    "drain_timeout": 1,
    "ready_timeout": 1,
    "hosts": ["m1", "m2"],
    "policy": POLICY,
    "overrides": [],
    "max_fail_percentage": 0,
}
JOURNAL: dict[str, Any] = {"begin": ["lb1"], "rollout": {"id": "20260102T030405Z-0a1b2c3d"}}
BOTH = ["tumour_blue/m1", "tumour_blue/m2"]


@pytest.fixture
def replace(play: Callable[..., Any]) -> Callable[..., Any]:
    """Replace the blue slot of two hosts in one batch."""

    def run(balancers: Sequence[str] = ("lb1",), plan: Mapping[str, Any] | None = None, **options: Any) -> Any:
        request = {**REQUEST, "balancers": list(balancers)}
        return play("in_place", request, {**PLAN, **(plan or {})}, **options)

    return run


def rotation(run: Any) -> list[tuple[str, list[str]]]:
    return [(step["state"], sorted(step["servers"])) for step in run.told if step["module"] == "lb_server"]


def started(run: Any) -> list[str]:
    return [step["release"] for step in run.told if step["module"] == "model_slot"]


def test_a_batch_leaves_the_rotation_is_replaced_and_comes_back(replace: Callable[..., Any]) -> None:
    run = replace()
    assert (run.code, rotation(run)) == (0, [("maint", BOTH), ("ready", BOTH)])
    assert started(run) == ["2-bbbbbbbbbbbb"] * 2


@pytest.mark.parametrize(
    ("options", "back", "releases", "said"),
    [
        (
            {"failing": {"model_probe": "gate golden: found 1"}},
            BOTH,
            ["2-bbbbbbbbbbbb"] * 2 + ["1-aaaaaaaaaaaa"] * 2,
            "m2: gate golden: found 1",
        ),
        (
            {"gone": ["m2"]},
            ["tumour_blue/m1"],
            ["2-bbbbbbbbbbbb", "1-aaaaaaaaaaaa"],
            "m2: expected an answer until the release had passed its gates, found the host unreachable",
        ),
        ({"failing": {"lb_server-maint": "1 in flight"}}, BOTH, ["1-aaaaaaaaaaaa"] * 2, "m1: 1 in flight"),
        (
            {"answering": {"model_probe": [golden(1), golden(0)]}},
            BOTH,
            ["2-bbbbbbbbbbbb"] * 2 + ["1-aaaaaaaaaaaa"] * 2,
            "m2: gate golden: expected the same answers on m1, m2, found m2: row 0: ",
        ),
    ],
    ids=["a gate", "a host is gone", "requests go on", "answers differ"],
)
def test_a_batch_that_fails_runs_what_it_ran_before(
    replace: Callable[..., Any], options: Mapping[str, Any], back: list[str], releases: list[str], said: str
) -> None:
    run = replace(**options)
    print(run.output)
    assert run.code != 0
    assert rotation(run) == [("maint", BOTH), ("ready", back)]
    assert started(run) == releases
    assert f'"msg": "{said}' in run.output
    assert run.output.count("\ngate ") == 1


@pytest.mark.parametrize(("action", "last"), [("deploy", False), ("rollback", True)])
def test_the_last_host_that_serves_leaves_to_go_back_alone(play: Callable[..., Any], action: str, last: bool) -> None:
    run = play("in_place", {**REQUEST, "balancers": ["lb1"], "action": action}, PLAN)
    assert [step["last"] for step in run.told if step.get("state") == "maint"] == [last]


def test_a_balancer_that_is_gone_is_no_reason_to_restart_or_to_leave_servers_out(replace: Callable[..., Any]) -> None:
    run = replace(["lb1", "lb2"], gone=["lb2"])
    assert run.code != 0
    assert (rotation(run), started(run)) == ([("maint", BOTH), ("ready", BOTH)], ["1-aaaaaaaaaaaa"] * 2)
    assert "expected every balancer to take the batch out of rotation, found it still in on lb2" in run.output
    assert "; resume.yml finishes the rollout, rollback.yml undoes it" in run.output


def test_the_batch_is_a_step_and_its_failure_the_end(play: Callable[..., Any]) -> None:
    request = {**REQUEST, "balancers": ["lb1"]}
    run = play("in_place", request, {**PLAN, **JOURNAL}, failing={"model_probe": "gate golden"})
    told = [step for step in run.told if step["module"] in ("lb_server", "lb_rollout")]
    assert [step["state"] for step in told] == ["maint", "ready", "ended"]
    # Bringing back what failed is not the end of the step: the end of the rollout says that it failed.
    name = JOURNAL["rollout"]["id"]
    assert [step.get("rollout") or step.get("id") for step in told] == [name, None, name]
    assert (told[-1]["verdict"], told[-1]["reason"]) == ("failed", "gate golden")


NEXT_BATCH = {"batches": [1, "100%"]}
AHEAD = {"in_place": ["m2"], "running": ["m1"]}
FIRST = {"was": {"release": None, "slot": None}}


@pytest.mark.parametrize(
    ("plan", "probes", "ended"),
    [
        (NEXT_BATCH, [{}, {"failed": True, "msg": "gate golden"}], False),
        (AHEAD, [{"failed": True, "msg": "gate golden"}], False),
        ({**AHEAD, "was": {"release": TWO.name, "slot": "blue"}}, [{"failed": True, "msg": "gate golden"}], True),
        ({**NEXT_BATCH, **FIRST}, [{}, {"failed": True, "msg": "gate golden"}], True),
        (NEXT_BATCH, [{"failed": True, "msg": "gate golden"}], True),
    ],
    ids=["a later batch", "of a run that was cut short", "other settings", "a first deploy", "the first batch"],
)
def test_what_is_half_done_is_held_until_it_is_finished_or_undone(
    play: Callable[..., Any], plan: Mapping[str, Any], probes: list[Any], ended: bool
) -> None:
    request = {**REQUEST, "balancers": ["lb1"]}
    run = play("in_place", request, {**PLAN, **JOURNAL, **plan}, answering={"model_probe": probes})
    print(run.output)
    [told] = [step for step in run.told if step["module"] == "lb_rollout"]
    assert (run.code != 0, told["state"]) == (True, "ended" if ended else "left")
    said = f"m1 stays on {TWO.name}: resume.yml finishes the rollout, rollback.yml undoes it"
    assert (said in " ".join(run.output.split())) is not ended
    assert told["reason"] == ("gate golden" if ended else f"gate golden; m1 stays on {TWO.name}")


def test_what_is_undone_is_held_though_no_host_has_gone_back_yet(play: Callable[..., Any]) -> None:
    request = {**REQUEST, "balancers": ["lb1"]}
    plan = {**PLAN, **JOURNAL, **NEXT_BATCH, "half_done": True}
    run = play("in_place", request, plan, failing={"model_probe": "gate golden"})
    [told] = [step for step in run.told if step["module"] == "lb_rollout"]
    assert (run.code != 0, told["state"], told["reason"]) == (True, "left", "gate golden")
    assert "m1: gate golden; resume.yml finishes the rollout, rollback.yml undoes it" in " ".join(run.output.split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"failing": {"lb_server-ready": "m1 is not UP"}}, "m1 is not UP"),
        ({"failing": {"lb_server-ready": "m1 is not UP", "model_probe": "gate golden"}}, "m1 is not UP"),
    ],
    ids=["on the release", "on what ran before"],
)
def test_a_batch_that_does_not_come_back_leaves_the_rollout(
    replace: Callable[..., Any], options: Mapping[str, Any], said: str
) -> None:
    run = replace(plan={**NEXT_BATCH, **JOURNAL}, **options)
    assert (run.code != 0, rotation(run)) == (True, [(state, ["tumour_blue/m1"]) for state in ("maint", "ready")])
    [told] = [step for step in run.told if step["module"] == "lb_rollout"]
    before = "gate golden; " if "model_probe" in options["failing"] else ""
    assert (told["state"], told["reason"]) == ("left", f"{before}lb1: {said}")
    output = " ".join(run.output.split())
    assert "m1: " in output
    assert "; resume.yml finishes the rollout, rollback.yml undoes it" in output


def states(run: Any) -> list[str]:
    """What slots were told: the release that they are to run, or that they are to stop."""
    return [step.get("release") or step["state"] for step in run.told if step["module"] == "model_slot"]


@pytest.mark.parametrize(
    ("plan", "failing", "back", "told", "why"),
    [
        (
            {"put_back": {"m2": BEFORE}},
            {},
            [("ready", ["tumour_blue/m2"])],
            [ONE.name, "stopped"],
            "expected a release that served there to run again, found none",
        ),
        (
            {"put_back": {}},
            {},
            [],
            ["stopped"] * 2,
            "expected a release that served there to run again, found none",
        ),
        (
            {},
            {"model_slot-started": "it crashed"},
            [],
            [ONE.name] * 2,
            f"expected {ONE.name} to run again, found it crashed",
        ),
    ],
    ids=["nothing before on one", "nothing before", "what was before does not start"],
)
def test_what_runs_nothing_from_before_stays_out_of_rotation(
    replace: Callable[..., Any],
    plan: Mapping[str, Any],
    failing: Mapping[str, str],
    back: list[Any],
    told: list[str],
    why: str,
) -> None:
    failing = {"model_probe": "gate golden", **failing}
    run = replace(plan={**JOURNAL, **plan}, failing=failing)
    print(run.output)
    assert run.code != 0
    assert (rotation(run), sorted(states(run)[2:])) == ([("maint", BOTH), *back], sorted(told))
    assert f"; it stays out of rotation: {why}" in " ".join(run.output.split())
    assert "out of rotation: m1" in next(step["reason"] for step in run.told if step.get("state") == "ended")


BAD = slot_state(TWO)
CRASHED = slot_state(TWO, unit="failed", started=None, ready=False)


@pytest.mark.parametrize("env_of", [lambda _host: "e1", None], ids=["the same deploy again", "resume"])
@pytest.mark.parametrize("found", [BAD, CRASHED], ids=["answers wrongly", "crashed"])
@pytest.mark.parametrize("strategy", ["basic", "rolling"])
def test_what_a_rollout_that_died_left_on_a_host_is_not_what_is_put_back(
    play: Callable[..., Any], strategy: Any, found: Any, env_of: Any
) -> None:
    out = ["m1", "m2"] if strategy == "basic" else ["m1"]
    balancer = balancer_state(blue=ONE, admin={("blue", host): "maint" for host in out})
    hosts = {
        host: host_state(ONE, TWO, blue=found if host in out else slot_state(ONE))
        for host in SERVICE.slot_hosts["blue"]
    }
    died = {"slot": "blue", "was": {"release": ONE.name, "slot": "blue"}}
    plan = plan_deploy(SERVICE, strategy, TWO, hosts, {"lb1": balancer}, env_of, died)
    request = {**REQUEST, "balancers": ["lb1"]}
    run = play("in_place", request, {**plan.as_dict(), **JOURNAL}, failing={"model_probe": "gate golden"})
    servers = [f"tumour_blue/{host}" for host in out]
    assert run.code != 0
    assert rotation(run) == [("maint", servers), ("ready", servers)]
    assert states(run) == [TWO.name] * len(out) + [ONE.name] * len(out)
    assert [step["verdict"] for step in run.told if step.get("state") == "ended"] == ["failed"]


def test_a_host_that_is_gone_while_it_is_put_back_stays_out_of_rotation(replace: Callable[..., Any]) -> None:
    run = replace(gone=["m2"], failing={"lb_server-maint": "1 in flight"})
    assert run.code != 0
    assert rotation(run) == [("maint", BOTH), ("ready", ["tumour_blue/m1"])]
    assert f"it stays out of rotation: expected {ONE.name} to run again, found the host unreachable" in run.output
