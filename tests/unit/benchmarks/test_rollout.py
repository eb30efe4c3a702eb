"""What the benchmark of rollouts prepares."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import BundleError, read_seal
from ansible_collections.modelfleet.onprem.plugins.module_utils._signature import Trust, check_signature

from benchmarks.rollout import __main__ as rollout
from testbed.command import StepError


def test_bundles_are_signed_by_whom_the_service_with_all_gates_allows_and_only_while_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "BUNDLES", tmp_path)
    bundle = tmp_path / "tumour-1"
    bundle.mkdir()
    manifest = json.dumps({"schema": 1}).encode()
    (bundle / "manifest.json").write_bytes(manifest)
    with rollout._signed("1") as line:
        seal = read_seal(bundle)
    assert seal.digest == hashlib.sha256(manifest).hexdigest()
    assert check_signature(seal.manifest, seal.signature, Trust(line, "", ())).passed
    assert [path.name for path in bundle.iterdir()] == ["manifest.json"]
    with pytest.raises(StepError, match="a deploy fails"), rollout._signed("1"):
        raise StepError("a deploy fails")
    assert [path.name for path in bundle.iterdir()] == ["manifest.json"]


def test_no_signature_is_left_where_a_bundle_cannot_be_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "BUNDLES", tmp_path)
    bundle = tmp_path / "tumour-1"
    bundle.mkdir()
    (bundle / "manifest.json").write_text("{}")
    with pytest.raises(BundleError, match="tumour-2"), rollout._signed("1", "2"):
        pytest.fail("the second bundle is not there")
    assert [path.name for path in bundle.iterdir()] == ["manifest.json"]
