# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether what is on a host is still what was placed there."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import read_manifest
from ansible_collections.modelfleet.onprem.plugins.module_utils._trust import (
    TrustError,
    check_bundle,
    check_bytes,
    check_manifest,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._verdict import ADVICE


@pytest.fixture
def placed(make_bundle: Callable[..., Path], tmp_path: Path) -> tuple[Path, str]:
    """A release's folder, as on a host, and its name."""
    bundle = make_bundle("3")
    place = tmp_path / read_manifest(bundle).release
    place.mkdir()
    bundle.rename(place / "bundle")
    return place, place.name


def change(bundle: Path) -> None:
    model = bundle / "model.pkl"
    model.write_bytes(bytes([model.read_bytes()[0] ^ 1]) + model.read_bytes()[1:])


def reseal(bundle: Path) -> None:
    """Change a byte, and the manifest so that they fit."""
    change(bundle)
    manifest: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["model.pkl"]["sha256"] = hashlib.sha256((bundle / "model.pkl").read_bytes()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_what_is_as_it_was_placed_is_trusted(placed: tuple[Path, str]) -> None:
    check_manifest(*placed)
    check_bytes(*placed)


@pytest.mark.parametrize("check", [check_manifest, check_bytes])
def test_what_was_described_anew_is_another_bundle(placed: tuple[Path, str], check: Callable[..., None]) -> None:
    place, release = placed
    reseal(place / "bundle")
    digest, found = release.rpartition("-")[2], read_manifest(place / "bundle").digest
    with pytest.raises(TrustError) as raised:
        check(place, release)
    message = f"{place}: manifest.json: expected sha256 {digest}, found {found}: {ADVICE['digest']}"
    assert str(raised.value) == message
    (verdict,) = raised.value.verdicts
    assert {key: verdict[key] for key in ("gate", "where", "mode", "verdict", "expected", "found")} == {
        "gate": "digest",
        "where": str(place),
        "mode": "enforce",
        "verdict": "fail",
        "expected": f"every file as its manifest says, of sha256 {digest}",
        "found": f"sha256 {found}",
    }


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change, r"model\.pkl: expected sha256 "),
        (lambda bundle: (bundle / "manifest.json").write_text("{"), r"manifest\.json is not valid JSON"),
        (lambda bundle: (bundle / "manifest.json").unlink(), r"manifest\.json is missing"),
    ],
    ids=["a byte", "no manifest's text", "no manifest"],
)
def test_what_is_damaged_fails_the_gate_digest(
    placed: tuple[Path, str], damage: Callable[[Path], Any], message: str
) -> None:
    place, release = placed
    damage(place / "bundle")
    with pytest.raises(TrustError, match=f"{message}.*: {re.escape(ADVICE['digest'])}$") as raised:
        check_bytes(place, release)
    assert [(each["gate"], each["verdict"]) for each in raised.value.verdicts] == [("digest", "fail")]


@pytest.mark.parametrize(
    ("digits", "trusted"), [(64, True), (12, True), (0, False)], ids=["all", "as in a name", "none"]
)
def test_a_digest_may_be_given_by_its_first_digits(placed: tuple[Path, str], digits: int, trusted: bool) -> None:
    bundle = placed[0] / "bundle"
    digest = read_manifest(bundle).digest[:digits]
    if trusted:
        assert check_bundle(bundle, digest, None, "off")[0].digest.startswith(digest)
    else:
        with pytest.raises(TrustError, match="expected sha256 , found "):
            check_bundle(bundle, digest, None, "off")
