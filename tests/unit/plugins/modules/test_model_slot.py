# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""model_slot, against a host in a temporary folder, a fake systemctl and a real HTTP server."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils import _several
from ansible_collections.modelfleet.onprem.plugins.module_utils._files import only_one
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import Layout, release_in
from ansible_collections.modelfleet.onprem.plugins.module_utils._slot import parse_settings
from ansible_collections.modelfleet.onprem.plugins.module_utils._verdict import ADVICE
from ansible_collections.modelfleet.onprem.plugins.modules import model_info, model_release, model_slot

ENV = "0123456789abcdef"
OTHER_ENV = "fedcba9876543210"
BLUE = "model-server@tumour-blue.service"

pytestmark = pytest.mark.usefixtures("systemd")


def test_a_slot_starts_and_is_recorded(slot: Callable[..., Any], release: str, layout: Layout, systemd: Any) -> None:
    result = slot()
    assert (result["service"], result["slot"]) == ("tumour", "blue")
    assert result["changed"]
    assert result["before"] is None
    assert result["after"]["started"] == {"release": release, "env": ENV}
    assert result["after"]["ready"]
    assert result["after"]["limits"] == {"MemoryMax": "1G"}
    assert release_in(layout, "tumour", "blue") == release
    assert systemd.state(BLUE)["UnitFileState"] == "enabled"


def test_the_server_is_told_where_its_release_and_its_environment_are(
    slot: Callable[..., Any], release: str, layout: Layout
) -> None:
    settings = slot(settings={"MODEL_SERVICE": "tumour"})["after"]["settings"]
    assert settings["MODEL_BUNDLE"] == str(layout.release("tumour", release) / "bundle")
    assert settings["MODEL_DIGEST"] == release.rpartition("-")[2]
    assert settings["MODEL_ENV"] == str(layout.env(ENV))
    assert settings["WORKERS"] == "2"


def test_a_slot_that_runs_as_asked_for_is_left_alone(slot: Callable[..., Any], systemd: Any) -> None:
    slot()
    assert not slot()["changed"]
    assert systemd.calls("start") == [f"start {BLUE}"]


def forget_digest(layout: Layout) -> None:
    """Have blue be as an earlier version of the collection started it, which told the model server no digest."""
    path, record = layout.settings("tumour", "blue"), layout.record("tumour", "blue")
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("MODEL_DIGEST=")))
    start = json.loads(record.read_text())
    del start["settings"]["MODEL_DIGEST"]
    record.write_text(json.dumps(start))


def test_a_slot_that_an_earlier_version_started_is_left_alone(
    slot: Callable[..., Any], run_module: Callable[..., Any], systemd: Any, layout: Layout
) -> None:
    slot()
    forget_digest(layout)
    assert not slot()["changed"]
    assert not run_module(model_slot, {"service": "tumour", "slot": "blue", "ready_timeout": 1})["changed"]
    assert systemd.calls("start") == [f"start {BLUE}"]
    assert slot(settings={"WORKERS": 3})["changed"]


def test_its_next_start_binds_it_to_the_digest(slot: Callable[..., Any], layout: Layout) -> None:
    started = slot()["after"]["settings"]
    forget_digest(layout)
    # As a rollout puts back what ran before: with all the settings that it had.
    before = parse_settings(layout.settings("tumour", "blue").read_text())
    assert "MODEL_DIGEST" not in before
    assert slot(state="restarted", settings=before)["after"]["settings"] == started


@pytest.mark.parametrize(
    "change",
    [{"settings": {"WORKERS": 3}}, {"limits": {"MemoryMax": "2G"}}],
    ids=["other settings", "other limits"],
)
def test_a_slot_is_started_again_when_it_has_to_be(
    slot: Callable[..., Any], systemd: Any, change: dict[str, Any]
) -> None:
    slot()
    assert slot(check_mode=True, **change)["changed"]
    assert len(systemd.calls("start")) == 1
    assert slot(**change)["changed"]
    assert systemd.calls("start", "stop")[-2:] == [f"stop {BLUE}", f"start {BLUE}"]


