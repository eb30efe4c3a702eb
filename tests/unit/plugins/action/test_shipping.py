# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action plugins that ship files do on the controller; the host is a table of answers."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.modelfleet.onprem.plugins.action import model_env, model_probe, model_release
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import verify


class Host:
    """Answers runs of the module in turn, and keeps what was shipped to it."""

    def __init__(self, *answers: Mapping[str, Any]) -> None:
        self.answers = list(answers)
        self.runs: list[dict[str, Any]] = []
        self.shipped: list[bytes] = []

    def run(self, module_args: dict[str, Any], **_other: Any) -> Mapping[str, Any]:
        self.runs.append(dict(module_args))
        return self.answers.pop(0)

    def ship(self, _action: ActionBase, local: Path, name: str | None = None) -> str:
        self.shipped.append(local.read_bytes())
        return f"/shipped/{name or local.name}"


@pytest.fixture
def act(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run an action plugin with arguments against a host."""

    def run(plugin: Any, host: Host, **arguments: Any) -> Any:
        monkeypatch.setattr(ActionBase, "run", lambda *_arguments: {})
        monkeypatch.setattr(plugin, "ship", host.ship)
        action = object.__new__(plugin.ActionModule)
        action._task = SimpleNamespace(args=arguments)
        action._loader = SimpleNamespace(path_dwim=lambda path: path)
        action._execute_module = host.run
        return action.run(task_vars={})

    return run


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / "env.lock").write_text("flask==3.1.3\n")
    for name in ("modelfleet_model_server-0.1.0-py3-none-any.whl", "flask-3.1.3-py3-none-any.whl"):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("content", b"x" * 1000)
    return folder


def test_a_bundle_travels_only_to_a_host_that_lacks_it(act: Callable[..., Any], bundle: Path) -> None:
    host = Host({"changed": False, "placed": True})
    assert act(model_release, host, service="tumour", src=str(bundle), env="e") == {"changed": False, "placed": True}
    assert host.shipped == []
    assert host.runs == [
        {
            "service": "tumour",
            "env": "e",
            "release": verify(bundle).release,
            "digest": verify(bundle).digest,
            "size": 11,
        }
    ]


def test_a_bundle_exchanged_since_it_was_checked_is_not_shipped(act: Callable[..., Any], bundle: Path) -> None:
    with pytest.raises(
        AnsibleActionFail, match=f"manifest.json: expected sha256 {'0' * 64}, found {verify(bundle).digest}"
    ):
        act(model_release, Host(), service="tumour", src=str(bundle), env="e", digest="0" * 64)


def test_what_a_host_fetches_itself_is_never_shipped(act: Callable[..., Any], bundle: Path) -> None:
    for answer in ({"changed": True, "placed": True}, {"failed": True, "msg": "no way there"}):
        host = Host(answer)
        assert act(model_release, host, service="tumour", src=str(bundle), env="e", url="http://there/3.tar") == answer
        assert (len(host.runs), host.shipped) == (1, [])


def test_a_bundle_that_is_missing_is_shipped_as_a_tar(act: Callable[..., Any], bundle: Path, tmp_path: Path) -> None:
    host = Host({"changed": False, "placed": False}, {"changed": True, "placed": True})
    assert act(model_release, host, service="tumour", src=str(bundle), env="e")["changed"]
    assert host.runs[1]["src"] == "/shipped/bundle-0.tar"
    (tmp_path / "shipped.tar").write_bytes(host.shipped[0])
    assert verify(tmp_path / "shipped.tar") == verify(bundle)


@pytest.mark.parametrize("answer", [{"changed": True, "placed": False}, {"failed": True, "msg": "no space"}])
def test_nothing_is_shipped_in_check_mode_or_after_a_failure(
    act: Callable[..., Any], bundle: Path, wheels: Path, answer: dict[str, Any]
) -> None:
    assert act(model_release, Host(answer), service="tumour", src=str(bundle), env="e") == answer
    assert act(model_env, Host({**answer, "built": False}), name="e", wheels=str(wheels))["built"] is False


def test_a_damaged_bundle_never_leaves_the_controller(act: Callable[..., Any], bundle: Path) -> None:
    (bundle / "model.pkl").write_bytes(b"A MODEL")
    host = Host()
    with pytest.raises(AnsibleActionFail, match=r"model\.pkl: expected sha256"):
        act(model_release, host, service="tumour", src=str(bundle), env="e")
    assert host.runs == []


def test_another_bundle_than_the_one_asked_for_is_refused(act: Callable[..., Any], bundle: Path) -> None:
    with pytest.raises(AnsibleActionFail, match="expected the bundle 4-0a1b2c3d4e5f, found 3-"):
        act(model_release, Host(), service="tumour", src=str(bundle), env="e", release="4-0a1b2c3d4e5f")


@pytest.mark.parametrize("plugin", [model_env, model_release])
def test_removing_needs_nothing_from_the_controller(act: Callable[..., Any], plugin: Any) -> None:
    host = Host({"changed": True, "built": False, "placed": False})
    assert act(plugin, host, state="absent")["changed"]
    assert len(host.runs) == 1


HERE = {"changed": False, "placed": True}
LACKING = {"changed": False, "placed": False}


@pytest.fixture
def three(make_bundle: Callable[..., Path]) -> list[dict[str, Any]]:
    """What is asked for three services, two of which have the same bundle."""
    bundles = [make_bundle("3"), make_bundle("7")]
    return [
        {"service": service, "src": str(bundle), "env": "e"}
        for service, bundle in zip(("tumour", "iris", "wine"), [*bundles, bundles[0]], strict=True)
    ]


def answer(*each: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"changed": any(one["changed"] for one in each), "several": list(each), **more}


def test_the_bundles_of_several_services_are_asked_for_at_once(
    act: Callable[..., Any], three: list[dict[str, Any]]
) -> None:
    host = Host(answer(HERE, HERE, HERE))
    assert act(model_release, host, several=three) == answer(HERE, HERE, HERE)
    (run,) = host.runs
    assert list(run) == ["several"]
    manifests = [verify(Path(each["src"])) for each in three]
    assert run["several"] == [
        {"service": each["service"], "env": "e", "release": found.release, "digest": found.digest, "size": 11}
        for each, found in zip(three, manifests, strict=True)
    ]
    assert host.shipped == []


def test_those_that_the_host_lacks_are_placed_in_one_more_run(
    act: Callable[..., Any], three: list[dict[str, Any]], tmp_path: Path
) -> None:
    def one(service: str, changed: bool = True) -> dict[str, Any]:
        return {"service": service, "changed": changed, "placed": True}

    host = Host(
        answer(
            {**LACKING, "service": "tumour"}, one("iris", changed=False), {**LACKING, "service": "wine"}, diff=["i"]
        ),
        answer(one("tumour"), one("wine"), diff=["t", "w"]),
    )
    assert act(model_release, host, several=three) == answer(
        one("tumour"), one("iris", changed=False), one("wine"), diff=["i", "t", "w"]
    )
    placing = host.runs[1]["several"]
    # Theirs is the same bundle, which travels once.
    assert [(each["service"], each["src"]) for each in placing] == [
        ("tumour", "/shipped/bundle-0.tar"),
        ("wine", "/shipped/bundle-0.tar"),
    ]
    (tar,) = host.shipped
    (tmp_path / "shipped.tar").write_bytes(tar)
    assert verify(tmp_path / "shipped.tar") == verify(Path(three[0]["src"]))


def test_each_of_several_bundles_travels_under_a_name_of_its_own(
    act: Callable[..., Any], three: list[dict[str, Any]]
) -> None:
    host = Host(answer(LACKING, LACKING), answer(HERE, HERE))
    act(model_release, host, several=three[:2])
    assert [each["src"] for each in host.runs[1]["several"]] == ["/shipped/bundle-0.tar", "/shipped/bundle-1.tar"]
    assert host.shipped[0] != host.shipped[1]


def test_what_fails_at_placing_is_told_with_what_was_done(act: Callable[..., Any], three: list[dict[str, Any]]) -> None:
    failed = {"failed": True, "changed": False, "msg": "no space", "service": "tumour"}
    iris = {**HERE, "changed": True, "service": "iris"}
    host = Host(answer(LACKING, iris, LACKING), {**failed, "several": [failed]})
    assert act(model_release, host, several=three) == {
        **failed,
        "changed": True,
        "several": [failed, iris],
        "diff": [],
    }


@pytest.mark.parametrize(
    "found",
    [
        answer({"changed": True, "placed": False}, {"changed": True, "placed": False}),
        {"failed": True, "msg": "no", "several": [{**LACKING}, {"failed": True, "msg": "no", "changed": False}]},
    ],
    ids=["in check mode", "after a failure"],
)
def test_of_several_nothing_is_shipped_that_is_not_to_be_placed(
    act: Callable[..., Any], three: list[dict[str, Any]], found: dict[str, Any]
) -> None:
    host = Host(found)
    assert act(model_release, host, several=three[:2]) == found
    assert host.shipped == []


def test_of_several_each_may_be_fetched_by_the_host_or_removed(
    act: Callable[..., Any], three: list[dict[str, Any]]
) -> None:
    fetched = {**three[0], "url": "http://there/3.tar"}
    removed = {"service": "iris", "release": "3-0a1b2c3d4e5f", "state": "absent"}
    host = Host(answer({"changed": True, "placed": True}, {"changed": True, "placed": False}))
    act(model_release, host, several=[fetched, removed])
    assert host.runs[0]["several"][1] == removed
    assert (len(host.runs), host.shipped) == (1, [])


def test_the_host_is_asked_nothing_if_one_of_several_bundles_is_damaged(
    act: Callable[..., Any], three: list[dict[str, Any]]
) -> None:
    (Path(three[1]["src"]) / "model.pkl").write_bytes(b"A MODEL")
    host = Host()
    with pytest.raises(AnsibleActionFail, match=r"model\.pkl: expected sha256") as error:
        act(model_release, host, several=three)
    assert host.runs == []
    (told,) = error.value.result["several"]
    assert error.value.result == {**told, "several": [told]}
    assert (told["service"], told["failed"], told["msg"]) == ("iris", True, str(error.value))


def test_what_is_no_list_of_options_is_the_modules_to_refuse(act: Callable[..., Any]) -> None:
    for plugin in (model_release, model_probe):
        host = Host({"failed": True, "msg": "no"}, {"failed": True, "msg": "no"})
        assert act(plugin, host, several=["tumour"])["failed"]
        assert act(plugin, host, several="tumour")["failed"]
        assert [run["several"] for run in host.runs] == [["tumour"], "tumour"]


def test_wheels_travel_only_to_a_host_that_lacks_the_environment(act: Callable[..., Any], wheels: Path) -> None:
    host = Host({"changed": False, "built": True})
    act(model_env, host, name="e", wheels=str(wheels))
    assert (len(host.runs), host.shipped) == (1, [])
    host = Host({"changed": False, "built": False}, {"changed": True, "built": True})
    assert act(model_env, host, name="e", wheels=str(wheels))["built"]
    assert host.runs[1]["checksum"] == hashlib.sha256(host.shipped[0]).hexdigest()
    assert host.runs[0]["size"] > 3000


def test_only_what_the_environment_is_made_of_travels(act: Callable[..., Any], wheels: Path) -> None:
    (wheels / "left-1.0-py3-none-any.whl").write_bytes((wheels / "flask-3.1.3-py3-none-any.whl").read_bytes())
    host = Host({"changed": False, "built": False}, {"changed": True, "built": True})
    act(model_env, host, name="e", wheels=str(wheels))
    with tarfile.open(fileobj=io.BytesIO(host.shipped[0])) as shipped:
        assert shipped.getnames() == [
            "env.lock",
            "flask-3.1.3-py3-none-any.whl",
            "modelfleet_model_server-0.1.0-py3-none-any.whl",
        ]


def test_wheels_are_needed_when_the_host_lacks_the_environment(act: Callable[..., Any]) -> None:
    with pytest.raises(AnsibleActionFail, match="wheels: expected a folder, for the host lacks e, found none"):
        act(model_env, Host({"changed": False, "built": False, "name": "e"}), name="e")


def test_a_folder_without_a_lock_is_refused(act: Callable[..., Any], wheels: Path) -> None:
    (wheels / "env.lock").unlink()
    with pytest.raises(AnsibleActionFail, match=r"expected a folder of wheels with env\.lock in it, found none"):
        act(model_env, Host(), name="e", wheels=str(wheels))


def test_a_file_of_requests_travels_to_the_host_that_replays_it(act: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "requests.jsonl").write_text("{}\n")
    gates = {"ready": {"mode": "enforce"}, "replay": {"mode": "warn", "requests": str(tmp_path / "requests.jsonl")}}
    host = Host({"changed": False, "gates": []})
    asked = {"address": "127.0.0.1:1", "replaces": "2-0a1b2c3d4e5f", "gates": gates}
    assert act(model_probe, host, **asked) == {"changed": False, "gates": []}
    assert host.shipped == [b"{}\n"]
    assert host.runs[0]["gates"] == {**gates, "replay": {"mode": "warn", "requests": "/shipped/0-requests.jsonl"}}


@pytest.mark.parametrize(
    "gates",
    [
        {"ready": {"mode": "enforce"}},
        {"replay": {"mode": "enforce", "requests": None}},
        {"replay": {"mode": "off", "requests": "absent"}},
        {"replay": {"mode": "enforce", "requests": "absent"}},
    ],
    ids=["no replay", "no file", "off", "nothing to compare with"],
)
def test_what_is_not_replayed_from_a_file_is_not_shipped(act: Callable[..., Any], gates: dict[str, Any]) -> None:
    host = Host({"changed": False})
    act(model_probe, host, address="127.0.0.1:1", gates=gates)
    assert (host.shipped, host.runs[0]["gates"]) == ([], gates)


def test_a_file_of_requests_that_is_not_there_is_said(act: Callable[..., Any], tmp_path: Path) -> None:
    gates = {"replay": {"mode": "warn", "requests": str(tmp_path / "absent")}}
    message = f"gates.replay.requests: expected a file on the controller at {tmp_path}/absent, found none"
    with pytest.raises(AnsibleActionFail, match=re.escape(message)):
        act(model_probe, Host(), address="127.0.0.1:1", baseline="blue", gates=gates)


def test_of_several_files_of_requests_each_travels_once(act: Callable[..., Any], tmp_path: Path) -> None:
    paths = [tmp_path / folder / "requests.jsonl" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(path.parent.name)
    several = [
        {
            "service": service,
            "slot": "blue",
            "baseline": "green",
            "gates": {"replay": {"mode": "warn", "requests": str(path)}},
        }
        for service, path in zip(("tumour", "iris", "wine"), [*paths, paths[0]], strict=True)
    ]
    several.append({"service": "plain", "slot": "blue"})
    host = Host({"changed": False})
    act(model_probe, host, several=several)
    assert host.shipped == [b"a", b"b"]
    asked = host.runs[0]["several"]
    assert [each["gates"]["replay"]["requests"] for each in asked[:3]] == [
        "/shipped/0-requests.jsonl",
        "/shipped/1-requests.jsonl",
        "/shipped/0-requests.jsonl",
    ]
    assert asked[3] == several[3]
    # What was given is as it was.
    assert several[0]["gates"]["replay"]["requests"] == str(paths[0])
