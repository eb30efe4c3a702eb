# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tiny models and their bundles."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from model_server.bundle.build import build
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
def forest(numbers: pd.DataFrame) -> Any:
    model = RandomForestClassifier(n_estimators=3, n_jobs=2, random_state=0)
    return model.fit(numbers, numbers["height"] > 5)


@pytest.fixture
def bundle(bundle_of: Callable[..., Path], classifier: Any, numbers: pd.DataFrame) -> Path:
    return bundle_of(classifier, numbers, name="size", version="3")


@pytest.fixture
def scorer(bundle: Path) -> Scorer:
    return load(bundle)