def test_a_slot_that_runs_as_asked_for_is_restarted_all_the_same(slot: Callable[..., Any], systemd: Any) -> None:
    before = slot()["after"]
    result = slot(state="restarted", check_mode=True)
    assert (result["changed"], result["before"], result["after"]["started"]) == (True, before, before["started"])
    assert systemd.calls("start") == [f"start {BLUE}"]
    result = slot(state="restarted")
    again = {**before, "invocation": result["after"]["invocation"]}
    assert (result["changed"], result["after"], result["seconds"] >= 0) == (True, again, True)
    assert again["invocation"] not in (None, before["invocation"])
    assert systemd.calls("start", "stop")[-2:] == [f"stop {BLUE}", f"start {BLUE}"]
    assert systemd.state(BLUE)["UnitFileState"] == "enabled"
    assert not slot()["changed"]


def test_what_is_not_given_stays_as_the_slot_has_it(
    slot: Callable[..., Any], run_module: Callable[..., Any], layout: Layout
) -> None:
    before = slot(settings={"API_KEYS": "/etc/keys"})["after"]
    alone = {"service": "tumour", "slot": "blue", "ready_timeout": 1}
    assert not run_module(model_slot, alone)["changed"]
    after = run_module(model_slot, {**alone, "state": "restarted"})["after"]
    assert after == {**before, "invocation": after["invocation"]}
    planned = run_module(model_slot, {**alone, "release": "9-0a1b2c3d4e5f"}, check_mode=True)["after"]
    assert planned["settings"]["MODEL_BUNDLE"] == str(layout.release("tumour", "9-0a1b2c3d4e5f") / "bundle")
    assert (planned["settings"]["API_KEYS"], planned["limits"]) == ("/etc/keys", before["limits"])


def test_a_restart_that_fails_brings_the_log(slot: Callable[..., Any], systemd: Any) -> None:
    slot()
    systemd.crash_at_start()
    result = slot(state="restarted")
    assert result["msg"].startswith(f"{BLUE}: expected it to start, found its process ended with status 1")
    assert result["log"][1] == "model.pkl cannot be loaded"
    assert not systemd.is_active(BLUE)


def test_a_byte_that_was_changed_on_the_host_is_the_reason(
    slot: Callable[..., Any], systemd: Any, layout: Layout, release: str
) -> None:
    place = layout.release("tumour", release)
    path = place / "bundle/model.pkl"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    systemd.crash_at_start()
    result = slot()
    (gate,) = result["gates"]
    assert (gate["gate"], gate["where"], gate["mode"], gate["verdict"]) == ("digest", str(place), "enforce", "fail")
    assert ": model.pkl: expected sha256 " in gate["found"]
    assert result["msg"] == f"{gate['found']}: {ADVICE['digest']}"
    assert result["log"][1] == "model.pkl cannot be loaded"


def test_a_manifest_that_was_changed_on_the_host_keeps_it_from_starting(
    slot: Callable[..., Any], systemd: Any, layout: Layout, release: str
) -> None:
    place = layout.release("tumour", release)
    path = place / "bundle/manifest.json"
    path.write_text(path.read_text() + " ")
    result = slot()
    (gate,) = result["gates"]
    assert (gate["gate"], gate["where"], gate["verdict"]) == ("digest", str(place), "fail")
    expected = f"{place}: manifest.json: expected sha256 {release.rpartition('-')[2]}, found "
    assert result["msg"].startswith(expected)
    assert result["msg"].endswith(f": {ADVICE['digest']}")
    assert systemd.calls("start") == []


def test_a_change_behind_our_back_is_mended(slot: Callable[..., Any], layout: Layout) -> None:
    slot()
    path = layout.settings("tumour", "blue")
    path.write_text(path.read_text() + 'X="1"\n')
    assert slot()["changed"]
    assert not slot()["changed"]


