# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Registries of both kinds: what is published stays, whoever else publishes at the same moment."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils import _registry
from ansible_collections.modelfleet.onprem.plugins.module_utils._registry import (
    ChangedError,
    Entry,
    Index,
    Registry,
    RegistryError,
    encode_index,
    entry_of,
    fetch,
    fetch_version,
    open_registry,
    parse_index,
    publish,
    read_index,
)

from tests.unit.plugins.web_registry import WebRegistry, make_authority

DIGESTS = {version: character * 64 for version, character in zip("123456", "abcdef", strict=True)}


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("MODELFLEET_REGISTRY_TOKEN", raising=False)


@pytest.fixture
def web() -> Iterator[WebRegistry]:
    server = WebRegistry()
    yield server
    server.close()


@pytest.fixture(params=["folder", "web"])
def registry(request: pytest.FixtureRequest, web: WebRegistry, tmp_path: Path) -> Registry:
    if request.param == "web":
        return open_registry(f"{web.address}/models/", tmp_path)
    (tmp_path / "models").mkdir()
    return open_registry("models", tmp_path)


def made(folder: Path, version: str, content: bytes = b"a bundle") -> tuple[Entry, Path]:
    """What stands for a bundle's tar: a registry does not look into it."""
    tar = folder / f"made-{version}-{len(list(folder.iterdir()))}.tar"
    tar.write_bytes(content)
    return entry_of(version, DIGESTS[version], tar), tar


def versions(registry: Registry) -> list[str]:
    return [entry.version for entry in read_index(registry, "tumour")[0].versions]


def test_what_is_published_is_found_by_version_alias_and_as_the_latest(registry: Registry, tmp_path: Path) -> None:
    entries = {}
    for version, alias in (("2", None), ("1", "champion"), ("3", None)):
        entry, tar = made(tmp_path, version, f"bundle {version}".encode())
        assert publish(registry, "tumour", entry, tar, alias)
        entries[version] = entry
    index, _stored = read_index(registry, "tumour")
    found = {asked: index.find(asked, "here") for asked in ("1", "2", "3", "latest", "champion")}
    assert found == {**entries, "latest": entries["3"], "champion": entries["1"]}
    fetch_version(registry, "tumour", found["champion"], tmp_path / "cache/fetched.tar")
    assert (tmp_path / "cache/fetched.tar").read_bytes() == b"bundle 1"


def test_the_same_bundle_again_changes_nothing_and_an_alias_moves(registry: Registry, tmp_path: Path) -> None:
    entry, tar = made(tmp_path, "1")
    assert publish(registry, "tumour", entry, tar, "champion")
    assert not publish(registry, "tumour", entry, tar)
    assert not publish(registry, "tumour", entry, tar, "champion")
    other, other_tar = made(tmp_path, "2")
    assert publish(registry, "tumour", other, other_tar, "champion")
    assert publish(registry, "tumour", entry, tar, "champion")
    assert read_index(registry, "tumour")[0] == Index((entry, other), {"champion": "1"})


@pytest.mark.parametrize("listed", [True, False], ids=["published", "put and not yet listed"])
def test_a_version_never_changes(registry: Registry, tmp_path: Path, listed: bool) -> None:
    entry, tar = made(tmp_path, "1")
    if listed:
        publish(registry, "tumour", entry, tar)
    else:
        assert registry.create("tumour/1.tar", tar)
    for content in (b"another bundle", b"A bundle", b"a"):
        other, other_tar = made(tmp_path, "1", content)
        with pytest.raises(
            RegistryError, match=r"1\.tar: expected no bundle or this one, .*, found one of other bytes"
        ):
            publish(registry, "tumour", other, other_tar)
    assert publish(registry, "tumour", entry, tar) is not listed
    fetch_version(registry, "tumour", entry, tmp_path / "fetched.tar")


