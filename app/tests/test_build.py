# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import gzip
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from model_server.bundle.build import read_rows
from model_server.bundle.cli import main
from model_server.bundle.contract import parse_contract
from model_server.bundle.lock import modules_of
from model_server.bundle.manifest import BundleError, read_manifest, verify
from model_server.scoring.formats import FORMATS, Format
from model_server.scoring.load import load

SPEED = r"(?m)^speed +(\w+): [0-9.e+]+ µs for 1 row, [0-9.e+]+ µs for 1000 rows$"


def document(bundle: Path, name: str) -> Any:
    return json.loads((bundle / name).read_bytes())


def locked(bundle: Path) -> dict[str, str]:
    return dict(line.split("==") for line in (bundle / "requirements.lock").read_text().splitlines())


def test_the_same_inputs_give_the_same_digest(
    bundle_of: Callable[..., Path], classifier: Any, numbers: pd.DataFrame
) -> None:
    first = bundle_of(classifier, numbers)
    second = bundle_of(classifier, numbers)
    assert verify(first).digest == verify(second).digest


def test_the_contract_tells_what_the_data_has(
    bundle_of: Callable[..., Path], mixed_classifier: Any, mixed: pd.DataFrame
) -> None:
    contract = parse_contract((bundle_of(mixed_classifier, mixed) / "contract.json").read_bytes(), "here")
    assert contract.columns
    assert {column.name: (column.dtype, column.nullable) for column in contract.inputs} == {
        "width": ("float64", False),
        "height": ("float64", False),
        "count": ("int64", False),
        "smoker": ("bool", False),
        "city": ("string", False),
        "grade": ("category", False),
        "weight": ("float64", True),
    }
    grade = contract.inputs[5]
    assert (grade.categories, grade.ordered) == (("low", "high"), True)
    assert [(output.name, output.shape, output.classes) for output in contract.outputs] == [
        ("predictions", (-1,), (False, True)),
        ("probabilities", (-1, 2), (False, True)),
    ]


def test_golden_rows_have_every_class_and_are_what_the_model_gives(
    bundle_of: Callable[..., Path], classifier: Any, numbers: pd.DataFrame
) -> None:
    golden = document(bundle_of(classifier, numbers, golden_rows=6), "golden.json")
    assert len(golden["instances"]) == len(golden["probabilities"]) == 6
    assert set(golden["predictions"]) == {"short", "middle", "tall"}
    rows = pd.DataFrame(golden["instances"], columns=["width", "height"])
    assert classifier.predict(rows).tolist() == golden["predictions"]


def test_an_array_model_without_probabilities(
    bundle_of: Callable[..., Path], regression: Any, numbers: pd.DataFrame
) -> None:
    bundle = bundle_of(regression, numbers)
    assert document(bundle, "golden.json")["probabilities"] is None
    assert not document(bundle, "contract.json")["columns"]
    assert "pandas" not in (bundle / "requirements.lock").read_text()


def test_the_lock_is_the_closure_of_what_the_pickle_needs(bundle: Path) -> None:
    names = [line.partition("==")[0] for line in (bundle / "requirements.lock").read_text().splitlines()]
    assert names == sorted(names)
    assert {"joblib", "numpy", "pandas", "scikit-learn", "scipy", "threadpoolctl"} <= set(names)
    assert not {"flask", "pytest", "pyarrow"} & set(names)


@pytest.mark.parametrize("protocol", range(6))
def test_the_modules_of_a_pickle_are_read_without_loading_it(protocol: int) -> None:
    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    modules = modules_of(pickle.dumps([model, model, json.JSONDecodeError], protocol=protocol))
    assert "sklearn.linear_model._base" in modules
    assert any(module.startswith("numpy.") for module in modules)
    assert "json.decoder" in modules
    assert "__builtin__" not in modules


