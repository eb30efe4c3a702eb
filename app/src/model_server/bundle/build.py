# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build a bundle from a model and rows of its data.

Building loads the model, which runs its pickle: it is the user's own.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import pickle
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from model_server.bundle.contract import DATES, FLOATS, INTEGERS, Contract, Input, Output, encode_contract
from model_server.bundle.golden import mismatches
from model_server.bundle.lock import distributions, encode_lock, modules_of, pins_of
from model_server.bundle.manifest import (
    CONTRACT,
    GOLDEN,
    LOCK,
    MANIFEST,
    SBOM,
    SCHEMA,
    BundleError,
    Manifest,
    parse_manifest,
    verify,
)
from model_server.bundle.prove import UNSEEN, choose, evenly
from model_server.bundle.sbom import sbom
from model_server.scoring.encode import to_json
from model_server.scoring.errors import ScoringError
from model_server.scoring.estimators import estimators
from model_server.scoring.formats import FORMATS, predictor_of
from model_server.scoring.forms.onnx import OnnxModel
from model_server.scoring.forms.registry import FORMS
from model_server.scoring.load import reason_of
from model_server.scoring.modules import FOLDER, imports, module_names, run_modules
from model_server.scoring.scorer import Scorer
from model_server.scoring.table import Request, table_of_columns, table_of_instances

GOLDEN_ROWS = 20
CANDIDATES = 5_000
"""How many rows of the data, evenly spaced, golden rows are chosen from."""
RELATIVE_TOLERANCE = 1e-6
ABSOLUTE_TOLERANCE = 1e-9


def read_rows(path: Path, dates: tuple[str, ...] = (), texts: tuple[str, ...] = ()) -> pd.DataFrame:
    """The rows of a ``.csv`` or ``.parquet`` file.

    ``dates`` are columns of text that are dates, as a CSV has them; ``texts`` are text there, though it be all digits.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise BundleError(f"{path}: expected a .csv or .parquet file")
    try:
        rows = pd.read_csv(path, dtype=dict.fromkeys(texts, str)) if path.suffix == ".csv" else pd.read_parquet(path)
        for column in dates:
            if column not in rows.columns:
                raise BundleError(f"date {column!r} is no column of the data")
            rows[column] = pd.to_datetime(rows[column], format="ISO8601")
    except BundleError:
        raise
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: {error}") from None
    return rows


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
    scorer: str | None = None,
    timings: bool = False,
    trusted: tuple[str, ...] = (),
    modules: tuple[Path, ...] = (),
    agree: Callable[[Contract], Contract] | None = None,
    saved_with: tuple[Requirement, ...] = (),
    where: str | None = None,
) -> Manifest:
    """Write the bundle of ``model`` to the folder ``out``, which must be missing or empty; all of it or nothing.

    ``rows`` are the training data or a sample of it. They give the contract, and the golden rows are taken from them.
    ``targets`` are columns of it that the model does not take. The model is compiled to the first form that is proven
    equal, or to ``scorer`` if that is given. ``trusted`` are types of a skops file that it may be made of, ``modules``
    files with classes of its own, which the bundle ships. ``agree`` is given the contract that the rows say, and gives
    that of the bundle, or a BundleError; ``saved_with`` is what is known of the versions that the model was written
    with, which the locked packages must have; ``where`` names the model in errors.

    The same inputs give the same bundle, byte for byte, but not with ``timings``, which takes the fastest of the forms
    that are proven equal, and puts into the manifest how long predictions take in each.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BundleError(f"{out}: expected an empty folder or none")
    where = where or str(model)
    data = _read(model)
    shipped = {f"{FOLDER}{path.name}": _read(path) for path in modules}
    loaded = _load(where, data, model_format, trusted, shipped)
    frame = _features(loaded, without(rows, targets))
    contract = _described(loaded, frame)
    contract = agree(contract) if agree else contract
    columns = [_array(column, frame[column.name]) for column in contract.inputs]
    contract = _with_categories(loaded, contract, columns)
    contract, golden = _observed(loaded, frame, contract, golden_rows, relative_tolerance, absolute_tolerance)
    choice = choose(loaded, contract, columns, golden["tolerance"], scorer, timings)
    path = f"model.{FORMATS[model_format].suffix}"
    compiled = {} if choice.data is None else {FORMS[choice.form].path: choice.data}
    needed = {
        "numpy",
        *FORMATS[model_format].packages,
        *(FORMS[choice.form].packages if compiled else ()),
        *(("pandas",) if contract.columns else ()),
        *distributions(_modules(data, model_format, loaded, shipped), where),
    }
    pins = pins_of(needed, where)
    _compare_versions(pins, saved_with, where)
    own = {path: data, **compiled, **shipped}
    files = {
        **own,
        CONTRACT: _document(encode_contract(contract)),
        GOLDEN: _document(golden),
        LOCK: encode_lock(pins).encode(),
        SBOM: _document(sbom(name, version, own, needed, pins)),
    }
    scorer_section = {"form": choice.form, "tried": choice.tried}
    used = {"format": model_format, "path": path} | ({"trusted": sorted(trusted)} if trusted else {})
    return _write(out, files, {"name": name, "version": version, "model": used, "scorer": scorer_section})


