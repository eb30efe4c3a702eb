# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ONNX models: as a form that other models are compiled to, and as the model itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model_server.bundle.contract import FLOATS, INTEGERS, Contract, Input
from model_server.scoring.errors import line_of
from model_server.scoring.estimators import estimators
from model_server.scoring.forms.compiler import NotCompiledError
from model_server.scoring.forms.operations import Array, narrowed
from model_server.scoring.scorer import Outputs
from model_server.scoring.table import Table, column_array, is_numeric, matrix, table_of_columns

LARGEST = 32 << 20
"""Bytes. Each worker has a copy of its own, for a session cannot be inherited, so only small models are compiled."""

CHEAP = 0.001
"""Seconds that a row may take in the event loop. How long it takes, only running the model can tell."""
TRIES = 10
TIMING = 0.05
"""Seconds after which no row is tried any more."""

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}


@dataclass
class Onnx:
    """A predictor. It takes one tensor of all columns, or one with a column each; then their names are the contract's.

    The model's first output is the predictions, its second the probabilities, or an anomaly's scores. If
    ``is_compiled``, scikit-learn would have refused what makes NaN or infinity of them.
    """

    data: bytes
    contract: Contract
    is_compiled: bool = False
    cheap_rows: int = field(default=0, init=False)
    _feed: Callable[[Table], dict[str, Array]] = field(init=False)
    _run: Callable[..., list[Any]] = field(init=False)
    _outputs: list[str] = field(init=False)
    _failed: type[Exception] = field(init=False)

    def start(self) -> None:
        import onnxruntime  # Only this form needs it.
        from onnxruntime.capi.onnxruntime_pybind11_state import Fail

        self._failed = Fail

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(self.data, options, providers=["CPUExecutionProvider"])
        self._feed = _feed(session.get_inputs(), self.contract)
        self._outputs = [output.name for output in session.get_outputs()][:2]
        self._run = session.run
        self.cheap_rows = int(self._seconds_of_a_row() <= CHEAP)

    def predict(self, table: Table, probabilities: bool) -> Outputs:
        more = "probabilities" if probabilities else "scores" if self.contract.has_scores else ""
        # Labels do not show that they are those of NaN.
        wanted = self._outputs if more or self.is_compiled else self._outputs[:1]
        try:
            found = self._run(wanted, self._feed(table))
        except self._failed as error:
            # Types and shapes are right, so it is a value, as text that an encoder has not seen.
            raise ValueError("ONNX Runtime refuses a value") from error
        if self.is_compiled and not all(map(_is_sound, found)):
            raise ValueError("a value is too large for the model")
        predictions = np.asarray(found[0])
        outputs = {"predictions": _flat(predictions)}
        if more:
            outputs[more] = np.asarray(found[1]) if probabilities else _flat(np.asarray(found[1]))
        return outputs

    def _seconds_of_a_row(self) -> float:
        """The best of some tries; infinity where the model does not take the row, for then nothing is known of it."""
        row = table_of_columns([_some_value(column) for column in self.contract.inputs], self.contract)
        best = math.inf
        give_up_at = time.perf_counter() + TIMING
        with suppress(Exception):
            for _try in range(TRIES):
                begun = time.perf_counter()
                self.predict(row, self.contract.has_probabilities)
                ended = time.perf_counter()
                best = min(best, ended - begun)
                if ended > give_up_at:
                    break
        return best


def _some_value(column: Input) -> Array:
    """A value that the column may have."""
    if column.categories:
        return column_array(column, [column.categories[0]])
    if column.dtype in INTEGERS + FLOATS:
        return np.array([column.minimum or 0], dtype=column.dtype)
    if column.dtype == "bool":
        return np.array([False])
    return np.array([""], dtype=object)


