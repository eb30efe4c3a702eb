# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""rollout_request: what is asked for is checked before any machine is touched, and what is wrong is one line."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.modelfleet.onprem.plugins.action import rollout_request
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import pack, verify
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal import check_id, read_rollout
from ansible_collections.modelfleet.onprem.plugins.module_utils._verdict import ADVICE
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.controller import name_process, name_user, still_runs
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.policy import parse_policy
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.registry import publish_bundle

from tests.unit.plugins.signing import Person, make_person
from tests.unit.plugins.web_registry import WebRegistry

GROUPS = {"load_balancers": ["lb1", "lb2"], "model_hosts": ["m1", "m2"], "left": ["m1"], "right": ["m2"]}
SERVICES = {"tumour": {"port": 8101}, "prices": {"port": 8201, "hosts": "left", "model": "house"}}


@pytest.fixture
def ask(act_here: Callable[..., Any], server_wheel: Path) -> Callable[..., Any]:
    """Run rollout_request on the inventory above."""

    def run(groups: Any = GROUPS, check_mode: bool = False, inventory: Path | None = None, **arguments: Any) -> Any:
        given = {"services": SERVICES, "service": "tumour", "server": str(server_wheel), **arguments}
        return act_here(rollout_request, groups, check_mode, inventory, **given)

    return run


@pytest.fixture
def refusal(ask: Callable[..., Any]) -> Callable[..., str]:
    """The one line in which a request is refused."""

    def run(**arguments: Any) -> str:
        result = ask(**arguments)
        assert (result["failed"], "request" in result) == (True, "refused" in result)
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


def test_the_policy_of_the_service_is_in_the_request(ask: Callable[..., Any], bundle: Path) -> None:
    services = {"tumour": {"port": 8101, "gates": {"replay": {"mode": "warn", "rows": 50}}}}
    request = ask(action="deploy", bundle=str(bundle), services=services)["request"]
    assert (request["policy"], request["overrides"]) == (parse_policy(services["tumour"]["gates"]), [])


def test_a_gate_is_overridden_for_a_reason_which_is_kept(ask: Callable[..., Any], bundle: Path) -> None:
    request = ask(action="deploy", bundle=str(bundle), override="contract,golden", override_reason="we know")["request"]
    assert [request["policy"][gate]["mode"] for gate in ("contract", "golden", "load")] == ["warn", "warn", "enforce"]
    assert request["overrides"] == [
        {"gate": "contract", "reason": "we know"},
        {"gate": "golden", "reason": "we know"},
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"override": "contract"},
            'override_reason: expected -e override_reason="…" with -e override, found nothing',
        ),
        (
            {"override": "digest", "override_reason": "in a hurry"},
            "override: expected one of contract, environment, load, ready, version, golden, found digest, "
            "which cannot be overridden",
        ),
        (
            {"override": "speed", "override_reason": "in a hurry"},
            "override: expected one of contract, environment, load, ready, version, golden, found 'speed'",
        ),
    ],
)
def test_an_override_that_cannot_be_is_refused(
    refusal: Callable[..., str], bundle: Path, arguments: dict[str, Any], message: str
) -> None:
    assert refusal(action="deploy", bundle=str(bundle), **arguments) == message


def test_of_several_services_one_must_enforce_what_is_overridden(
    ask: Callable[..., Any], refusal: Callable[..., str], bundle: Path, make_bundle: Callable[..., Path]
) -> None:
    services = {
        "prices": {**SERVICES["prices"], "model": "tumour", "gates": {"golden": "off"}},
        "tumour": {**SERVICES["tumour"], "requires": ["prices"]},
    }
    several = {"tumour": {"bundle": str(bundle)}, "prices": {"bundle": str(make_bundle("7"))}}
    asked = {"action": "deploy", "service": None, "several": several, "services": services}
    request = ask(override="golden", override_reason="we know", **asked)["request"]
    assert request["overrides"] == [{"gate": "golden", "reason": "we know"}]
    assert {name: (part["policy"]["golden"]["mode"], part["overrides"]) for name, part in request["parts"].items()} == {
        "prices": ("off", []),
        "tumour": ("warn", request["overrides"]),
    }
    assert refusal(override="latency", override_reason="we know", **asked).endswith(
        "found 'latency', which is warn already"
    )


