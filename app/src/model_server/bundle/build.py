# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build a bundle from a pickled model and rows of its data.

Building loads the model, which runs its pickle: it is the user's own.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from model_server.bundle.contract import FLOATS, INTEGERS, Contract, Input, Output, encode_contract
from model_server.bundle.golden import mismatches
from model_server.bundle.lock import lock, modules_of
from model_server.bundle.manifest import (
    CONTRACT,
    GOLDEN,
    LOCK,
    MANIFEST,
    SCHEMA,
    BundleError,
    Manifest,
    parse_manifest,
    verify,
)
from model_server.scoring.encode import to_json
from model_server.scoring.errors import ScoringError
from model_server.scoring.formats import FORMATS
from model_server.scoring.forms.native import Native
from model_server.scoring.scorer import Scorer
from model_server.scoring.table import Request, table_of_instances

GOLDEN_ROWS = 20
CANDIDATES = 5_000
"""How many rows of the data, evenly spaced, golden rows are chosen from."""
RELATIVE_TOLERANCE = 1e-6
ABSOLUTE_TOLERANCE = 1e-9


def read_rows(path: Path) -> pd.DataFrame:
    """The rows of a ``.csv`` or ``.parquet`` file."""
    if path.suffix not in (".csv", ".parquet"):
        raise BundleError(f"{path}: expected a .csv or .parquet file")
    try:
        return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: {error}") from None