def _is_sound(values: Any) -> bool:
    array = np.asarray(values)
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _flat(values: Array) -> Array:
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _feed(inputs: list[Any], contract: Contract) -> Callable[[Table], dict[str, Array]]:
    dtypes = [_DTYPES[tensor.type] for tensor in inputs]
    if len(inputs) == 1 and is_numeric(contract):
        name, dtype = inputs[0].name, dtypes[0]
        return lambda table: {name: narrowed(matrix(table), dtype)}
    places = [contract.names.index(tensor.name) for tensor in inputs]

    def columns(table: Table) -> dict[str, Array]:
        arrays = table.T if isinstance(table, np.ndarray) else table
        return {
            contract.names[place]: narrowed(arrays[place], dtype).reshape(-1, 1)
            for place, dtype in zip(places, dtypes, strict=True)
        }

    return columns


def compile_onnx(model: Any, contract: Contract) -> Iterator[bytes]:
    """The bytes of ONNX models, in double and in single precision, as far as they can be loaded.

    A NotCompiledError for a model that skl2onnx cannot convert, that is large, or that scikit-learn is faster with.
    """
    if contract.series:
        raise NotCompiledError("it takes text")
    try:
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import (
            BooleanTensorType,
            DoubleTensorType,
            FloatTensorType,
            Int64TensorType,
            StringTensorType,
        )
    except ModuleNotFoundError as error:
        raise NotCompiledError(f"{error.name} is not installed") from None
    if any(np.isinf(part.tree_.threshold).any() for part in estimators(model) if hasattr(part, "tree_")):
        # A split of missing values from all others. The converter looks for the float above infinity, for ever.
        raise NotCompiledError("skl2onnx cannot convert trees that split off missing values")
    if any(hasattr(part, "n_samples_fit_") for part in estimators(model)):
        # ONNX Runtime compares a row with each of them, and takes several times as long where there are some hundreds.
        raise NotCompiledError("scikit-learn finds nearest neighbours sooner")
    reason, is_converted = "", False
    # In double precision where all its parts have it, which trees and support vectors do not.
    for floats in (DoubleTensorType, FloatTensorType):
        if is_numeric(contract) and not contract.columns:
            initial = [("rows", floats([None, len(contract.inputs)]))]
        else:
            types = {"string": StringTensorType, "category": StringTensorType, "bool": BooleanTensorType}
            initial = []
            for column in contract.inputs:
                tensor = types.get(column.dtype, Int64TensorType if "int" in column.dtype else floats)
                initial.append((column.name, tensor([None, 1])))
        options = {id(model): {"zipmap": False}} if contract.has_probabilities else None
        try:
            data: bytes = to_onnx(model, initial_types=initial, options=options).SerializeToString()
            load_compiled_onnx(data, contract).start()
        except Exception as error:
            reason = line_of(error)[:120]
            continue
        if len(data) > LARGEST:
            raise NotCompiledError(f"its {math.ceil(len(data) / 2**20)} MiB would be in memory once for each worker")
        is_converted = True
        yield data
    if not is_converted:
        raise NotCompiledError(f"skl2onnx: {reason}")


def load_onnx(data: bytes, contract: Contract) -> Onnx:
    return Onnx(data, contract)


def load_compiled_onnx(data: bytes, contract: Contract) -> Onnx:
    return Onnx(data, contract, is_compiled=True)


class OnnxModel:
    """A model that was written as ONNX, with what building looks for in a model of scikit-learn.

    It takes one tensor of rows and columns, or a tensor for each column, by its name.
    """

    def __init__(self, data: bytes) -> None:
        import onnxruntime  # Only models in this format need it.

        self.data = data
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if unknown := [tensor.type for tensor in inputs if tensor.type not in _DTYPES]:
            raise ValueError(f"expected inputs of {', '.join(_DTYPES)}, found {unknown[0]}")
        if len(inputs) > 1:
            self.feature_names_in_ = np.array([tensor.name for tensor in inputs], dtype=object)
        elif isinstance(inputs[0].shape[-1], int):
            self.n_features_in_ = inputs[0].shape[-1]
        if len(outputs) > 1 and outputs[1].type not in ("tensor(float)", "tensor(double)"):
            raise ValueError(f"expected a tensor of probabilities, found {outputs[1].type}: convert without ZipMap")
        self.gives_probabilities = len(outputs) > 1

    def predictor(self, contract: Contract) -> Onnx:
        found = load_onnx(self.data, contract)
        found.start()
        return found