def test_of_two_who_publish_one_version_at_once_one_wins(registry: Registry, tmp_path: Path) -> None:
    attempts = [made(tmp_path, "1", content) for content in (b"mine", b"yours", b"theirs")]

    def attempt(made: tuple[Entry, Path]) -> str | None:
        try:
            publish(registry, "tumour", *made)
        except RegistryError:
            return None
        return made[0].sha256

    with ThreadPoolExecutor(3) as pool:
        won = [sha256 for sha256 in pool.map(attempt, attempts) if sha256]
    assert [entry.sha256 for entry in read_index(registry, "tumour")[0].versions] == won
    assert len(won) == 1


def test_of_many_who_publish_versions_at_once_none_is_forgotten(registry: Registry, tmp_path: Path) -> None:
    attempts = [(*made(tmp_path, version), f"alias-{version}") for version in DIGESTS]
    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(lambda attempt: publish(registry, "tumour", *attempt), attempts))
    assert sorted(versions(registry)) == sorted(DIGESTS)
    assert read_index(registry, "tumour")[0].aliases == {f"alias-{version}": version for version in DIGESTS}


def test_pretending_puts_nothing(registry: Registry, tmp_path: Path) -> None:
    entry, tar = made(tmp_path, "1")
    assert publish(registry, "tumour", entry, tar, pretend=True)
    assert versions(registry) == []
    publish(registry, "tumour", entry, tar)
    assert not publish(registry, "tumour", entry, tar, pretend=True)


@pytest.mark.parametrize(
    ("version", "alias", "message"),
    [
        ("2", "1", "alias: expected .*, found '1'"),
        ("2", "latest", "expected an alias that is neither 'latest' nor a version, found 'latest'"),
        ("2", "two words", "alias: expected .*, found 'two words'"),
    ],
)
def test_names_that_would_mean_two_things_are_refused(
    registry: Registry, tmp_path: Path, version: str, alias: str, message: str
) -> None:
    publish(registry, "tumour", *made(tmp_path, "1"))
    with pytest.raises(RegistryError, match=message):
        publish(registry, "tumour", *made(tmp_path, version), alias)
    assert versions(registry) == ["1"]


def test_a_version_may_not_be_an_alias(tmp_path: Path) -> None:
    entry, _tar = made(tmp_path, "1")
    for version in ("latest", "champion"):
        taken = Entry(version, entry.digest, entry.sha256, entry.size)
        with pytest.raises(RegistryError, match=f"neither 'latest' nor an alias, found '{version}'"):
            Index((entry,), {"champion": "1"}).including(taken, None, "here")
    named = Entry("spring", entry.digest, entry.sha256, entry.size)
    with pytest.raises(RegistryError, match="an alias that is neither 'latest' nor a version, found 'spring'"):
        Index((named,)).including(entry, "spring", "here")


def test_what_is_not_published_is_not_found(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(
        RegistryError, match=r"expected a version or alias that is published \(none is\), found 'latest'"
    ):
        read_index(registry, "tumour")[0].find("latest", "here")
    publish(registry, "tumour", *made(tmp_path, "1"), "champion")
    with pytest.raises(RegistryError, match=r"here: expected .* published \(1, champion\), found '7'"):
        read_index(registry, "tumour")[0].find("7", "here")


@pytest.mark.parametrize("content", [b"A bundle", b"a bundl", b"a bundle and more"])
def test_what_is_not_what_the_index_says_is_not_fetched(registry: Registry, tmp_path: Path, content: bytes) -> None:
    entry, tar = made(tmp_path, "1")
    tar.write_bytes(content)
    registry.create("tumour/1.tar", tar)
    message = (
        rf"1\.tar: expected 8 bytes of sha256 {entry.sha256}, as the index says, found (\d of [0-9a-f]{{64}}|more)$"
    )
    with pytest.raises(ChangedError, match=message):
        fetch_version(registry, "tumour", entry, tmp_path / "cache/fetched.tar")
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_is_in_the_cache_is_fetched_again_only_if_it_is_damaged(web: WebRegistry, tmp_path: Path) -> None:
    registry = open_registry(web.address, tmp_path)
    entry, tar = made(tmp_path, "1")
    publish(registry, "tumour", entry, tar)
    cached = tmp_path / "cache/1.tar"
    fetch_version(registry, "tumour", entry, cached)
    before = len(web.asked)
    fetch_version(registry, "tumour", entry, cached)
    assert len(web.asked) == before
    cached.write_bytes(b"damaged!")
    fetch_version(registry, "tumour", entry, cached)
    assert cached.read_bytes() == b"a bundle"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected an index of versions, found other text"),
        ("[]", "expected an index of versions, found other text"),
        ('{"schema": 2, "versions": [], "aliases": {}}', "schema: expected 1, found 2"),
        ('{"schema": 1, "versions": [{"version": "1"}], "aliases": {}}', "expected an index of versions, found other"),
        (
            json.dumps({"schema": 1, "aliases": {}, "versions": [
                {"version": "../1", "digest": "a" * 64, "sha256": "a" * 64, "size": 1}]}),
            r"version: expected .*, found '\.\./1'",
        ),
    ],
)  # fmt: skip
def test_an_index_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        parse_index(text.encode(), "here")


