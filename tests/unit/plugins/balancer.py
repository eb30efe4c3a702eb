"""A real HAProxy with the configuration that the role writes, and small model servers behind it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.modelfleet.onprem.plugins.module_utils._haproxy import Process, find_leaving, read_servers

ROLE = Path(__file__).parents[3] / "roles/load_balancer"


def release(version: int) -> str:
    return f"{version}-{version:012x}"


class ModelServer:
    """A server that says its release.

    ``/slow`` sets ``slow`` when it is asked, and answers once ``go`` is set. ``/crash`` ends without an answer.
    ``/predict`` answers with ``status``.
    """

    def __init__(self, service: str, version: int) -> None:
        self.service = service
        self.version = version
        self.ready = True
        self.status = 200
        self.asked = 0
        self.predicts = version - 1
        self.slow = threading.Event()
        self.go = threading.Event()
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path == "/slow":
                    model.slow.set()
                    model.go.wait(20)
                if self.path == "/crash":
                    self.close_connection = True
                    return
                if self.path == "/metrics":
                    body = model.metrics.encode()
                    self.wfile.write(f"HTTP/1.1 200 Said\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
                    return
                model.asked += self.path == "/predict"
                ready = model.ready or self.path != "/v2/health/ready"
                digest = f"{model.version:012x}".ljust(64, "0")
                document = {"ready": ready, "model": model.service, "version": str(model.version), "digest": digest}
                body = json.dumps({**document, "path": self.path}).encode()
                # In one piece: HAProxy's health check closes the connection once it has read the status.
                status = model.status if self.path == "/predict" else 200
                head = f"HTTP/1.1 {status if ready else 503} Said\r\nContent-Length: {len(body)}\r\n\r\n"
                self.wfile.write(head.encode() + body)

            def log_message(self, *_words: object) -> None:
                """Nothing, so that the tests' output stays readable."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def metrics(self) -> str:
        """What a model server that always predicts the same has counted."""
        return "".join(
            f"{line} {self.asked}.0\n"
            for line in (
                'model_server_request_seconds_bucket{le="0.001",route="/predict"}',
                'model_server_request_seconds_bucket{le="+Inf",route="/predict"}',
                f'model_server_predictions_total{{class="{self.predicts}",output="0"}}',
                "model_server_rows_total",
            )
        )

    def stop(self) -> None:
        self.go.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def run_module(module: ModuleType, capsys: pytest.CaptureFixture[str], check: bool = False, **params: Any) -> Any:
    """What the module returns."""
    with (
        patch_module_args({**params, "_ansible_check_mode": check, "_ansible_diff": True}),
        pytest.raises(SystemExit),
    ):
        module.main()
    return json.loads(capsys.readouterr().out)


class Machine:
    """A balancer in ``folder``: HAProxy as master and worker, its sockets, and the files it reads."""

    def __init__(self, folder: Path, pools: Sequence[dict[str, Any]], **settings: str) -> None:
        self.folder = folder
        self.state_dir = folder / "lb"
        self.state_dir.mkdir()
        self.port = free_port()
        self.config = folder / "haproxy.cfg"
        self.params = {
            "socket": str(folder / "admin.sock"),
            "master_socket": str(folder / "master.sock"),
            "state_dir": str(self.state_dir),
            "rollouts_dir": str(folder / "rollouts"),
        }
        services = list(dict.fromkeys(pool["service"] for pool in pools))
        (self.state_dir / "active.map").write_text("".join(f"{name} {name}_blue\n" for name in services))
        (self.state_dir / "canary.map").touch()
        (self.state_dir / "releases.json").write_text("{}\n")
        (self.state_dir / "servers.state").touch()
        (self.state_dir / "maintenance.map").touch()
        self.configure(pools, **settings)
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, pools: Sequence[dict[str, Any]], **settings: str) -> None:
        """Write the role's own template, with this folder's paths and without what only root may have.

        ``settings`` are variables of the role, without its name in front.
        """
        environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False)
        environment.filters["comment"] = lambda text: f"# {text}"
        values = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
        values |= {
            "ansible_managed": "test",
            "load_balancer_pools": pools,
            "load_balancer_bind": f"127.0.0.1:{self.port}",
            "load_balancer_metrics_bind": f"127.0.0.1:{free_port()}",
            "load_balancer_max_connections": 200,
            **{f"load_balancer_{name}": value for name, value in settings.items()},
        }
        text = environment.from_string((ROLE / "templates/haproxy.cfg.j2").read_text()).render(values)
        text = text.replace("/var/lib/modelfleet/lb", str(self.state_dir)).replace("/run/haproxy", str(self.folder))
        unwanted = ("chroot ", "user ", "group ", "log /dev/log")
        lines = [line for line in text.splitlines() if not line.strip().startswith(unwanted)]
        self.config.write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        haproxy = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if not haproxy:
            pytest.fail("these tests run HAProxy itself, which is not installed: make setup, or apt install haproxy")
        command = [haproxy, "-W", "-f", str(self.config), "-S", self.params["master_socket"]]
        with open(self.folder / "haproxy.log", "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self.wait_for_process("")
        # The master is not ready for signals before it answers.
        with Process(self.params["socket"]) as process:
            find_leaving(process, self.params["master_socket"])

    def reload(self) -> None:
        assert self._process
        before = self.process_id()
        self._process.send_signal(signal.SIGUSR2)
        self.wait_for_process(before)

    def wait_for_process(self, before: str) -> None:
        deadline = time.monotonic() + 10
        while self.process_id() in ("", before):
            assert time.monotonic() < deadline, (self.folder / "haproxy.log").read_text()
            time.sleep(0.02)

    def process_id(self) -> str:
        try:
            info = self.ask("show info")
        except ValueError:
            return ""
        return next(line.split()[1] for line in info.splitlines() if line.startswith("Pid:"))

    def ask(self, command: str) -> str:
        with Process(self.params["socket"]) as process:
            return process.ask(command)

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(10)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)

    def get(self, path: str, connection: http.client.HTTPConnection | None = None) -> tuple[int, Any]:
        """The status and the body of an answer; over ``connection`` if it is to be kept alive."""
        used = connection or self.connect()
        used.request("GET", path)
        response = used.getresponse()
        body = json.loads(response.read())
        if not connection:
            used.close()
        return response.status, body


def wait_until_up(machine: Machine) -> None:
    """Wait until every server is in rotation."""
    deadline = time.monotonic() + 10
    while True:
        with Process(machine.params["socket"]) as process:
            if all(server.in_rotation for server in read_servers(process)):
                return
        assert time.monotonic() < deadline
        time.sleep(0.02)


def pools_of(services: dict[str, dict[str, list[ModelServer]]]) -> list[dict[str, Any]]:
    """The pools as the role takes them."""
    return [
        {
            "name": f"{service}_{slot}",
            "service": service,
            "slot": slot,
            "max_in_flight": 4,
            "servers": [
                {"name": f"model{number}", "address": "127.0.0.1", "port": server.port}
                for number, server in enumerate(servers, 1)
            ],
        }
        for service, slots in services.items()
        for slot, servers in slots.items()
    ]
