# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a key to a signed bundle in a registry, on the command line, with the real ssh-keygen."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from model_server.bundle.cli import main
from model_server.bundle.manifest import SIGNATURE, pack, read_seal, verify
from model_server.bundle.registry import open_registry, read_index

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run model-bundle; its exit status, and what it said."""

    def run(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return status, (said.out + said.err).strip()

    return run


@pytest.fixture
def signers(run: Run, tmp_path: Path) -> Path:
    """A file of allowed signers with the one whose key is beside it, as ``key``."""
    status, line = run("keygen", tmp_path / "key", "--principal", "release@example.com", "--no-passphrase")
    assert status == 0
    (tmp_path / "allowed_signers").write_text(line + "\n")
    return tmp_path / "allowed_signers"


def test_keygen_makes_a_key_and_prints_its_line(run: Run, signers: Path) -> None:
    key = signers.with_name("key")
    assert signers.read_text().startswith('release@example.com namespaces="modelfleet-bundle" ssh-ed25519 AAAA')
    assert key.stat().st_mode & 0o777 == 0o600
    assert "release@example.com" in key.with_suffix(".pub").read_text()
    assert run("keygen", key) == (1, f"model-bundle: key: expected a file to make, found one at {key}")
    absent = key.with_name("absent")
    assert run("keygen", absent, "--principal", "a b") == (
        1,
        "model-bundle: principal: expected a name without spaces or patterns, found 'a b'",
    )
    assert not absent.exists()


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_a_signed_bundle_verifies_and_is_the_same_bundle(
    run: Run, signers: Path, bundle: Path, tmp_path: Path, kind: str
) -> None:
    before = verify(bundle)
    key = signers.with_name("key")
    if kind == "tar":
        pack(bundle, tmp_path / "bundle.tar")
        bundle = tmp_path / "bundle.tar"
    assert run("sign", bundle, "--key", key) == (0, f"size {before.release}: signed with {key}")
    assert verify(bundle) == before
    status, said = run("verify", bundle, "--allowed-signers", signers)
    assert status == 0
    assert "files, the signature by release@example.com, the key SHA256:" in said
    assert run("verify", bundle, "--allowed-signers", signers, "--signer", "release@example.com")[0] == 0
    status, said = run("verify", bundle, "--allowed-signers", signers, "--signer", "bob")
    assert (status, "expected a signature by bob, found one by release@example.com, the key" in said) == (1, True)
    status, said = run("verify", bundle, "--allowed-signers", signers, "--revoked", key.with_suffix(".pub"))
    assert (status, "which is revoked: whoever has that key is no longer trusted" in said) == (1, True)


def test_an_unsigned_bundle_verifies_only_where_no_signature_is_asked_for(
    run: Run, signers: Path, bundle: Path
) -> None:
    assert run("verify", bundle)[0] == 0
    assert run("verify", bundle, "--allowed-signers", signers) == (
        1,
        f"model-bundle: {bundle}: expected a signature by release@example.com, found none: "
        "have it signed (model-bundle sign), or deploy another",
    )
    assert run("verify", bundle, "--signer", "bob") == (
        1,
        "model-bundle: verify: expected --allowed-signers with --revoked or --signer, found none",
    )


def test_inspect_tells_whose_key_signed(run: Run, signers: Path, bundle: Path) -> None:
    assert "signed   no\n" in run("inspect", bundle)[1]
    assert json.loads(run("inspect", bundle, "--json")[1])["signature"] == "none"
    run("sign", bundle, "--key", signers.with_name("key"))
    assert "signed   one by the key SHA256:" in run("inspect", bundle)[1]
    assert json.loads(run("inspect", bundle, "--json")[1])["signature"].startswith("one by the key SHA256:")


def test_a_bundle_is_signed_as_it_is_built(
    run: Run, signers: Path, classifier: Any, numbers: pd.DataFrame, tmp_path: Path
) -> None:
    numbers.to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(classifier))
    options = ["--name", "tiny", "--version", "1", "--data", tmp_path / "rows.csv", "--tar", tmp_path / "tiny.tar"]
    options += ["--out", tmp_path / "tiny", "--sign", signers.with_name("key")]
    assert run("build", tmp_path / "model.pkl", *options)[0] == 0
    for built in (tmp_path / "tiny", tmp_path / "tiny.tar"):
        assert run("verify", built, "--allowed-signers", signers)[0] == 0


def test_a_bundle_is_published_once_and_stays_as_it_is(run: Run, signers: Path, bundle: Path, tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    registry.mkdir()
    manifest = verify(bundle)
    command = ["publish", bundle, "--registry", registry, "--key", signers.with_name("key"), "--alias", "champion"]
    there = registry / "size/3.tar"
    assert run(*command) == (0, f"size {manifest.release}: published as {there}")
    assert run(*command) == (0, f"size {manifest.release}: was there already, as {there}")
    assert not (bundle / SIGNATURE).exists()
    assert verify(there) == manifest
    assert run("verify", there, "--allowed-signers", signers)[0] == 0
    index, _stored = read_index(open_registry(str(registry), tmp_path), "size")
    assert (index.find("champion", "here").digest, index.find("latest", "here").version) == (manifest.digest, "3")
    status, said = run("publish", bundle, "--registry", registry)
    assert (status, "a version never changes, so publish it as another version" in said) == (1, True)


def test_what_is_not_whole_or_not_truly_signed_is_neither_signed_nor_published(
    run: Run, signers: Path, bundle: Path, tmp_path: Path
) -> None:
    registry = tmp_path / "registry"
    registry.mkdir()
    other = tmp_path / "other"
    shutil.copytree(bundle, other)
    (other / SIGNATURE).write_bytes(b"signed, me")
    status, said = run("publish", other, "--registry", registry)
    assert (status, f"{SIGNATURE}: expected a signature over this bundle, found no signature" in said) == (1, True)
    (other / "contract.json").write_bytes(b"{}")
    for command in (["sign", other, "--key", signers.with_name("key")], ["publish", other, "--registry", registry]):
        status, said = run(*command)
        assert (status, "contract.json: expected" in said) == (1, True)
    assert read_seal(other).signature == b"signed, me"
    assert list(registry.iterdir()) == []
