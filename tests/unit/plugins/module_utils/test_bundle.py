# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import (
    BundleError,
    Manifest,
    Seal,
    pack,
    parse_manifest,
    read_manifest,
    read_seal,
    read_verified,
    unpack,
    verify,
)

FILES = {"contract.json": b"{}", "golden.json": b"[]", "model.pkl": b"a pickle", "requirements.lock": b"numpy==2.4.6\n"}


def document(**changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": "tumour",
        "version": "3",
        "model": {"format": "pickle", "path": "model.pkl"},
        "python": "3.11",
        "files": {
            path: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for path, data in FILES.items()
        },
        **changes,
    }


def encoded(manifest: dict[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for path, data in FILES.items():
        (folder / path).write_bytes(data)
    (folder / "manifest.json").write_bytes(encoded(document()))
    return folder


@pytest.fixture
def tar(bundle: Path, tmp_path: Path) -> Path:
    pack(bundle, tmp_path / "bundle.tar")
    return tmp_path / "bundle.tar"


def rewritten(tar: Path, changes: dict[str, bytes | None], *extra: tarfile.TarInfo) -> Path:
    """The tar with files replaced, added or (None) left out, and ``extra`` members without content."""
    with tarfile.open(tar) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}
    files.update(changes)
    with tarfile.open(tar, "w") as archive:
        for path, data in files.items():
            if data is not None:
                member = tarfile.TarInfo(path)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        for member in extra:
            archive.addfile(member)
    return tar


def test_the_identity_is_the_digest_of_the_manifest(bundle: Path, tar: Path) -> None:
    digest = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    assert verify(bundle).digest == verify(tar).digest == read_manifest(tar).digest == digest
    assert read_manifest(bundle).release == f"3-{digest[:12]}"
    assert read_manifest(bundle).size == sum(map(len, FILES.values()))


@pytest.mark.parametrize("read", [read_manifest, verify])
def test_a_bundle_may_be_asked_for_by_its_digest(bundle: Path, read: Callable[..., Manifest]) -> None:
    digest = read_manifest(bundle).digest
    assert read(bundle, digest) == read(bundle, digest[:12]) == read(bundle)
    # Nothing in another manifest is looked at.
    (bundle / "manifest.json").write_text("{no JSON")
    with pytest.raises(BundleError, match=rf"bundle: manifest\.json: expected sha256 {digest}, found [0-9a-f]{{64}}$"):
        read(bundle, digest)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "schema: expected at most 1, found 2: a newer modelfleet made it"),
        ({"schema": "1"}, 'schema: expected 1, found "1"'),
        ({"schema": True}, "schema: expected 1, found true"),
        ({"name": "Tumour"}, 'name: expected .*, found "Tumour"'),
        ({"version": "3-1"}, 'version: expected .*, found "3-1"'),
        ({"version": 3}, "version: expected .*, found 3"),
        ({"python": "3"}, 'python: expected .*, found "3"'),
        ({"model": "model.pkl"}, 'model: expected an object, found "model.pkl"'),
        ({"model": {"format": "pickle", "path": "../model.pkl"}}, 'path: expected .*, found "../model.pkl"'),
        ({"model": {"format": "pickle", "path": "other.pkl"}}, "files: other.pkl is not listed"),
        (
            {"model": {"format": "skops", "path": "model.pkl", "trusted": "all"}},
            'trusted: expected a list of text, found "all"',
        ),
        ({"scorer": "trees"}, 'scorer: expected an object, found "trees"'),
        ({"scorer": {"form": "../trees"}}, 'scorer: form: expected .*, found "../trees"'),
        ({"scorer": {"form": "trees", "tried": ["trees"]}}, "scorer: tried: expected a list of forms, found"),
        ({"files": {}}, "files: contract.json is not listed"),
        ({"files": {"/etc/passwd": {}}}, 'expected a path inside the bundle, found "/etc/passwd"'),
        ({"files": {"a/../../b": {}}}, 'expected a path inside the bundle, found "a/../../b"'),
        ({"files": {"a//b": {}}}, 'expected a path inside the bundle, found "a//b"'),
        ({"files": {"manifest.json": {}}}, 'expected a path inside the bundle, found "manifest.json"'),
        ({"files": {"manifest.json.sig": {}}}, 'expected a path inside the bundle, found "manifest.json.sig"'),
        ({"files": {"a": {"sha256": "0" * 64, "size": -1}}}, "a: size: expected a number of bytes, found -1"),
        ({"files": {"a": {"sha256": "0" * 63, "size": 1}}}, 'a: sha256: expected .*, found "00'),
    ],
)
def test_a_wrong_manifest_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=f"^here: manifest.json: .*{message}"):
        parse_manifest(encoded(document(**changes)), "here")


