# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tiny models, their bundles, and a server as systemd runs it."""

from __future__ import annotations

import contextlib
import http.client
import importlib.metadata
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
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler

from model_server.bundle.build import build, write
from model_server.bundle.contract import Contract, Input, Output, encode_contract
from model_server.scoring.load import load
from model_server.scoring.scorer import Scorer


@pytest.fixture
def numbers() -> pd.DataFrame:
    random = np.random.default_rng(7)
    return pd.DataFrame({"width": random.normal(size=60), "height": random.normal(5, 2, size=60)})


@pytest.fixture
def mixed(numbers: pd.DataFrame) -> pd.DataFrame:
    """Every kind of column, with missing values where pandas has them."""
    random = np.random.default_rng(7)
    frame = numbers.copy()
    rows = len(frame)
    frame["count"] = random.integers(0, 9, size=rows)
    frame["smoker"] = random.integers(0, 2, size=rows).astype(bool)
    frame["city"] = random.choice(["Bonn", "Köln"], size=rows)
    frame["grade"] = pd.Categorical(random.choice(["low", "high"], size=rows), categories=["low", "high"], ordered=True)
    frame["weight"] = frame["width"].where(frame.index % 5 != 0)
    return frame


@pytest.fixture
def bundle_of(tmp_path: Path) -> Callable[..., Path]:
    """Build the bundle of a fitted model; ``model_bytes`` instead of pickling it here."""

    def make(model: Any, rows: pd.DataFrame, model_bytes: bytes | None = None, **options: Any) -> Path:
        number = len(list(tmp_path.iterdir()))
        pickled = tmp_path / f"model-{number}"
        pickled.write_bytes(pickle.dumps(model) if model_bytes is None else model_bytes)
        out = tmp_path / f"bundle-{number}"
        build(pickled, out, **{"name": "tiny", "version": "1", "rows": rows, **options})
        return out

    return make


@pytest.fixture
def classifier(numbers: pd.DataFrame) -> Any:
    """A DataFrame in, text labels out, with probabilities."""
    height = numbers["height"]
    labels = np.where(height > 6, "tall", np.where(height < 4, "short", "middle"))
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(numbers, labels)


@pytest.fixture
def regression(numbers: pd.DataFrame) -> Any:
    """An array in, floats out."""
    return LinearRegression().fit(numbers.to_numpy(), numbers["height"] * 2)


@pytest.fixture
def mixed_classifier(mixed: pd.DataFrame) -> Any:
    columns = make_column_transformer(
        (OneHotEncoder(sparse_output=False, handle_unknown="ignore"), ["city", "grade", "smoker"]),
        remainder="passthrough",
    )
    return make_pipeline(columns, HistGradientBoostingClassifier(max_iter=5)).fit(mixed, mixed["height"] > 5)


@pytest.fixture
def squares(numbers: pd.DataFrame) -> Any:
    """scikit-learn refuses numbers whose squares are beyond all numbers."""
    return make_pipeline(PolynomialFeatures(), LinearRegression()).fit(numbers, numbers["height"] ** 2)


@pytest.fixture
def encoded_classifier(mixed: pd.DataFrame) -> Any:
    """An encoder as it is by default: it refuses text that it has not seen."""
    columns = make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough")
    rows = mixed[["width", "city"]]
    return make_pipeline(columns, LogisticRegression()).fit(rows, rows["width"] > 0)


@pytest.fixture
def forest(numbers: pd.DataFrame) -> Any:
    model = RandomForestClassifier(n_estimators=3, n_jobs=2, random_state=0)
    return model.fit(numbers, numbers["height"] > 5)


@pytest.fixture
def bundle(bundle_of: Callable[..., Path], classifier: Any, numbers: pd.DataFrame) -> Path:
    return bundle_of(classifier, numbers, name="size", version="3")


@pytest.fixture
def scorer(bundle: Path) -> Scorer:
    return load(bundle)


SLOW_MODEL = """
import sys
import time

class Slow:
    def predict(self, rows):
        if rows[0, 0] == 999:
            sys.exit(f"the model had {rows[0, 0]:.0f} reasons")
        time.sleep(rows[0, 0])
        return rows[:, 0]
"""


@pytest.fixture
def slow_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that takes as many seconds as the first value says, and answers it; 999 ends what calls it."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "slow_model.py").write_text(SLOW_MODEL)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    import slow_model

    contract = Contract(False, (Input("seconds", "float64"),), (Output("predictions", "float64", (-1,)),))
    files = {
        "model.pkl": pickle.dumps(slow_model.Slow()),
        "contract.json": json.dumps(encode_contract(contract)).encode(),
        "golden.json": b"{}",
        "requirements.lock": f"numpy=={importlib.metadata.version('numpy')}\n".encode(),
    }
    write(tmp_path / "slow", files, name="slow", version="1", model_format="pickle", model_path="model.pkl")
    monkeypatch.delitem(sys.modules, "slow_model")
    return tmp_path / "slow"


class Server:
    """``python -m model_server`` on a port of its own."""

    def __init__(self, bundle: Path, folder: Path, address: str = "127.0.0.1", **environment: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = folder / "log"
        source = Path(__file__).parent.parent / "src"
        settings = {
            "MODEL_BUNDLE": str(bundle),
            "MODEL_SERVICE": "slow",
            "BIND": f"{address}:{self.port}",
            "PYTHONPATH": f"{source}:{folder / 'modules'}",
            "TMPDIR": str(folder),
            **environment,
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "model_server"], env={**os.environ, **settings}, stderr=log, stdout=log
            )

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.ready() == 200:
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"not ready: {self.log.read_text()}")

    @contextlib.contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            yield connection

    def ready(self) -> int:
        with self.connection() as connection:
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(bundle: Path, ready: bool = True, **environment: str) -> Server:
        server = Server(bundle, tmp_path, **environment)
        started.append(server)
        if ready:
            server.wait_until_ready()
        return server

    yield start
    for server in started:
        server.stop()