def test_what_an_inventory_enforces_no_more_is_no_reason_not_to_go_on(ask: Callable[..., Any]) -> None:
    services = {"tumour": {"port": 8101, "gates": {"golden": "warn"}}}
    balancers = died(None, "f" * 64, overrides={"golden": "we know", "gone": "we know"})
    request = ask(action="resume", balancers=balancers, services=services)["request"]
    assert request["policy"] == parse_policy({"golden": "warn"})
    assert [each["gate"] for each in request["overrides"]] == ["golden", "gone"]


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
        ({"strategy": "red"}, "strategy: expected one of basic, rolling, blue_green, canary, found 'red'"),
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


def test_a_limit_is_refused(refusal: Callable[..., str]) -> None:
    expected = "--limit: expected none, for a playbook is about all hosts of a service, found 'm1'"
    assert refusal(action="status", limit="m1") == expected


def test_an_action_that_there_is_not_is_refused(ask: Callable[..., Any]) -> None:
    with pytest.raises(
        AnsibleActionFail, match="value of action must be one of: deploy, rollback, resume, retire, canary, status"
    ):
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
    assert refusal(action="deploy", bundle=str(bundle)) == f"bundle: {bundle}: {message}: {ADVICE['digest']}"


def test_a_deploy_without_a_bundle_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    assert refusal(action="deploy") == (
        "bundle: expected -e bundle=PATH of a bundle or its .tar, or -e version=VERSION of one in the registry, "
        "found nothing"
    )
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


@pytest.fixture
def alice(tmp_path: Path) -> Person:
    return make_person("alice", tmp_path)


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An inventory in a folder of its own; the controller's cache is in another one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "inventory/registry").mkdir(parents=True)
    (tmp_path / "inventory/hosts.yml").touch()
    return tmp_path / "inventory/hosts.yml"


def signed_service(**keys: Any) -> dict[str, Any]:
    return {"tumour": {"port": 8101, **keys}}


def test_a_bundle_is_checked_against_the_signers_in_the_inventorys_folder(
    ask: Callable[..., Any], bundle: Path, alice: Person, inventory: Path
) -> None:
    alice.sign(bundle)
    (inventory.parent / "allowed_signers").write_text(alice.line())
    for value in ("allowed_signers", alice.line(), alice.line().strip()):
        services = signed_service(allowed_signers=value)
        request = ask(action="deploy", bundle=str(bundle), services=services, inventory=inventory)["request"]
        assert [(verdict["gate"], verdict["where"], verdict["verdict"]) for verdict in request["verdicts"]] == [
            ("digest", "controller", "pass"),
            ("signature", "controller", "pass"),
        ]
        assert request["trust"]["allowed_signers"].strip() == alice.line().strip()
        assert request["trust"]["gates"] == {"digest": {"mode": "enforce"}, "signature": {"mode": "enforce"}}


def test_without_signers_the_gate_is_off(ask: Callable[..., Any], bundle: Path) -> None:
    request = ask(action="deploy", bundle=str(bundle))["request"]
    assert [(verdict["gate"], verdict["verdict"]) for verdict in request["verdicts"]] == [
        ("digest", "pass"),
        ("signature", "off"),
    ]
    assert (request["source"], request["url"]) == ({}, "")


def test_a_bundle_that_nobody_signed_is_refused_with_its_verdicts(
    ask: Callable[..., Any], bundle: Path, alice: Person
) -> None:
    result = ask(action="deploy", bundle=str(bundle), services=signed_service(allowed_signers=alice.line()))
    assert result["msg"] == (
        f"bundle: {bundle}: gate signature: expected a signature by alice, found none: "
        "have it signed (model-bundle sign), or deploy another"
    )
    part = result["request"]["parts"]["tumour"]
    assert [(verdict["gate"], verdict["verdict"]) for verdict in part["verdicts"]] == [
        ("digest", "pass"),
        ("signature", "fail"),
    ]
    assert result["refused"]["reason"] == result["msg"]


