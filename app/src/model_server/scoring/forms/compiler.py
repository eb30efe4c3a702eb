# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing programs: what comes before the estimator of a pipeline, as blocks and steps."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model_server.bundle.contract import Contract
from model_server.scoring.forms.blocks import MISSING
from model_server.scoring.forms.operations import Array
from model_server.scoring.table import is_nan, is_numeric


class NotCompiledError(ValueError):
    """Why a model has no such form, in a few words."""


@dataclass
class Writer:
    """Gathers what a program is made of. ``steps`` run in order on rows that ``blocks`` make of columns, if any do."""

    contract: Contract
    dtype: str = "float64"
    blocks: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, str]] = field(default_factory=list)
    trees: dict[str, Any] | None = None
    outcome: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)

    def array(self, values: Any) -> str:
        """Keep an array; the name to find it by."""
        name = f"array_{len(self.arrays)}"
        kept = np.asarray(values)
        # Text of any length, for an array of objects would be a pickle.
        self.arrays[name] = kept.astype(str) if kept.dtype == object else kept
        return name

    def operation(self, operation: str, values: Any) -> dict[str, str]:
        return {"operation": operation, "array": self.array(values)}

    def written(self) -> bytes:
        """The program as one ``.npz``: its arrays, and the document that says what they are for."""
        parts = ("dtype", "blocks", "steps", "trees", "outcome")
        document = json.dumps({part: getattr(self, part) for part in parts}, sort_keys=True).encode()
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, program=np.frombuffer(document, dtype=np.uint8), **self.arrays)
        return file.getvalue()

    def transformers(self, transformers: list[Any]) -> None:
        """Write all of them; a NotCompiledError names the first that has no such form."""
        found = _flat(transformers)
        if found and type(found[0]).__name__ == "ColumnTransformer":
            _write_blocks(self, found.pop(0))
        elif not is_numeric(self.contract):
            raise NotCompiledError("not all columns are numbers")
        elif all(column.dtype == "float32" for column in self.contract.inputs):
            self.dtype = "float32"
        self.steps = _steps(self, found)


def estimator_of(model: Any) -> tuple[list[Any], Any]:
    """The transformers of a pipeline and its estimator, through pipelines in pipelines and fitted searches."""
    if not type(model).__module__.startswith("sklearn."):
        raise NotCompiledError(f"{type(model).__name__} is not scikit-learn's own")
    if hasattr(model, "best_estimator_"):
        return estimator_of(model.best_estimator_)
    if type(model).__name__ != "Pipeline":
        return [], model
    inner, estimator = estimator_of(model.steps[-1][1])
    return [*(step for name, step in model.steps[:-1]), *inner], estimator


def _flat(transformers: list[Any]) -> list[Any]:
    """Without pipelines and steps that do nothing."""
    found = []
    for transformer in transformers:
        if transformer is None or isinstance(transformer, str) or _is_identity(transformer):
            continue
        nested = type(transformer).__name__ == "Pipeline"
        found += _flat([step for name, step in transformer.steps]) if nested else [transformer]
    return found


def _is_identity(transformer: Any) -> bool:
    if type(transformer).__name__ != "FunctionTransformer":
        return False
    # What histogram boosting puts before its trees: a check, no change.
    return transformer.func is None or getattr(getattr(transformer.func, "func", None), "__name__", "") == "check_array"


def _steps(writer: Writer, transformers: list[Any]) -> list[dict[str, str]]:
    dtype = np.dtype(writer.dtype)
    written: list[dict[str, str]] = []
    for transformer in transformers:
        kind = type(transformer).__name__
        if kind not in _KINDS or not type(transformer).__module__.startswith("sklearn."):
            raise NotCompiledError(f"{kind} has no such form")
        operations = _KINDS[kind](transformer)
        if written and any(operation in _HIDING for operation, found in operations):
            written.append(writer.operation("finite", 0))
        for operation, found in operations:
            values = np.asarray(found)
            written.append(writer.operation(operation, values.astype(dtype) if values.dtype.kind == "f" else values))
    return written


Operations = list[tuple[str, Any]]

_HIDING = ("at_least", "columns", "fill")
"""Operations after which it is not seen any more that a value before them was infinite, which scikit-learn refuses."""


def _standard(scaler: Any) -> Operations:
    found = [("subtract", scaler.mean_)] if scaler.with_mean else []
    return [*found, ("divide", scaler.scale_)] if scaler.with_std else found


def _robust(scaler: Any) -> Operations:
    found = [("subtract", scaler.center_)] if scaler.with_centering else []
    return [*found, ("divide", scaler.scale_)] if scaler.with_scaling else found


def _min_max(scaler: Any) -> Operations:
    low, high = scaler.feature_range
    clip = [("at_least", float(low)), ("at_most", float(high))] if scaler.clip else []
    return [("multiply", scaler.scale_), ("add", scaler.min_), *clip]


def _max_abs(scaler: Any) -> Operations:
    clip = [("at_least", -1.0), ("at_most", 1.0)] if getattr(scaler, "clip", False) else []
    return [("divide", scaler.scale_), *clip]


