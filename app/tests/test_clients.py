# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Others' programs against a real server. Each is a script that names what it needs, and uv makes it an environment."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from model_server.bundle.lock import pins_of

CLIENTS = Path(__file__).parent / "clients"
UV = str(Path(sys.executable).with_name("uv"))
SCHEMATHESIS = "schemathesis==4.32.5"
MLFLOW = "mlflow==3.17.2"

HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend services
    bind 127.0.0.1:{port}
    http-request set-path %[path,regsub(^/[^/]+/?,/)]
    default_backend servers
backend servers
    server one 127.0.0.1:{server}
"""


def run(*command: str, folder: Path | None = None) -> None:
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=580, check=False)
    assert found.returncode == 0, f"{found.stdout[-6000:]}\n{found.stderr[-6000:]}"


def run_client(script: str, *arguments: str, packages: Iterable[str] = ()) -> None:
    """Run a script in its own environment, with these packages in the versions that the tests have."""
    pins = [f"--with={name}=={version(name)}" for name in packages]
    uv = (UV, "run", "--quiet", "--no-project", "--python", sys.executable)
    run(*uv, *pins, "--script", str(CLIENTS / script), *arguments)


@pytest.fixture
def mixed_url(start: Callable[..., Any], bundle_of: Callable[..., Path], mixed_classifier: Any, mixed: Any) -> str:
    server = start(bundle_of(mixed_classifier, mixed, name="mixed", version="3"), MODEL_SERVICE="mixed", WORKERS="1")
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture
def numbers_url(start: Callable[..., Any], bundle: Path) -> str:
    return f"http://127.0.0.1:{start(bundle, MODEL_SERVICE='numbers', WORKERS='1').port}"


def expected(model: Any, frame: pd.DataFrame, datatypes: list[str]) -> dict[str, Any]:
    """Rows as JSON has them, with what the model itself says of them."""
    plain = frame.astype(object)
    return {
        "columns": list(frame.columns),
        "datatypes": datatypes,
        "rows": plain.where(plain.notna(), None).to_numpy().tolist(),
        "predictions": model.predict(frame).tolist(),
        "probabilities": model.predict_proba(frame).tolist(),
    }


def test_triton_s_and_kserve_s_clients_of_columns_of_every_kind(
    mixed_url: str, mixed_classifier: Any, mixed: pd.DataFrame, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.json"
    datatypes = ["FP64", "FP64", "INT64", "BOOL", "BYTES", "BYTES", "FP64"]
    rows.write_text(json.dumps(expected(mixed_classifier, mixed.head(12), datatypes)))
    run_client("open_inference.py", mixed_url, "mixed", str(rows))


def test_triton_s_and_kserve_s_clients_of_numbers_and_labels(
    numbers_url: str, classifier: Any, numbers: pd.DataFrame, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.json"
    # Numbers that single precision holds, too.
    exact = numbers.head(12).astype("float32").astype("float64")
    rows.write_text(json.dumps(expected(classifier, exact, ["FP64", "FP64"])))
    run_client("open_inference.py", numbers_url, "numbers", str(rows))


def test_mlflow_s_client_gets_what_mlflow_s_server_answers(mixed_url: str, mixed: pd.DataFrame, tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    mixed.to_csv(table, index=False)
    pickled = next(tmp_path.glob("model-*"))
    packages = ("scikit-learn", "pandas", "numpy")
    run_client("mlflow_client.py", mixed_url, str(pickled), str(table), packages=packages)


@pytest.fixture
def tracking_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """MLflow's own tracking server, with a registry, in an environment of its own."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    # Its runner of jobs, which nothing here asks for, takes more of a processor than all the rest of it.
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    folder = tmp_path / "tracking"
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uv = (UV, "tool", "run", "--quiet", "--python", sys.executable, "--from", MLFLOW, "mlflow", "server")
    stores = ("--backend-store-uri", f"sqlite:///{folder}/store", "--artifacts-destination", str(folder / "artifacts"))
    command = [*uv, *stores, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while not answers(port):
            assert server.poll() is None, (folder / "log").read_text()[-6000:]
            assert time.monotonic() < deadline, (folder / "log").read_text()[-6000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def test_bundles_of_models_in_mlflow_answer_as_mlflow_does(
    tracking_url: str, start: Callable[..., Any], tmp_path: Path
) -> None:
    needed = {"cyclonedx-python-lib", "msgspec", "packaging", "pandas", "pyarrow", "scikit-learn", "skops"}
    run_client("from_mlflow.py", tracking_url, str(tmp_path), packages=pins_of(needed, "the tests"))
    server = start(tmp_path / "champion", MODEL_SERVICE="tumour", WORKERS="1")
    expected = json.loads((tmp_path / "expected.json").read_text())
    with server.connection() as connection:
        body = json.dumps({"instances": expected["instances"]})
        connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert json.loads(answer.read())["predictions"] == expected["predictions"]
        assert answer.headers["X-Model-Version"] == "1"


@pytest.fixture
def behind_a_prefix(mixed_url: str, tmp_path: Path) -> Iterator[str]:
    """The server as the fleet's balancer has it: below the service's name, which is taken off."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = tmp_path / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, server=mixed_url.rpartition(":")[2]))
    program = shutil.which("haproxy")
    assert program
    balancer = subprocess.Popen([program, "-db", "-q", "-f", str(config)])
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/mixed"
    balancer.terminate()
    balancer.wait(10)


def test_a_person_uses_the_page_in_a_browser_behind_a_balancer(behind_a_prefix: str, tmp_path: Path) -> None:
    run_client("browser.py", behind_a_prefix, "height", str(tmp_path / "page.png"))
    width, height, lines = picture(tmp_path / "page.png")
    assert width == 1240
    assert height > 800
    # Of one colour, all lines but the first would be alike.
    assert len(set(lines)) > height / 4


def picture(path: Path) -> tuple[int, int, list[bytes]]:
    """Width, height, and lines, as they are filtered, of a PNG file."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    place, width, height, packed = 8, 0, 0, b""
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        content = data[place + 8 : place + 8 + length]
        if kind == b"IHDR":
            width, height = struct.unpack_from(">II", content)
        packed += content if kind == b"IDAT" else b""
        place += 12 + length
    pixels = zlib.decompress(packed)
    size = len(pixels) // height
    return width, height, [pixels[first : first + size] for first in range(0, len(pixels), size)]


@pytest.fixture
def encoded_url(start: Callable[..., Any], bundle_of: Callable[..., Path], encoded_classifier: Any, mixed: Any) -> str:
    bundle = bundle_of(encoded_classifier, mixed[["width", "city"]])
    return f"http://127.0.0.1:{start(bundle, MODEL_SERVICE='encoded', WORKERS='1').port}"


@pytest.fixture
def regression_url(start: Callable[..., Any], bundle_of: Callable[..., Path], regression: Any, numbers: Any) -> str:
    bundle = bundle_of(regression, numbers)
    return f"http://127.0.0.1:{start(bundle, MODEL_SERVICE='regression', WORKERS='1').port}"


@pytest.mark.parametrize("server", ["mixed_url", "numbers_url", "encoded_url", "regression_url"])
def test_schemathesis_finds_no_answer_that_openapi_does_not_promise(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = request.getfixturevalue(server)
    command = (UV, "tool", "run", "--quiet", "--python", sys.executable, "--from", SCHEMATHESIS, "schemathesis", "run")
    limits = ("--max-examples=40", "--phases=examples,coverage,fuzzing", "--seed=1", "--request-timeout=10")
    options = (*limits, "--no-color", f"{url}/openapi.json")
    # No schema can say for which rows what a model computes is beyond all numbers, which scikit-learn refuses.
    refuses = ["--exclude-checks=positive_data_acceptance"] if server != "mixed_url" else []
    run(*command, "--include-tag=predict", *refuses, *options, folder=tmp_path)
    # Nor that a tensor has as many values as its shape says, so some that it allows are refused.
    run(*command, "--exclude-tag=predict", "--exclude-checks=positive_data_acceptance", *options, folder=tmp_path)