@pytest.mark.parametrize("check_mode", [False, True], ids=["run", "check mode"])
def test_what_is_kept_of_a_bundle_that_is_not_trusted_is_what_was_asked_for(
    ask: Callable[..., Any], bundle: Path, check_mode: bool
) -> None:
    (bundle / "model.pkl").write_bytes(b"A model")
    overridden = {"override": ["golden"], "override_reason": "it rains"}
    kept = ask(action="deploy", bundle=str(bundle), check_mode=check_mode, **overridden)["refused"]["rollout"]
    nothing = {"release": None, "slot": None}
    assert read_rollout(kept, "rollout").overrides == {"golden": "it rains"}
    assert (kept["action"], kept["strategy"]) == ("deploy", "blue_green")
    assert kept["services"] == {"tumour": {**nothing, "digest": None, "bundle": str(bundle), "was": nothing}}


def test_of_several_bundles_each_that_is_not_trusted_is_named(
    ask: Callable[..., Any], bundle: Path, make_bundle: Callable[..., Path]
) -> None:
    other = make_bundle("7")
    for each in (bundle, other):
        (each / "golden.json").unlink()
    several = {"tumour": {"bundle": str(bundle)}, "prices": {"bundle": str(other)}}
    result = ask(action="deploy", service=None, several=several)
    missing = [f"bundle: {each}: golden.json is missing: {ADVICE['digest']}" for each in (bundle, other)]
    assert (result["msg"], list(result["refused"]["rollout"]["services"])) == ("; ".join(missing), [*several])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"allowed_signers": "absent"},
            "allowed_signers: expected a file of signers at {inventory}/absent, found: No su",
        ),
        (
            {"allowed_signers": "alice", "revoked_keys": "absent"},
            "revoked_keys: expected a file of keys at {inventory}/absent, found: No such file",
        ),
        ({"allowed_signers": ""}, "modelfleet_services.tumour.allowed_signers: expected the path of a file of allowed"),
        ({"pull": True}, "modelfleet_services.tumour.pull: expected a registry with an http(s) address, found none"),
        (
            {"pull": True, "registry": "models"},
            "modelfleet_services.tumour.pull: expected a registry with an http(s) address, found models",
        ),
    ],
)
def test_trust_that_cannot_be_read_is_refused(
    refusal: Callable[..., str], bundle: Path, alice: Person, inventory: Path, keys: dict[str, Any], message: str
) -> None:
    (inventory.parent / "alice").write_text(alice.line())
    found = refusal(action="deploy", bundle=str(bundle), services=signed_service(**keys), inventory=inventory)
    assert found.startswith(message.format(inventory=inventory.parent))


def test_a_version_of_the_registry_is_one_digest_from_then_on(
    ask: Callable[..., Any], make_bundle: Callable[..., Path], inventory: Path
) -> None:
    digests = {}
    for version, alias in (("3", "champion"), ("4", None)):
        bundle = make_bundle(version)
        digests[version] = publish_bundle(bundle, "registry", inventory.parent, alias=alias).manifest.digest
    for asked, version in (("3", "3"), ("champion", "3"), ("4", "4"), ("latest", "4")):
        request = ask(action="deploy", version=asked, registry="registry", inventory=inventory)["request"]
        assert (request["release"]["version"], request["release"]["digest"]) == (version, digests[version])
        assert request["source"] == {"registry": "registry", "asked": asked}
        assert verify(Path(request["bundle"])).digest == digests[version]
        assert request["url"] == ""


def test_hosts_are_told_where_to_fetch_it_themselves(ask: Callable[..., Any], bundle: Path, inventory: Path) -> None:
    web = WebRegistry()
    try:
        publish_bundle(bundle, web.address, inventory.parent)
        services = signed_service(registry=web.address, pull=True)
        request = ask(action="deploy", version="3", services=services, inventory=inventory)["request"]
        assert request["url"] == f"{web.address}/tumour/3.tar"
        shipped = ask(action="deploy", bundle=str(bundle), services=services, inventory=inventory)["request"]
        assert shipped["url"] == ""
    finally:
        web.close()