def test_a_manifest_tells_the_form_that_serves_or_it_is_the_model_itself() -> None:
    tried = {"form": "trees", "equal": True, "rows": 12_240, "largest_difference": 0.0}
    compiled = parse_manifest(encoded(document(scorer={"form": "trees", "tried": [tried]})), "here")
    assert (compiled.scorer, compiled.tried) == ("trees", (tried,))
    assert parse_manifest(encoded(document()), "here").scorer == "native"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "here: manifest.json is not valid JSON"),
        (b"\xff\xfe", "here: manifest.json is not valid JSON"),
        (b"[" * 100_000, "here: manifest.json is not valid JSON"),
        (b"[]", "here: manifest.json: expected an object, found list"),
        (b'{"schema": 1, "schema": 1}', "key 'schema' is there twice"),
    ],
)
def test_a_manifest_that_is_no_object_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        parse_manifest(data, "here")


def test_missing_additional_and_changed_files_are_named(bundle: Path) -> None:
    (bundle / "notes.txt").write_bytes(b"")
    with pytest.raises(BundleError, match=r"notes\.txt is not in the manifest"):
        verify(bundle)
    (bundle / "notes.txt").unlink()
    (bundle / "model.pkl").write_bytes(b"b pickle")
    with pytest.raises(BundleError, match=r"model\.pkl: expected sha256 [0-9a-f]{64}, found [0-9a-f]{64}"):
        verify(bundle)
    (bundle / "model.pkl").write_bytes(b"longer than it was")
    with pytest.raises(BundleError, match=r"model\.pkl: expected 8 bytes, found 18"):
        verify(bundle)
    (bundle / "model.pkl").unlink()
    with pytest.raises(BundleError, match=r"model\.pkl is missing"):
        verify(bundle)


@pytest.mark.parametrize("target", ["model.real", "/"])
def test_a_link_is_no_file_of_a_bundle(bundle: Path, target: str) -> None:
    (bundle / "link").symlink_to(target)
    with pytest.raises(BundleError, match="link: expected a plain file"):
        verify(bundle)


def test_what_is_no_bundle_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="absent: No such file or directory"):
        read_manifest(tmp_path / "absent")
    with pytest.raises(BundleError, match=r"manifest\.json is missing"):
        read_manifest(tmp_path)
    (tmp_path / "bundle.tar").write_bytes(b"no tar at all")
    with pytest.raises(BundleError, match=r"bundle\.tar: expected a bundle"):
        read_manifest(tmp_path / "bundle.tar")