def write(
    out: Path, files: dict[str, bytes], *, name: str, version: str, model_format: str, model_path: str
) -> Manifest:
    """Write ``files`` and the manifest that lists them to the folder ``out``, in one step."""
    return _write(out, files, {"name": name, "version": version, "model": {"format": model_format, "path": model_path}})


def _write(out: Path, files: dict[str, bytes], about: dict[str, Any]) -> Manifest:
    listed = {path: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for path, data in files.items()}
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    manifest = {"schema": SCHEMA, **about, "python": python, "files": listed}
    encoded = _document(manifest)
    parse_manifest(encoded, str(out))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            partial.chmod(0o755)
            for path, data in {**files, MANIFEST: encoded}.items():
                (partial / path).parent.mkdir(exist_ok=True)
                (partial / path).write_bytes(data)
            verified = verify(partial)
            os.rename(partial, out)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise BundleError(f"{out}: {error.strerror}") from None
    return verified


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from None


def _load(where: str, data: bytes, model_format: str, trusted: tuple[str, ...], shipped: dict[str, bytes]) -> Any:
    written = FORMATS[model_format]
    for path in shipped:
        name = path[len(FOLDER) :].removesuffix(".py")
        if not name.isidentifier() or name in sys.stdlib_module_names or name == "model_server":
            raise BundleError(f"module {path}: expected the name of a module of your own and .py")
    try:
        if written.untrusted and (unknown := sorted(set(written.untrusted(data)) - set(trusted))):
            raise BundleError(f"{where}: expected types that are trusted (--trust TYPE), found {', '.join(unknown)}")
        run_modules(shipped, where)
        with warnings.catch_warnings():
            if find_spec("sklearn"):
                from sklearn.exceptions import InconsistentVersionWarning  # A model in ONNX does without.

                warnings.simplefilter("error", InconsistentVersionWarning)
            loaded = written.model(data, trusted)
    except BundleError:
        raise
    except ModuleNotFoundError as error:
        advice = f"install it, or ship it with --module {str(error.name).partition('.')[0]}.py"
        raise BundleError(f"{where}: needs the module {error.name}, which is not there: {advice}") from error
    except Exception as error:
        reason = reason_of(error)
        if "__main__" in reason:
            reason = "a class of it is defined in __main__: put it into a module and ship that with --module"
        elif hasattr(error, "original_sklearn_version"):
            reason += ": install that version here, or train the model anew"
        raise BundleError(f"{where}: cannot be loaded as {model_format}: {reason}") from error
    if not hasattr(loaded, "predict") and not isinstance(loaded, OnnxModel):
        raise BundleError(f"{where}: expected a model with a predict method, found {type(loaded).__name__}")
    return loaded


def _modules(data: bytes, model_format: str, loaded: Any, shipped: dict[str, bytes]) -> set[str]:
    """What must be installed to load the model: what its pickle names, and what the shipped modules import."""
    if isinstance(loaded, OnnxModel):
        return set()
    own = module_names(shipped)
    # A joblib file, for one, has raw arrays between its opcodes, so what is read is the same model pickled again.
    found = modules_of(data if FORMATS[model_format].is_pickle else pickle.dumps(loaded))
    for path in own.values():
        found |= imports(ast.parse(shipped[path]))
    return {module for module in found if module.partition(".")[0] not in own}


def _compare_versions(pins: Mapping[str, str], saved_with: tuple[Requirement, ...], where: str) -> None:
    wrong = []
    for requirement in sorted(saved_with, key=lambda requirement: requirement.name):
        pin = pins.get(canonicalize_name(requirement.name))
        if pin is not None and not requirement.specifier.contains(pin, prereleases=True):
            wrong.append(f"expected {requirement}, found {pin}")
    if wrong:
        raise BundleError(f"{where}: other packages than it was saved with: {'; '.join(wrong)}")


