# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import json
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from model_server.bundle.build import write
from model_server.bundle.manifest import BundleError, pack, read_manifest
from model_server.scoring.estimators import one_job
from model_server.scoring.formats import FORMATS, Format
from model_server.scoring.load import load


class Calls:
    """Pickles as a call that is made when the pickle is loaded."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def rebuilt(bundle: Path, **files: bytes) -> Path:
    """The same bundle with other contents, consistent in itself."""
    names = {"model": "model.pkl", "lock": "requirements.lock", "contract": "contract.json"}
    contents = {path: (bundle / path).read_bytes() for path in [*names.values(), "golden.json"]}
    contents.update({names[name]: data for name, data in files.items()})
    out = bundle.with_name("rebuilt")
    write(out, contents, name="tiny", version="1", model_format="pickle", model_path="model.pkl")
    return out


def test_a_folder_and_a_tar_load_alike(bundle: Path, tmp_path: Path) -> None:
    pack(bundle, tmp_path / "bundle.tar")
    assert load(bundle).manifest == load(tmp_path / "bundle.tar").manifest


def test_nothing_is_unpickled_before_its_digest_is_checked(bundle: Path) -> None:
    (bundle / "model.pkl").write_bytes(pickle.dumps(Calls(time.sleep, 3600)))
    with pytest.raises(BundleError, match=r"model\.pkl: expected \d+ bytes, found \d+"):
        load(bundle, "native")


@pytest.mark.parametrize("digits", [12, 64], ids=["as in a release's name", "all"])
def test_nothing_is_unpickled_of_another_bundle_that_is_right_in_itself(bundle: Path, digits: int) -> None:
    digest = read_manifest(bundle).digest[:digits]
    assert load(bundle, digest=digest).manifest.digest.startswith(digest)
    resealed = rebuilt(bundle, model=pickle.dumps(Calls(time.sleep, 3600)))
    with pytest.raises(BundleError, match=rf"rebuilt: manifest\.json: expected sha256 {digest}, found [0-9a-f]{{64}}$"):
        load(resealed, digest=digest)


def test_of_another_manifest_nothing_is_read(bundle: Path) -> None:
    (bundle / "manifest.json").write_text("{no JSON")
    with pytest.raises(BundleError, match=r"manifest\.json: expected sha256 0a1b2c3d4e5f, found "):
        load(bundle, digest="0a1b2c3d4e5f")


def test_the_bytes_that_were_checked_are_the_bytes_that_are_loaded(bundle: Path) -> None:
    checked = (bundle / "model.pkl").read_bytes()
    loaded: list[bytes] = []
    with mock.patch.dict(FORMATS, {"pickle": Format(loaded.append, "pkl", "test")}):
        load(bundle, "native")
    assert hashlib.sha256(loaded[0]).digest() == hashlib.sha256(checked).digest()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (pickle.dumps(Calls(sys.exit, 0)), r"model\.pkl cannot be loaded: SystemExit: 0"),
        (pickle.dumps(Calls(int, "a\nb")), r"model\.pkl cannot be loaded: ValueError: invalid literal"),
        (b"", r"model\.pkl cannot be loaded: EOFError"),
    ],
)
def test_whatever_a_pickle_does_is_one_line(bundle: Path, model: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message) as found:
        load(rebuilt(bundle, model=model))
    assert "\n" not in str(found.value)


def test_a_pickle_of_another_scikit_learn_is_an_error(bundle: Path, classifier: Any) -> None:
    with mock.patch("sklearn.base.__version__", "1.0.2"):
        old = pickle.dumps(classifier)
    message = r"cannot be loaded: expected scikit-learn 1\.0\.2, which it was pickled with, found [0-9]"
    with pytest.raises(BundleError, match=message):
        load(rebuilt(bundle, model=old))


@pytest.mark.parametrize(
    ("lock", "message"),
    [
        (b"numpy==1.0\n", r"numpy: expected 1\.0, found \S+ installed"),
        (b"no-such-package==1.0\n", r"no-such-package: expected 1\.0, found none installed"),
        (b"numpy>=1.0\n", "requirements.lock: expected name==version, found 'numpy>=1.0'"),
    ],
)
def test_packages_in_other_versions_than_the_lock_are_errors(bundle: Path, lock: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        load(rebuilt(bundle, lock=lock))


def test_a_format_that_is_not_known_is_refused(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    manifest["model"]["format"] = "rdata"
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="model format: expected joblib or onnx or pickle or skops, found rdata"):
        load(bundle)


def test_every_nested_estimator_has_one_job(numbers: pd.DataFrame) -> None:
    forest = RandomForestClassifier(n_estimators=2, random_state=0)
    voting = VotingClassifier([("forest", forest), ("line", LogisticRegression())])
    search = GridSearchCV(make_pipeline(voting), {"votingclassifier__forest__max_depth": [1]}, cv=2)
    search.fit(numbers, numbers["height"] > 5)
    fitted = search.best_estimator_[0]
    nested = [search, forest, voting, fitted, fitted.estimators_[0], fitted.named_estimators_["forest"]]
    for estimator in nested:
        estimator.n_jobs = 2
    one_job(search)
    assert [estimator.n_jobs for estimator in nested] == [1] * len(nested)


def test_a_forest_is_loaded_with_one_job(bundle_of: Callable[..., Path], forest: Any, numbers: pd.DataFrame) -> None:
    assert forest.n_jobs == 2
    predictor: Any = load(bundle_of(forest, numbers), "native").predictor
    assert predictor.model.n_jobs == 1
