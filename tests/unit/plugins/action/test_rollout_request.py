# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""rollout_request: what is asked for is checked before any machine is touched, and what is wrong is one line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.modelfleet.onprem.plugins.action import rollout_request
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import pack, verify

GROUPS = {"load_balancers": ["lb1", "lb2"], "model_hosts": ["m1", "m2"], "left": ["m1"], "right": ["m2"]}
SERVICES = {"tumour": {"port": 8101}, "prices": {"port": 8201, "hosts": "left", "model": "house"}}


@pytest.fixture
def ask(act_here: Callable[..., Any], server_wheel: Path) -> Callable[..., Any]:
    """Run rollout_request on the inventory above."""

    def run(groups: Any = GROUPS, check_mode: bool = False, **arguments: Any) -> Any:
        given = {"services": SERVICES, "service": "tumour", "server": str(server_wheel), **arguments}
        return act_here(rollout_request, groups, check_mode, **given)

    return run


@pytest.fixture
def refusal(ask: Callable[..., Any]) -> Callable[..., str]:
    """The one line in which a request is refused."""

    def run(**arguments: Any) -> str:
        result = ask(**arguments)
        assert (result["failed"], "request" in result) == (True, False)
        message: str = result["msg"]
        assert "\n" not in message
        return message

    return run


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("check_mode", [False, True], ids=["run", "check mode"])
def test_a_deploy_gets_what_its_steps_need(ask: Callable[..., Any], bundle: Path, check_mode: bool) -> None:
    result = ask(action="deploy", bundle=str(bundle), check_mode=check_mode)
    request, manifest = result["request"], verify(bundle)
    assert not result["changed"]
    assert (request["service"], request["hosts"], request["balancers"]) == ("tumour", ["m1", "m2"], ["lb1", "lb2"])
    assert request["machines"] == ["lb1", "lb2", "m1", "m2"]
    assert request["strategy"] == "blue_green"
    assert request["release"] == {"name": manifest.release, "version": "3", "digest": manifest.digest}
    assert request["lock"] == "flask==3.1.3\n"
    assert (request["bundle"], request["ports"]) == (str(bundle), {"blue": 8101, "green": 8102})
    assert request["size"] == sum(path.stat().st_size for path in bundle.iterdir() if path.name != "manifest.json")


def test_a_bundle_may_be_a_tar_and_its_path_is_from_where_the_command_was_given(
    ask: Callable[..., Any], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(bundle, tmp_path / "tumour-3.tar")
    monkeypatch.chdir(tmp_path)
    request = ask(action="deploy", bundle="tumour-3.tar", strategy="rolling")["request"]
    assert (request["bundle"], request["strategy"]) == (str(tmp_path / "tumour-3.tar"), "rolling")


def test_a_wheel_that_was_given_is_the_server(ask: Callable[..., Any], bundle: Path, server_wheel: Path) -> None:
    digest = hashlib.sha256(server_wheel.read_bytes()).hexdigest()
    request = ask(action="deploy", bundle=str(bundle))["request"]
    assert request["server"] == {"wheel": str(server_wheel), "sha256": digest}


@pytest.mark.parametrize(
    ("keys", "gates", "limit"),
    [
        ({}, ["ready", "version", "golden"], None),
        ({"gates": ["golden"], "max_latency_ms": 50}, ["golden"], 50),
    ],
    ids=["by default", "as the inventory says"],
)
def test_the_gates_of_the_service_are_in_the_request(
    ask: Callable[..., Any], bundle: Path, keys: dict[str, Any], gates: list[str], limit: int | None
) -> None:
    request = ask(action="deploy", bundle=str(bundle), services={"tumour": {"port": 8101, **keys}})["request"]
    assert (request["gates"], request["max_latency_ms"]) == (gates, limit)


@pytest.mark.parametrize("action", ["rollback", "retire"])
def test_going_back_and_retiring_need_no_bundle(ask: Callable[..., Any], action: str) -> None:
    request = ask(action=action, service="prices")["request"]
    assert (request["action"], request["hosts"], request["slot_hosts"]) == (
        action,
        ["m1"],
        {"blue": ["m1"], "green": ["m1"]},
    )
    assert not {"bundle", "strategy", "server"} & set(request)


@pytest.mark.parametrize(("service", "services"), [(None, ["tumour", "prices"]), ("prices", ["prices"])])
def test_status_is_of_all_services_or_of_one(ask: Callable[..., Any], service: str | None, services: list[str]) -> None:
    assert ask(action="status", service=service)["request"]["services"] == services


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"service": "tumor"}, "service: expected one of prices, tumour, found 'tumor'"),
        ({"service": None}, "service: expected -e service=NAME, one of prices, tumour, found nothing"),
        ({"strategy": "red"}, "strategy: expected one of basic, rolling, blue_green, found 'red'"),
        (
            {"groups": {"model_hosts": ["m1"]}},
            "inventory: expected at least one host in the group load_balancers, found none",
        ),
        (
            {"groups": {"load_balancers": ["lb1"]}},
            "modelfleet_services.tumour.hosts: expected a group with hosts in it, found 'model_hosts' with none",
        ),
        (
            {"services": {"tumour": {"port": 8101}, "prices": {"port": 8102}}},
            "modelfleet_services.prices.port: expected ports of its own on m1 (blue takes the port, green the next), "
            "found 8102, which tumour has",
        ),
        (
            {"services": None},
            "modelfleet_services: expected a mapping of at least one service in the inventory, found none",
        ),
    ],
)
def test_a_request_that_does_not_fit_the_inventory_is_refused(
    refusal: Callable[..., str], bundle: Path, arguments: dict[str, Any], message: str
) -> None:
    assert refusal(action="deploy", bundle=str(bundle), **arguments) == message


