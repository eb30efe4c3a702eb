# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry of bundles: a folder, which may be on a file server, or what an HTTP(S) server has below an address.

``NAME/VERSION.tar`` is a bundle and never changes. ``NAME/index.json`` lists the versions in the order in which they
were published, each with its digest, and the aliases. The bundle is put first, and is published once the index lists
it. Both kinds give the same two promises, which keep publishers apart: a file is created only if there is none, and an
index is replaced only if it is still the one that was read.

This file is shared: hosts fetch with it, and the model server's package has it as ``model_server.bundle.registry``. So
it needs the standard library alone, runs on Python 3.9 and knows nothing of what is in a bundle.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import netrc
import os
import random
import re
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, Protocol

LATEST = "latest"

_SCHEMA = 1
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+]{0,63}")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST_INDEX = 1 << 24
_CHUNK = 1 << 20
_TRIES = 50
_SECONDS = 60


class RegistryError(ValueError):
    """A registry does not have, give or take what it should. The message is one line without credentials."""


class TooLargeError(RegistryError):
    """A file has more bytes than it may have."""


class ChangedError(RegistryError):
    """A bundle's tar at ``address`` is not what the index says of it; ``expected`` and ``found`` in words."""

    def __init__(self, address: str, expected: str, found: str) -> None:
        super().__init__(f"{address}: expected {expected}, found {found}")
        self.expected = expected
        self.found = found


@dataclass(frozen=True)
class Entry:
    """A published version. ``digest`` is the bundle's, ``sha256`` and ``size`` (bytes) those of its tar."""

    version: str
    digest: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Index:
    """What there is of one model: its versions in the order in which they were published, and aliases of some."""

    versions: tuple[Entry, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)

    def entry(self, version: str) -> Entry | None:
        return next((entry for entry in self.versions if entry.version == version), None)

    def find(self, asked: str, where: str) -> Entry:
        """The version ``asked``, or the one with that alias; of ``latest``, the one published last."""
        if asked == LATEST and self.versions:
            return self.versions[-1]
        found = self.entry(self.aliases.get(asked, asked))
        if found is None:
            known = [entry.version for entry in self.versions[-10:]] + sorted(self.aliases)
            raise RegistryError(
                f"{where}: expected a version or alias that is published ({', '.join(known) or 'none is'}), "
                f"found {asked!r}"
            )
        return found

    def including(self, entry: Entry, alias: str | None, where: str) -> Index:
        """The index with ``entry`` and with ``alias`` for it."""
        there = self.entry(entry.version)
        if there not in (None, entry):
            raise RegistryError(_taken(where, entry, there.digest if there else ""))
        if entry.version == LATEST or entry.version in self.aliases:
            raise RegistryError(
                f"{where}: expected a version that is neither {LATEST!r} nor an alias, found {entry.version!r}"
            )
        if alias is not None and (alias == LATEST or self.entry(alias) or alias == entry.version):
            raise RegistryError(f"{where}: expected an alias that is neither {LATEST!r} nor a version, found {alias!r}")
        versions = self.versions if there else (*self.versions, entry)
        return Index(versions, {**self.aliases, **({alias: entry.version} if alias is not None else {})})


@dataclass(frozen=True)
class Stored:
    """The bytes of a file of a registry, and by what it is known later whether they are still the same."""

    data: bytes
    tag: str


class Registry(Protocol):
    """Where the files of a registry are. Paths are relative to it."""

    def address(self, path: str) -> str:
        """The path or address of a file, for messages and for whom fetches it."""

    def read(self, path: str) -> Stored | None:
        """A small file; None if there is none."""

    def fetch(self, path: str, into: IO[bytes], most: int) -> str:
        """Write a file of at most ``most`` bytes to ``into``; its sha256."""

    def create(self, path: str, source: Path) -> bool:
        """Put a file where there is none, whole or not at all; False if there is one."""

    def replace(self, path: str, data: bytes, before: Stored | None) -> bool:
        """Put a small file in place of the one that was read (None: of none); False if that is there no more."""


