# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of modules and of action plugins share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Write a bundle with the least that a manifest asks for."""

    def make(version: str, model: bytes = b"a model", contract: bytes = b"{}") -> Path:
        bundle = tmp_path / "bundles" / version
        bundle.mkdir(parents=True)
        files = {"contract.json": contract, "golden.json": b"{}", "model.pkl": model, "requirements.lock": b""}
        for name, content in files.items():
            (bundle / name).write_bytes(content)
        manifest = {
            "schema": 1,
            "name": "tumour",
            "version": version,
            "python": "3.11",
            "model": {"format": "pickle", "path": "model.pkl"},
            "files": {
                name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
                for name, content in files.items()
            },
        }
        (bundle / "manifest.json").write_text(json.dumps(manifest))
        return bundle

    return make
