# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle from a scikit-learn model that MLflow saved: in a registry, in a run, or in a folder.

Its signature says what the columns are, and its input example gives the golden rows where no rows of the data are
given. How it was written is what its flavor declares.
"""

from __future__ import annotations

import platform
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import mlflow
import mlflow.artifacts
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.tracking import MlflowClient
from mlflow.types import DataType
from packaging.requirements import InvalidRequirement, Requirement

from model_server.bundle.build import build, read_rows, without
from model_server.bundle.contract import DATES, FLOATS, INTEGERS, Contract, Input
from model_server.bundle.manifest import NAME, BundleError, Manifest

_REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>[0-9]+))")
_FORMATS = {
    "pickle": "pickle",
    # Its files are pickles, which name cloudpickle where they need it.
    "cloudpickle": "pickle",
    "skops": "skops",
}
"""Our format for each ``serialization_format`` of MLflow's flavor."""
_DTYPES = {
    DataType.boolean: "bool",
    DataType.integer: "int32",
    DataType.long: "int64",
    DataType.float: "float32",
    DataType.double: "float64",
    DataType.string: "string",
    DataType.datetime: "datetime64[ns]",
}


@dataclass(frozen=True)
class Column:
    """A column as a signature has it. ``dtype`` is the contract's; ``said`` is the type in the signature's words."""

    name: str
    dtype: str
    said: str
    required: bool = True

    def __str__(self) -> str:
        return f"{self.said} ({'required' if self.required else 'optional'})"


@dataclass(frozen=True)
class Signature:
    """``named``: columns have names that rows must have; else they are known by their places."""

    columns: tuple[Column, ...]
    named: bool


@dataclass(frozen=True)
class Saved:
    """What MLflow saved. ``modules`` are files of the model's own code, ``requirements`` the versions it names."""

    file: Path
    model_format: str
    modules: tuple[Path, ...]
    requirements: tuple[Requirement, ...]
    signature: Signature | None
    example: pd.DataFrame | None


def from_mlflow(
    source: str,
    out: Path,
    *,
    name: str | None = None,
    version: str | None = None,
    tracking_uri: str | None = None,
    data: Path | None = None,
    dates: tuple[str, ...] = (),
    targets: tuple[str, ...] = (),
    modules: tuple[Path, ...] = (),
    **options: Any,
) -> Manifest:
    """Write the bundle of ``source`` to the folder ``out``.

    ``source`` is ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, ``runs:/ID/PATH`` or a folder. A model of a registry
    has the ``name`` and the ``version`` that it has there, unless others are given. ``data`` are rows of the training
    data; without it the input example has to do. Other ``options`` are those of ``build``.
    """
    if tracking_uri:
        mlflow.set_tracking_uri(tracking_uri)
    try:
        uri, registered, number = _resolved(source)
        name, version = _identity(source, name or registered, version or number)
        with tempfile.TemporaryDirectory() as folder:
            saved = _saved(source, _fetched(uri, Path(folder)), with_example=data is None)
            rows = _rows(source, saved, data, dates, targets)
            columns: tuple[Column, ...] = ()
            if saved.signature:
                rows, columns = _fitted(source, rows, saved.signature)
            return build(
                saved.file,
                out,
                name=name,
                version=version,
                rows=rows,
                model_format=saved.model_format,
                modules=(*saved.modules, *modules),
                agree=partial(_agreed, source, {column.name: column for column in columns}, data is not None),
                saved_with=saved.requirements,
                where=source,
                **options,
            )
    except MlflowException as error:
        raise BundleError(f"{source}: {' '.join(str(error).split())[:300]}") from error
    except OSError as error:
        raise BundleError(f"{source}: {error.filename or ''}: {error.strerror or error}") from error


