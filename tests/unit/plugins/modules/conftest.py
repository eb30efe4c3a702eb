# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model host in a temporary folder, with a fake systemctl, and modules run through their ``main``."""

from __future__ import annotations

import json
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import pack
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import Layout
from ansible_collections.modelfleet.onprem.plugins.modules import model_release, model_slot

ENV = "0123456789abcdef"
OTHER_ENV = "fedcba9876543210"
RUNNING = {
    "ActiveState": "active",
    "SubState": "running",
    "Result": "success",
    "ExecMainStatus": "0",
    "NRestarts": "0",
    "InvocationID": "77",
}

FAKE_SYSTEMCTL = """
import json, os, sys
from pathlib import Path
verb, units = sys.argv[1], [word for word in sys.argv[2:] if not word.startswith("-")]
folder = Path(__file__).parent
with open(folder / "calls", "a") as calls:
    calls.write(" ".join([verb, *units]) + "\\n")
def state(unit):
    path = folder / unit
    return json.loads(path.read_text()) if path.exists() else {
        "ActiveState": "inactive", "SubState": "dead", "Result": "success", "ExecMainStatus": "0", "NRestarts": "0",
        "InvocationID": "", "UnitFileState": "disabled"}
def change(unit, **changes):
    (folder / unit).write_text(json.dumps({**state(unit), **changes}))
if verb == "list-units":
    active = [path.name for path in folder.glob(units[0]) if state(path.name)["ActiveState"] == "active"]
    print("\\n".join(f"{name} loaded active running Something" for name in active))
    sys.exit()
for unit in units:
    if verb == "show":
        print("\\n".join(f"{name}={value}" for name, value in {"Id": unit, **state(unit)}.items()) + "\\n")
    elif verb == "start":
        crash = (folder / "crash").exists()
        if crash:
            change(unit, ActiveState="failed", Result="exit-code", ExecMainStatus="1")
            sys.exit("Job for " + unit + " failed.")
        change(unit, ActiveState="active", SubState="running", Result="success", InvocationID=os.urandom(4).hex())
    elif verb == "stop":
        change(unit, ActiveState="inactive", SubState="dead")
    elif verb == "is-enabled":
        sys.exit(state(unit)["UnitFileState"] != "enabled")
    elif verb in ("enable", "disable"):
        change(unit, UnitFileState=verb + "d")
"""
FAKE_SYSTEMD_RUN = """
import json, sys
from pathlib import Path
folder = Path(__file__).parent
with open(folder / "runs", "a") as runs:
    runs.write(json.dumps(sys.argv[1:]) + "\\n")
failure = folder / "failure"
if failure.exists():
    unit = next(word.partition("=")[2] for word in sys.argv if word.startswith("--unit="))
    (folder / unit).write_text(json.dumps({"SubState": "failed", "NRestarts": "0", "InvocationID": "",
        "UnitFileState": "transient", **json.loads(failure.read_text())}))
    sys.exit(1)
sys.stdout.write((folder / "document").read_text())
"""
FAKE_JOURNALCTL = """#!/bin/sh
case "$*" in *--unit*)
  echo '{"MESSAGE": "Starting model-server", "_PID": "1"}'
  echo '{"MESSAGE": "model.pkl cannot be loaded", "_PID": "77"}'
  echo '{"MESSAGE": "Main process exited", "_PID": "1"}'
esac
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "host")


@pytest.fixture
def run_module(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, Any]]:
    """Run a module's ``main`` on the host in ``layout``, and return what Ansible gets from it."""

    def run(module: ModuleType, params: Mapping[str, Any], check_mode: bool = False) -> dict[str, Any]:
        if hasattr(module, "Layout"):
            monkeypatch.setattr(module, "Layout", lambda: layout)
        with patch_module_args({**params, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return run


@pytest.fixture
def make_env(layout: Layout) -> Callable[..., str]:
    """Put a complete environment on the host."""

    def make(env: str = ENV) -> str:
        layout.env(env).mkdir(parents=True, exist_ok=True)
        (layout.env(env) / "env.json").write_text("{}")
        return env

    return make


class Systemd:
    """The fake systemctl: which units it was told to start and stop, and whether starts crash."""

    def __init__(self, folder: Path) -> None:
        self.folder = self._folder = folder

    def crash_at_start(self) -> None:
        (self._folder / "crash").touch()

    def run(self, unit: str) -> None:
        """Have a unit run that nothing here started."""
        state = {"ActiveState": "active", "SubState": "running", "Result": "success", "ExecMainStatus": "0"}
        (self._folder / unit).write_text(json.dumps({**state, "NRestarts": "0", "InvocationID": ""}))

    def is_active(self, unit: str) -> bool:
        return bool(self.state(unit)) and self.state(unit)["ActiveState"] == "active"

    def state(self, unit: str) -> dict[str, str]:
        path = self._folder / unit
        found: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def calls(self, *verbs: str) -> list[str]:
        """The calls so far of ``verbs``, each with its units."""
        path = self._folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.split()[0] in verbs]


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    folder = tmp_path / "systemd"
    folder.mkdir()
    python = f"#!{sys.executable} -IS"
    programs = {
        "systemctl": python + FAKE_SYSTEMCTL,
        "systemd-run": python + FAKE_SYSTEMD_RUN,
        "journalctl": FAKE_JOURNALCTL,
    }
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return Systemd(folder)


class ModelServer:
    """An HTTP server whose answers a test sets: a status and a JSON document for each path.

    The document may be a function of the request's, which gives one, or a status with it.
    """

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, Any]] = []
        self.keys: set[str | None] = set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # An answer leaves in one piece, as from a real server; in two, the second waits for the client's receipt.
            wbufsize = -1

            def do_GET(self) -> None:
                self.answer(None)

            def do_POST(self) -> None:
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, body: Any) -> None:
                server.asked.append((self.path, body))
                server.keys.add(self.headers["Authorization"])
                status, document = server.answers.get(self.path, (404, {}))
                found = document(body) if callable(document) else document
                status, found = found if isinstance(found, tuple) else (status, found)
                content = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: Any) -> None:
                """Nothing: a test's output is the module's."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def be_ready(self, version: str = "3", digest: str = "0a1b2c3d4e5f" + 52 * "0", model: str = "tumour") -> None:
        document = {"ready": True, "model": model, "version": version, "digest": digest}
        self.answers["/v2/health/ready"] = (200, document)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def model_server() -> Iterator[ModelServer]:
    server = ModelServer()
    yield server
    server.close()


@pytest.fixture
def release(
    run_module: Callable[..., Any], make_bundle: Callable[..., Path], make_env: Callable[..., str], model_server: Any
) -> str:
    """A release on the host, and a server that answers as if it had loaded it."""
    bundle = make_bundle("3")
    archive = bundle.with_suffix(".tar")
    name = pack(bundle, archive).release
    make_env(OTHER_ENV)
    params = {"service": "tumour", "release": name, "src": str(archive), "env": make_env()}
    model_server.be_ready(digest=run_module(model_release, params)["digest"])
    return name


@pytest.fixture
def place_as(run_module: Callable[..., Any], release: str, tmp_path: Path) -> Callable[[str], str]:
    """Place the same bundle for another service, too."""

    def place(service: str) -> str:
        archive = str(tmp_path / "bundles/3.tar")
        result = run_module(model_release, {"service": service, "release": release, "src": archive, "env": ENV})
        name: str = result["release"]
        return name

    return place


@pytest.fixture
def slot(run_module: Callable[..., Any], release: str, model_server: Any) -> Callable[..., Any]:
    """Run model_slot for the blue slot."""

    def run(check_mode: bool = False, settings: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        params = {
            "service": "tumour",
            "slot": "blue",
            "release": release,
            "settings": {"BIND": model_server.address, "WORKERS": 2, **(settings or {})},
            "limits": {"MemoryMax": "1G"},
            "ready_timeout": 1,
            **options,
        }
        result: dict[str, Any] = run_module(model_slot, params, check_mode)
        return result

    return run