def test_a_pickle_of_another_scikit_learn_is_refused(
    bundle_of: Callable[..., Path], classifier: Any, numbers: pd.DataFrame, tmp_path: Path
) -> None:
    with mock.patch("sklearn.base.__version__", "1.0.2"):
        old = pickle.dumps(classifier)
    message = (
        r"cannot be loaded as pickle: expected scikit-learn 1\.0\.2, which it was pickled with, found [0-9.]+:"
        " install that version here, or train the model anew$"
    )
    with pytest.raises(BundleError, match=message) as found:
        bundle_of(None, numbers, model_bytes=old)
    assert "\n" not in str(found.value)
    assert not list(tmp_path.glob("*bundle*"))


class Mine(LinearRegression):
    """A class in a module that belongs to no package."""


def test_a_model_of_a_module_in_no_package_is_refused(bundle_of: Callable[..., Path], numbers: pd.DataFrame) -> None:
    model = Mine().fit(numbers, numbers["height"])
    with pytest.raises(
        BundleError, match=f"the model needs the module {__name__}, which no installed package provides"
    ):
        bundle_of(model, numbers)


def test_joblib_is_declared_not_guessed(
    bundle_of: Callable[..., Path], classifier: Any, tmp_path: Path, numbers: pd.DataFrame
) -> None:
    joblib.dump(classifier, tmp_path / "written", compress=3)
    data = (tmp_path / "written").read_bytes()
    bundle = bundle_of(None, numbers, model_bytes=data, model_format="joblib")
    manifest = read_manifest(bundle)
    assert (manifest.model_format, manifest.model_path) == ("joblib", "model.joblib")
    assert main(["verify", str(bundle), "--predict"]) == 0
    with pytest.raises(BundleError, match="cannot be loaded as pickle: UnpicklingError"):
        bundle_of(None, numbers, model_bytes=data)


def test_a_format_is_one_entry(
    bundle_of: Callable[..., Path], classifier: Any, numbers: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    def load_gzip(data: bytes) -> Any:
        return pickle.loads(gzip.decompress(data))

    with mock.patch.dict(FORMATS, {"gzip": Format(load_gzip, "pkl.gz", "sklearn_gzip", packages=("joblib",))}):
        data = gzip.compress(pickle.dumps(classifier))
        bundle = bundle_of(None, numbers, model_bytes=data, model_format="gzip")
        assert main(["verify", str(bundle), "--predict"]) == 0
        assert load(bundle, "native").form == "native"
        with pytest.raises(SystemExit):
            main(["build", "--help"])
    assert read_manifest(bundle).model_path == "model.pkl.gz"
    assert "--format {pickle,joblib,skops,onnx,gzip}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda rows: rows.drop(columns="width"), {}, "column 'width', which the model takes, is not in the data"),
        (lambda rows: rows.assign(id=1), {}, "column 'id' of the data: leave it out with --target"),
        (lambda rows: rows, {"targets": ("size",)}, "target 'size' is no column of the data"),
        (lambda rows: rows.head(0), {}, "expected rows in the data, found none"),
        (lambda rows: rows.assign(width=np.inf), {}, "column 'width': expected finite numbers, found infinity"),
        (lambda rows: rows.assign(width=1j), {}, "column 'width': expected int8, .*, found complex128"),
        (
            lambda rows: rows.assign(width="a"),
            {},
            "the data does not fit the model: the model refuses a value of these rows: could not convert string",
        ),
        (lambda rows: rows.assign(width=pd.Timedelta(0)), {}, "column 'width': expected numbers, text, booleans, da"),
        (lambda rows: rows, {"version": "3-1"}, 'version: expected .*, found "3-1"'),
    ],
)
def test_data_that_does_not_fit_is_refused(
    bundle_of: Callable[..., Path],
    classifier: Any,
    change: Any,
    options: dict[str, Any],
    message: str,
    tmp_path: Path,
    numbers: pd.DataFrame,
) -> None:
    with pytest.raises(BundleError, match=message):
        bundle_of(classifier, change(numbers), **options)
    assert not list(tmp_path.glob("*bundle*"))