def _resolved(source: str) -> tuple[str, str | None, str | None]:
    """Where the model is; its name and its version, where it is in a registry. An alias is looked up once."""
    if not source.startswith("models:"):
        return source, None, None
    found = _REGISTERED.fullmatch(source)
    if not found:
        raise BundleError(f"{source}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
    name, version = found["name"], found["version"]
    if found["alias"]:
        version = str(MlflowClient().get_model_version_by_alias(name, found["alias"]).version)
    return f"models:/{name}/{version}", name, version


def _identity(source: str, name: str | None, version: str | None) -> tuple[str, str]:
    if not name or not version:
        raise BundleError(f"{source}: expected --name and --version, for only a registry has them")
    if not NAME.fullmatch(name):
        raise BundleError(
            f"{source}: expected a name of the form {NAME.pattern}, found {name!r}: give another with --name"
        )
    return name, version


def _fetched(uri: str, into: Path) -> Path:
    """The folder with the ``MLmodel``: a local one, or what is downloaded to ``into``."""
    if uri.startswith(("models:/", "runs:/")):
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(into)))
    else:
        folder = Path(uri)
    if (folder / "MLmodel").is_file():
        return folder
    found = sorted(folder.rglob("MLmodel"))
    if len(found) != 1:
        several = ", ".join(str(path.parent) for path in found) or "none"
        raise BundleError(f"{uri}: expected a folder with one MLmodel, found {several}")
    return found[0].parent


def _saved(source: str, folder: Path, with_example: bool) -> Saved:
    model = Model.load(str(folder))
    flavor = model.flavors.get("sklearn")
    if flavor is None:
        raise BundleError(f"{source}: expected the flavor sklearn, found {', '.join(sorted(model.flavors)) or 'none'}")
    written = flavor.get("serialization_format")
    if written not in _FORMATS:
        raise BundleError(f"{source}: serialization_format: expected {', '.join(_FORMATS)}, found {written}")
    requirements = _requirements(folder / "requirements.txt")
    _compare_environment(source, flavor, model.flavors.get("python_function", {}), written)
    code = flavor.get("code")
    schema = model.get_input_schema()
    example = model.load_input_example(str(folder)) if with_example and model.saved_input_example_info else None
    return Saved(
        file=folder / flavor["pickled_model"],
        model_format=_FORMATS[written],
        modules=tuple(sorted((folder / code).glob("*.py"))) if code else (),
        requirements=requirements,
        signature=None if schema is None else _signature(source, schema),
        example=None if example is None else _table(source, example),
    )


def _compare_environment(source: str, flavor: Mapping[str, Any], function: Mapping[str, Any], written: str) -> None:
    """The model is not loaded by another scikit-learn, and code in it not by another Python."""
    expected, found = str(flavor.get("sklearn_version")), version_of("scikit-learn")
    if found != expected:
        raise BundleError(
            f"{source}: expected scikit-learn {expected}, with which it was saved, found {found}:"
            f" pip install scikit-learn=={expected}"
        )
    python, here = str(function.get("python_version", platform.python_version())), platform.python_version()
    if written != "skops" and python.split(".")[:2] != here.split(".")[:2]:
        raise BundleError(f"{source}: expected Python {python}, with which it was saved, found {here}")


def _requirements(file: Path) -> tuple[Requirement, ...]:
    """What is named with a version; a line that is an option or an address says nothing of one."""
    found = []
    for line in file.read_text().splitlines() if file.is_file() else ():
        try:
            requirement = Requirement(line.partition(" #")[0])
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate():
            found.append(requirement)
    return tuple(found)


def _signature(source: str, schema: Any) -> Signature:
    if schema.is_tensor_spec():
        return _signature_of_tensors(source, schema.inputs)
    columns = []
    for place, column in enumerate(schema.inputs):
        name = f"x{place}" if column.name is None else column.name
        if not isinstance(column.type, DataType) or column.type not in _DTYPES:
            known = ", ".join(kind.name for kind in _DTYPES)
            raise BundleError(f"{source}: signature: column {name!r}: expected {known}, found {column.type}")
        columns.append(Column(name, _DTYPES[column.type], column.type.name, column.required))
    return Signature(tuple(columns), named=all(column.name is not None for column in schema.inputs))


def _signature_of_tensors(source: str, tensors: Iterable[Any]) -> Signature:
    """One tensor of rows and columns, or of a value a row."""
    found = [f"{tensor.name or 'a tensor'} {tuple(tensor.shape)}" for tensor in tensors]
    tensor = next(iter(tensors))
    if len(found) > 1 or len(tensor.shape) > 2 or -1 in tensor.shape[1:]:
        expected = "one tensor of shape (-1, columns) or (-1,)"
        raise BundleError(f"{source}: signature: expected columns, or {expected}, found {', '.join(found)}")
    dtype = str(tensor.type) if tensor.type.kind in "biufM" else "string"
    width = tensor.shape[1] if len(tensor.shape) == 2 else 1
    return Signature(tuple(Column(f"x{place}", dtype, str(tensor.type)) for place in range(width)), named=False)