def test_an_action_that_there_is_not_is_refused(ask: Callable[..., Any]) -> None:
    with pytest.raises(AnsibleActionFail, match="value of action must be one of: deploy, rollback, retire, status"):
        ask(action="destroy")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda bundle: (bundle / "golden.json").unlink(), "golden.json is missing"),
        (
            lambda bundle: (bundle / "model.pkl").write_bytes(b"A model"),
            f"model.pkl: expected sha256 {hashlib.sha256(b'a model').hexdigest()}, "
            f"found {hashlib.sha256(b'A model').hexdigest()}",
        ),
        (lambda bundle: (bundle / "model.pkl").write_bytes(b"a models"), "model.pkl: expected 7 bytes, found 8"),
        (lambda bundle: (bundle / "more").touch(), "more is not in the manifest"),
        (lambda bundle: (bundle / "manifest.json").unlink(), "manifest.json is missing"),
        (
            lambda bundle: edit(bundle / "manifest.json", schema=2),
            "manifest.json: schema: expected at most 1, found 2: a newer modelfleet made it",
        ),
    ],
    ids=["a file missing", "another byte", "a byte more", "a file more", "no bundle", "newer schema"],
)
def test_a_bundle_that_is_not_as_it_was_built_is_refused(
    refusal: Callable[..., str], bundle: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(bundle)
    assert refusal(action="deploy", bundle=str(bundle)) == f"bundle: {bundle}: {message}"


def test_a_deploy_without_a_bundle_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    assert refusal(action="deploy") == "bundle: expected -e bundle=PATH of a bundle or its .tar, found nothing"
    nowhere = tmp_path / "nowhere"
    assert refusal(action="deploy", bundle=str(nowhere)) == (
        f"bundle: expected the folder of a bundle or its .tar, found nothing at {nowhere}"
    )


def test_a_file_that_is_no_bundle_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"a model")
    assert refusal(action="deploy", bundle=str(path)).startswith(
        f"bundle: {path}: expected a bundle (a folder or a tar): "
    )


def test_a_bundle_of_another_model_is_refused(refusal: Callable[..., str], bundle: Path) -> None:
    assert refusal(action="deploy", service="prices", bundle=str(bundle)) == (
        f"bundle: expected one of house for the service prices, found tumour in {bundle}"
    )


def test_a_server_that_is_none_is_refused(refusal: Callable[..., str], bundle: Path, tmp_path: Path) -> None:
    assert refusal(action="deploy", bundle=str(bundle), server=str(tmp_path)) == (
        f"server: expected a wheel or the model server's source folder, found {tmp_path}"
    )