@dataclass(frozen=True)
class Folder:
    """A registry in a folder."""

    root: Path

    def address(self, path: str) -> str:
        return str(self.root / path)

    def read(self, path: str) -> Stored | None:
        with self._errors(path):
            try:
                data = (self.root / path).read_bytes()
            except FileNotFoundError:
                if not self.root.is_dir():
                    raise RegistryError(f"{self.root}: expected the folder of a registry, found none") from None
                return None
            return Stored(data, hashlib.sha256(data).hexdigest())

    def fetch(self, path: str, into: IO[bytes], most: int) -> str:
        with self._errors(path), open(self.root / path, "rb") as stream:
            return _copy(stream, into, most, self.address(path))

    def create(self, path: str, source: Path) -> bool:
        target = self.root / path
        with self._errors(path), open(source, "rb") as stream, self._written(target, stream) as partial:
            try:
                # Unlike a rename, a link never takes the place of a file that is there.
                os.link(partial, target)
            except FileExistsError:
                return False
        return True

    def replace(self, path: str, data: bytes, before: Stored | None) -> bool:
        target = self.root / path
        with self._errors(path):
            target.parent.mkdir(exist_ok=True)
            with open(target.parent / ".lock", "a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if self.read(path) != before:
                    return False
                with tempfile.TemporaryFile() as stream:
                    stream.write(data)
                    stream.seek(0)
                    with self._written(target, stream) as partial:
                        os.replace(partial, target)
        return True

    @contextmanager
    def _written(self, target: Path, stream: IO[bytes]) -> Iterator[Path]:
        """A file beside ``target`` with what ``stream`` has, flushed to disk; removed afterwards if still there."""
        target.parent.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        partial = Path(name)
        try:
            with open(handle, "wb") as output:
                os.fchmod(output.fileno(), 0o644)
                while chunk := stream.read(_CHUNK):
                    output.write(chunk)
                output.flush()
                os.fsync(output.fileno())
            yield partial
        finally:
            partial.unlink(missing_ok=True)

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RegistryError(f"{error.filename or self.address(path)}: {error.strerror or error}") from None


@dataclass(frozen=True)
class Web:
    """A registry below an address, on a server that takes GET, and PUT with If-None-Match and If-Match (RFC 9110)."""

    root: str

    def address(self, path: str) -> str:
        return f"{self.root}/{urllib.parse.quote(path)}"

    def read(self, path: str) -> Stored | None:
        address = self.address(path)
        with _answer(address, "GET", None, {}, {200, 404}) as answer:
            if answer.status == 404:
                return None
            data = answer.read(_LARGEST_INDEX + 1)
            if len(data) > _LARGEST_INDEX:
                raise RegistryError(f"{address}: expected at most {_LARGEST_INDEX} bytes, found more")
            return Stored(data, answer.headers.get("ETag", ""))

    def fetch(self, path: str, into: IO[bytes], most: int) -> str:
        return fetch(self.address(path), into, most)

    def create(self, path: str, source: Path) -> bool:
        headers = {"If-None-Match": "*", "Content-Type": "application/x-tar"}
        with open(source, "rb") as stream:
            headers["Content-Length"] = str(os.fstat(stream.fileno()).st_size)
            return self._put(path, stream, headers)

    def replace(self, path: str, data: bytes, before: Stored | None) -> bool:
        headers = {"If-None-Match": "*", "Content-Type": "application/json", "Content-Length": str(len(data))}
        if before is not None:
            if not before.tag.startswith('"'):
                raise RegistryError(
                    f"{self.address(path)}: expected a strong ETag, without which two publishers cannot be kept apart, "
                    f"found {before.tag or 'none'}"
                )
            del headers["If-None-Match"]
            headers["If-Match"] = before.tag
        return self._put(path, data, headers)

    def _put(self, path: str, data: bytes | IO[bytes], headers: dict[str, str]) -> bool:
        # 412: there is a file, or another one. 409: somebody writes it at this moment.
        with _answer(self.address(path), "PUT", data, headers, {200, 201, 204, 409, 412}) as answer:
            return answer.status not in (409, 412)


def open_registry(place: str, folder: Path) -> Registry:
    """The registry at ``place``: an address, or a path that is relative to ``folder``."""
    if not re.match(r"https?://", place):
        if "://" in place:
            raise RegistryError(f"registry: expected a folder or an http(s) address, found {place.split('://')[0]}://…")
        return Folder(Path(os.path.normpath(folder / Path(place).expanduser())))
    parts = urllib.parse.urlsplit(place)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise RegistryError(
            f"registry: expected an address of host and path alone, found more at {parts.hostname}: "
            "credentials are for MODELFLEET_REGISTRY_TOKEN or netrc"
        )
    return Web(place.rstrip("/"))


def is_address(place: str) -> bool:
    """Whether hosts can fetch from the registry at ``place`` themselves."""
    return re.match(r"https?://", place) is not None


def read_index(registry: Registry, name: str) -> tuple[Index, Stored | None]:
    """What is published of the model ``name``, and the file that says so; None if there is none yet."""
    path = f"{_checked(name, _NAME, 'name')}/index.json"
    stored = registry.read(path)
    return (parse_index(stored.data, registry.address(path)) if stored else Index()), stored


def parse_index(data: bytes, where: str) -> Index:
    """The index in ``data``; ``where`` names it in errors."""
    try:
        document = json.loads(data)
        if document["schema"] != _SCHEMA:
            raise RegistryError(f"{where}: schema: expected {_SCHEMA}, found {document['schema']!r}")
        index = Index(tuple(Entry(**entry) for entry in document["versions"]), dict(document["aliases"]))
        for entry in index.versions:
            _checked(entry.version, _VERSION, "version")
            _checked(entry.digest, _SHA256, "digest")
            _checked(entry.sha256, _SHA256, "sha256")
            if not isinstance(entry.size, int):
                raise ValueError(f"size: expected a number, found {entry.size!r}")
    except RegistryError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise RegistryError(f"{where}: expected an index of versions, found other text: {error!r}") from None
    return index


def encode_index(index: Index) -> bytes:
    document = {
        "schema": _SCHEMA,
        "versions": [asdict(entry) for entry in index.versions],
        "aliases": dict(sorted(index.aliases.items())),
    }
    return (json.dumps(document, indent=2) + "\n").encode()


def publish(
    registry: Registry, name: str, entry: Entry, tar: Path, alias: str | None = None, pretend: bool = False
) -> bool:
    """Put the bundle in ``tar`` into ``registry`` as ``entry``, and ``alias`` to it; False if all that was so already.

    RegistryError if that version is there with other bytes: of two who publish it at once, one is refused. With
    ``pretend`` nothing is put, and the answer is what it would be.
    """
    path = f"{_checked(name, _NAME, 'name')}/{_checked(entry.version, _VERSION, 'version')}.tar"
    if alias is not None:
        _checked(alias, _ALIAS, "alias")
    where = registry.address(path)
    index, stored = read_index(registry, name)
    # What cannot be is refused before anything is put anywhere.
    wanted = index.including(entry, alias, where)
    if pretend:
        return wanted != index
    created = False
    if index.entry(entry.version) is None:
        created = registry.create(path, tar)
        if not created:
            _check_same(registry, path, entry)
    for attempt in range(_TRIES):
        wanted = index.including(entry, alias, where)
        if wanted == index and stored:
            return created
        if registry.replace(f"{name}/index.json", encode_index(wanted), stored):
            return True
        time.sleep(random.uniform(0, 0.02 * (attempt + 1)))
        index, stored = read_index(registry, name)
    raise RegistryError(f"{registry.address(name)}: expected to change index.json in {_TRIES} tries, found it changing")


def entry_of(version: str, digest: str, tar: Path) -> Entry:
    """The entry of the bundle in ``tar``."""
    with open(tar, "rb") as stream:
        return Entry(version, digest, _sha256(stream), tar.stat().st_size)


def fetch_version(registry: Registry, name: str, entry: Entry, into: Path) -> None:
    """Put the tar of ``entry`` at ``into``, unless it is there; whole and with its sha256, or not at all.

    ChangedError if the registry has other bytes than its index says.
    """
    path = f"{name}/{entry.version}.tar"
    expected = f"{entry.size} bytes of sha256 {entry.sha256}, as the index says"
    try:
        if into.is_file():
            with open(into, "rb") as stream:
                if _sha256(stream) == entry.sha256:
                    return
        into.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=f".{into.name}.", dir=into.parent, delete=False) as output:
            partial = Path(output.name)
            try:
                sha256 = registry.fetch(path, output, entry.size)
                if (sha256, output.tell()) != (entry.sha256, entry.size):
                    raise ChangedError(registry.address(path), expected, f"{output.tell()} of {sha256}")
                output.flush()
                os.replace(partial, into)
            finally:
                partial.unlink(missing_ok=True)
    except TooLargeError:
        raise ChangedError(registry.address(path), expected, "more") from None
    except OSError as error:
        raise RegistryError(f"{error.filename or into}: {error.strerror or error}") from None


