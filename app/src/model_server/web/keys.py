# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""API keys: who may ask. The file has their hashes alone."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from pathlib import Path

_LINE = re.compile(r"(\S+)\s+([0-9a-f]{64})")


class Keys:
    """The keys of a file of lines ``NAME SHA256``: the sha256 of each key, in hexadecimal.

    A key is to be random and long (``openssl rand -hex 32``): then one round of sha256 hides it.
    """

    def __init__(self, hashes: Mapping[str, bytes]) -> None:
        self._hashes = dict(hashes)

    def owner(self, headers: Mapping[bytes, bytes]) -> str | None:
        """The name of the key in ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``; None if it is no key of ours."""
        scheme, _space, key = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            key = headers.get(b"x-api-key", b"")
        found = hashlib.sha256(key.strip()).digest()
        owner = None
        # All are compared, each in constant time: how long it takes says nothing of any of them.
        for name, expected in self._hashes.items():
            if hmac.compare_digest(found, expected):
                owner = name
        return owner


def read_keys(path: Path, gate_key_sha256: str = "") -> Keys:
    """The keys of the file, and one more by its sha256 if that is given.

    Raise ValueError with one line for a file that is not as ``Keys`` has it, OSError for one that is not there.
    """
    hashes: dict[str, bytes] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None or found[1] in hashes:
            raise ValueError(
                f"{path}: line {number}: expected a name of its own and the sha256 of a key in hexadecimal"
            )
        hashes[found[1]] = bytes.fromhex(found[2])
    if not hashes:
        raise ValueError(f"{path}: expected at least one key, found none")
    if gate_key_sha256:
        # No name in a file is empty.
        hashes[""] = bytes.fromhex(gate_key_sha256)
    return Keys(hashes)