def _table(source: str, example: Any) -> pd.DataFrame:
    if isinstance(example, pd.DataFrame):
        return example
    if isinstance(example, np.ndarray) and example.ndim in (1, 2):
        array = example.reshape(len(example), -1)
        return pd.DataFrame({f"x{place}": array[:, place] for place in range(array.shape[1])})
    raise BundleError(
        f"{source}: expected an input example that is a table, found {type(example).__name__}:"
        " give rows of the training data with --data"
    )


def _rows(
    source: str, saved: Saved, data: Path | None, dates: tuple[str, ...], targets: tuple[str, ...]
) -> pd.DataFrame:
    if data is None and saved.example is None:
        raise BundleError(
            f"{source}: expected rows to take golden rows from, found no input example: give rows of the training data"
            " with --data, or log the model with an input_example"
        )
    if data is None:
        return without(saved.example, targets)
    columns = saved.signature.columns if saved.signature and saved.signature.named else ()
    dated = {column.name for column in columns if column.dtype in DATES}
    texts = tuple(column.name for column in columns if column.dtype == "string")
    return without(read_rows(data, tuple(sorted({*dates, *dated})), texts), targets)


def _fitted(source: str, rows: pd.DataFrame, signature: Signature) -> tuple[pd.DataFrame, tuple[Column, ...]]:
    """The rows in the signature's order and, where nothing is lost by it, types; its columns, named as there."""
    columns = signature.columns
    if signature.named:
        for column in columns:
            if column.name not in rows.columns:
                raise BundleError(f"{source}: column {column.name!r} of the signature is not in the rows")
        names = {column.name for column in columns}
        for name in rows.columns:
            if name not in names:
                raise BundleError(f"{source}: column {name!r} is not in the signature: leave it out as a target")
    elif len(columns) != rows.shape[1]:
        raise BundleError(f"{source}: the signature has {len(columns)} columns, found {rows.shape[1]} in the rows")
    else:
        columns = tuple(replace(column, name=name) for column, name in zip(columns, rows.columns, strict=True))
    return pd.DataFrame({column.name: _cast(rows[column.name], column) for column in columns}), columns


def _cast(values: pd.Series, column: Column) -> pd.Series:
    """``values`` in the column's type, or as they are: then the contract has another type than the signature."""
    if not pd.api.types.is_numeric_dtype(values.dtype) or pd.api.types.is_bool_dtype(values.dtype):
        return values
    if column.dtype in FLOATS:
        cast = values.astype(column.dtype)
        # A file has the digits of a smaller float; a whole number has to be the same one.
        return cast if values.dtype.kind == "f" or _equal(cast, values) else values
    if column.dtype in INTEGERS:
        if not column.required:
            # Only a float has a missing value.
            return values.astype("float64")
        if values.notna().all() and np.isfinite(values.to_numpy("float64")).all():
            limits = np.iinfo(column.dtype)
            cast = values.clip(limits.min, limits.max).astype(column.dtype)
            return cast if _equal(cast, values) else values
    return values


def _equal(cast: pd.Series, values: pd.Series) -> bool:
    return bool((cast.astype(values.dtype) == values)[values.notna()].all())


def _agreed(source: str, columns: Mapping[str, Column], complete: bool, contract: Contract) -> Contract:
    """The contract of the rows with what the signature allows beyond them; a BundleError that names what differs.

    Rows that are not ``complete``, such as an input example, do not say between which values the training data was.
    """
    wrong = []
    inputs = []
    for given in contract.inputs:
        if not complete:
            given = replace(given, minimum=None, maximum=None)
        if column := columns.get(given.name):
            if _says(column, given):
                given = replace(given, nullable=not column.required)
            else:
                missing = " with missing values" if given.nullable else ""
                wrong.append(
                    f"column {given.name!r}: expected {column} as the signature says, found {given.dtype}{missing}"
                )
        inputs.append(given)
    if wrong:
        raise BundleError(f"{source}: {'; '.join(wrong)}")
    return replace(contract, inputs=tuple(inputs))


def _says(column: Column, given: Input) -> bool:
    """Whether the contract's column is the signature's."""
    if column.required and given.nullable:
        return False
    if given.dtype == "category":
        return column.dtype == "string"
    if column.dtype in INTEGERS and not column.required:
        return given.dtype == "float64"
    return given.dtype == column.dtype or (given.dtype in DATES and column.dtype in DATES)