def change_digest(registry: Path, bundle: Path) -> tuple[str, str]:
    index = registry / "index.json"
    index.write_text(index.read_text().replace(verify(bundle).digest, "0" * 64))
    return f"tumour 3 of digest {'0' * 64}", f"tumour 3 of {verify(bundle).digest}"


def change_byte(registry: Path, _bundle: Path) -> tuple[str, str]:
    tar = registry / "3.tar"
    before = tar.read_bytes()
    after = before.replace(b"a model", b"A model")
    assert after != before
    tar.write_bytes(after)
    digests = [hashlib.sha256(data).hexdigest() for data in (before, after)]
    return f"{len(before)} bytes of sha256 {digests[0]}", f"{len(after)} of {digests[1]}"


def change_length(registry: Path, _bundle: Path) -> tuple[str, str]:
    tar = registry / "3.tar"
    before = tar.read_bytes()
    tar.write_bytes(before + b"more")
    return f"{len(before)} bytes of sha256 {hashlib.sha256(before).hexdigest()}", "more"


def change_both(registry: Path, bundle: Path) -> tuple[str, str]:
    change_byte(registry, bundle)
    index, tar = registry / "index.json", registry / "3.tar"
    document = json.loads(index.read_text())
    document["versions"][0]["sha256"] = hashlib.sha256(tar.read_bytes()).hexdigest()
    index.write_text(json.dumps(document))
    return f"tumour 3 of digest {verify(bundle).digest}", ": model.pkl: expected sha256 "


@pytest.mark.parametrize("change", [change_digest, change_byte, change_length, change_both])
def test_what_a_registry_has_and_its_index_does_not_say_fails_the_gate_digest(
    ask: Callable[..., Any], bundle: Path, inventory: Path, change: Callable[[Path, Path], tuple[str, str]]
) -> None:
    publish_bundle(bundle, "registry", inventory.parent)
    registry = inventory.parent / "registry/tumour"
    expected, found = change(registry, bundle)
    result = ask(action="deploy", version="3", registry="registry", inventory=inventory)
    assert result["failed"]
    assert result["msg"].startswith(f"bundle: {registry}/3.tar: expected {expected}, as the index says, found ")
    assert result["msg"].endswith(f": {ADVICE['digest']}")
    part = result["request"]["parts"]["tumour"]
    (verdict,) = part["verdicts"]
    assert (verdict["gate"], verdict["where"], verdict["verdict"]) == ("digest", "controller", "fail")
    assert verdict["expected"] == f"{expected}, as the index says"
    assert found in verdict["found"]
    assert found in result["msg"]
    # The journal keeps where it was to come from.
    assert result["refused"]["reason"] == result["msg"]
    assert result["refused"]["rollout"]["services"]["tumour"]["bundle"] == f"{registry}/3.tar"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"version": "3"},
            "registry: expected modelfleet_registry in the inventory, or the key registry of tumour, for -e version=3, "
            "found neither",
        ),
        (
            {"version": "3", "registry": "registry", "bundle": "3"},
            "bundle: expected either -e bundle=PATH or -e version=",
        ),
        ({"version": "3", "registry": "absent"}, "{inventory}/absent: expected the folder of a registry, found none"),
        (
            {"version": "3", "registry": "registry"},
            "{inventory}/registry/tumour: expected a version or alias that is published (none is), found '3'",
        ),
    ],
)
def test_a_version_that_cannot_be_had_is_refused(
    refusal: Callable[..., str], inventory: Path, arguments: dict[str, Any], message: str
) -> None:
    found = refusal(action="deploy", inventory=inventory, **arguments)
    assert found.startswith(message.format(inventory=inventory.parent))


