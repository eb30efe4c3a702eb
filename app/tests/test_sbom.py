# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The software bill of materials of a bundle, by the validator of the library that writes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from model_server.bundle.sbom import licenses_of


@pytest.fixture
def compiled(bundle_of: Callable[..., Path], classifier: Any, numbers: pd.DataFrame, tmp_path: Path) -> Path:
    """A bundle with a model, a form that it was compiled to, and a module."""
    (tmp_path / "features.py").write_text("WIDTH = 3\n")
    joblib.dump(classifier, tmp_path / "written")
    data = (tmp_path / "written").read_bytes()
    options = {"name": "size", "version": "3", "model_format": "joblib", "modules": (tmp_path / "features.py",)}
    return bundle_of(None, numbers, model_bytes=data, **options)


def document(bundle: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bundle / "sbom.cdx.json").read_bytes())
    return found


def components(bundle: Path, *types: str) -> dict[str, Any]:
    return {part["name"]: part for part in document(bundle)["components"] if part["type"] in types}


def test_it_is_valid_and_has_no_time_and_no_random_number(compiled: Path) -> None:
    text = (compiled / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert document(compiled)["metadata"] == {
        "component": {"bom-ref": "size@3", "name": "size", "type": "application", "version": "3"}
    }
    assert document(compiled)["serialNumber"].startswith("urn:uuid:")


def test_its_packages_are_those_of_the_lock(compiled: Path) -> None:
    packages = components(compiled, "library")
    lock = (compiled / "requirements.lock").read_text().splitlines()
    assert sorted(f"{name}=={part['version']}" for name, part in packages.items()) == lock
    assert all(part["purl"] == f"pkg:pypi/{name}@{part['version']}" for name, part in packages.items())
    assert packages["scikit-learn"]["licenses"] == [{"license": {"acknowledgement": "declared", "id": "BSD-3-Clause"}}]


def test_models_and_modules_have_the_digest_of_their_bytes(compiled: Path) -> None:
    files = components(compiled, "machine-learning-model", "file")
    kinds = {name: part["type"] for name, part in files.items()}
    model = "machine-learning-model"
    assert kinds == {"model.joblib": model, "compiled/linear.npz": model, "modules/features.py": "file"}
    for name, part in files.items():
        digest = hashlib.sha256((compiled / name).read_bytes()).hexdigest()
        assert part["hashes"] == [{"alg": "SHA-256", "content": digest}]


def test_dependencies_go_from_the_bundle_to_what_its_packages_need(compiled: Path) -> None:
    needed = {entry["ref"]: set(entry.get("dependsOn", ())) for entry in document(compiled)["dependencies"]}
    versions = {name: part["purl"] for name, part in components(compiled, "library").items()}
    assert needed["size@3"] == {"model.joblib", "compiled/linear.npz", "modules/features.py"}
    assert needed["model.joblib"] >= {versions[name] for name in ("joblib", "numpy", "scikit-learn", "pandas")}
    assert versions["threadpoolctl"] not in needed["model.joblib"]
    assert versions["threadpoolctl"] in needed[versions["scikit-learn"]]
    assert set().union(*needed.values()) | {"size@3"} == set(needed)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([("License-Expression", "MIT AND Zlib"), ("License", "other")], ["MIT AND Zlib"]),
        ([("License-Expression", "MIT")], ["MIT"]),
        ([("Classifier", "License :: OSI Approved :: BSD License"), ("License", "x")], ["BSD License"]),
        (
            [("Classifier", "License :: OSI Approved :: B"), ("Classifier", "License :: OSI Approved :: A")],
            ["A", "B"],
        ),
        ([("Classifier", "License :: OSI Approved"), ("License", "Apache-2.0")], ["Apache-2.0"]),
        ([("License", "Copyright\nAll of its text")], []),
        ([("License", "x" * 101)], []),
        ([], []),
    ],
)
def test_a_license_is_what_the_package_says(lines: list[tuple[str, str]], expected: list[str]) -> None:
    metadata = Message()
    for key, value in lines:
        metadata[key] = value
    names = ("value", "id", "name")
    found = [next(filter(None, (getattr(each, name, None) for name in names))) for each in licenses_of(metadata)]
    assert found == expected