def without(rows: pd.DataFrame, targets: tuple[str, ...]) -> pd.DataFrame:
    """The rows without these columns."""
    for target in targets:
        if target not in rows.columns:
            raise BundleError(f"target {target!r} is no column of the data")
    return rows.drop(columns=list(targets))


def _features(model: Any, rows: pd.DataFrame) -> pd.DataFrame:
    """The columns that the model takes, in its order."""
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
            raise BundleError(f"the model does not take column {column!r} of the data: leave it out with --target")
    return rows[list(names)]


def _described(model: Any, frame: pd.DataFrame) -> Contract:
    """The contract as far as the columns are concerned."""
    columns = hasattr(model, "feature_names_in_")
    return Contract(columns, tuple(_input(name, frame[name]) for name in frame.columns), (), _takes_texts(model))


def _with_categories(model: Any, contract: Contract, columns: Sequence[Any]) -> Contract:
    """The contract with the values that its columns take, where the model refuses text or categories it has not seen.

    Which these are, an encoder in the model says: of text one that knows all that the data has in the column. Where
    none does, as where a model reads numbers from text, the contract allows any text, as the model may take it.
    """
    native = predictor_of(model, contract)
    encoders = [part.categories_ for part in estimators(model) if isinstance(getattr(part, "categories_", None), list)]
    known = [{str(value) for value in values if isinstance(value, str)} for each in encoders for values in each]

    def takes(place: int, values: Sequence[Any]) -> bool:
        """Whether the model predicts the first row with each of the values in this column."""
        rows = [np.repeat(column[:1], len(values)) for column in columns]
        rows[place] = np.array(values, dtype=object)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                native.predict(table_of_columns(rows, contract), False)
        except Exception:
            return False
        return True

    def taken(place: int, column: Input) -> tuple[Any, ...] | None:
        if column.dtype == "category" and not takes(place, column.categories or ()):
            return tuple(value for value in column.categories or () if takes(place, [value]))
        if column.dtype == "string" and not takes(place, [UNSEEN]):
            given = {value for value in columns[place] if isinstance(value, str)}
            found = [values for values in known if given <= values and takes(place, sorted(values))]
            return tuple(sorted(set().union(*found))) or None
        return column.categories

    inputs = enumerate(contract.inputs)
    return replace(contract, inputs=tuple(replace(column, categories=taken(place, column)) for place, column in inputs))


def _observed(
    model: Any, frame: pd.DataFrame, contract: Contract, golden_rows: int, relative: float, absolute: float
) -> tuple[Contract, dict[str, Any]]:
    """The contract with its outputs, and the golden rows as the model server will answer them."""
    if _finds_anomalies(model):
        contract = replace(contract, outputs=(Output("scores", "float64", (-1,)),))
    frame = frame.iloc[evenly(len(frame), CANDIDATES)]
    instances = _instances(frame)
    try:
        # As a request's rows, so that what is compared later is what is served.
        request = Request(table_of_instances(instances, contract), len(instances), _gives_probabilities(model))
        outputs = Scorer(_NO_MANIFEST, contract, predictor_of(model, contract)).predict(request)
        predictions, probabilities = outputs["predictions"], outputs.get("probabilities")
        chosen = _spread(predictions, golden_rows)
        golden = {
            "tolerance": {"relative": relative, "absolute": absolute},
            "instances": [instances[row] for row in chosen],
            "predictions": to_json(predictions[chosen], "predictions"),
            "probabilities": None if probabilities is None else to_json(probabilities[chosen], "probabilities"),
        }
        if contract.has_scores:
            golden["scores"] = to_json(outputs["scores"][chosen], "scores")
        direct = _direct(model, frame, contract)
        expected = to_json(direct[chosen], "predictions")
    except ScoringError as error:
        raise BundleError(f"the data does not fit the model: {error}: {error.__cause__ or ''}".rstrip(": ")) from error
    if lines := mismatches(expected, golden["predictions"], golden["tolerance"], limit=1):
        raise BundleError(f"the model answers differently to the data as JSON: {lines[0]}")
    return replace(contract, outputs=_outputs(model, outputs)), golden


_NO_MANIFEST = Manifest(name="", version="", model_format="", model_path="", python="", files=(), digest="")