def died(bundle: Path | None, digest: str, **changed: Any) -> dict[str, Any]:
    meant = {"release": f"3-{digest[:12]}", "digest": digest, "slot": "green", "bundle": bundle and str(bundle)}
    services = {"tumour": {**meant, "was": {"release": None, "slot": None}}}
    identity = {"id": "20260102T030400Z-00000009", "action": "deploy", "from": "elsewhere", "strategy": "rolling"}
    found = {**identity, "services": services, "held": True, **changed}
    return {name: {"services": {"tumour": {"rollout": found}}} for name in ("lb1", "lb2")}


def test_a_rollout_that_died_is_asked_for_again_with_its_bundle(ask: Callable[..., Any], bundle: Path) -> None:
    manifest = verify(bundle)
    request = ask(action="resume", balancers=died(bundle, manifest.digest))["request"]
    assert (request["action"], request["strategy"], request["bundle"]) == ("deploy", "rolling", str(bundle))
    assert request["release"] == {"name": manifest.release, "version": "3", "digest": manifest.digest}
    assert request["lock"] == "flask==3.1.3\n"


@pytest.mark.parametrize("there", [True, False], ids=["another bundle there", "nothing there"])
def test_without_its_bundle_the_hosts_must_hold_the_release(
    ask: Callable[..., Any], bundle: Path, tmp_path: Path, there: bool
) -> None:
    place = bundle if there else tmp_path / "gone"
    request = ask(action="resume", balancers=died(place, "f" * 64))["request"]
    assert (request["release"]["name"], request["lock"], request["server"]) == (f"3-{'f' * 12}", None, None)


def test_a_rollback_that_died_is_resumed_as_one(ask: Callable[..., Any]) -> None:
    request = ask(action="resume", balancers=died(None, "f" * 64, action="rollback"))["request"]
    assert (request["action"], "release" in request) == ("rollback", False)


def test_what_nothing_holds_cannot_be_resumed(refusal: Callable[..., str]) -> None:
    assert refusal(action="resume", balancers=died(None, "f" * 64, held=False)) == (
        "tumour: expected a rollout that was cut short, found none in the journals"
    )


def test_a_rollout_has_an_id_and_says_who_begins_it_and_where(ask: Callable[..., Any]) -> None:
    first, second = (ask(action="rollback")["request"]["rollout"] for _each in range(2))
    assert check_id(first["id"]) != second["id"]
    assert first["process"] == name_process(os.getppid())
    # Another one would be refused while it runs; a run is not kept from going on with what it began itself.
    assert not still_runs(first["process"])
    assert still_runs(str(name_process(os.getpid())))
    assert not still_runs("1-0")


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, "root"),
        ({"SUDO_USER": "anna"}, "root (anna by sudo)"),
        ({"SUDO_USER": "ci", "GITHUB_ACTOR": "anna"}, "root (ci by sudo, anna by GitHub Actions)"),
    ],
)
def test_who_is_behind_a_user_is_said(environment: dict[str, str], found: str) -> None:
    assert name_user("root", environment) == found


def test_hooks_of_all_services_come_before_those_of_one(ask: Callable[..., Any], tmp_path: Path) -> None:
    for name in ("all.yml", "own.yml"):
        (tmp_path / name).write_text("[]")
    services = {"tumour": {"port": 8101, "hooks": {"after_deploy": [str(tmp_path / "own.yml")]}}}
    hooks = {"after_deploy": [str(tmp_path / "all.yml"), "webhook"], "on_failure": []}
    request = ask(action="rollback", services=services, hooks=hooks)["request"]
    assert request["hooks"] == {"after_deploy": [str(tmp_path / "all.yml"), "webhook", str(tmp_path / "own.yml")]}


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        ({"before_lunch": []}, "modelfleet_hooks: expected a mapping of some of before_deploy, before_traffic, "),
        (
            {"on_failure": ["/none.yml"]},
            "hooks of tumour, on_failure: expected a file of tasks, found none at /none.yml",
        ),
    ],
)
def test_hooks_that_cannot_be_included_are_refused(refusal: Callable[..., str], hooks: Any, message: str) -> None:
    assert refusal(action="rollback", hooks=hooks).startswith(message)