def test_a_server_that_is_not_ready_any_more_is_started_again(slot: Callable[..., Any], model_server: Any) -> None:
    slot()
    ready = model_server.answers.pop("/v2/health/ready")
    assert slot(check_mode=True)["changed"]
    model_server.answers["/v2/health/ready"] = ready
    assert not slot(check_mode=True)["changed"]


def test_a_crash_at_start_brings_the_log(slot: Callable[..., Any], systemd: Any, layout: Layout) -> None:
    systemd.crash_at_start()
    result = slot()
    assert result["msg"] == (
        f"{BLUE}: expected it to start, found its process ended with status 1; "
        "its last words: model.pkl cannot be loaded"
    )
    assert result["log"] == ["Starting model-server", "model.pkl cannot be loaded", "Main process exited"]
    (verdict,) = result["gates"]
    assert {**verdict, "seconds": 0} == {
        "gate": "ready",
        "where": BLUE,
        "mode": "enforce",
        "verdict": "fail",
        "expected": "it to start",
        "found": "its process ended with status 1; its last words: model.pkl cannot be loaded",
        "seconds": 0,
    }
    assert (result["service"], result["slot"]) == ("tumour", "blue")
    assert not systemd.is_active(BLUE)
    assert systemd.state(BLUE)["UnitFileState"] == "disabled"
    assert not layout.record("tumour", "blue").exists()


def test_a_server_that_never_gets_ready_is_given_up_in_time(
    slot: Callable[..., Any], model_server: Any, systemd: Any
) -> None:
    model_server.answers["/v2/health/ready"] = (503, {"detail": "loading"})
    result = slot()
    assert "expected it to be ready within 1 s, found status 503 (loading)" in result["msg"]
    (verdict,) = result["gates"]
    assert (verdict["verdict"], verdict["expected"]) == ("fail", "it to be ready within 1 s")
    assert verdict["found"].startswith("status 503 (loading); its last words: ")
    assert verdict["seconds"] >= 1
    assert not systemd.is_active(BLUE)


def test_another_bundle_at_the_address_is_no_success(slot: Callable[..., Any], model_server: Any, release: str) -> None:
    model_server.be_ready(digest="f" * 64)
    assert f"expected {release} to answer at {model_server.address}, found the bundle ffff" in slot()["msg"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"release": "9-0a1b2c3d4e5f"}, "9-0a1b2c3d4e5f: expected the release to be on this host, found none"),
        ({"release": "../9"}, "release: expected a version, a dash and 12 hexadecimal digits, found '../9'"),
        ({"service": "Tumour"}, "service: expected up to 40 lower-case letters"),
        ({"settings": {"MODEL_BUNDLE": "/elsewhere"}}, "which the slot sets itself, found /elsewhere"),
        ({"settings": {"X": "a\nb"}}, "settings.X: expected one line of text"),
        ({"settings": {"x y": "1"}}, "settings: expected a name of upper-case letters"),
        ({"limits": {"ExecStart": "/bin/sh"}}, "limits: expected one of AllowedCPUs"),
        ({"slot": "green", "release": None}, "tumour green has none yet"),
    ],
)
def test_what_cannot_be_started_is_refused(
    slot: Callable[..., Any], systemd: Any, options: dict[str, Any], message: str
) -> None:
    assert message in slot(**options)["msg"]
    assert systemd.calls("start", "stop") == []


def test_check_mode_believes_in_a_release_that_an_earlier_step_would_have_placed(slot: Callable[..., Any]) -> None:
    result = slot(check_mode=True, release="9-0a1b2c3d4e5f")
    assert result["changed"]
    assert result["after"]["release"] == "9-0a1b2c3d4e5f"
    assert result["after"]["env"] is None