def build(
    model: Path,
    out: Path,
    *,
    name: str,
    version: str,
    rows: pd.DataFrame,
    targets: tuple[str, ...] = (),
    model_format: str = "pickle",
    golden_rows: int = GOLDEN_ROWS,
    relative_tolerance: float = RELATIVE_TOLERANCE,
    absolute_tolerance: float = ABSOLUTE_TOLERANCE,
) -> Manifest:
    """Write the bundle of ``model`` to the folder ``out``, which must be missing or empty; all of it or nothing.

    ``rows`` are the training data or a sample of it. They give the contract, and the golden rows are taken from them.
    ``targets`` are columns of it that the model does not take. The same inputs give the same bundle, byte for byte.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BundleError(f"{out}: expected an empty folder or none")
    try:
        data = model.read_bytes()
    except OSError as error:
        raise BundleError(f"{model}: {error.strerror}") from None
    loaded = _load(model, data, model_format)
    frame = _features(loaded, rows, targets)
    contract, golden = _observed(loaded, frame, golden_rows, relative_tolerance, absolute_tolerance)
    path = f"model.{FORMATS[model_format].suffix}"
    files = {
        path: data,
        CONTRACT: _document(encode_contract(contract)),
        GOLDEN: _document(golden),
        LOCK: _lock(model, data, model_format, loaded, contract.columns).encode(),
    }
    return write(out, files, name=name, version=version, model_format=model_format, model_path=path)


def write(
    out: Path, files: dict[str, bytes], *, name: str, version: str, model_format: str, model_path: str
) -> Manifest:
    """Write ``files`` and the manifest that lists them to the folder ``out``, in one step."""
    listed = {path: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for path, data in files.items()}
    manifest = {
        "schema": SCHEMA,
        "name": name,
        "version": version,
        "model": {"format": model_format, "path": model_path},
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "files": listed,
    }
    encoded = _document(manifest)
    parse_manifest(encoded, str(out))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            partial.chmod(0o755)
            for path, data in {**files, MANIFEST: encoded}.items():
                (partial / path).write_bytes(data)
            verified = verify(partial)
            os.rename(partial, out)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise BundleError(f"{out}: {error.strerror}") from None
    return verified


def _load(model: Path, data: bytes, model_format: str) -> Any:
    try:
        loaded = FORMATS[model_format].load(data)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise BundleError(f"{model}: cannot be loaded as {model_format}: {reason[:300]}") from error
    if not hasattr(loaded, "predict"):
        raise BundleError(f"{model}: expected a model with a predict method, found {type(loaded).__name__}")
    return loaded


def _lock(model: Path, data: bytes, model_format: str, loaded: Any, columns: bool) -> str:
    written = FORMATS[model_format]
    # A joblib file, for one, has raw arrays between its opcodes, so what is read is the same model pickled again.
    modules = modules_of(data if written.is_pickle else pickle.dumps(loaded))
    packages = {"numpy", *written.packages} | ({"pandas"} if columns else set())
    return lock(modules, packages, str(model))


def _features(model: Any, rows: pd.DataFrame, targets: tuple[str, ...]) -> pd.DataFrame:
    """The columns that the model takes, in its order."""
    for target in targets:
        if target not in rows.columns:
            raise BundleError(f"target {target!r} is no column of the data")
    rows = rows.drop(columns=list(targets))
    if rows.empty:
        raise BundleError("expected rows in the data, found none")
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        expected = getattr(model, "n_features_in_", rows.shape[1])
        if rows.shape[1] != expected:
            raise BundleError(f"the model takes {expected} columns, found {rows.shape[1]} in the data")
        return rows
    for column in names:
        if column not in rows.columns:
            raise BundleError(f"column {column!r}, which the model takes, is not in the data")
    for column in rows.columns:
        if column not in names:
            raise BundleError(f"the model does not take column {column!r} of the data: leave it out as a target")
    return rows[list(names)]


def _observed(
    model: Any, frame: pd.DataFrame, golden_rows: int, relative: float, absolute: float
) -> tuple[Contract, dict[str, Any]]:
    """The contract, and the golden rows as the model server will answer them."""
    columns = hasattr(model, "feature_names_in_")
    contract = Contract(columns, tuple(_input(name, frame[name]) for name in frame.columns), ())
    frame = frame.iloc[_evenly(len(frame), CANDIDATES)]
    instances = _instances(frame)
    try:
        # As a request's rows, so that what is compared later is what is served.
        request = Request(table_of_instances(instances, contract), len(instances), _gives_probabilities(model))
        outputs = Scorer(_NO_MANIFEST, contract, Native(model, contract)).predict(request)
        predictions, probabilities = outputs["predictions"], outputs.get("probabilities")
        chosen = _spread(predictions, golden_rows)
        golden = {
            "tolerance": {"relative": relative, "absolute": absolute},
            "instances": [instances[row] for row in chosen],
            "predictions": to_json(predictions[chosen], "predictions"),
            "probabilities": None if probabilities is None else to_json(probabilities[chosen], "probabilities"),
        }
        direct = model.predict(frame if columns else frame.to_numpy())
        expected = to_json(np.asarray(direct)[chosen], "predictions")
    except ScoringError as error:
        raise BundleError(f"the data does not fit the model: {error}: {error.__cause__ or ''}".rstrip(": ")) from error
    if lines := mismatches(expected, golden["predictions"], golden["tolerance"], limit=1):
        raise BundleError(f"the model answers differently to the data as JSON: {lines[0]}")
    return replace(contract, outputs=_outputs(model, predictions, probabilities)), golden


_NO_MANIFEST = Manifest(name="", version="", model_format="", model_path="", python="", files=(), digest="")


def _gives_probabilities(model: Any) -> bool:
    """Whether ``predict_proba`` gives one table; of several outputs it gives a list of them."""
    return hasattr(model, "predict_proba") and isinstance(getattr(model, "classes_", None), np.ndarray)


def _outputs(model: Any, predictions: Any, probabilities: Any) -> tuple[Output, ...]:
    classes = getattr(model, "classes_", None)
    labels = tuple(to_json(classes, "classes")) if isinstance(classes, np.ndarray) and classes.ndim == 1 else None
    outputs = [Output("predictions", _json_dtype(predictions.dtype), (-1, *predictions.shape[1:]), labels)]
    if probabilities is not None:
        dtype = _json_dtype(probabilities.dtype)
        outputs.append(Output("probabilities", dtype, (-1, probabilities.shape[1]), labels))
    return tuple(outputs)


def _json_dtype(dtype: Any) -> str:
    return str(dtype) if dtype.kind in "biuf" else "string"


def _input(name: Any, values: pd.Series) -> Input:
    """What the data says of one column."""
    if not isinstance(name, str):
        raise BundleError(f"column {name!r}: expected text as its name")
    nullable = bool(values.isna().any())
    present = values.dropna()
    if isinstance(values.dtype, pd.CategoricalDtype):
        categories = tuple(np.asarray(values.cat.categories).tolist())
        return Input(name, "category", nullable, categories=categories, ordered=bool(values.cat.ordered))
    kinds = {type(value) for value in present} if values.dtype == object else set()
    if pd.api.types.is_bool_dtype(values.dtype) or (kinds and kinds <= {bool, np.bool_}):
        return Input(name, "bool", nullable)
    if pd.api.types.is_numeric_dtype(values.dtype):
        dtype = str(values.dtype).lower()
        if dtype not in INTEGERS + FLOATS:
            raise BundleError(f"column {name!r}: expected {', '.join(INTEGERS + FLOATS)}, found {values.dtype}")
        if nullable and dtype in INTEGERS:
            dtype = "float64"
        if present.empty:
            return Input(name, dtype, nullable)
        low, high = present.min(), present.max()
        if not np.isfinite([low, high]).all():
            raise BundleError(f"column {name!r}: expected finite numbers, found infinity")
        number = int if dtype in INTEGERS else float
        return Input(name, dtype, nullable, number(low), number(high))
    if (kinds and kinds <= {str}) or pd.api.types.is_string_dtype(values.dtype):
        return Input(name, "string", nullable)
    raise BundleError(f"column {name!r}: expected numbers, text, booleans or categories, found {values.dtype}")


def _instances(frame: pd.DataFrame) -> list[list[Any]]:
    """The rows as a request has them."""
    columns = []
    for name in frame.columns:
        values = frame[name].astype(object)
        present = values.where(values.notna(), None)
        columns.append([value.item() if isinstance(value, np.generic) else value for value in present])
    return [list(row) for row in zip(*columns, strict=True)]


def _spread(predictions: Any, count: int) -> list[int]:
    """``count`` rows from the smallest to the largest prediction, so that every common answer is among them."""
    first = predictions.reshape(len(predictions), -1)[:, 0]
    order = np.argsort(first.astype(str) if first.dtype == object else first, kind="stable")
    return sorted(int(order[place]) for place in _evenly(len(order), count))


def _evenly(length: int, count: int) -> list[int]:
    """``count`` evenly spaced indexes below ``length``, or all if there are fewer."""
    return [int(place) for place in np.linspace(0, length - 1, min(count, length))]


def _document(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode()
