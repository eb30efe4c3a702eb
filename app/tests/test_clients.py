# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Others' programs against a real server. Each is a script that names what it needs, and uv makes it an environment."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

CLIENTS = Path(__file__).parent / "clients"
UV = str(Path(sys.executable).with_name("uv"))
SCHEMATHESIS = "schemathesis==4.32.5"

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
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400, check=False)
    assert found.returncode == 0, f"{found.stdout[-6000:]}\n{found.stderr[-6000:]}"


def run_client(script: str, *arguments: str, packages: tuple[str, ...] = ()) -> None:
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
    rows.write_text(json.dumps(expected(classifier, numbers.head(12), ["FP64", "FP64"])))
    run_client("open_inference.py", numbers_url, "numbers", str(rows))


def test_mlflow_s_client_gets_what_mlflow_s_server_answers(mixed_url: str, mixed: pd.DataFrame, tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    mixed.to_csv(table, index=False)
    pickled = next(tmp_path.glob("model-*"))
    packages = ("scikit-learn", "pandas", "numpy")
    run_client("mlflow_client.py", mixed_url, str(pickled), str(table), packages=packages)


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


def test_a_person_uses_the_page_in_a_browser_behind_a_balancer(behind_a_prefix: str) -> None:
    run_client("browser.py", behind_a_prefix, "height")


@pytest.mark.parametrize("server", ["mixed_url", "numbers_url"])
def test_schemathesis_finds_no_answer_that_openapi_does_not_promise(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = request.getfixturevalue(server)
    command = (UV, "tool", "run", "--quiet", "--python", sys.executable, "--from", SCHEMATHESIS, "schemathesis", "run")
    limits = ("--max-examples=40", "--phases=examples,coverage,fuzzing", "--seed=1", "--request-timeout=10")
    options = (*limits, "--no-color", f"{url}/openapi.json")
    run(*command, "--include-tag=predict", *options, folder=tmp_path)
    # A schema cannot say that a tensor has as many values as its shape says, so some that it allows are refused.
    run(*command, "--exclude-tag=predict", "--exclude-checks=positive_data_acceptance", *options, folder=tmp_path)
