# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gates of a service with API keys, against model servers that want them: the old release in blue, the new in green."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import read_manifest
from ansible_collections.modelfleet.onprem.plugins.module_utils._http import Server, read_ready
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import SLOTS, Layout, unit
from ansible_collections.modelfleet.onprem.plugins.module_utils._slot import (
    Start,
    listening_address,
    render_settings,
    with_gate_key,
)
from ansible_collections.modelfleet.onprem.plugins.modules import model_probe
from model_server.bundle.build import build
from sklearn.linear_model import LogisticRegression

from tests.unit.plugins.modules.conftest import RUNNING

GATES = {gate: {"mode": "enforce"} for gate in ("ready", "version", "golden", "replay", "latency")}
GATES["replay"] = {"mode": "enforce", "min_rows": 10, "max_flip_rate": 0.5, "inconclusive": "fail"}
GATES["latency"] = {"mode": "enforce", "factor": 1000}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    random = np.random.default_rng(7)
    rows = pd.DataFrame(random.normal(size=(60, 2)), columns=["width", "height"])
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(LogisticRegression().fit(rows, rows["width"] > 0)))
    build(tmp_path / "model.pkl", tmp_path / "bundle", name="size", version="3", rows=rows)
    return tmp_path / "bundle"


@pytest.fixture
def slots(bundle: Path, layout: Layout, systemd: Any, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The addresses of the slots, by name, each with a server that was started as the slot's unit would."""
    keys = tmp_path / "api-keys"
    keys.write_text(f"ana {hashlib.sha256(b'hers').hexdigest()}\n")
    addresses, started = {}, []
    for slot in SLOTS:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        settings = {"API_KEYS": str(keys), "BIND": address, "MODEL_BUNDLE": str(bundle), "MODEL_SERVICE": "size"}
        start = with_gate_key(layout, "size", Start("3-0a1b2c3d4e5f", None, settings, {}), check_mode=False)
        layout.settings("size", slot).write_text(render_settings(start.settings))
        (systemd.folder / unit("size", slot)).write_text(json.dumps(RUNNING))
        command, folder = [sys.executable, "-m", "model_server"], tmp_path / slot
        folder.mkdir()
        with (folder / "log").open("wb") as log:
            environment = {**os.environ, **start.settings, "TMPDIR": str(folder)}
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        addresses[slot] = listening_address(start.settings)
    deadline = time.monotonic() + 60
    try:
        for address in addresses.values():
            with Server(address, 2) as server:
                while not read_ready(server).ready:
                    logs = [(tmp_path / slot / "log").read_text() for slot in addresses]
                    assert not any(process.poll() for process in started), logs
                    assert time.monotonic() < deadline, logs
                    time.sleep(0.1)
        yield addresses
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(30)


@pytest.fixture
def probe(slots: dict[str, str], bundle: Path, layout: Layout, run_module: Callable[..., Any]) -> Callable[..., Any]:
    golden = json.loads((bundle / "golden.json").read_text())
    folder = layout.root / "var/lib/model-server/size-blue"
    folder.mkdir(parents=True)
    line = {"columns": ["width", "height"], "instances": golden["instances"], "digest": "0ld"}
    (folder / "1-1.jsonl").write_text(json.dumps({**line, "outputs": {"predictions": golden["predictions"]}}) + "\n")

    def run(**options: Any) -> Any:
        params = {
            "address": slots["green"],
            "service": "size",
            "version": "3",
            "digest": read_manifest(bundle).digest,
            "golden": str(bundle / "golden.json"),
            "baseline": "blue",
            "replaces": "2-5e6f0a1b2c3d",
            "gates": GATES,
        }
        return run_module(model_probe, {**params, **options})

    return run


def test_every_gate_is_put_with_the_key_of_the_host(
    probe: Callable[..., Any], layout: Layout, slots: dict[str, str], tmp_path: Path
) -> None:
    result = probe()
    assert [(gate["gate"], gate["verdict"]) for gate in result["gates"]] == [(gate, "pass") for gate in GATES]
    found = {gate["gate"]: gate for gate in result["gates"]}
    assert found["golden"]["details"]["workers"] == 2
    assert "0 of 20 rows flip" in found["replay"]["found"]
    assert "; old release " in found["latency"]["found"]
    key = layout.gate_key("size").read_text().strip()
    logs = "".join((tmp_path / slot / "log").read_text() for slot in slots)
    assert key not in json.dumps(result) + logs
    # The servers do want keys: without that of the host the same gate is refused.
    layout.gate_key("size").unlink()
    assert (
        "expected the answers to 20 golden rows from each of 2 workers, found status 401 (an API key" in probe()["msg"]
    )


def test_no_other_address_is_sent_the_key(probe: Callable[..., Any], model_server: Any) -> None:
    model_server.be_ready(model="size")
    model_server.answers["/predict"] = (422, {})
    probe(address=model_server.address, gates={"ready": {"mode": "enforce"}})
    probe(baseline=model_server.address, gates={"replay": {"mode": "warn"}, "latency": GATES["latency"]})
    assert {path for path, _body in model_server.asked} == {"/v2/health/ready", "/predict"}
    assert model_server.keys == {None}