def test_a_slot_can_be_put_back_on_an_earlier_environment_of_its_release(
    slot: Callable[..., Any], run_module: Callable[..., Any], release: str, layout: Layout
) -> None:
    before = slot()["after"]
    run_module(model_release, {"service": "tumour", "release": release, "env": OTHER_ENV})
    assert slot()["after"]["env"] == OTHER_ENV
    back = slot(settings=before["settings"])["after"]
    assert back["started"] == {"release": release, "env": ENV}
    assert back["settings"]["MODEL_ENV"] == str(layout.env(ENV))


def test_stopping_is_done_once(slot: Callable[..., Any], systemd: Any) -> None:
    slot()
    assert slot(state="stopped", check_mode=True)["changed"]
    assert systemd.is_active(BLUE)
    result = slot(state="stopped")
    assert result["changed"]
    assert (result["after"]["unit"], result["after"]["ready"]) == ("inactive", False)
    assert systemd.state(BLUE)["UnitFileState"] == "disabled"
    assert not slot(state="stopped")["changed"]


def test_settings_are_readable_by_nobody_else(
    slot: Callable[..., Any], run_module: Callable[..., Any], release: str, layout: Layout
) -> None:
    slot(settings={"TOKEN": "secret"})
    for path in (layout.record("tumour", "blue"), layout.settings("tumour", "blue")):
        assert path.stat().st_mode & 0o007 == 0
    assert layout.record("tumour", "blue").stat().st_mode & 0o077 == 0
    found = run_module(model_info, {"python": "python3", "services": ["tumour"]})["model_host"]
    assert found["services"]["tumour"]["slots"]["blue"]["started"] == {"release": release, "env": ENV}


KEYED = {"API_KEYS": "/etc/api-keys"}


def test_a_slot_that_wants_keys_knows_that_of_the_gates_by_its_hash(slot: Callable[..., Any], layout: Layout) -> None:
    path = layout.gate_key("tumour")
    assert "GATE_KEY_SHA256" not in slot()["after"]["settings"]
    planned = slot(check_mode=True, settings=KEYED)
    assert (planned["changed"], path.exists()) == (True, False)
    result = slot(settings=KEYED)
    key = path.read_text().strip()
    assert len(key) == 64
    assert path.stat().st_mode & 0o077 == 0
    assert result["after"]["settings"]["GATE_KEY_SHA256"] == hashlib.sha256(key.encode()).hexdigest()
    written = [layout.record("tumour", "blue").read_text(), layout.settings("tumour", "blue").read_text()]
    assert not [text for text in [json.dumps(result), *written] if key in text]
    assert not slot(settings=KEYED)["changed"]


def test_a_key_that_was_removed_is_made_anew_and_the_old_one_is_of_no_use(
    slot: Callable[..., Any], layout: Layout
) -> None:
    before = slot(settings=KEYED)["after"]["settings"]
    layout.gate_key("tumour").unlink()
    assert slot(check_mode=True, settings=KEYED)["changed"]
    assert not layout.gate_key("tumour").exists()
    # As when a slot is put back on what it ran before.
    after = slot(settings=before)["after"]["settings"]
    assert after == {**before, "GATE_KEY_SHA256": after["GATE_KEY_SHA256"]}
    assert after["GATE_KEY_SHA256"] != before["GATE_KEY_SHA256"]


def test_the_record_is_json_of_what_was_started(slot: Callable[..., Any], release: str, layout: Layout) -> None:
    slot()
    record = json.loads(layout.record("tumour", "blue").read_text())
    assert (record["release"], record["env"], record["limits"]) == (release, ENV, {"MemoryMax": "1G"})


