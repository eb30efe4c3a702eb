"""Each server in an environment of its own, running on the server's core."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.modelfleet.onprem.plugins.plugin_utils.wheelhouse import cache_folder, find_server, merge_locks

from benchmarks.serving import models, peers
from benchmarks.serving.client import HOST, SERVER_CORE, Target
from testbed.command import ROOT, StepError, last_line, run, step

OURS = "model_server"
SERVICE = "bench"
START_SECONDS = 120.0
STOP_SECONDS = 15.0
PINNED = ("taskset", "--cpu-list", str(SERVER_CORE))
_ENVIRONMENTS = ROOT / ".cache" / "peers"


@dataclass(frozen=True)
class Served:
    """Our server's side of a model: the bundle, the form that serves it, and the Python of the bundle's environment."""

    bundle: Path
    form: str
    python: Path


def serve_ours(name: str) -> Served:
    """Bundle the model as a user does, and make the environment that its lock and the server's wheel ask for."""
    model, trained = models.MODELS[name], models.train(name)
    server = find_server(ROOT / "app", cache_folder())
    digest = hashlib.sha256(trained.pickled.read_bytes()).hexdigest()
    bundle = models.CACHE / "bundles" / f"{name}-{digest[:12]}-{server.sha256[:12]}"
    if not bundle.exists():
        words = ["--name", name.replace("_", "-"), "--version", "1", "--target", models.TARGET]
        where = ["--data", str(trained.data), "--out", str(bundle)]
        with step(f"Bundled {model.title}"):
            run([_beside_python("model-bundle"), "build", str(trained.pickled), *words, *where], timeout=1800)
    manifest = json.loads((bundle / "manifest.json").read_text())
    form = manifest.get("scorer", {}).get("form", "native")
    if model.form and form != model.form:
        raise StepError(f"{model.title}: expected it to be served as {model.form}, found {form}")
    lock = merge_locks((bundle / "requirements.lock").read_text(), server.lock)
    python = _environment(f"{OURS}-{server.sha256[:12]}", lock, str(server.wheel))
    return Served(bundle, form, python)


def constant_python() -> Path:
    """The Python of an environment with our server's gunicorn and its own parser in C, which is compiled here."""
    server = find_server(ROOT / "app", cache_folder())
    return _environment("constant", merge_locks("gunicorn-h1c==0.6.10", server.lock))


def peer_python(name: str) -> Path:
    """The Python of the peer's environment, made when missing or when what is pinned has changed."""
    return _environment(name, (peers.FOLDER / name / "requirements.txt").read_text())


def _environment(name: str, lock: str, *more: str) -> Path:
    folder = _ENVIRONMENTS / f"{name}-{hashlib.sha256(lock.encode()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if not ready.exists():
        with step(f"Made the environment of {name}"), tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(lock)
            file.flush()
            uv = _beside_python("uv")
            run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
            what = ["--requirement", file.name, *more]
            # Compiled, so that no first start is slower than the next.
            run([uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *what], timeout=1800)
            ready.touch()
    return python


def _beside_python(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


class Server:
    """A process that listens on ``port``, with all that it starts, in a session of its own."""

    def __init__(self, name: str, command: Sequence[str], port: int, environment: Mapping[str, str]) -> None:
        self.name = name
        self.port = port
        # A file, not a pipe, for nobody reads what it says as long as it runs.
        number, path = tempfile.mkstemp(prefix=f"serving-{name}-", suffix=".log")
        self._log = Path(path)
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=number,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        os.close(number)

    def wait_until(self, answers: Callable[[], Any], pause: float = 0.1) -> None:
        """Ask until there is an answer. Raises StepError when the process has ended, or takes START_SECONDS."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self.process.poll() is not None:
                raise StepError(f"{self.name}: ended with {self.process.returncode}: {self._last_line()}")
            try:
                answers()
                return
            except (OSError, http.client.HTTPException, StepError) as error:
                if time.monotonic() > deadline:
                    raise StepError(f"{self.name}: no answer after {START_SECONDS:.0f} s: {error}") from error
            time.sleep(pause)

    def close(self) -> None:
        """End the process and all that it started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            deadline = time.monotonic() + STOP_SECONDS
            while (self.process.poll() is None or self.members()) and time.monotonic() < deadline:
                time.sleep(0.02)
        self._log.unlink()

    def members(self) -> list[int]:
        """The numbers of the processes in its session that still run."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    # What follows the name, which is in parentheses.
                    state, _parent, _group, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                    if int(session) == self.process.pid and state != "Z":
                        found.append(int(entry.name))
        return found

    def pss(self) -> int:
        """Bytes of memory of all its processes; what some of them share is counted once."""
        total = 0
        for number in self.members():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{number}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
        return total

    def waited(self) -> float:
        """For how many seconds its processes have had work and waited for a processor that something else had."""
        waited = 0
        for number in self.members():
            with contextlib.suppress(OSError):
                waited += int(Path(f"/proc/{number}/schedstat").read_text().split()[1])
        return waited / 1e9

    def _last_line(self) -> str:
        return last_line(self._log.read_text(errors="replace"))


def stolen() -> float:
    """For how many seconds a hypervisor has kept this machine's processors from it; steps of a hundredth, as a rule."""
    total = Path("/proc/stat").read_text().splitlines()[0]
    return int(total.split()[8]) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def ours(served: Served, *, workers: int = 1, pinned: bool = True, **settings: str) -> Iterator[Server]:
    """Our server, once it is ready: with its defaults, but for ``settings``."""
    port = free_port()
    environment = {**our_environment(served, port, workers), **settings}
    server = Server(OURS, our_command(served, pinned), port, environment)
    with contextlib.closing(server):
        server.wait_until(lambda: ready(port))
        yield server


def our_command(served: Served, pinned: bool) -> list[str]:
    return [*(PINNED if pinned else ()), str(served.python), "-m", "model_server"]


def our_environment(served: Served, port: int, workers: int) -> dict[str, str]:
    return {
        "MODEL_BUNDLE": str(served.bundle),
        "MODEL_SERVICE": SERVICE,
        "BIND": f"{HOST}:{port}",
        "WORKERS": str(workers),
    }


def ready(port: int) -> None:
    """Raises OSError, HTTPException or StepError unless our server on ``port`` says that it is ready."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", "/v2/health/ready")
        if (status := connection.getresponse().status) != 200:
            raise StepError(f"/v2/health/ready: expected 200, found {status}")


@contextlib.contextmanager
def script(name: str, python: Path, path: Path, *arguments: str) -> Iterator[Server]:
    """A program that is given its arguments and a port, on the server's core; it may not answer yet."""
    port = free_port()
    server = Server(name, [*PINNED, str(python), str(path), *arguments, str(port)], port, {})
    with contextlib.closing(server):
        yield server


def free_port() -> int:
    """A port that nobody listens on, and neither on the two after it, which some peers take as well."""
    while True:
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(contextlib.closing(socket.socket()))
            first.bind((HOST, 0))
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                for number in (port + 1, port + 2):
                    stack.enter_context(contextlib.closing(socket.socket())).bind((HOST, number))
                return port


def check(target: Target, labels: Callable[[Any], list[Any]], expected: list[Any], name: str) -> None:
    """Raise StepError unless the server's answer has the labels that scikit-learn gives."""
    found = labels(json.loads(target.ask()))
    if found != expected:
        row = next((row for row, pair in enumerate(zip(expected, found, strict=False)) if pair[0] != pair[1]), -1)
        raise StepError(f"{name}: expected scikit-learn's {len(expected)} labels, found others from row {row}")
