# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done with a bundle once it is built: signed, and put into a registry."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from model_server.bundle.manifest import SIGNATURE, BundleError, Manifest, pack, read_seal, verify
from model_server.bundle.registry import entry_of, open_registry, publish
from model_server.bundle.signature import NAMESPACE, SignatureError, check_intact, sign


@dataclass(frozen=True)
class Published:
    """What was put into a registry, and where; ``changed`` is False if all of it was there."""

    manifest: Manifest
    address: str
    changed: bool


def make_key(key: Path, principal: str | None, passphrase: bool) -> str:
    """Make a key for signatures at ``key``, with its public half beside it; its line for a file of allowed signers."""
    principal = principal or f"{getpass.getuser()}@{socket.gethostname()}"
    if not principal.isascii() or not principal.isprintable() or set(principal) & set(' ,"!*?#'):
        raise SignatureError(f"principal: expected a name without spaces or patterns, found {principal!r}")
    if key.exists():
        raise SignatureError(f"key: expected a file to make, found one at {key}")
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-C", principal, "-f", str(key)]
    try:
        # It asks for a passphrase itself, on the terminal.
        ended = subprocess.run([*command, *([] if passphrase else ["-N", ""])], check=False)
    except FileNotFoundError:
        raise SignatureError("expected ssh-keygen (the package openssh-client) on the path, found none") from None
    if ended.returncode:
        raise SignatureError(f"key: ssh-keygen did not make {key}")
    kind, text = key.with_name(f"{key.name}.pub").read_text().split()[:2]
    return f'{principal} namespaces="{NAMESPACE}" {kind} {text}'


def sign_bundle(bundle: Path, key: Path) -> Manifest:
    """Put a signature over the manifest into ``bundle``, in place of the one that is there; its digest stays."""
    manifest = verify(bundle)
    seal = read_seal(bundle)
    if seal.digest != manifest.digest:
        raise BundleError(f"{bundle}: manifest.json: expected sha256 {manifest.digest}, found {seal.digest}")
    signature = sign(seal.manifest, key)
    if not bundle.is_dir():
        return pack(bundle, bundle, signature)
    partial = bundle.with_name(f".{bundle.name}.{SIGNATURE}.{os.getpid()}")
    try:
        partial.write_bytes(signature)
        os.replace(partial, bundle / SIGNATURE)
    except OSError as error:
        raise BundleError(f"{bundle}: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
    return manifest


def publish_bundle(bundle: Path, place: str, key: Path | None = None, alias: str | None = None) -> Published:
    """Put ``bundle`` into the registry at ``place``, signed with ``key`` on the way if one is given.

    The bundle itself stays as it is.
    """
    registry = open_registry(place, Path())
    with tempfile.TemporaryDirectory() as temporary:
        tar = Path(temporary) / "bundle.tar"
        manifest = pack(bundle, tar, sign(read_seal(bundle).manifest, key) if key else None)
        seal = read_seal(tar)
        signed = check_intact(seal.manifest, seal.signature)
        if seal.signature is not None and not signed.passed:
            raise BundleError(f"{bundle}: {SIGNATURE}: expected a signature over this bundle, found {signed.found}")
        entry = entry_of(manifest.version, manifest.digest, tar)
        changed = publish(registry, manifest.name, entry, tar, alias)
    return Published(manifest, registry.address(f"{manifest.name}/{entry.version}.tar"), changed)
