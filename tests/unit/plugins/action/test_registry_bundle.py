# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""registry_bundle: a bundle is checked, signed and put into a registry by a playbook."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.action import registry_bundle
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import read_seal, verify

from tests.unit.plugins.signing import make_person


@pytest.fixture
def publish(act_here: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Run registry_bundle, with an inventory that has a registry beside it."""
    (tmp_path / "inventory/registry").mkdir(parents=True)

    def run(check_mode: bool = False, **arguments: Any) -> Any:
        given = {"inventory_registry": "registry", **arguments}
        return act_here(registry_bundle, None, check_mode, tmp_path / "inventory", **given)

    return run


def test_a_bundle_is_published_once(publish: Callable[..., Any], bundle: Path, tmp_path: Path) -> None:
    expected = {"name": "tumour", "digest": verify(bundle).digest, "signature": "none"}
    for check_mode, changed in ((True, True), (False, True), (False, False), (True, False)):
        result = publish(check_mode, bundle=str(bundle))
        assert (result["changed"], result.items() >= expected.items()) == (changed, True)
        assert Path(result["address"]).exists() is not (check_mode and changed)
    assert result["address"] == str(tmp_path / "inventory/registry/tumour/3.tar")


def test_a_bundle_is_signed_on_the_way_and_stays_as_it_is(
    publish: Callable[..., Any], bundle: Path, tmp_path: Path
) -> None:
    result = publish(bundle=str(bundle), key=str(make_person("alice", tmp_path).key), alias="champion")
    assert result["signature"].startswith("one by the key SHA256:")
    assert read_seal(Path(result["address"])).signature is not None
    assert read_seal(bundle).signature is None


def test_a_registry_that_is_given_is_meant_from_where_the_command_was_given(
    publish: Callable[..., Any], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert publish(bundle=str(bundle), registry="here")["address"] == str(tmp_path / "here/tumour/3.tar")


@pytest.mark.parametrize(
    ("signature", "message"),
    [(b"signed, Alice", "expected a signature over this bundle, found no signature (expected the text of an SSH sig")],
)
def test_what_is_no_signature_is_not_published(
    publish: Callable[..., Any], bundle: Path, signature: bytes, message: str
) -> None:
    (bundle / "manifest.json.sig").write_bytes(signature)
    result = publish(bundle=str(bundle))
    assert (result["failed"], result["msg"].startswith(f"{bundle}: manifest.json.sig: {message}")) == (True, True)


def test_what_is_missing_is_told(publish: Callable[..., Any], bundle: Path) -> None:
    assert publish()["msg"] == "bundle: expected -e bundle=PATH of a bundle or its .tar, found nothing"
    assert publish(bundle=str(bundle), inventory_registry=None)["msg"] == (
        "registry: expected -e registry=PLACE or modelfleet_registry in the inventory, found neither"
    )
    (bundle / "model.pkl").write_bytes(b"A model")
    assert "model.pkl: expected sha256" in publish(bundle=str(bundle))["msg"]
