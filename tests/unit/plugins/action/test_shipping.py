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

    def ship(self, _action: ActionBase, local: Path) -> str:
        self.shipped.append(local.read_bytes())
        return f"/shipped/{local.name}"


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
    assert host.runs[1]["src"] == "/shipped/bundle.tar"
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
    assert act(model_probe, host, address="127.0.0.1:1", gates=gates) == {"changed": False, "gates": []}
    assert host.shipped == [b"{}\n"]
    assert host.runs[0]["gates"] == {**gates, "replay": {"mode": "warn", "requests": "/shipped/requests.jsonl"}}


@pytest.mark.parametrize(
    "gates",
    [
        {"ready": {"mode": "enforce"}},
        {"replay": {"mode": "enforce", "requests": None}},
        {"replay": {"mode": "off", "requests": "absent"}},
    ],
)
def test_what_is_not_replayed_from_a_file_is_not_shipped(act: Callable[..., Any], gates: dict[str, Any]) -> None:
    host = Host({"changed": False})
    act(model_probe, host, address="127.0.0.1:1", gates=gates)
    assert (host.shipped, host.runs[0]["gates"]) == ([], gates)


def test_a_file_of_requests_that_is_not_there_is_said(act: Callable[..., Any], tmp_path: Path) -> None:
    gates = {"replay": {"mode": "warn", "requests": str(tmp_path / "absent")}}
    message = f"gates.replay.requests: expected a file on the controller at {tmp_path}/absent, found none"
    with pytest.raises(AnsibleActionFail, match=re.escape(message)):
        act(model_probe, Host(), address="127.0.0.1:1", gates=gates)
