# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same model, rows and options give the same bundle, whoever builds it, where and when."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from model_server.bundle.manifest import read_manifest
from model_server.scoring.errors import line_of

FORMS = {
    "classifier": "linear",
    "forest": "trees",
    "mixed_classifier": "trees",
    "network": "onnx",
    "texts": "native",
    "with_a_function": "native",
}
"""A fixture with a model, and the form that it is compiled to. What was tried before that is in the manifest, too."""

BUILD = """
import sys
from pathlib import Path
from model_server.bundle.cli import main

inputs, outputs = map(Path, sys.argv[1:3])
for model in sys.argv[3:]:
    options = ["--name", "same", "--version", "1", "--data", f"{inputs / model}.parquet", "--target", "label"]
    to = ["--out", str(outputs / model), "--tar", f"{outputs / model}.tar"]
    if main(["build", f"{inputs / model}.pkl", *options, *to]):
        sys.exit(1)
"""


@pytest.fixture
def network(numbers: pd.DataFrame) -> Any:
    model = MLPClassifier((4,), solver="lbfgs", max_iter=2000, random_state=0)
    return model.fit(numbers.to_numpy(), numbers["height"] > 5)


@pytest.fixture
def with_a_function(numbers: pd.DataFrame) -> Any:
    return make_pipeline(FunctionTransformer(np.tanh), LogisticRegression()).fit(numbers, numbers["height"] > 5)


@pytest.fixture
def words(numbers: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"{'wide' if width > 0 else 'narrow'} {width:.1f}" for width in numbers["width"]]})


@pytest.fixture
def texts(words: pd.DataFrame) -> Any:
    model = make_pipeline(TfidfVectorizer(), LogisticRegression())
    return model.fit(words["text"], words["text"].str.contains("wide"))


@pytest.fixture
def inputs(request: pytest.FixtureRequest, tmp_path: Path, numbers: Any, mixed: Any, words: Any) -> Path:
    """Pickles and their rows."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    for model in FORMS:
        rows = {"mixed_classifier": mixed, "texts": words}.get(model, numbers)
        (folder / f"{model}.pkl").write_bytes(pickle.dumps(request.getfixturevalue(model)))
        rows.assign(label=1).to_parquet(folder / f"{model}.parquet")
    return folder


def build(folder: Path, inputs: str, outputs: str, umask: int, **environment: str) -> dict[str, tuple[str, str]]:
    """For each model the digest of its bundle, and the sha256 of the tar."""
    command = [sys.executable, "-c", BUILD, inputs, outputs, *FORMS]
    settings = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src"), **environment}
    done = subprocess.run(command, cwd=folder, env=settings, umask=umask, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = folder / outputs
    for model, form in FORMS.items():
        assert read_manifest(made / model).scorer == form
    return {
        model: (read_manifest(made / model).digest, hashlib.sha256((made / f"{model}.tar").read_bytes()).hexdigest())
        for model in FORMS
    }


def test_another_place_time_seed_umask_locale_and_zone_give_the_same_bytes(inputs: Path, tmp_path: Path) -> None:
    here = build(tmp_path, "inputs", "here", 0o022, PYTHONHASHSEED="0", TZ="UTC", LC_ALL="C")
    there = tmp_path / "far" / "away"
    temporary = there / "temporary"
    temporary.mkdir(parents=True)
    shutil.copytree(inputs, there / "copied", copy_function=shutil.copyfile)
    for copied in (there / "copied").iterdir():
        os.utime(copied, (1e9, 1e9))
    others = {"PYTHONHASHSEED": "4242", "TZ": "Asia/Kolkata", "LC_ALL": "de_DE.UTF-8", "TMPDIR": str(temporary)}
    absolute = build(there, str(there / "copied"), "made", 0o077, COLUMNS="40", HOME=str(temporary), **others)
    assert absolute == here


def test_what_a_manifest_has_of_an_error_is_the_same_in_each_process() -> None:
    assert line_of(ValueError(f"cannot take {object()}\n  at all")) == "ValueError: cannot take <object object> at all"
