# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load a bundle's model, once everything that can be checked without running its pickle has been."""

from __future__ import annotations

import importlib
import importlib.metadata
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from model_server.bundle.contract import parse_contract
from model_server.bundle.manifest import CONTRACT, LOCK, BundleError, read_manifest, read_verified
from model_server.scoring.formats import FORMATS
from model_server.scoring.forms.native import Native
from model_server.scoring.scorer import Scorer


def load(bundle: Path) -> Scorer:
    """The scorer of ``bundle``. The bytes that are unpickled are the very bytes whose digest was checked.

    Every failure is a BundleError of one line, the exceptions of the pickle itself included.
    """
    manifest = read_manifest(bundle)
    written = FORMATS.get(manifest.model_format)
    if written is None:
        expected = " or ".join(sorted(FORMATS))
        raise BundleError(f"{bundle}: model format: expected {expected}, found {manifest.model_format}")
    pins = _pins(read_verified(bundle, LOCK, manifest).decode(), str(bundle))
    check_installed(pins, str(bundle))
    contract = parse_contract(read_verified(bundle, CONTRACT, manifest), str(bundle))
    if contract.columns:
        # Decoding needs it. Imported here it is shared by the workers, and the first request does not wait for it.
        importlib.import_module("pandas")
    data = read_verified(bundle, manifest.model_path, manifest)
    try:
        with warnings.catch_warnings():
            if "scikit-learn" in pins:
                from sklearn.exceptions import InconsistentVersionWarning

                warnings.simplefilter("error", InconsistentVersionWarning)
            model = written.load(data)
    except (Exception, SystemExit) as error:
        # A pickle runs what it wants, so anything can come out of it.
        raise BundleError(f"{bundle}: {manifest.model_path} cannot be loaded: {_reason(error)}") from error
    one_job(model)
    return Scorer(manifest, contract, Native(model, contract))


def _reason(error: BaseException) -> str:
    """Why a pickle cannot be loaded, in one line of at most 300 characters."""
    trained_with = getattr(error, "original_sklearn_version", None)
    if trained_with:
        found = getattr(error, "current_sklearn_version", "another")
        return f"expected scikit-learn {trained_with}, which it was pickled with, found {found}"
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def check_installed(pins: Mapping[str, str], where: str) -> None:
    """Raise BundleError for the first package that is not installed in its exact version."""
    for name, expected in pins.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise BundleError(f"{where}: {name}: expected {expected}, found none installed") from None
        if found != expected:
            raise BundleError(f"{where}: {name}: expected {expected}, found {found} installed")


def one_job(model: Any) -> None:
    """Set ``n_jobs`` of every estimator in ``model`` to 1, fitted ones and those in containers too.

    A worker's threads are its parallelism: an estimator that starts its own takes them from the others.
    """
    seen: set[int] = set()
    found = [model]
    while found:
        item = found.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            found.extend(item.values())
        elif isinstance(item, (list, tuple)):
            found.extend(item)
        elif isinstance(item, np.ndarray):
            if item.dtype == object:
                found.extend(item.flat)
        elif hasattr(item, "get_params") and hasattr(item, "__dict__"):
            if "n_jobs" in vars(item):
                item.n_jobs = 1
            found.extend(vars(item).values())


def _pins(lock: str, where: str) -> dict[str, str]:
    pins = {}
    for line in lock.split():
        name, separator, version = line.partition("==")
        if not separator:
            raise BundleError(f"{where}: {LOCK}: expected name==version, found {line!r}")
        pins[name] = version
    return pins