def test_a_folder_in_use_is_not_written_to(
    classifier: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], numbers: pd.DataFrame
) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(classifier))
    numbers.to_csv(tmp_path / "rows.csv", index=False)
    options = ["--name", "size", "--version", "1", "--data", str(tmp_path / "rows.csv")]
    assert main(["build", str(tmp_path / "model.pkl"), *options, "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"model-bundle: {tmp_path}: expected an empty folder or none\n"


def test_csv_and_parquet_give_the_same_bundle(
    classifier: Any, tmp_path: Path, numbers: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(classifier))
    numbers.to_csv(tmp_path / "rows.csv", index=False)
    read_rows(tmp_path / "rows.csv").assign(label=1).to_parquet(tmp_path / "rows.parquet")
    common = ["build", str(tmp_path / "model.pkl"), "--name", "size", "--version", "1"]
    assert main([*common, "--data", str(tmp_path / "rows.csv"), "--out", str(tmp_path / "a")]) == 0
    parquet = ["--data", str(tmp_path / "rows.parquet"), "--target", "label", "--tar", str(tmp_path / "b.tar")]
    assert main([*common, *parquet, "--out", str(tmp_path / "b")]) == 0
    # How fast each form is here is said, and not written: so it is the same bundle on another day.
    assert re.findall(SPEED, capsys.readouterr().out) == 2 * ["linear", "native"]
    assert verify(tmp_path / "a").digest == verify(tmp_path / "b").digest == verify(tmp_path / "b.tar").digest


def test_verify_tells_which_golden_row_differs(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(bundle), "--predict"]) == 0
    out = capsys.readouterr().out
    assert "20 golden rows as they should be" in out
    assert re.findall(SPEED, out) == ["linear"]
    golden = document(bundle, "golden.json")
    golden["predictions"][4] = "huge"
    data = json.dumps(golden).encode()
    (bundle / "golden.json").write_bytes(data)
    assert main(["verify", str(bundle)]) == 1
    assert "golden.json: expected" in capsys.readouterr().err
    relist(bundle, "golden.json")
    assert main(["verify", str(bundle)]) == 0
    assert main(["verify", str(bundle), "--predict"]) == 1
    assert 'golden rows: predictions: row 4: expected "huge", found ' in capsys.readouterr().err


def relist(bundle: Path, name: str) -> None:
    """Have the manifest say what the file is now."""
    import hashlib

    manifest = document(bundle, "manifest.json")
    data = (bundle / name).read_bytes()
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_inspect_tells_what_is_in_a_bundle(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bundle)]) == 0
    out = capsys.readouterr().out
    assert "takes    a DataFrame of 2 columns" in out
    assert f"sbom     sbom.cdx.json: CycloneDX 1.6, {len(locked(bundle))} packages with their licenses\n" in out
    assert main(["inspect", str(bundle), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["release"] == read_manifest(bundle).release
    assert told["contract"]["inputs"][0]["name"] == "width"


@pytest.mark.parametrize("arguments", [["build"], ["verify"], ["mend", "x"], ["verify", "x", "--load"]])
def test_a_wrong_command_line_is_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_from_mlflow_without_mlflow_says_what_to_install(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mock.patch.dict("sys.modules", {"mlflow": None}):
        assert main(["from-mlflow", "models:/tumour@champion", "--out", str(tmp_path / "out")]) == 1
    expected = "from-mlflow needs mlflow: install modelfleet-model-server[build,mlflow]"
    assert capsys.readouterr().err == f"model-bundle: {expected}\n"


def test_what_cloudpickle_imports_by_its_name_is_a_module_of_the_pickle() -> None:
    for protocol in (2, 4, 5):
        modules = modules_of(cloudpickle.dumps([pd, pd.api, pd], protocol=protocol))
        assert {"cloudpickle.cloudpickle", "pandas", "pandas.api"} <= modules