def fetch(address: str, into: IO[bytes], most: int) -> str:
    """Write what is at ``address``, at most ``most`` bytes, to ``into``; its sha256."""
    with _answer(address, "GET", None, {}, {200}) as answer:
        return _copy(answer, into, most, address)


def _check_same(registry: Registry, path: str, entry: Entry) -> None:
    """RegistryError unless the file at ``path`` has the bytes of ``entry``."""
    try:
        with tempfile.TemporaryFile() as there:
            same = registry.fetch(path, there, entry.size) == entry.sha256
    except TooLargeError:
        same = False
    if not same:
        raise RegistryError(_taken(registry.address(path), entry, ""))


def _taken(where: str, entry: Entry, digest: str) -> str:
    other = f"digest {digest}" if digest and digest != entry.digest else "other bytes, or another signature"
    return (
        f"{where}: expected no bundle or this one, of digest {entry.digest}, found one of {other}: "
        "a version never changes, so publish it as another version"
    )


@contextmanager
def _answer(
    address: str, method: str, data: bytes | IO[bytes] | None, headers: Mapping[str, str], expected: set[int]
) -> Iterator[Any]:
    """The answer to a request, whose status is one of ``expected``."""
    request = urllib.request.Request(address, data, dict(headers), method=method)
    authorization = _authorization(urllib.parse.urlsplit(address).hostname or "")
    if authorization:
        # Not sent along to where a server redirects.
        request.add_unredirected_header("Authorization", authorization)
    try:
        with _opened(request) as answer:
            if answer.status not in expected:
                raise RegistryError(
                    f"{address}: expected status {' or '.join(map(str, sorted(expected)))} to {method}, "
                    f"found {answer.status} {answer.reason}"
                )
            yield answer
    except (urllib.error.URLError, OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise RegistryError(f"{address}: expected an answer to {method}, found: {reason}") from None


def _opened(request: urllib.request.Request) -> Any:
    try:
        return urllib.request.build_opener().open(request, timeout=_SECONDS)
    except urllib.error.HTTPError as answer:
        return answer


def _authorization(host: str) -> str | None:
    """Credentials for ``host``: a token in the environment, or a login in netrc."""
    token = os.environ.get("MODELFLEET_REGISTRY_TOKEN")
    if token:
        if not token.isascii() or not token.isprintable():
            raise RegistryError("MODELFLEET_REGISTRY_TOKEN: expected printable ASCII, found more")
        return f"Bearer {token}"
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        found = netrc.netrc(str(path)).authenticators(host) if path.is_file() else None
    except (netrc.NetrcParseError, OSError):
        # What cannot be read is not told: it has passwords.
        raise RegistryError(f"{path}: expected a netrc file that can be read, found another") from None
    if not found:
        return None
    return "Basic " + base64.b64encode(f"{found[0]}:{found[2]}".encode()).decode()


def _copy(stream: IO[bytes], into: IO[bytes], most: int, where: str) -> str:
    digest = hashlib.sha256()
    size = 0
    while chunk := stream.read(_CHUNK):
        size += len(chunk)
        if size > most:
            raise TooLargeError(f"{where}: expected at most {most} bytes, found more")
        digest.update(chunk)
        into.write(chunk)
    return digest.hexdigest()


def _sha256(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _checked(text: str, pattern: re.Pattern[str], what: str) -> str:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise RegistryError(f"{what}: expected {pattern.pattern}, found {text!r}")
    return text
