# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bundle is on disk: its manifest, and that every file is what the manifest says.

A bundle is a directory, or a tar with the same files at its top level. Its identity is the sha256 of ``manifest.json``,
which lists the sha256 and size of every other file. One file alone may be there without being listed: the signature
over the manifest, which is made after it. Nothing here unpickles anything.

This file is shared: Ansible modules run it on a host, and the model server has it as ``model_server.bundle.manifest``.
So it needs the standard library alone and runs on Python 3.9.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import stat
import tarfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

SCHEMA = 1
MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
CONTRACT = "contract.json"
GOLDEN = "golden.json"
LOCK = "requirements.lock"
SBOM = "sbom.cdx.json"
"""The software bill of materials. Building writes one; a bundle without it is a bundle, too."""
NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")

_CHUNK = 1 << 20
_LARGEST_MANIFEST = 1 << 20
_LARGEST_SIGNATURE = 1 << 14
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+]{0,63}")
_FORMAT = re.compile(r"[a-z][a-z0-9_]{0,39}")
_PYTHON = re.compile(r"3\.[0-9]{1,2}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")


class BundleError(ValueError):
    """A bundle is not what it should be. The message is one line: where, what, expected, found."""


@dataclass(frozen=True)
class FileEntry:
    """A file that the manifest lists. ``path`` is relative to the bundle, ``size`` in bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """A parsed ``manifest.json``. ``digest`` is the sha256 of its bytes: the bundle's identity.

    ``scorer`` is the form that the model serves in: ``native``, as it was written, or one that it was compiled to.
    ``tried`` is what is known of each form that was tried: whether it is equal, why not, on how many rows. ``trusted``
    are the types that a model in a format without code may be made of, beside those that the format trusts itself.
    """

    name: str
    version: str
    model_format: str
    model_path: str
    python: str
    files: tuple[FileEntry, ...]
    digest: str
    scorer: str = "native"
    tried: tuple[dict[str, Any], ...] = ()
    trusted: tuple[str, ...] = ()

    @property
    def release(self) -> str:
        """The name of the release on a host: ``3-0a1b2c3d4e5f``."""
        return f"{self.version}-{self.digest[:12]}"

    @property
    def size(self) -> int:
        """Bytes of all files together, without the manifest's own."""
        return sum(entry.size for entry in self.files)

    def entry(self, path: str, where: str) -> FileEntry:
        for entry in self.files:
            if entry.path == path:
                return entry
        raise BundleError(f"{where}: {path} is not in the manifest")


@dataclass(frozen=True)
class Seal:
    """The bytes of a manifest and of the signature over them; no signature is None."""

    manifest: bytes
    signature: bytes | None

    @property
    def digest(self) -> str:
        """The bundle's identity: the sha256 of the very bytes that the signature is over."""
        return hashlib.sha256(self.manifest).hexdigest()


