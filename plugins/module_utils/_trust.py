# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gates ``digest`` and ``signature``, on the controller and on hosts: is a bundle what it says, and who says so."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import (
    BundleError,
    Manifest,
    read_manifest,
    read_seal,
    verify,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import digest_of
from ansible_collections.modelfleet.onprem.plugins.module_utils._signature import (
    SignatureError,
    Trust,
    check_signature,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._verdict import ADVICE, CONTROLLER

Verdict = Mapping[str, Any]


class TrustError(ValueError):
    """A gate refuses a bundle, in one line; ``verdicts`` are those until then."""

    def __init__(self, message: str, verdicts: Sequence[Verdict]) -> None:
        super().__init__(message)
        self.verdicts = list(verdicts)


def trust_of(allowed_signers: str, revoked_keys: str, signers: Sequence[str]) -> Trust | None:
    """Whose signatures count; None where nobody is named. SignatureError for what is no key."""
    return Trust(allowed_signers, revoked_keys, tuple(signers)) if allowed_signers else None


def check_bundle(
    bundle: Path,
    digest: str | None,
    trust: Trust | None,
    mode: str,
    where: str = CONTROLLER,
    read: Callable[[Path], Manifest] = verify,
) -> tuple[Manifest, list[Verdict]]:
    """The manifest of ``bundle`` and the verdicts of both gates on it; TrustError if one that is enforced fails.

    ``digest`` is the sha256 that its manifest must have, or the first digits of that; any, where it is None. ``mode``
    is that of the gate signature: ``enforce``, ``warn`` or ``off``. ``read`` gives the manifest and checks every file,
    as it writes them or as they are. ``where`` is the place on a host that the bundle is for.
    """
    started = time.monotonic()
    expected = f"every file as its manifest says{f', of sha256 {digest}' if digest else ''}"
    try:
        manifest = read(bundle)
    except BundleError as error:
        raise distrust(str(error), expected, str(error), started, where) from error
    found = manifest.digest
    is_known = digest is None or (bool(digest) and found.startswith(digest))
    verdicts = [_verdict("digest", where, "enforce", is_known, expected, f"sha256 {found}", started)]
    named = bundle if where == CONTROLLER else where
    if not is_known:
        message = f"{named}: manifest.json: expected sha256 {digest}, found {found}: {ADVICE['digest']}"
        raise TrustError(message, verdicts)
    signed = _check_signature(bundle, found, trust, mode, where)
    verdicts.append(signed)
    if signed["verdict"] == "fail":
        message = f"{named}: gate signature: expected {signed['expected']}, found {signed['found']}"
        advice = signed["details"].get("advice")
        raise TrustError(message + (f": {advice}" if advice else ""), verdicts)
    return manifest, verdicts


def distrust(message: str, expected: str, found: str, started: float, where: str = CONTROLLER) -> TrustError:
    """Why the gate digest refuses bytes that are not even a bundle, or none that anybody knows.

    ``message`` says it without what to do about it, and ``started`` is when the gate was put, by ``time.monotonic``.
    """
    verdict = _verdict("digest", where, "enforce", False, expected, found, started)
    return TrustError(f"{message}: {ADVICE['digest']}", [verdict])


def check_manifest(place: Path, release: str) -> None:
    """TrustError if the manifest at ``place`` is not that of ``release``. Its other files are not looked at."""
    check_bundle(place / "bundle", digest_of(release), None, "off", str(place), read_manifest)


def check_bytes(place: Path, release: str) -> None:
    """TrustError if ``release`` at ``place``, which did not load, is other than it was placed.

    That is then the reason, whatever else was said.
    """
    check_bundle(place / "bundle", digest_of(release), None, "off", str(place))


def _check_signature(bundle: Path, digest: str, trust: Trust | None, mode: str, where: str) -> Verdict:
    started = time.monotonic()
    if mode == "off":
        return _verdict("signature", where, mode, None, "no check", "not looked at", started)
    if trust is None:
        expected = "a signature by whom allowed_signers names"
        advice = "name them in the service's allowed_signers, or switch the gate signature off"
        return _verdict("signature", where, mode, False, expected, "nobody named", started, advice)
    try:
        # Read once: the bytes that the signature is over are those whose sha256 was found to be right.
        seal = read_seal(bundle)
        if seal.digest != digest:
            raise BundleError(f"{bundle}: manifest.json: expected sha256 {digest}, found {seal.digest}")
        finding = check_signature(seal.manifest, seal.signature, trust)
    except (BundleError, SignatureError) as error:
        return _verdict("signature", where, mode, False, trust.expected, str(error), started)
    return _verdict("signature", where, mode, finding.passed, trust.expected, finding.found, started, finding.advice)


def _verdict(
    gate: str, where: str, mode: str, passed: bool | None, expected: str, found: str, started: float, advice: str = ""
) -> Verdict:
    failed = "warn" if mode == "warn" else "fail"
    return {
        "gate": gate,
        "where": where,
        "mode": mode,
        "verdict": "off" if passed is None else "pass" if passed else failed,
        "expected": expected,
        "found": found,
        "seconds": round(time.monotonic() - started, 3),
        "details": {"advice": advice} if advice else {},
    }
