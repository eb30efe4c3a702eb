# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signatures over a bundle's manifest: SSH signatures, as ``ssh-keygen -Y sign`` makes them and git uses them.

``ssh-keygen`` decides whether a signature holds. What is parsed here (the signature, by PROTOCOL.sshsig of OpenSSH, and
the file of allowed signers, by ssh-keygen(1)) says why it does not, and refuses what ssh-keygen would pass over.

This file is shared: Ansible modules run it on a host, and the model server has it as ``model_server.bundle.signature``.
So it needs the standard library alone and runs on Python 3.9.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

NAMESPACE = "modelfleet-bundle"
"""What a signature is for: one that was made for something else, such as a commit, is none over a bundle."""

_KEY_TYPE = re.compile(r"(sk-)?(ssh|ecdsa)-[a-z0-9@.-]+")
_ARMOR = re.compile(rb"-----BEGIN SSH SIGNATURE-----\n((?:[A-Za-z0-9+/=]+\n)+)-----END SSH SIGNATURE-----\n?")
_FIELD = re.compile(r'(?:[^\s"]|"(?:\\.|[^"\\])*")+')
_OPTION = re.compile(r'([a-z-]+)(?:="((?:\\.|[^"\\])*)")?(?:,|$)', re.IGNORECASE)
_TIMES = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_KRL = b"SSHKRL\n\0"
_KRL_IN_BASE64 = "U1NIS1JM"
_SECONDS = 30


class SignatureError(ValueError):
    """Something about signatures or keys is not what it should be. The message is one line."""


@dataclass(frozen=True)
class Key:
    """A public key: its type, such as ``ssh-ed25519``, and its bytes as SSH has them."""

    kind: str
    blob: bytes

    def __str__(self) -> str:
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")
        return f"the key SHA256:{digest}"


@dataclass(frozen=True)
class Signature:
    """What a signature says of itself: whose it is and what for."""

    key: Key
    namespace: str


@dataclass(frozen=True)
class Signer:
    """A line of a file of allowed signers. Times are ISO 8601, in local time where the file gives no zone."""

    principals: str
    key: Key
    authority: bool = False
    namespaces: str | None = None
    valid_after: datetime | None = None
    valid_before: datetime | None = None


@dataclass(frozen=True)
class Trust:
    """Whose signatures count.

    ``allowed_signers`` is the content of such a file. ``revoked_keys`` are public keys, a line each, or a key
    revocation list in base64. ``signers`` are the principals that may sign; none means all of ``allowed_signers``.
    """

    allowed_signers: str
    revoked_keys: str = ""
    signers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        parse_allowed_signers(self.allowed_signers)
        check_revoked_keys(self.revoked_keys)

    @property
    def expected(self) -> str:
        """Whose signature is expected, in words."""
        names = self.signers or tuple(
            dict.fromkeys(signer.principals for signer in parse_allowed_signers(self.allowed_signers))
        )
        return f"a signature by {' or '.join(names) if len(names) < 5 else f'one of {len(names)} allowed signers'}"


@dataclass(frozen=True)
class Finding:
    """Whether a signature holds; ``found`` is what there is, ``advice`` what to do about it, each in words."""

    passed: bool
    found: str
    advice: str = ""


def parse_signature(data: bytes) -> Signature:
    """What the signature ``data`` says of itself; nothing of it is proven."""
    armored = _ARMOR.fullmatch(data)
    if not armored:
        raise SignatureError("expected the text of an SSH signature, found something else")
    try:
        text = armored[1].replace(b"\n", b"")
        blob = base64.b64decode(text, validate=True)
        # Bytes that decoding passes over are bytes that nobody signed.
        if base64.b64encode(blob) != text or blob[:6] != b"SSHSIG" or blob[6:10] != b"\0\0\0\1":
            raise ValueError
        key, rest = _string(blob[10:])
        namespace, rest = _string(rest)
        return Signature(_key(key), namespace.decode())
    except (ValueError, struct.error, binascii.Error):
        raise SignatureError("expected an SSH signature of version 1, found other data") from None


def parse_allowed_signers(text: str) -> tuple[Signer, ...]:
    """The lines of a file of allowed signers, of which there must be one."""
    signers = tuple(signer for signer, _line in _signers(text))
    if not signers:
        raise SignatureError("allowed_signers: expected a line for each signer, found none")
    return signers


def check_revoked_keys(text: str) -> None:
    """SignatureError for a line that is no public key, which ssh-keygen would take for nothing revoked."""
    if text.startswith(_KRL_IN_BASE64):
        try:
            base64.b64decode(text, validate=True)
        except ValueError:
            raise SignatureError("revoked_keys: expected a key revocation list in base64, found other text") from None
        return
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if fields and not line.lstrip().startswith("#"):
            _public_key(fields[:2], f"revoked_keys, line {number}", "KEYTYPE KEY")