def test_an_index_is_what_was_written(tmp_path: Path) -> None:
    index = Index((made(tmp_path, "1")[0], made(tmp_path, "2")[0]), {"champion": "1"})
    assert parse_index(encode_index(index), "here") == index


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("ftp://models", "registry: expected a folder or an http(s) address, found ftp://…"),
        (
            "https://me:secret@models.example.com/",
            "registry: expected an address of host and path alone, found more at models.example.com: "
            "credentials are for MODELFLEET_REGISTRY_TOKEN or netrc",
        ),
    ],
)
def test_places_that_are_no_registry_are_refused_without_telling_secrets(place: str, message: str) -> None:
    with pytest.raises(RegistryError, match=f"^{re.escape(message)}$"):
        open_registry(place, Path())


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    registry = open_registry(str(tmp_path / "not-mounted"), Path())
    with pytest.raises(RegistryError, match=r"not-mounted: expected the folder of a registry, found none$"):
        publish(registry, "tumour", *made(tmp_path, "1"))


def test_nothing_half_stays_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    registry = open_registry("models", tmp_path)
    publish(registry, "tumour", *made(tmp_path, "1"), "champion")
    with pytest.raises(RegistryError):
        publish(registry, "tumour", *made(tmp_path, "1", b"another"))
    found = sorted((tmp_path / "models/tumour").iterdir())
    assert [path.name for path in found] == [".lock", "1.tar", "index.json"]
    assert {path.stat().st_mode & 0o777 for path in found[1:]} == {0o644}


