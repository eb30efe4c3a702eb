# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# /// script
# requires-python = ">=3.11"
# dependencies = ["mlflow-skinny==3.17.2", "pytest"]
# ///
"""Tests of ``model-bundle from-mlflow``, which want MLflow: ``from_mlflow.py URL FOLDER``.

URL is a tracking server with a registry. FOLDER gets the bundle ``champion`` of a model in it, and ``expected.json``:
rows, and what MLflow says that the model predicts for them. The environment has what ``model-bundle build`` needs.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

import mlflow.pyfunc
import mlflow.sklearn
import numpy as np
import pandas as pd
import pytest
import scipy.special
import skops.io
import yaml
from mlflow.models import ModelSignature, infer_signature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.types.schema import Array, DataType
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from model_server.bundle.cli import main
from model_server.bundle.manifest import read_manifest

Saved = Callable[..., Path]
NAMED = ["--name", "tumour", "--version", "3"]


def frame(rows: int = 60) -> pd.DataFrame:
    random = np.random.default_rng(7)
    columns = {"width": random.normal(size=rows), "height": random.normal(5, 2, size=rows)}
    return pd.DataFrame({**columns, "count": random.integers(0, 9, size=rows)})


def labels(rows: pd.DataFrame) -> Any:
    return np.where(rows["height"] > 6, "tall", np.where(rows["height"] < 4, "short", "middle"))


def fitted(rows: pd.DataFrame) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels(frame(len(rows))))


def document(bundle: Path, name: str) -> Any:
    return json.loads((bundle / name).read_bytes())


def columns_of(bundle: Path) -> dict[str, str]:
    inputs = document(bundle, "contract.json")["inputs"]
    return {column["name"]: column["dtype"] + (" or null" if column["nullable"] else "") for column in inputs}


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    """Save a model, with its signature and three rows as its example unless told otherwise; the folder."""

    def save(model: Any = None, rows: Any = None, **options: Any) -> Path:
        rows = frame() if rows is None else rows
        model = fitted(rows) if model is None else model
        given = {"signature": infer_signature(rows, model.predict(rows)), "input_example": rows[:3], **options}
        folder = tmp_path / f"model-{len(list(tmp_path.iterdir()))}"
        formats = {"serialization_format": "pickle", "pip_requirements": ["scikit-learn"], **given}
        mlflow.sklearn.save_model(model, folder, **formats)
        return folder

    return save


def change(folder: Path, **flavor: Any) -> Path:
    """Have the flavor in ``MLmodel`` say something else."""
    described = yaml.safe_load((folder / "MLmodel").read_text())
    described["flavors"]["sklearn"].update(flavor)
    (folder / "MLmodel").write_text(yaml.safe_dump(described))
    return folder


def build(source: Path | str, out: Path, *options: str) -> Path:
    assert main(["from-mlflow", str(source), "--out", str(out), *options]) == 0
    assert main(["verify", str(out), "--predict"]) == 0
    return out


def refused(capsys: pytest.CaptureFixture[str], out: Path, source: Path | str, *options: str) -> str:
    """The line that says why."""
    assert main(["from-mlflow", str(source), "--out", str(out), *options]) == 1
    assert not out.exists()
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"model-bundle: {source}: "), line
    return line.removeprefix(f"model-bundle: {source}: ")


def test_a_registered_model_by_its_alias_version_and_run(tmp_path: Path) -> None:
    url, folder = os.environ["TRACKING_URL"], Path(os.environ["FOLDER"])
    mlflow.set_tracking_uri(url)
    rows = frame()
    runs = []
    for several in (rows, rows.assign(height=rows["height"] + 1)):
        with mlflow.start_run() as run:
            signature = infer_signature(several, labels(several))
            options = {"signature": signature, "input_example": several.head(5), "registered_model_name": "tumour"}
            mlflow.sklearn.log_model(fitted(several), name="model", pip_requirements=["scikit-learn"], **options)
            runs.append(run.info.run_id)
    MlflowClient().set_registered_model_alias("tumour", "champion", "1")
    expected = mlflow.pyfunc.load_model("models:/tumour@champion").predict(rows)
    mlflow.set_tracking_uri(None)

    there = ["--tracking-uri", url]
    champion = build("models:/tumour@champion", folder / "champion", *there)
    manifest = read_manifest(champion)
    assert (manifest.name, manifest.version) == ("tumour", "1")
    assert columns_of(champion) == {"width": "float64", "height": "float64", "count": "int64"}
    assert len(document(champion, "golden.json")["instances"]) == 5
    assert read_manifest(build("models:/tumour/1", tmp_path / "version", *there)).digest == manifest.digest
    assert main(["from-mlflow", f"runs:/{runs[0]}/nothing", *there, "--out", str(tmp_path / "nothing"), *NAMED]) == 1
    run = build(f"runs:/{runs[0]}/model", tmp_path / "run", *there, "--name", "tumour", "--version", "1")
    assert read_manifest(run).digest == manifest.digest
    second = read_manifest(build("models:/tumour/2", tmp_path / "second", *there, "--name", "size", "--version", "2b"))
    assert (second.name, second.version) == ("size", "2b")
    answers = {"instances": rows.to_numpy().tolist(), "predictions": expected.tolist()}
    (folder / "expected.json").write_text(json.dumps(answers))


def test_what_a_registry_does_not_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = ["--tracking-uri", os.environ["TRACKING_URL"]]
    assert "not found" in refused(capsys, tmp_path / "out", "models:/nothing@champion", *there)
    assert "not found" in refused(capsys, tmp_path / "out", "models:/nothing/3", *there)
    assert "not found" in refused(capsys, tmp_path / "out", "runs:/0123/model", *there, *NAMED)
    for source in ("models:/tumour", "models:/tumour/latest", "models:/a/b/1", "models:tumour"):
        line = refused(capsys, tmp_path / "out", source, *there)
        assert line == "expected models:/NAME@ALIAS or models:/NAME/VERSION"


@pytest.mark.parametrize(("written", "ours"), [("pickle", "pickle"), ("cloudpickle", "pickle"), ("skops", "skops")])
def test_the_format_is_the_one_that_the_flavor_declares(
    saved: Saved, tmp_path: Path, written: str, ours: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = build(saved(serialization_format=written), tmp_path / "out", *NAMED)
    assert read_manifest(bundle).model_format == ours
    assert "golden   3 rows, for there is the input example alone: --data gives more" in capsys.readouterr().out
    inputs = document(bundle, "contract.json")["inputs"]
    # Three rows do not say between which values the training data was.
    assert not any("minimum" in column or "maximum" in column for column in inputs)


def test_rows_of_the_data_are_read_as_the_signature_says(saved: Saved, tmp_path: Path) -> None:
    rows = pd.DataFrame({"code": ["007", "1", "2", "3"] * 5, "size": [1.0, 2.0, 3.0, 4.0] * 5})
    rows["small"] = rows["size"].astype("float32")
    rows["day"] = pd.to_datetime(["2026-01-01", "2026-01-02"] * 10)
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(rows, rows["size"] > 2)
    folder = saved(model, rows)
    rows.astype({"size": int}).assign(label=1).to_csv(tmp_path / "rows.csv", index=False)
    options = ["--data", str(tmp_path / "rows.csv"), "--target", "label", "--golden", "8"]
    bundle = build(folder, tmp_path / "out", *NAMED, *options)
    found = columns_of(bundle)
    assert found.pop("day").startswith("datetime64")
    assert found == {"code": "string", "size": "float64", "small": "float32"}
    assert document(bundle, "contract.json")["inputs"][1]["maximum"] == 4.0
    golden = document(bundle, "golden.json")["instances"]
    assert len(golden) == 8
    assert "007" in [row[0] for row in golden]


def test_an_optional_column_may_have_missing_values_though_no_row_has_one(saved: Saved, tmp_path: Path) -> None:
    inputs = [ColSpec("double", "width", required=False), ColSpec("double", "height")]
    signature = ModelSignature(Schema([*inputs, ColSpec("long", "count", required=False)]))
    bundle = build(saved(signature=signature), tmp_path / "out", *NAMED)
    assert columns_of(bundle) == {"width": "float64 or null", "height": "float64", "count": "float64 or null"}


def test_a_tensor_s_columns_go_by_their_places(saved: Saved, tmp_path: Path) -> None:
    rows = frame().to_numpy("float32")
    folder = saved(fitted(rows), rows)
    bundle = build(folder, tmp_path / "example", *NAMED)
    assert columns_of(bundle) == {"x0": "float32", "x1": "float32", "x2": "float32"}
    frame().to_csv(tmp_path / "rows.csv", index=False)
    bundle = build(folder, tmp_path / "data", *NAMED, "--data", str(tmp_path / "rows.csv"))
    assert columns_of(bundle) == {"width": "float32", "height": "float32", "count": "float32"}
    assert not document(bundle, "contract.json")["columns"]


def test_a_tensor_of_a_text_a_row(saved: Saved, tmp_path: Path) -> None:
    texts = np.array(["good day", "bad day", "so good", "so bad"] * 5)
    model = make_pipeline(HashingVectorizer(n_features=8), LogisticRegression())
    bundle = build(saved(model.fit(texts, texts == "bad day"), texts), tmp_path / "out", *NAMED)
    assert document(bundle, "contract.json")["series"]
    assert columns_of(bundle) == {"x0": "string"}


def test_a_model_without_a_signature_is_described_by_the_rows(saved: Saved, tmp_path: Path) -> None:
    folder = saved(signature=False, input_example=None)
    frame().to_csv(tmp_path / "rows.csv", index=False)
    bundle = build(folder.parent, tmp_path / "out", *NAMED, "--data", str(tmp_path / "rows.csv"))
    assert columns_of(bundle) == {"width": "float64", "height": "float64", "count": "int64"}
    assert len(document(bundle, "golden.json")["instances"]) == 20


def test_code_that_mlflow_saved_beside_the_model_is_shipped(saved: Saved, tmp_path: Path) -> None:
    (tmp_path / "features.py").write_text("def double(rows):\n    return rows * 2\n")
    sys.path.insert(0, str(tmp_path))
    import features

    model = make_pipeline(FunctionTransformer(features.double), LogisticRegression())
    folder = saved(model.fit(frame(), labels(frame())), code_paths=[str(tmp_path / "features.py")])
    sys.path.remove(str(tmp_path))
    bundle = build(folder, tmp_path / "out", *NAMED)
    assert (bundle / "modules" / "features.py").is_file()


def test_what_code_of_cloudpickle_imports_is_locked(saved: Saved, tmp_path: Path) -> None:
    def expit(rows: Any) -> Any:
        return scipy.special.expit(rows) * yaml.safe_load("2")

    expit.__module__ = "__main__"
    model = make_pipeline(FunctionTransformer(expit), LogisticRegression()).fit(frame(), labels(frame()))
    bundle = build(saved(model, serialization_format="cloudpickle"), tmp_path / "out", *NAMED)
    locked = {line.partition("==")[0] for line in (bundle / "requirements.lock").read_text().splitlines()}
    assert {"cloudpickle", "pyyaml"} <= locked


def schema(*columns: Any) -> ModelSignature:
    return ModelSignature(Schema(list(columns)))


WIDTH, HEIGHT, COUNT = ColSpec("double", "width"), ColSpec("double", "height"), ColSpec("long", "count")


@pytest.mark.parametrize(
    ("signature", "rows", "message"),
    [
        (
            schema(WIDTH, ColSpec("long", "height"), ColSpec("string", "count")),
            frame(),
            "column 'height': expected long (required) as the signature says, found float64; "
            "column 'count': expected string (required) as the signature says, found int64",
        ),
        (
            schema(WIDTH, HEIGHT, COUNT),
            frame().assign(width=[np.nan, *[1.5] * 59]),
            "column 'width': expected double (required) as the signature says, found float64 with missing values",
        ),
        (
            schema(WIDTH, HEIGHT, COUNT),
            frame().assign(count=2**33 + 0.5),
            "column 'count': expected long (required) as the signature says, found float64",
        ),
        (
            schema(WIDTH, HEIGHT, ColSpec("integer", "count")),
            frame().assign(count=2**33),
            "column 'count': expected integer (required) as the signature says, found int64",
        ),
        (
            schema(WIDTH, HEIGHT, COUNT),
            frame()[["width", "height"]],
            "column 'count' of the signature is not in the rows",
        ),
        (
            schema(WIDTH, HEIGHT, COUNT),
            frame().assign(id=1),
            "column 'id' is not in the signature: leave it out as a target",
        ),
        (
            schema(WIDTH, HEIGHT, ColSpec(Array(DataType.double), "count")),
            frame(),
            "signature: column 'count': expected boolean, integer, long, float, double, string, datetime, "
            "found Array(double)",
        ),
        (
            schema(ColSpec("double"), ColSpec("double")),
            frame(),
            "the signature has 2 columns, found 3 in the rows",
        ),
        (
            schema(TensorSpec(np.dtype("float64"), (-1, 3, 2))),
            frame(),
            "signature: expected columns, or one tensor of shape (-1, columns) or (-1,), found a tensor (-1, 3, 2)",
        ),
        (
            schema(TensorSpec(np.dtype("int64"), (-1,), "a"), TensorSpec(np.dtype("int64"), (-1,), "b")),
            frame(),
            "signature: expected columns, or one tensor of shape (-1, columns) or (-1,), found a (-1,), b (-1,)",
        ),
    ],
)
def test_rows_that_the_signature_does_not_describe(
    saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str], signature: Any, rows: Any, message: str
) -> None:
    folder = saved(signature=signature, input_example=None)
    rows.to_parquet(tmp_path / "rows.parquet")
    options = [*NAMED, "--data", str(tmp_path / "rows.parquet")]
    assert refused(capsys, tmp_path / "out", folder, *options) == message


def test_what_cannot_be_made_a_bundle_says_what_to_do(
    saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = saved(), tmp_path / "out"
    assert refused(capsys, out, folder) == "expected --name and --version, for only a registry has them"
    assert "expected a name of the form" in refused(capsys, out, folder, "--name", "A.B", "--version", "1")
    lacking = saved(input_example=None)
    assert refused(capsys, out, lacking, *NAMED) == (
        "expected rows to take golden rows from, found no input example: give rows of the training data with --data,"
        " or log the model with an input_example"
    )
    strange = saved(signature=False, input_example={"width": [1.0], "height": [2.0]})
    line = refused(capsys, out, strange, *NAMED)
    assert line.startswith("expected an input example that is a table, found dict: give rows")
    frame().to_csv(tmp_path / "rows.csv", index=False)
    build(strange, tmp_path / "with-data", *NAMED, "--data", str(tmp_path / "rows.csv"))
    line = refused(capsys, out, change(saved(), sklearn_version="1.0.2"), *NAMED)
    assert line.startswith("expected scikit-learn 1.0.2, with which it was saved, found ")
    assert line.endswith(": pip install scikit-learn==1.0.2")
    line = refused(capsys, out, change(saved(), serialization_format="joblib"), *NAMED)
    assert line == "serialization_format: expected pickle, cloudpickle, skops, found joblib"
    line = refused(capsys, out, saved(pip_requirements=["scikit-learn", "numpy==1.2.3", "flask==0.1"]), *NAMED)
    assert line.startswith("other packages than it was saved with: expected numpy==1.2.3, found ")
    assert "flask" not in line
    assert refused(capsys, out, tmp_path / "nowhere", *NAMED) == "expected a folder with one MLmodel, found none"
    assert "expected a folder with one MLmodel, found /" in refused(capsys, out, tmp_path, *NAMED)


def test_another_python_and_another_flavor(saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved()
    text = (folder / "MLmodel").read_text()
    (folder / "MLmodel").write_text(text.replace("python_version: 3.", "python_version: 2."))
    line = refused(capsys, tmp_path / "out", folder, *NAMED)
    assert line.startswith("expected Python 2."), line
    (folder / "MLmodel").write_text(text.replace("  sklearn:", "  xgboost:"))
    line = refused(capsys, tmp_path / "out", folder, *NAMED)
    assert line == "expected the flavor sklearn, found python_function, xgboost"


def test_types_of_a_skops_file_are_trusted_by_who_builds_not_by_the_file(
    saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_pipeline(FunctionTransformer(scipy.special.softmax), LogisticRegression())
    model.fit(frame(), labels(frame()))
    kinds = skops.io.get_untrusted_types(data=skops.io.dumps(model))
    folder = saved(model, serialization_format="skops", skops_trusted_types=kinds)
    line = refused(capsys, tmp_path / "out", folder, *NAMED)
    assert line == f"expected types that are trusted (--trust TYPE), found {', '.join(kinds)}"
    trusted = [word for kind in kinds for word in ("--trust", kind)]
    build(folder, tmp_path / "out", *NAMED, *trusted)


if __name__ == "__main__":
    os.environ["TRACKING_URL"], os.environ["FOLDER"] = sys.argv[1:]
    # MLflow's own warnings are not of this project; so are not its settings of pytest, which make them errors.
    sys.exit(pytest.main([__file__, "-q", "-c", os.devnull, "-p", "no:cacheprovider", "--import-mode=importlib"]))
