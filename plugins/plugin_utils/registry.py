# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles between a registry and the controller: fetched into its cache, and published."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import (
    SIGNATURE,
    BundleError,
    Manifest,
    pack,
    read_seal,
    verify,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._registry import (
    ChangedError,
    Entry,
    RegistryError,
    entry_of,
    fetch_version,
    open_registry,
    publish,
    read_index,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._signature import check_intact, sign
from ansible_collections.modelfleet.onprem.plugins.module_utils._trust import TrustError, distrust


@dataclass(frozen=True)
class Fetched:
    """A bundle of a registry: its tar in the controller's cache, and where it is from."""

    tar: Path
    entry: Entry
    address: str


class UntrueError(TrustError):
    """What a registry has at ``address`` is not what its index says: the gate digest refuses it."""

    def __init__(self, address: str, expected: str, found: str, started: float) -> None:
        error = distrust(f"{address}: expected {expected}, found {found}", expected, found, started)
        super().__init__(str(error), error.verdicts)
        self.address = address


@dataclass(frozen=True)
class Published:
    """What was put into a registry, where, and whether anything of it is new there."""

    manifest: Manifest
    address: str
    changed: bool
    signed: str


def fetch_bundle(place: str, folder: Path, name: str, asked: str, cache: Path) -> Fetched:
    """The bundle of the model ``name`` that ``asked`` (a version, an alias or ``latest``) means at this moment.

    A relative ``place`` is below ``folder``. What is fetched has the bytes that the index says and the digest, too; if
    not, that is an UntrueError.
    """
    registry = open_registry(place, folder)
    index, _stored = read_index(registry, name)
    entry = index.find(asked, registry.address(name))
    tar = cache / "bundles" / f"{name}-{entry.version}-{entry.sha256[:12]}.tar"
    address = registry.address(f"{name}/{entry.version}.tar")
    expected = f"{name} {entry.version} of digest {entry.digest}, as the index says"
    started = time.monotonic()
    try:
        fetch_version(registry, name, entry, tar)
        found = verify(tar)
    except ChangedError as error:
        raise UntrueError(address, error.expected, error.found, started) from error
    except BundleError as error:
        raise UntrueError(address, expected, str(error), started) from error
    if (found.name, found.version, found.digest) != (name, entry.version, entry.digest):
        raise UntrueError(address, expected, f"{found.name} {found.version} of {found.digest}", started)
    return Fetched(tar, entry, address)


def publish_bundle(
    bundle: Path, place: str, folder: Path, key: Path | None = None, alias: str | None = None, pretend: bool = False
) -> Published:
    """Put ``bundle`` into the registry at ``place``, signed with ``key`` on the way if one is given.

    The bundle itself stays as it is. With ``pretend`` everything is checked and nothing is put anywhere.
    """
    registry = open_registry(place, folder)
    with tempfile.TemporaryDirectory() as temporary:
        tar = Path(temporary) / "bundle.tar"
        manifest = pack(bundle, tar, sign(read_seal(bundle).manifest, key) if key else None)
        seal = read_seal(tar)
        signed = check_intact(seal.manifest, seal.signature)
        if seal.signature is not None and not signed.passed:
            raise RegistryError(f"{bundle}: {SIGNATURE}: expected a signature over this bundle, found {signed.found}")
        entry = entry_of(manifest.version, manifest.digest, tar)
        changed = publish(registry, manifest.name, entry, tar, alias, pretend)
    return Published(manifest, registry.address(f"{manifest.name}/{entry.version}.tar"), changed, signed.found)