@pytest.mark.parametrize("way", ["token", "netrc"])
def test_credentials_come_from_the_environment_or_netrc_and_go_to_that_server_alone(
    web: WebRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "token":
        monkeypatch.setenv("MODELFLEET_REGISTRY_TOKEN", "open-sesame")
        web.password = "Bearer open-sesame"
    else:
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password open-sesame\n")
        web.password = "Basic bWU6b3Blbi1zZXNhbWU="
    registry = open_registry(web.address, tmp_path)
    publish(registry, "tumour", *made(tmp_path, "1"))
    elsewhere = WebRegistry()
    try:
        elsewhere.files = dict(web.files)
        web.redirect = elsewhere.address.replace("127.0.0.1", "localhost")
        assert versions(registry) == ["1"]
        assert elsewhere.asked == [("GET", "/tumour/index.json", None)]
    finally:
        elsewhere.close()


@pytest.mark.parametrize("secret", ["two\nlines", "s€cret"])
def test_a_token_that_is_none_is_not_told(
    web: WebRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setenv("MODELFLEET_REGISTRY_TOKEN", secret)
    with pytest.raises(RegistryError, match=r"^MODELFLEET_REGISTRY_TOKEN: expected printable ASCII, found more$"):
        read_index(open_registry(web.address, tmp_path), "tumour")


def test_a_refusal_tells_no_credentials(web: WebRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web.password = "Bearer another"
    monkeypatch.setenv("MODELFLEET_REGISTRY_TOKEN", "wrong-secret")
    with pytest.raises(RegistryError, match="expected status 200 or 404 to GET, found 401 Unauthorized") as caught:
        read_index(open_registry(web.address, tmp_path), "tumour")
    assert "secret" not in str(caught.value)


def test_a_netrc_that_cannot_be_read_is_told_without_its_content(web: WebRegistry, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 open-sesame\n")
    with pytest.raises(RegistryError, match=r"netrc: expected a netrc file that can be read, found another$"):
        read_index(open_registry(web.address, tmp_path), "tumour")


def test_a_server_without_tags_cannot_keep_publishers_apart(web: WebRegistry, tmp_path: Path) -> None:
    registry = open_registry(web.address, tmp_path)
    publish(registry, "tumour", *made(tmp_path, "1"))
    web.etags = False
    with pytest.raises(RegistryError, match=r"index\.json: expected a strong ETag, .*, found none"):
        publish(registry, "tumour", *made(tmp_path, "2"))
    assert versions(registry) == ["1"]


def test_a_server_that_does_not_answer_is_told(web: WebRegistry, tmp_path: Path) -> None:
    address = web.address.replace("127.0.0.1", "127.0.0.2")
    with pytest.raises(
        RegistryError, match=rf"^{address}/tumour/index\.json: expected an answer to GET, found: .*refused"
    ):
        read_index(open_registry(address, tmp_path), "tumour")


def test_a_fetch_ends_at_what_it_may_have(web: WebRegistry) -> None:
    web.files["/big"] = b"x" * 100
    assert fetch(f"{web.address}/big", io.BytesIO(), 100)
    with pytest.raises(RegistryError, match="/big: expected at most 99 bytes, found more"):
        fetch(f"{web.address}/big", io.BytesIO(), 99)


def test_an_index_that_never_stands_still_is_given_up(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_registry, "_TRIES", 2)
    monkeypatch.setattr(type(registry), "replace", lambda *_arguments: False)
    with pytest.raises(RegistryError, match=r"tumour: expected to change index\.json in 2 tries, found it changing"):
        publish(registry, "tumour", *made(tmp_path, "1"))


@pytest.fixture
def https(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WebRegistry]:
    """A registry whose certificate is by an authority that is trusted if SSL_CERT_FILE names it."""
    authority, certificate = make_authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    server = WebRegistry(certificate)
    yield server
    server.close()


def test_a_registry_may_have_a_certificate_of_ones_own_authority(https: WebRegistry, tmp_path: Path) -> None:
    registry = open_registry(https.address, tmp_path)
    entry, tar = made(tmp_path, "1")
    assert publish(registry, "tumour", entry, tar, "champion")
    found = read_index(registry, "tumour")[0].find("champion", "here")
    fetch_version(registry, "tumour", found, tmp_path / "fetched.tar")
    assert (https.address[:8], (tmp_path / "fetched.tar").read_bytes()) == ("https://", b"a bundle")


def test_a_registry_with_a_certificate_that_nobody_vouches_for_is_told_nothing(
    https: WebRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv("MODELFLEET_REGISTRY_TOKEN", "open-sesame")
    where = re.escape(f"{https.address}/tumour/index.json: expected an answer to GET, found: ")
    with pytest.raises(RegistryError, match=rf"^{where}.*certificate verify failed"):
        read_index(open_registry(https.address, tmp_path), "tumour")
    assert https.asked == []


def test_a_certificate_of_another_host_is_refused(https: WebRegistry, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"expected an answer to GET, found: .*Hostname mismatch"):
        read_index(open_registry(https.address.replace("127.0.0.1", "localhost"), tmp_path), "tumour")
    assert https.asked == []
