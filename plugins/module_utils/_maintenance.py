# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which services a balancer answers for itself, and what it says: lines of a map, as HAProxy reads them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional
from urllib.parse import quote, unquote

from ._layout import check_service
from ._route import Entries

MAP = "maintenance.map"
"""Its name in the folder of a balancer's state."""


@dataclass(frozen=True)
class Notice:
    """What clients of a service in maintenance are told. ``retry_after`` is in seconds."""

    retry_after: int
    message: str

    def __post_init__(self) -> None:
        if not 0 <= self.retry_after <= 31_536_000:
            raise ValueError(f"retry_after: expected 0 to 31536000 seconds, found {self.retry_after}")
        # Encoded, it is a word in a line of a map, which HAProxy reads into a buffer.
        if not self.message.isprintable() or not 0 < len(self.value) <= 1000:
            raise ValueError("message: expected one line of printable text of up to about 1000 bytes, found another")

    @property
    def value(self) -> str:
        """One word: the template of HAProxy's configuration splits it at the first bar, and decodes the rest."""
        return f"{self.retry_after}|{quote(self.message, safe='')}"


def parse_notice(value: str) -> Notice:
    """The notice that ``value`` of a map stands for; ValueError for a value that no notice has."""
    seconds, separator, message = value.partition("|")
    if not separator or not seconds.isdecimal():
        raise ValueError(f"{MAP}: expected seconds, a bar and what clients are told, found {value!r}")
    return Notice(int(seconds), unquote(message))


def put(entries: Entries, services: Iterable[str], notice: Optional[Notice]) -> Entries:
    """The map with the services in maintenance, or out of it where there is no notice."""
    wanted = [check_service(service) for service in dict.fromkeys(services)]
    kept = tuple(entry for entry in entries if entry[0] not in wanted)
    return kept if notice is None else (*kept, *((service, notice.value) for service in wanted))
