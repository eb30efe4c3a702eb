# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a slot is started with: the model server's settings and the unit's limits, as files and back."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ansible_collections.modelfleet.onprem.plugins.module_utils._files import make_folder, write_file
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import (
    SLOTS,
    Layout,
    digest_of,
    env_of,
    is_complete,
    list_releases,
    list_services,
    release_in,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._trust import check_manifest

LIMITS = (
    "AllowedCPUs",
    "CPUQuota",
    "CPUWeight",
    "IOWeight",
    "LimitNOFILE",
    "MemoryHigh",
    "MemoryMax",
    "MemorySwapMax",
    "TasksMax",
)
"""What ``limits`` may hold, by the names of systemd.resource-control(5) and systemd.exec(5)."""

_DIGEST = "MODEL_DIGEST"

OWN_SETTINGS = ("MODEL_BUNDLE", _DIGEST, "MODEL_ENV", "MODEL_SERVICE")
"""What a slot itself tells the model server: where its release and its environment are, which bundle that release must
be, by the digits of its name, and which service it is."""

STOP_MARGIN = 15
"""Seconds that systemd gives the model server beyond its own graceful timeout before it kills it."""

GATE_KEY = "GATE_KEY_SHA256"
"""The setting by which the model server knows the gates' API key: its sha256 alone, so that it may be seen."""

_SETTING = re.compile(r"[A-Z][A-Z0-9_]*")
_ESCAPED = re.compile(r'[\\"`$]')


class SlotError(ValueError):
    """A slot cannot be started or stopped, in one line."""


def render_settings(settings: Mapping[str, str]) -> str:
    """``settings`` as an EnvironmentFile of systemd.exec(5), a line each, by name."""
    return "".join(f'{name}="{_quoted(name, settings[name])}"\n' for name in sorted(settings))


def _quoted(name: str, value: str) -> str:
    if not _SETTING.fullmatch(name):
        raise SlotError(f"settings: expected a name of upper-case letters, digits and _, found {name!r}")
    if not value.isprintable():
        raise SlotError(f"settings.{name}: expected one line of text, found {value!r}")
    return _ESCAPED.sub(r"\\\g<0>", value)


def parse_settings(text: str) -> dict[str, str]:
    """What ``render_settings`` wrote."""
    settings = {}
    for line in text.splitlines():
        name, _equals, value = line.partition("=")
        settings[name] = re.sub(r"\\(.)", r"\1", value[1:-1])
    return settings


def render_limits(limits: Mapping[str, str], settings: Mapping[str, str]) -> str:
    """``limits`` as a drop-in of the unit, which also lets the model server end gracefully."""
    lines = []
    for name in sorted(limits):
        if name not in LIMITS:
            raise SlotError(f"limits: expected one of {', '.join(LIMITS)}, found {name!r}")
        if not limits[name].isprintable():
            raise SlotError(f"limits.{name}: expected one line of text, found {limits[name]!r}")
        lines.append(f"{name}={limits[name]}\n")
    graceful = settings.get("GRACEFUL_TIMEOUT", "")
    if graceful.isdigit():
        lines.append(f"TimeoutStopSec={int(graceful) + STOP_MARGIN}\n")
    return "[Service]\n" + "".join(lines)


def parse_limits(text: str) -> dict[str, str]:
    """The limits that ``render_limits`` wrote."""
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name: value for name, value in found.items() if name in LIMITS}


@dataclass(frozen=True)
class Start:
    """What a slot is, or is to be, started with. ``env`` is None when the release is not on the host yet."""

    release: str
    env: str | None
    settings: dict[str, str]
    limits: dict[str, str]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


def plan_start(
    layout: Layout, service: str, release: str, settings: Mapping[str, Any], limits: Mapping[str, Any]
) -> Start:
    """What the slot is to be started with: ``settings``, and those that say where the release is."""
    # Given when a slot is put back on what it ran before: the key may be another one by now.
    given = {name: str(value) for name, value in settings.items() if name != GATE_KEY}
    # Given when a slot is put back on what it ran before, which may be an earlier environment of the same release.
    env = Path(given["MODEL_ENV"]).name if "MODEL_ENV" in given else env_of(layout.release(service, release))
    # Not by way of the slot or the release: a process that runs must never see another one's packages.
    bundle = str(layout.release(service, release) / "bundle")
    own = (bundle, digest_of(release), str(layout.env(env or "")), service)
    for name, value in zip(OWN_SETTINGS, own):
        if given.setdefault(name, value) != value:
            raise SlotError(f"settings.{name}: expected {value}, which the slot sets itself, found {given[name]}")
    return Start(release, env, given, {name: str(value) for name, value in limits.items()})