@pytest.fixture
def slots(
    run_module: Callable[..., Any], place_as: Callable[[str], str], model_server: Any
) -> Callable[..., dict[str, Any]]:
    """Run model_slot for the blue slots of three services."""
    releases = {service: place_as(service) for service in ("tumour", "iris", "wine")}

    def run(check_mode: bool = False, each: Mapping[str, Any] = MappingProxyType({}), **all_: Any) -> dict[str, Any]:
        settings = {"BIND": model_server.address, "API_KEYS": "/etc/api-keys"}
        several = [
            {
                "service": service,
                "slot": "blue",
                "release": release,
                "settings": settings,
                "ready_timeout": 1,
                **all_,
                **each.get(service, {}),
            }
            for service, release in releases.items()
        ]
        result: dict[str, Any] = run_module(model_slot, {"several": several}, check_mode)
        return result

    return run


def units(*services: str) -> list[str]:
    return [f"model-server@{service}-blue.service" for service in services]


def test_several_slots_start_and_stop_in_one_run(slots: Callable[..., Any], systemd: Any, layout: Layout) -> None:
    planned = slots(check_mode=True)
    assert ([each["changed"] for each in planned["several"]], systemd.calls("start")) == ([True, True, True], [])
    started = slots()
    assert [(each["service"], each["slot"]) for each in started["several"]] == [
        ("tumour", "blue"),
        ("iris", "blue"),
        ("wine", "blue"),
    ]
    assert {each["after"]["started"]["release"] for each in started["several"]} == {
        planned["several"][0]["after"]["release"]
    }
    assert [diff["after_header"] for diff in started["diff"]] == ["tumour blue", "iris blue", "wine blue"]
    assert all(map(systemd.is_active, units("tumour", "iris", "wine")))
    # Each service has a key of its own.
    assert len({layout.gate_key(service).read_text() for service in ("tumour", "iris", "wine")}) == 3
    again = slots()
    assert (again["changed"], len(systemd.calls("start"))) == (False, 3)
    stopped = slots(state="stopped", each={"wine": {"state": "started"}})
    assert [each["changed"] for each in stopped["several"]] == [True, True, False]
    assert [systemd.is_active(unit) for unit in units("tumour", "iris", "wine")] == [False, False, True]


def test_slots_start_at_once(slots: Callable[..., Any], systemd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_several.os, "cpu_count", lambda: 3)
    all_of_them = threading.Barrier(3, timeout=10)
    start = model_slot._systemd.start

    def start_together(name: str, seconds: float) -> None:
        all_of_them.wait()
        start(name, seconds)

    monkeypatch.setattr(model_slot._systemd, "start", start_together)
    assert slots()["changed"]
    assert sorted(systemd.calls("start")) == sorted(f"start {unit}" for unit in units("tumour", "iris", "wine"))


def test_all_are_attempted_and_the_first_that_failed_is_told(slots: Callable[..., Any], systemd: Any) -> None:
    absent = {"release": "9-0a1b2c3d4e5f"}
    result = slots(each={"iris": {"settings": {"BIND": "127.0.0.1:9"}}, "wine": absent})
    assert result["failed"]
    assert (result["service"], result["slot"], result["log"][1]) == ("iris", "blue", "model.pkl cannot be loaded")
    assert "expected it to be ready within 1 s, found 127.0.0.1:9: " in result["msg"]
    assert [each.get("failed", False) for each in result["several"]] == [False, True, True]
    assert result["several"][1]["msg"] == result["msg"]
    assert "expected the release to be on this host, found none" in result["several"][2]["msg"]
    assert "log" not in result["several"][2]
    assert [systemd.is_active(unit) for unit in units("tumour", "iris", "wine")] == [True, False, False]


@pytest.mark.usefixtures("release")
def test_another_run_on_the_host_is_waited_for(slot: Callable[..., Any], layout: Layout) -> None:
    """One whose controller died goes on, and would stop what this one starts."""
    held = threading.Event()
    freed: list[float] = []

    def hold() -> None:
        with only_one(layout.services / "tumour", "starting or stopping a slot"):
            held.set()
            time.sleep(0.5)
            freed.append(time.monotonic())

    other = threading.Thread(target=hold)
    other.start()
    held.wait(5)
    assert slot()["changed"]
    assert freed
    other.join()