def parse_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in ``data``; ``where`` names it in errors."""
    try:
        document = json.loads(data, object_pairs_hook=_without_repeated_keys)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where}: {MANIFEST} is not valid JSON: {error}") from None
    where = f"{where}: {MANIFEST}"
    if not isinstance(document, dict):
        raise BundleError(f"{where}: expected an object, found {type(document).__name__}")
    schema = document.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise BundleError(f"{where}: schema: expected {SCHEMA}, found {json.dumps(schema)}")
    if schema > SCHEMA:
        raise BundleError(f"{where}: schema: expected at most {SCHEMA}, found {schema}: a newer modelfleet made it")
    model = _object(document, "model", where)
    listed = _object(document, "files", where)
    scorer = _object(document, "scorer", where) if "scorer" in document else {"form": "native"}
    manifest = Manifest(
        name=_text(document, "name", NAME, where),
        version=_text(document, "version", _VERSION, where),
        model_format=_text(model, "format", _FORMAT, f"{where}: model"),
        model_path=_text(model, "path", _PATH, f"{where}: model"),
        python=_text(document, "python", _PYTHON, where),
        files=tuple(_file_entry(listed, path, f"{where}: files") for path in sorted(listed)),
        digest=hashlib.sha256(data).hexdigest(),
        scorer=_text(scorer, "form", _FORMAT, f"{where}: scorer"),
        tried=_tried(scorer, f"{where}: scorer"),
        trusted=_texts(model, "trusted", f"{where}: model"),
    )
    for path in (CONTRACT, GOLDEN, LOCK, manifest.model_path):
        if path not in listed:
            raise BundleError(f"{where}: files: {path} is not listed")
    return manifest


def read_manifest(bundle: Path, digest: str = "") -> Manifest:
    """The manifest of ``bundle``, without looking at the other files.

    With ``digest``, its sha256 or the first digits of that, another manifest is refused before anything in it is read.
    """
    return parse_manifest(_known_manifest(bundle, str(bundle), digest), str(bundle))


def read_seal(bundle: Path) -> Seal:
    """The bytes of the manifest of ``bundle`` and of its signature, which is not verified here."""
    return Seal(_manifest_bytes(bundle), _bytes_of(bundle, SIGNATURE, _LARGEST_SIGNATURE))


def verify(bundle: Path, digest: str = "") -> Manifest:
    """Check that ``bundle`` has exactly the files of its manifest, each with its size and digest.

    With ``digest``, the sha256 of its manifest or the first digits of that, any other manifest is refused.
    """
    return _verify(bundle, str(bundle), digest)


def pack(bundle: Path, tar: Path, signature: bytes | None = None) -> Manifest:
    """Write ``bundle`` to ``tar``: the same bundle gives the same bytes. ``tar`` appears verified or not at all.

    With ``signature`` the tar has that one, and not the bundle's own.
    """
    partial = tar.with_name(f".{tar.name}.{os.getpid()}")
    try:
        with _errors_of(bundle), tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as archive:
            for path, size, stream in _contents(bundle):
                if path != SIGNATURE or signature is None:
                    archive.addfile(_member(path, size), stream)
                if path == MANIFEST and signature is not None:
                    archive.addfile(_member(SIGNATURE, len(signature)), io.BytesIO(signature))
        # What is checked is what was written, so a file that changed meanwhile does not get through.
        manifest = _verify(partial, str(bundle))
        with _errors_of(tar):
            os.replace(partial, tar)
    finally:
        partial.unlink(missing_ok=True)
    return manifest


def unpack(tar: Path, into: Path) -> Manifest:
    """Write the bundle in ``tar`` to the directory ``into``, which must be missing or empty; flushed to disk.

    Each file is checked as it is written. On an error nothing stays in ``into``.
    """
    with _errors_of(into):
        existed = into.is_dir()
        if existed and any(into.iterdir()):
            raise BundleError(f"{into}: expected an empty folder or none")
        into.mkdir(parents=True, exist_ok=True)
    try:
        data = _manifest_bytes(tar)
        manifest = parse_manifest(data, str(tar))
        with _errors_of(into):
            _write(into / MANIFEST, data)
        _check(tar, str(tar), manifest, into)
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        if existed:
            into.mkdir(exist_ok=True)
        raise
    return manifest


def read_verified(bundle: Path, path: str, manifest: Manifest | None = None) -> bytes:
    """The bytes of the file ``path``, checked against ``manifest`` (the bundle's own if none is given).

    What loads a model loads these bytes, never the file again.
    """
    entry = (manifest or read_manifest(bundle)).entry(path, str(bundle))
    with _errors_of(bundle), closing(_contents(bundle)) as contents:
        for found, size, stream in contents:
            if found == path:
                _check_size(entry, size, str(bundle))
                data = stream.read(entry.size + 1)
                _check_size(entry, len(data), str(bundle))
                _check_digest(entry, hashlib.sha256(data).hexdigest(), str(bundle))
                return data
    raise BundleError(f"{bundle}: {path} is missing")


def _verify(bundle: Path, where: str, digest: str = "") -> Manifest:
    manifest = parse_manifest(_known_manifest(bundle, where, digest), where)
    _check(bundle, where, manifest, None)
    return manifest


def _check(bundle: Path, where: str, manifest: Manifest, into: Path | None) -> None:
    """Compare each file with its entry, and write it below ``into`` if that is given."""
    missing = {entry.path: entry for entry in manifest.files}
    with _errors_of(bundle), closing(_contents(bundle)) as contents:
        for path, size, stream in contents:
            if path == MANIFEST:
                continue
            if path == SIGNATURE:
                data = _at_most(stream, size, _LARGEST_SIGNATURE, f"{where}: {SIGNATURE}")
                if into:
                    _write(into / path, data)
                continue
            entry = missing.pop(path, None)
            if entry is None:
                raise BundleError(f"{where}: {path} is not in the manifest")
            _check_size(entry, size, where)
            digest = hashlib.sha256()
            with _new_file(into / path) if into else nullcontext() as output:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
                    if output:
                        output.write(chunk)
            _check_digest(entry, digest.hexdigest(), where)
    if missing:
        raise BundleError(f"{where}: {min(missing)} is missing")


def _check_size(entry: FileEntry, found: int, where: str) -> None:
    if found != entry.size:
        raise BundleError(f"{where}: {entry.path}: expected {entry.size} bytes, found {found}")


def _check_digest(entry: FileEntry, found: str, where: str) -> None:
    if found != entry.sha256:
        raise BundleError(f"{where}: {entry.path}: expected sha256 {entry.sha256}, found {found}")


def _known_manifest(bundle: Path, where: str, digest: str) -> bytes:
    """The bytes of the manifest, whose sha256 begins with ``digest``."""
    data = _manifest_bytes(bundle)
    found = hashlib.sha256(data).hexdigest()
    if not found.startswith(digest):
        raise BundleError(f"{where}: {MANIFEST}: expected sha256 {digest}, found {found}")
    return data


def _manifest_bytes(bundle: Path) -> bytes:
    data = _bytes_of(bundle, MANIFEST, _LARGEST_MANIFEST)
    if data is None:
        raise BundleError(f"{bundle}: {MANIFEST} is missing")
    return data


def _bytes_of(bundle: Path, wanted: str, most: int) -> bytes | None:
    """A file of at most ``most`` bytes, unchecked; None if it is not there."""
    with _errors_of(bundle), closing(_contents(bundle)) as contents:
        for path, size, stream in contents:
            if path == wanted:
                return _at_most(stream, size, most, f"{bundle}: {wanted}")
    return None


def _at_most(stream: IO[bytes], size: int, most: int, where: str) -> bytes:
    if size > most:
        raise BundleError(f"{where}: expected at most {most} bytes, found {size}")
    return stream.read(most)


def _member(path: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.size = size
    member.mode = 0o644
    return member


def _contents(bundle: Path) -> Generator[tuple[str, int, IO[bytes]], None, None]:
    """Path, size and open stream of each file of a bundle, the manifest first in a directory; only plain files."""
    return _directory_contents(bundle) if bundle.is_dir() else _tar_contents(bundle)


def _directory_contents(bundle: Path) -> Generator[tuple[str, int, IO[bytes]], None, None]:
    found = []
    for folder, folders, names in os.walk(bundle, onerror=_raise):
        # A link to a folder is listed among the folders, and os.walk does not go into it.
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        found += [os.path.relpath(os.path.join(folder, name), bundle) for name in names + links]
    for path in sorted(found, key=lambda path: (path != MANIFEST, path != SIGNATURE, path)):
        if not stat.S_ISREG(os.lstat(bundle / path).st_mode):
            raise BundleError(f"{bundle}: {path}: expected a plain file, found a link or special file")
        with open(bundle / path, "rb") as stream:
            yield path, os.fstat(stream.fileno()).st_size, stream


def _tar_contents(bundle: Path) -> Generator[tuple[str, int, IO[bytes]], None, None]:
    seen = set()
    with tarfile.open(bundle, "r:") as archive:
        for member in archive:
            path = member.name[2:] if member.name.startswith("./") else member.name
            if member.isdir():
                continue
            if not member.isreg():
                raise BundleError(f"{bundle}: {path}: expected a plain file, found a link or special file")
            if path in seen:
                raise BundleError(f"{bundle}: {path} is there twice")
            seen.add(path)
            stream = archive.extractfile(member)
            if stream is not None:
                with stream:
                    yield path, member.size, stream


def _raise(error: OSError) -> None:
    raise error


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as output:
        os.fchmod(output.fileno(), 0o644)
        yield output
        output.flush()
        os.fsync(output.fileno())


def _write(path: Path, data: bytes) -> None:
    with _new_file(path) as output:
        output.write(data)


@contextmanager
def _errors_of(where: Path) -> Iterator[None]:
    try:
        yield
    except tarfile.TarError as error:
        raise BundleError(f"{where}: expected a bundle (a folder or a tar): {error}") from None
    except OSError as error:
        raise BundleError(f"{error.filename or where}: {error.strerror or error}") from None


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two readers of one manifest must not see different values.
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, value in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return found


def _object(document: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    found = document.get(key)
    if not isinstance(found, dict):
        raise BundleError(f"{where}: {key}: expected an object, found {json.dumps(found)[:60]}")
    return found


def _text(document: dict[str, Any], key: str, pattern: re.Pattern[str], where: str) -> str:
    found = document.get(key)
    if not isinstance(found, str) or not pattern.fullmatch(found):
        raise BundleError(f"{where}: {key}: expected {pattern.pattern}, found {json.dumps(found)[:60]}")
    return found


def _texts(document: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    found = document.get(key, [])
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise BundleError(f"{where}: {key}: expected a list of text, found {json.dumps(found)[:60]}")
    return tuple(found)


def _tried(scorer: dict[str, Any], where: str) -> tuple[dict[str, Any], ...]:
    tried = scorer.get("tried", [])
    if not isinstance(tried, list) or not all(isinstance(form, dict) and "form" in form for form in tried):
        raise BundleError(f"{where}: tried: expected a list of forms, found {json.dumps(tried)[:60]}")
    return tuple(tried)


def _file_entry(listed: dict[str, Any], path: str, where: str) -> FileEntry:
    if not _PATH.fullmatch(path) or path in (MANIFEST, SIGNATURE):
        raise BundleError(f"{where}: expected a path inside the bundle, found {json.dumps(path)[:100]}")
    entry = _object(listed, path, where)
    size = entry.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise BundleError(f"{where}: {path}: size: expected a number of bytes, found {json.dumps(size)[:60]}")
    return FileEntry(path, _text(entry, "sha256", _SHA256, f"{where}: {path}"), size)