def _direct(model: Any, frame: pd.DataFrame, contract: Contract) -> Any:
    """What the model predicts for the data as it is, and not as JSON."""
    if isinstance(model, OnnxModel):
        table = table_of_columns([_array(column, frame[column.name]) for column in contract.inputs], contract)
        return model.predictor(contract).predict(table, False)["predictions"]
    if contract.series:
        return np.asarray(model.predict(frame.iloc[:, 0]))
    return np.asarray(model.predict(frame if contract.columns else frame.to_numpy()))


def _gives_probabilities(model: Any) -> bool:
    """Whether ``predict_proba`` gives one table; of several outputs it gives a list of them."""
    if isinstance(model, OnnxModel):
        return model.gives_probabilities
    return hasattr(model, "predict_proba") and isinstance(getattr(model, "classes_", None), np.ndarray)


def _takes_texts(model: Any) -> bool:
    """Whether what the model gives its rows to first turns texts into numbers."""
    if hasattr(model, "best_estimator_"):
        return _takes_texts(model.best_estimator_)
    if hasattr(model, "transformer_list"):
        return any(_takes_texts(part) for _name, part in model.transformer_list)
    if hasattr(model, "steps"):
        first = next((step for _name, step in model.steps if step not in (None, "passthrough")), None)
        return _takes_texts(first)
    return hasattr(model, "build_analyzer")


def _finds_anomalies(model: Any) -> bool:
    while hasattr(model, "steps"):
        model = model.steps[-1][1]
    return getattr(model, "_estimator_type", None) == "outlier_detector" or (
        hasattr(model, "offset_") and hasattr(model, "decision_function") and hasattr(model, "score_samples")
    )


def _outputs(model: Any, given: Mapping[str, Any]) -> tuple[Output, ...]:
    labels = _labels(model, given)
    outputs = []
    for name in ("predictions", "probabilities", "scores"):
        if name in given:
            found = given[name]
            # Which column of probabilities is of which label only scikit-learn says.
            is_of_labels = name == "predictions" or (name == "probabilities" and hasattr(model, "classes_"))
            outputs.append(
                Output(name, _json_dtype(found.dtype), (-1, *found.shape[1:]), labels if is_of_labels else None)
            )
    return tuple(outputs)


def _labels(model: Any, given: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """The classes that the predictions are of, and of several a row those of each; None of what names none."""
    classes, predictions = getattr(model, "classes_", None), given["predictions"]
    if isinstance(model, OnnxModel):
        # It does not name them. Where the data was given as many labels as there are probabilities, these are all.
        is_label = predictions.ndim == 1 and predictions.dtype.kind != "f" and "probabilities" in given
        found = tuple(sorted(set(predictions.tolist()))) if is_label else ()
        return found if found and len(found) == given["probabilities"].shape[1] else None
    if isinstance(classes, np.ndarray) and classes.ndim == 1:
        return tuple(to_json(classes, "classes"))
    if isinstance(classes, list) and predictions.ndim == 2 and len(classes) == predictions.shape[1]:
        return tuple(tuple(to_json(each, "classes")) for each in classes)
    return None


def _array(column: Input, values: pd.Series) -> Any:
    """All values of a column of the data, as ``column_array`` has those of a request."""
    if column.dtype in (*FLOATS, *INTEGERS, *DATES) or (column.dtype == "bool" and not column.nullable):
        return values.to_numpy(column.dtype, **({"na_value": np.nan} if column.dtype in FLOATS else {}))
    return values.astype(object).where(values.notna(), np.nan).to_numpy(dtype=object)


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
    if str(values.dtype) in DATES:
        return Input(name, str(values.dtype), nullable)
    if (kinds and kinds <= {str}) or pd.api.types.is_string_dtype(values.dtype):
        return Input(name, "string", nullable)
    raise BundleError(f"column {name!r}: expected numbers, text, booleans, dates or categories, found {values.dtype}")


def _instances(frame: pd.DataFrame) -> list[list[Any]]:
    """The rows as a request has them."""
    columns = []
    for name in frame.columns:
        values = frame[name].astype(object)
        present = values.where(values.notna(), None)
        columns.append([_plain(value) for value in present])
    return [list(row) for row in zip(*columns, strict=True)]


def _plain(value: Any) -> Any:
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return value.item() if isinstance(value, np.generic) else value


def _spread(predictions: Any, count: int) -> list[int]:
    """``count`` rows from the smallest to the largest prediction, so that every common answer is among them."""
    first = predictions.reshape(len(predictions), -1)[:, 0]
    order = np.argsort(first.astype(str) if first.dtype == object else first, kind="stable")
    return sorted(int(order[place]) for place in evenly(len(order), count))


def _document(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode()