def read_allowed_signers(path: Path) -> str:
    """The content of a file of allowed signers."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SignatureError(f"allowed_signers: expected a file of signers at {path}, found: {_why(error)}") from None


def read_revoked_keys(path: Path) -> str:
    """The content of a file of revoked keys: that of a key revocation list in base64."""
    try:
        data = path.read_bytes()
        return base64.b64encode(data).decode() if data.startswith(_KRL) else data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise SignatureError(f"revoked_keys: expected a file of keys at {path}, found: {_why(error)}") from None


def sign(data: bytes, key: Path) -> bytes:
    """A signature over ``data``. ``key`` is a private key, or a public one whose private half is in the agent."""
    if not key.is_file():
        raise SignatureError(f"key: expected the file of a key, found none at {key}")
    ended = _ssh_keygen(["-Y", "sign", "-q", "-f", str(key), "-n", NAMESPACE], data, limited=False)
    if ended.returncode:
        raise SignatureError(f"key: {key} does not sign: {_said(ended)}")
    parse_signature(ended.stdout)
    return ended.stdout


def check_intact(data: bytes, signature: bytes | None) -> Finding:
    """Whether ``signature`` is one for this namespace over ``data``, whoever made it."""
    if signature is None:
        return Finding(False, "none", "have it signed (model-bundle sign), or deploy another")
    try:
        parsed = parse_signature(signature)
    except SignatureError as error:
        return Finding(False, f"no signature ({error})", "have it signed again (model-bundle sign)")
    if parsed.namespace != NAMESPACE:
        return Finding(
            False,
            f"one by {parsed.key} for {parsed.namespace!r} and not for {NAMESPACE!r}",
            "it was made for something else: have the bundle signed (model-bundle sign)",
        )
    with tempfile.TemporaryDirectory() as folder:
        path = _written(folder, "signature", signature)
        ended = _ssh_keygen(["-Y", "check-novalidate", "-n", NAMESPACE, "-s", path], data)
    if ended.returncode:
        return Finding(
            False,
            f"one by {parsed.key} over other bytes",
            "the manifest was changed after it was signed, or this is another bundle's signature: do not use it",
        )
    return Finding(True, f"one by {parsed.key}")


def check_signature(data: bytes, signature: bytes | None, trust: Trust) -> Finding:
    """Whether ``signature`` is one over ``data`` by whom ``trust`` allows, by now: it carries no time of its own."""
    intact = check_intact(data, signature)
    if signature is None or not intact.passed:
        return intact
    key = parse_signature(signature).key
    with tempfile.TemporaryDirectory() as folder:
        signed = ["-s", _written(folder, "signature", signature)]
        allowed = ["-f", _written(folder, "allowed_signers", trust.allowed_signers.encode())]
        revoked = ["-r", _written(folder, "revoked_keys", _as_file(trust.revoked_keys))] if trust.revoked_keys else []
        if problem := _revoked(key, trust.revoked_keys, folder):
            return problem
        for name in trust.signers or _principals(key, signed, trust, folder):
            wanted = ["-Y", "verify", "-I", name, "-n", NAMESPACE]
            if not _ssh_keygen([*wanted, *signed, *allowed, *revoked], data).returncode:
                return Finding(True, f"one by {name}, {key}")
    return _why_not(key, trust)


def _principals(key: Key, signed: list[str], trust: Trust, folder: str) -> list[str]:
    """The principals of all lines that fit the signature: of a whole file ssh-keygen names those of the first."""
    names: list[str] = []
    for signer, line in _signers(trust.allowed_signers):
        if signer.authority or signer.key == key:
            alone = _written(folder, "line", f"{line}\n".encode())
            names += _ssh_keygen(["-Y", "find-principals", *signed, "-f", alone], b"").stdout.decode().splitlines()
    return list(dict.fromkeys(names))


def _revoked(key: Key, text: str, folder: str) -> Finding | None:
    """What is wrong if ``key`` is revoked, or if that cannot be told."""
    if not text:
        return None
    if not text.startswith(_KRL_IN_BASE64):
        lines = [line.split() for line in text.splitlines()]
        found = any(line[1:2] == [base64.b64encode(key.blob).decode()] for line in lines)
    else:
        krl = _written(folder, "krl", _as_file(text))
        if _ssh_keygen(["-Q", "-l", "-f", krl], b"").returncode:
            raise SignatureError("revoked_keys: expected a key revocation list, found one that ssh-keygen cannot read")
        public = _written(folder, "key.pub", f"{key.kind} {base64.b64encode(key.blob).decode()}\n".encode())
        found = bool(_ssh_keygen(["-Q", "-f", krl, public], b"").returncode)
    if not found:
        return None
    advice = "whoever has that key is no longer trusted: have the bundle built anew and signed by another"
    return Finding(False, f"one by {key}, which is revoked", advice)


def _why_not(key: Key, trust: Trust) -> Finding:
    """Why no line of the allowed signers fits a signature that is intact."""
    lines = [signer for signer in parse_allowed_signers(trust.allowed_signers) if signer.key == key]
    if not lines:
        return Finding(
            False,
            f"one by {key}, which is not in allowed_signers",
            "find out whose key that is; add it only if its owner may release models of this service",
        )
    now = datetime.now(timezone.utc)
    line = lines[-1]
    whose = f"one by {line.principals}, {key}"
    if line.valid_before and now >= line.valid_before:
        until = f"{line.valid_before:%Y-%m-%d %H:%M} UTC"
        return Finding(False, f"{whose}, valid until {until}", "have it signed with a key that is valid now")
    if line.valid_after and now <= line.valid_after:
        since = f"{line.valid_after:%Y-%m-%d %H:%M} UTC"
        return Finding(False, f"{whose}, not valid before {since}", "wait, or have it signed with a key valid now")
    if line.namespaces is not None and NAMESPACE not in line.namespaces.split(","):
        return Finding(
            False,
            f"{whose}, allowed for {line.namespaces} alone",
            f"add {NAMESPACE} to its namespaces only if its owner may release models of this service",
        )
    if trust.signers:
        return Finding(False, whose, "have it signed by one who may, or add the principal to signers")
    return Finding(False, f"{whose}, which ssh-keygen does not accept", "look at the key's line in allowed_signers")


def _signers(text: str) -> Iterator[tuple[Signer, str]]:
    """The lines of a file of allowed signers, each with its text."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield _signer(line, f"allowed_signers, line {number}"), line