def test_packing_twice_gives_the_same_bytes(bundle: Path, tar: Path, tmp_path: Path) -> None:
    os.utime(bundle / "model.pkl", (1, 1))
    (bundle / "model.pkl").chmod(0o600)
    pack(bundle, tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == tar.read_bytes()
    pack(tar, tmp_path / "repacked.tar")
    assert (tmp_path / "repacked.tar").read_bytes() == tar.read_bytes()


def test_a_wrong_bundle_is_not_packed(bundle: Path, tmp_path: Path) -> None:
    (bundle / "golden.json").write_bytes(b"{}")
    with pytest.raises(BundleError, match=f"{bundle}: golden.json: expected sha256"):
        pack(bundle, tmp_path / "bundle.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_unpacking_gives_the_same_bundle(bundle: Path, tar: Path, tmp_path: Path) -> None:
    assert unpack(tar, tmp_path / "there") == verify(tmp_path / "there") == verify(bundle)


def test_unpacking_into_a_used_folder_is_refused(tar: Path, bundle: Path) -> None:
    with pytest.raises(BundleError, match="expected an empty folder or none"):
        unpack(tar, bundle)
    assert verify(bundle)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"../outside": b"x"}, r"\.\./outside is not in the manifest"),
        ({"/tmp/outside": b"x"}, "/tmp/outside is not in the manifest"),
        ({"model.pkl": b"b pickle"}, "model.pkl: expected sha256"),
        ({"model.pkl": None}, "model.pkl is missing"),
        ({"manifest.json": None}, "manifest.json is missing"),
    ],
)
def test_a_wrong_tar_leaves_nothing_behind(
    tar: Path, tmp_path: Path, changes: dict[str, bytes | None], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        unpack(rewritten(tar, changes), tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_links_and_repeated_members_of_a_tar_are_refused(tar: Path, tmp_path: Path) -> None:
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    original = tar.read_bytes()
    with pytest.raises(BundleError, match="link: expected a plain file"):
        unpack(rewritten(tar, {}, link), tmp_path / "there")
    tar.write_bytes(original)
    with pytest.raises(BundleError, match="there twice"):
        unpack(rewritten(tar, {}, tarfile.TarInfo("manifest.json")), tmp_path / "there")


def test_read_verified_gives_only_bytes_that_were_checked(bundle: Path, tar: Path) -> None:
    manifest = read_manifest(bundle)
    assert read_verified(bundle, "model.pkl") == read_verified(tar, "model.pkl", manifest) == b"a pickle"
    with pytest.raises(BundleError, match=r"other\.pkl is not in the manifest"):
        read_verified(bundle, "other.pkl")
    (bundle / "model.pkl").write_bytes(b"b pickle")
    with pytest.raises(BundleError, match=r"model\.pkl: expected sha256"):
        read_verified(bundle, "model.pkl")


def test_a_manifest_exchanged_after_it_was_read_is_noticed(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    other = b"b pickle"
    (bundle / "model.pkl").write_bytes(other)
    files = document()["files"]
    files["model.pkl"]["sha256"] = hashlib.sha256(other).hexdigest()
    (bundle / "manifest.json").write_bytes(encoded(document(files=files)))
    assert read_verified(bundle, "model.pkl") == other
    with pytest.raises(BundleError, match=r"model\.pkl: expected sha256"):
        read_verified(bundle, "model.pkl", manifest)


def test_the_signature_travels_with_the_bundle_and_is_no_part_of_its_identity(
    bundle: Path, tar: Path, tmp_path: Path
) -> None:
    unsigned = tar.read_bytes()
    before = verify(bundle)
    data = (bundle / "manifest.json").read_bytes()
    assert read_seal(bundle) == read_seal(tar) == Seal(data, None)
    (bundle / "manifest.json.sig").write_bytes(b"a signature")
    assert verify(bundle) == before
    assert pack(bundle, tar) == unpack(tar, tmp_path / "there") == verify(tmp_path / "there") == before
    assert read_seal(bundle) == read_seal(tar) == read_seal(tmp_path / "there") == Seal(data, b"a signature")
    assert read_seal(tar).digest == before.digest
    assert tar.read_bytes() != unsigned


def test_a_tar_may_be_given_another_signature(bundle: Path, tar: Path, tmp_path: Path) -> None:
    (bundle / "manifest.json.sig").write_bytes(b"a signature")
    pack(bundle, tar)
    for source in (bundle, tar):
        pack(source, tmp_path / "other.tar", b"another")
        assert read_seal(tmp_path / "other.tar").signature == b"another"
    with tarfile.open(tmp_path / "other.tar") as archive:
        assert archive.getnames()[:2] == ["manifest.json", "manifest.json.sig"]


def test_a_signature_has_a_few_lines(bundle: Path, tar: Path, tmp_path: Path) -> None:
    (bundle / "manifest.json.sig").write_bytes(b"x" * (1 << 14))
    assert pack(bundle, tar) == verify(bundle)
    (bundle / "manifest.json.sig").write_bytes(b"x" * ((1 << 14) + 1))
    for refused in (lambda: verify(bundle), lambda: read_seal(bundle), lambda: pack(bundle, tmp_path / "other.tar")):
        with pytest.raises(BundleError, match=r"manifest\.json\.sig: expected at most 16384 bytes, found 16385"):
            refused()


def test_any_flipped_byte_of_a_bundle_is_refused(bundle: Path) -> None:
    expected = verify(bundle).digest
    for path in sorted(bundle.iterdir()):
        data = path.read_bytes()
        for place in range(len(data)):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            try:
                found = verify(bundle).digest
            except BundleError:
                found = ""
            assert found != expected, (path, place)
        path.write_bytes(data)
    assert verify(bundle).digest == expected