def with_gate_key(layout: Layout, service: str, start: Start, check_mode: bool) -> Start:
    """``start`` with the gates' own API key, where the model server wants keys.

    The first start on this host makes the key, check mode makes none.
    """
    if not start.settings.get("API_KEYS"):
        return start
    path = layout.gate_key(service)
    if not check_mode and not path.exists():
        make_folder(path.parent)
        write_file(path, secrets.token_hex(32) + "\n", mode=0o600)
    key = read_gate_key(layout, service)
    settings = {**start.settings, GATE_KEY: hashlib.sha256(key.encode()).hexdigest() if key else ""}
    return replace(start, settings=settings)


def read_gate_key(layout: Layout, service: str) -> str | None:
    """The gates' API key for the slots of the service on this host, None if it has none."""
    return read_text(layout.gate_key(service)).strip() or None


def check_placed(layout: Layout, service: str, start: Start) -> None:
    """SlotError unless the release and its environment are on the host, TrustError if it is another bundle."""
    place = layout.release(service, start.release)
    if not place.is_dir():
        raise SlotError(f"{place}: expected the release to be on this host, found none: run model_release first")
    check_manifest(place, start.release)
    if not start.env or not is_complete(layout, start.env):
        raise SlotError(f"{place}: expected an environment that is on this host, found {start.env or 'none'}")


def read_record(layout: Layout, service: str, slot: str) -> Start | None:
    """What the slot was started with when it last became ready."""
    text = read_text(layout.record(service, slot))
    return Start(**json.loads(text)) if text else None


def is_started(layout: Layout, service: str, slot: str, start: Start) -> bool:
    """Whether the slot became ready with ``start``, and its unit would start with that again.

    One that an earlier version of the collection started was told no digest. It is left alone: which bundle it has
    loaded it says itself.
    """
    settings = {name: value for name, value in start.settings.items() if name != _DIGEST}
    record = read_record(layout, service, slot)
    return any(
        record == each and is_written(layout, service, slot, each)
        for each in (start, replace(start, settings=settings))
    )


def is_written(layout: Layout, service: str, slot: str, start: Start) -> bool:
    """Whether the next start of the slot's unit would be ``start``."""
    return (
        release_in(layout, service, slot) == start.release
        and read_text(layout.settings(service, slot)) == render_settings(start.settings)
        and read_text(layout.limits(service, slot)) == render_limits(start.limits, start.settings)
    )


def read_text(path: Path) -> str:
    """The file's text, nothing if it is not there."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def listening_address(settings: Mapping[str, str]) -> str:
    """Where the slot answers on its own host: ``127.0.0.1:8101`` for ``BIND`` ``0.0.0.0:8101``."""
    host, _colon, port = settings.get("BIND", "127.0.0.1:8000").rpartition(":")
    return f"{ {'': '127.0.0.1', '0.0.0.0': '127.0.0.1', '[::]': '[::1]'}.get(host, host) }:{port}"


def envs_in_use(layout: Layout) -> dict[str, list[str]]:
    """Who uses each environment: releases that point to it and slots whose unit starts in it."""
    users: dict[str, list[str]] = {}
    for service in list_services(layout):
        for release in list_releases(layout, service):
            if release.env:
                users.setdefault(release.env, []).append(f"{service} {release.release}")
        for slot in SLOTS:
            env = parse_settings(read_text(layout.settings(service, slot))).get("MODEL_ENV")
            if env:
                users.setdefault(Path(env).name, []).append(f"{service} {slot}")
    return users


def is_release(digest: str | None, release: str) -> bool:
    """Whether a manifest's sha256, or the start of one, is that of ``release``."""
    return bool(digest) and str(digest)[:12] == digest_of(release)
