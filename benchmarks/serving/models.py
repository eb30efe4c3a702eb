"""The models that are served, the rows that are sent, and what scikit-learn itself answers to them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from testbed.command import ROOT, step

CACHE = ROOT / ".cache" / "serving"
TARGET = "target"
BATCH = 1_000
CHECKED = 50
"""Rows that every server must answer as scikit-learn does before it is measured."""


@dataclass(frozen=True)
class Model:
    """``form``: what our server must serve it with, so that a figure is of what its name says; None: any.

    ``noise``: train on the big set of random rows, for a model of 200 MB.
    """

    title: str
    make: Callable[[], Any]
    form: str | None = None
    noise: bool = False


MODELS = {
    "linear": Model(
        "StandardScaler + LogisticRegression", lambda: make_pipeline(StandardScaler(), LogisticRegression())
    ),
    "forest": Model("RandomForest, 100 trees", lambda: RandomForestClassifier(100, random_state=0)),
    "gradient_boosting": Model("GradientBoosting, 100 trees", lambda: GradientBoostingClassifier(random_state=0)),
    "hist_gradient_boosting": Model(
        "HistGradientBoosting, 100 iterations", lambda: HistGradientBoostingClassifier(random_state=0)
    ),
    "neural_network": Model(
        "StandardScaler + MLPClassifier, 100 neurons",
        lambda: make_pipeline(StandardScaler(), MLPClassifier((100,), random_state=0)),
    ),
    # A function of the user's own choice has no compiled form.
    "native": Model(
        "FunctionTransformer + StandardScaler + LogisticRegression",
        lambda: make_pipeline(FunctionTransformer(np.log1p), StandardScaler(), LogisticRegression()),
        form="native",
    ),
    "large": Model(
        "ExtraTrees of 200 MB", lambda: ExtraTreesClassifier(28, max_features=1, random_state=0), noise=True
    ),
}


@dataclass(frozen=True)
class Trained:
    """``pickled`` and ``data`` are files, ``data`` a CSV with the target. ``answer`` gives the labels of rows."""

    pickled: Path
    data: Path
    rows: list[list[float]]
    answer: Callable[[list[list[float]]], list[Any]]


def train(name: str) -> Trained:
    """The model, trained once for each version of scikit-learn; its rows begin with CHECKED ones of every class."""
    model = MODELS[name]
    folder = CACHE / f"models-{sklearn.__version__}"
    folder.mkdir(parents=True, exist_ok=True)
    features, target, columns = _noise() if model.noise else _tumours()
    data = folder / ("noise.csv" if model.noise else "tumours.csv")
    pickled = folder / f"{name}.pkl"
    if not data.exists():
        pd.DataFrame(features, columns=columns).assign(**{TARGET: target}).to_csv(data, index=False)
    if not pickled.exists():
        with step(f"Trained {model.title}"):
            # On arrays, which every server is the fastest with.
            pickled.write_bytes(pickle.dumps(model.make().fit(features, target)))
    chosen = np.random.default_rng(0).integers(0, len(features), BATCH)
    loaded = pickle.loads(pickled.read_bytes())
    return Trained(pickled, data, features[chosen].tolist(), lambda rows: list(loaded.predict(rows).tolist()))


def _tumours() -> tuple[Any, Any, list[str]]:
    found = load_breast_cancer()
    return found.data, found.target, list(found.feature_names)


def _noise() -> tuple[Any, Any, list[str]]:
    # Labels that nothing tells of grow trees to the last row.
    random = np.random.default_rng(0)
    return random.normal(size=(60_000, 30)).round(6), random.integers(0, 2, 60_000), [f"x{i}" for i in range(30)]
