# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load what serves of a bundle, once everything that can be checked without running its pickle has been."""

from __future__ import annotations

import importlib
import importlib.metadata
import warnings
from collections.abc import Mapping
from pathlib import Path

from model_server.bundle.contract import Contract, parse_contract
from model_server.bundle.manifest import CONTRACT, LOCK, BundleError, Manifest, read_manifest, read_verified
from model_server.scoring.estimators import one_job
from model_server.scoring.formats import FORMATS
from model_server.scoring.forms.native import Native
from model_server.scoring.forms.registry import FORMS, NATIVE
from model_server.scoring.modules import FOLDER, run_modules
from model_server.scoring.scorer import Predictor, Scorer


class OtherEnvironmentError(BundleError):
    """A package is not the one that the bundle was made with."""


def load(bundle: Path, form: str | None = None, digest: str = "") -> Scorer:
    """The scorer of ``bundle``, in the form that its manifest names or in ``form``.

    The bytes that are loaded are the very bytes whose digest was checked, and with ``digest``, its first digits at
    least, so is the manifest's that says what theirs are. Every failure is a BundleError of one line, the exceptions of
    a pickle itself included.
    """
    manifest = read_manifest(bundle, digest)
    if manifest.model_format not in FORMATS:
        expected = " or ".join(sorted(FORMATS))
        raise BundleError(f"{bundle}: model format: expected {expected}, found {manifest.model_format}")
    form = form or manifest.scorer
    if form not in (NATIVE, *FORMS):
        raise BundleError(f"{bundle}: scorer: expected {' or '.join((NATIVE, *FORMS))}, found {form}")
    if form not in (NATIVE, manifest.scorer):
        raise BundleError(f"{bundle}: scorer: expected {NATIVE} or {manifest.scorer}, as it was built, found {form}")
    pins = read_pins(bundle, manifest)
    check_installed(pins, str(bundle))
    contract = parse_contract(read_verified(bundle, CONTRACT, manifest), str(bundle))
    if form == NATIVE:
        predictor: Predictor = _native(bundle, manifest, contract, pins)
    else:
        path = FORMS[form].path
        data = read_verified(bundle, path, manifest)
        try:
            predictor = FORMS[form].load(data, contract)
        except (LookupError, OSError, TypeError, ValueError) as error:
            raise BundleError(f"{bundle}: {path} cannot be loaded: {reason_of(error)}") from error
    return Scorer(manifest, contract, predictor, form)


def _native(bundle: Path, manifest: Manifest, contract: Contract, pins: Mapping[str, str]) -> Predictor:
    """The model itself."""
    written = FORMATS[manifest.model_format]
    if contract.columns:
        # Decoding needs it. Imported here it is shared by the workers, and the first request does not wait for it.
        importlib.import_module("pandas")
    data = read_verified(bundle, manifest.model_path, manifest)
    paths = (entry.path for entry in manifest.files if entry.path.startswith(FOLDER))
    modules = {path: read_verified(bundle, path, manifest) for path in paths}
    try:
        with warnings.catch_warnings():
            if "scikit-learn" in pins:
                from sklearn.exceptions import InconsistentVersionWarning

                warnings.simplefilter("error", InconsistentVersionWarning)
            if written.predictor:
                return written.predictor(data, contract)
            run_modules(modules, str(bundle))
            model = written.model(data, manifest.trusted)
    except BundleError:
        raise
    except (Exception, SystemExit) as error:
        # A pickle runs what it wants, so anything can come out of it.
        kind = OtherEnvironmentError if hasattr(error, "original_sklearn_version") else BundleError
        raise kind(f"{bundle}: {manifest.model_path} cannot be loaded: {reason_of(error)}") from error
    one_job(model)
    return Native(model, contract)


def reason_of(error: BaseException) -> str:
    """Why a pickle cannot be loaded, in one line of at most 300 characters."""
    trained_with = getattr(error, "original_sklearn_version", None)
    if trained_with:
        found = getattr(error, "current_sklearn_version", "another")
        return f"expected scikit-learn {trained_with}, which it was pickled with, found {found}"
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def check_installed(pins: Mapping[str, str], where: str) -> None:
    """Raise OtherEnvironmentError for the first package that is not installed in its exact version."""
    for name, expected in pins.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise OtherEnvironmentError(f"{where}: {name}: expected {expected}, found none installed") from None
        if found != expected:
            raise OtherEnvironmentError(f"{where}: {name}: expected {expected}, found {found} installed")


def read_pins(bundle: Path, manifest: Manifest) -> dict[str, str]:
    """The exact version of each package in the bundle's lock."""
    pins = {}
    for line in read_verified(bundle, LOCK, manifest).decode().split():
        name, separator, version = line.partition("==")
        if not separator:
            raise BundleError(f"{bundle}: {LOCK}: expected name==version, found {line!r}")
        pins[name] = version
    return pins