def _signer(line: str, where: str) -> Signer:
    fields = _FIELD.findall(line)
    has_options = len(fields) > 2 and not _KEY_TYPE.fullmatch(fields[1])
    shape = "PRINCIPALS [OPTIONS] KEYTYPE KEY"
    key = _public_key(fields[2:4] if has_options else fields[1:3], where, shape)
    options = _options(fields[1], where) if has_options else {}
    return Signer(
        fields[0],
        key,
        "cert-authority" in options,
        options.get("namespaces"),
        _time(options.get("valid-after"), where),
        _time(options.get("valid-before"), where),
    )


def _options(text: str, where: str) -> dict[str, str]:
    options, at = {}, 0
    while at < len(text):
        found = _OPTION.match(text, at)
        name = found[1].lower() if found else ""
        if not found or name not in ("cert-authority", "namespaces", "valid-after", "valid-before"):
            known = "cert-authority, namespaces, valid-after or valid-before"
            raise SignatureError(f"{where}: expected the options {known}, found {text[at:][:60]!r}")
        options[name] = found[2] or ""
        at = found.end()
    return options


def _time(text: str | None, where: str) -> datetime | None:
    if text is None:
        return None
    digits = text.rstrip("Z")
    try:
        parsed = datetime.strptime(digits, _TIMES[len(digits)])
    except (KeyError, ValueError):
        raise SignatureError(f"{where}: expected a time such as 20301231 or 203012312359Z, found {text!r}") from None
    # Without a zone it is local time, for ssh-keygen as for astimezone().
    return (parsed.replace(tzinfo=timezone.utc) if text.endswith("Z") else parsed).astimezone(timezone.utc)


def _public_key(fields: list[str], where: str, shape: str) -> Key:
    try:
        kind, text = fields
        key = _key(base64.b64decode(text, validate=True))
        if not _KEY_TYPE.fullmatch(kind) or kind != key.kind:
            raise ValueError
    except (ValueError, struct.error, binascii.Error):
        raise SignatureError(f"{where}: expected {shape}, found {' '.join(fields)[:60]!r}") from None
    return key


def _key(blob: bytes) -> Key:
    kind, _rest = _string(blob)
    return Key(kind.decode("ascii"), blob)


def _string(data: bytes) -> tuple[bytes, bytes]:
    """The first string of SSH's wire format, and what comes after it."""
    (length,) = struct.unpack(">I", data[:4])
    if len(data) < 4 + length:
        raise ValueError("too short")
    return data[4 : 4 + length], data[4 + length :]


def _as_file(revoked: str) -> bytes:
    return base64.b64decode(revoked) if revoked.startswith(_KRL_IN_BASE64) else revoked.encode()


def _written(folder: str, name: str, data: bytes) -> str:
    path = Path(folder) / name
    path.write_bytes(data)
    return str(path)


def _ssh_keygen(arguments: list[str], data: bytes, limited: bool = True) -> subprocess.CompletedProcess[bytes]:
    seconds = _SECONDS if limited else None
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(
            ["ssh-keygen", *arguments], input=data, capture_output=True, check=False, timeout=seconds, env=environment
        )
    except FileNotFoundError:
        raise SignatureError("expected ssh-keygen (the package openssh-client) on the path, found none") from None
    except subprocess.TimeoutExpired:
        raise SignatureError(f"ssh-keygen: expected an answer within {seconds} s, found none") from None


def _said(ended: subprocess.CompletedProcess[bytes]) -> str:
    lines = ended.stderr.decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), f"it ended with {ended.returncode}")


def _why(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or repr(error) if isinstance(error, OSError) else "no text"
