"""What the benchmark of rollouts prepares."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import read_seal
from ansible_collections.modelfleet.onprem.plugins.module_utils._signature import Trust, check_signature

from benchmarks.rollout import __main__ as rollout


def test_bundles_are_signed_by_whom_the_service_with_all_gates_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "BUNDLES", tmp_path)
    bundle = tmp_path / "tumour-1"
    bundle.mkdir()
    manifest = json.dumps({"schema": 1}).encode()
    (bundle / "manifest.json").write_bytes(manifest)
    line = rollout._sign("1")
    seal = read_seal(bundle)
    assert seal.digest == hashlib.sha256(manifest).hexdigest()
    assert check_signature(seal.manifest, seal.signature, Trust(line, "", ())).passed