def _imputer(imputer: Any) -> Operations:
    _check_imputer(imputer)
    return [("fill", imputer.statistics_.astype(float))]


def _check_imputer(imputer: Any) -> None:
    missing = imputer.missing_values
    of_nan = missing is None or (isinstance(missing, float) and np.isnan(missing)) or "NA" in str(missing)
    if not of_nan or imputer.add_indicator or any(map(is_nan, imputer.statistics_)):
        raise NotCompiledError("SimpleImputer with such options has no such form")


def _selector(selector: Any) -> Operations:
    return [("columns", np.flatnonzero(selector.get_support()))]


def _projection(projection: Any) -> Operations:
    found = [("product", projection.components_)]
    if type(projection).__name__ == "TruncatedSVD":
        return found
    found.append(("subtract", (projection.mean_.reshape(1, -1) @ projection.components_.T)[0]))
    if projection.whiten:
        scale = np.sqrt(projection.explained_variance_)
        found.append(("divide", np.maximum(scale, np.finfo(scale.dtype).eps)))
    return found


_KINDS: dict[str, Callable[[Any], Operations]] = {
    "StandardScaler": _standard,
    "RobustScaler": _robust,
    "MinMaxScaler": _min_max,
    "MaxAbsScaler": _max_abs,
    "SimpleImputer": _imputer,
    "PCA": _projection,
    "TruncatedSVD": _projection,
    **dict.fromkeys(
        ("VarianceThreshold", "SelectKBest", "SelectPercentile", "SelectFpr", "SelectFdr", "SelectFwe", "RFE", "RFECV"),
        _selector,
    ),
    "SelectFromModel": _selector,
}


def _write_blocks(writer: Writer, transformer: Any) -> None:
    if transformer.transformer_weights:
        raise NotCompiledError("ColumnTransformer with weights has no such form")
    text = {place for place, column in enumerate(writer.contract.inputs) if column.dtype in ("string", "category")}
    for name, fitted, _columns in transformer.transformers_:
        columns = [int(column) for column in transformer._transformer_to_input_indices.get(name, [])]
        if not columns or (isinstance(fitted, str) and fitted == "drop"):
            continue
        steps = _flat([fitted])
        encoder = steps[-1] if steps and type(steps[-1]).__name__ in ("OneHotEncoder", "OrdinalEncoder") else None
        if encoder is not None:
            writer.blocks.append(_encoded(columns, steps[:-1], encoder))
        elif text.isdisjoint(columns):
            written = _steps(writer, steps)
            writer.blocks.append({"kind": "numbers", "columns": columns, "encoders": [], "steps": written})
        else:
            raise NotCompiledError(f"columns of text in {name} are not encoded")


def _encoded(columns: list[int], before: list[Any], encoder: Any) -> dict[str, Any]:
    fills: list[Any] = [None] * len(columns)
    for transformer in before:
        if type(transformer).__name__ != "SimpleImputer" or len(before) > 1:
            raise NotCompiledError(f"{type(transformer).__name__} before an encoder has no such form")
        _check_imputer(transformer)
        fills = [_plain(value) for value in transformer.statistics_]
    one_hot = type(encoder).__name__ == "OneHotEncoder"
    drops = getattr(encoder, "drop_idx_", None)
    infrequent = getattr(encoder, "infrequent_categories_", None)
    if drops is not None or (infrequent is not None and any(found is not None for found in infrequent)):
        raise NotCompiledError(f"{type(encoder).__name__} that drops or groups categories has no such form")
    encoders = []
    for column, fill, found in zip(columns, fills, encoder.categories_, strict=True):
        categories = [_plain(category) for category in found]
        codes: list[list[Any]] = [[category, code] for code, category in enumerate(categories)]
        unknown: Any = None
        if one_hot:
            if encoder.handle_unknown != "error":
                unknown = -1.0
        else:
            if encoder.handle_unknown == "use_encoded_value":
                unknown = _number(encoder.unknown_value)
            for pair in codes:
                if pair[0] is None:
                    pair[1] = _number(encoder.encoded_missing_value)
        if any(isinstance(code, float) and code < 0 for _category, code in codes):
            raise NotCompiledError("OrdinalEncoder with a negative code for missing values has no such form")
        codes = [[category, -1 if code == MISSING else code] for category, code in codes]
        encoders.append({"column": column, "codes": codes, "width": len(categories), "fill": fill, "unknown": unknown})
    kind = "one_hot" if one_hot else "ordinal"
    return {"kind": kind, "columns": columns, "encoders": encoders, "steps": []}


def _number(value: Any) -> float | str:
    return MISSING if np.isnan(value) else float(value)


def _plain(value: Any) -> Any:
    """A category as JSON has it; a missing one is null."""
    plain = value.item() if isinstance(value, np.generic) else value
    if plain is None or is_nan(plain):
        return None
    if not isinstance(plain, (bool, int, float, str)):
        raise NotCompiledError(f"a category is a {type(plain).__name__}")
    return plain
