# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys for signatures, made by the real ssh-keygen."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import SIGNATURE, read_seal
from ansible_collections.modelfleet.onprem.plugins.module_utils._signature import sign


@dataclass(frozen=True)
class Person:
    """Somebody with a key: ``public`` is its type and text, as a line of allowed signers has them."""

    name: str
    key: Path

    @property
    def public(self) -> str:
        return " ".join(self.key.with_suffix(".pub").read_text().split()[:2])

    def line(self, options: str = "") -> str:
        """This person's line of allowed signers."""
        return f"{self.name} {options} {self.public}\n"

    def sign(self, bundle: Path) -> None:
        (bundle / SIGNATURE).write_bytes(sign(read_seal(bundle).manifest, self.key))


def make_person(name: str, folder: Path, kind: str = "ed25519") -> Person:
    key = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", str(key)], check=True)
    return Person(name, key)
