from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from testbed import demo, image, keys
from testbed.command import StepError
from testbed.demo import FIRST, STEPS, check_lost, table

PHASE = {"sent": 812, "failed": 0, "p50_ms": 3.14159, "p99_ms": 12.0, "versions": {"1": 500, "2": 312}}


def test_the_table_has_a_row_a_step_in_columns_that_line_up() -> None:
    assert table(
        [
            ("deploy 1, basic", 31.42, {"sent": 6284, "failed": 6000, "p50_ms": 3, "p99_ms": 9}),
            ("roll back", 4.0, PHASE),
        ]
    ) == [
        "step             seconds  requests  failed  p50 ms  p99 ms  versions that answered",
        "deploy 1, basic  31.4     6284      6000    3.0     9.0     -",
        "roll back        4.0      812       0       3.1     12.0    1 (500), 2 (312)",
    ]


def test_a_step_in_which_every_request_failed_has_no_times() -> None:
    phase = {"sent": 3, "failed": 3, "p50_ms": None, "p99_ms": None, "versions": {}}
    assert table([("deploy 2", 1.0, phase)])[1].split() == ["deploy", "2", "1.0", "3", "3", "-", "-", "-"]


def failure(phase: str, reason: str) -> dict[str, Any]:
    return {"phase": phase, "reason": reason}


def seen(lost: Mapping[str, int], *failures: Mapping[str, Any]) -> dict[str, Any]:
    return {"phases": [{"name": name, "failed": count} for name, count in lost.items()], "failures": failures}


@pytest.mark.parametrize("reason", ["status 404: There is no service tumour.", "status 503: No server can take this."])
def test_what_is_refused_until_the_first_release_serves_is_no_loss(reason: str) -> None:
    check_lost(seen({FIRST: 6000, f"after {FIRST}": 0, "deploy 2, rolling": 0}, failure(FIRST, reason)))


@pytest.mark.parametrize(
    ("lost", "reason", "said"),
    [
        ({f"after {FIRST}": 1}, "status 503: No server can take this.", "1 requests failed"),
        ({"deploy 2, rolling": 30}, "status 503: No server can take this.", "30 requests failed"),
        ({"roll back": 2}, "TimeoutError", "2 requests failed"),
        ({FIRST: 7}, "version 1: not the expected answer", "1 requests failed"),
        ({FIRST: 7}, "ServerDisconnectedError", "1 requests failed"),
    ],
)
def test_whatever_else_is_lost_fails_the_demo(lost: dict[str, int], reason: str, said: str) -> None:
    [phase] = lost
    refused = failure(FIRST, "status 503: No server can take this.")
    with pytest.raises(StepError) as caught:
        check_lost(seen({FIRST: 6000, **lost}, refused, failure(phase, reason)))
    assert str(caught.value).startswith(f"{said}: [{{")
    assert reason in str(caught.value)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a demo whose fleet, models and playbooks do nothing keeps what it makes."""
    folder = tmp_path / "state"
    (folder / "bundles").mkdir(parents=True)
    (folder / "bundles/answers.json").write_text("{}")
    (folder / "bundles/request.json").write_text("{}")
    for module in (demo, image, keys):
        monkeypatch.setattr(module, "STATE", folder)
    monkeypatch.setattr(demo, "ROOT", folder)
    monkeypatch.setattr(demo, "BUNDLES", folder / "bundles")
    monkeypatch.setattr(keys, "USER_KEY", folder / "id_ed25519")
    monkeypatch.setattr(demo.shutil, "which", lambda _program: None)
    monkeypatch.setattr(image.engine, "is_running", lambda: False)
    monkeypatch.setattr(demo.fleet, "up", lambda _fleet: None)
    monkeypatch.setattr(demo.models, "build_all", lambda _out: None)
    return folder


@pytest.mark.usefixtures("state")
def test_clients_send_from_before_the_first_deploy_to_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    happened: list[str] = []
    failed = {FIRST: 50}

    @contextmanager
    def load(*_what: Any, **options: Any) -> Iterator[Any]:
        happened.append(f"load of {options['phase']}")
        names = [options["phase"]]
        result = SimpleNamespace(mark=names.append, result={})
        yield result
        phases = [{**PHASE, "name": name, "failed": failed.get(name, 0)} for name in names]
        result.result = {"phases": phases, "failures": [failure(name, "status 503") for name in failed]}
        happened.append("end of load")

    def playbook(_inventory: Path, verb: str, **variables: str) -> SimpleNamespace:
        happened.append(" ".join([verb, *([Path(variables["bundle"]).name] if "bundle" in variables else [])]))
        return SimpleNamespace(changed=1, seconds=2.0)

    monkeypatch.setattr(demo, "Load", load)
    monkeypatch.setattr(demo, "playbook", playbook)
    demo.up()
    deploys = ["deploy tumour-1", "deploy tumour-2", "deploy tumour-3", "rollback"]
    assert happened == ["provision", f"load of {FIRST}", *deploys, "end of load"]
    said = capsys.readouterr().out.splitlines()
    rows = {name: next(line for line in said if line.startswith(f"{name}  ")) for name, _verb, _variables in STEPS}
    assert [rows[name].removeprefix(name).split()[:3] for name in rows] == [
        ["2.0", "812", "50"],
        *[["2.0", "812", "0"]] * 3,
    ]
    failed["roll back"] = 1
    with pytest.raises(StepError, match="1 requests failed"):
        demo.up()


def test_down_leaves_nothing_of_the_demo(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    described = demo.read_fleet(demo.INVENTORY)
    keys.user_key()
    keys.pin(described)
    for name in ("image-bookworm.log", "image.lock"):
        (state / name).touch()
    demo.down()
    assert not state.exists()
    demo.down()
    assert "nothing of it is up" in capsys.readouterr().out


def test_down_leaves_what_another_fleet_needs_and_the_log_of_docker(state: Path) -> None:
    described = demo.read_fleet(demo.INVENTORY)
    keys.user_key()
    keys.pin(described)
    (state / "another").mkdir()
    (state / "another/known_hosts").touch()
    for name in ("image-bookworm.log", "image.lock", "dockerd.log"):
        (state / name).touch()
    demo.down()
    kept = ["another", "dockerd.log", "id_ed25519", "id_ed25519.pub", "image-bookworm.log", "image.lock"]
    assert sorted(path.name for path in state.iterdir()) == kept
