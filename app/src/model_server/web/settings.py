# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's settings, from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SCORERS = ("auto", "native")
ACCESS_LOGS = ("off", "errors", "all")


@dataclass(frozen=True)
class Settings:
    """Times are in seconds unless the name says milliseconds; the meaning of each is in the README's table."""

    bundle: Path
    service: str
    digest: str = ""
    bind: str = "127.0.0.1:8000"
    metrics_bind: str | None = None
    workers: int = 2
    threads: int = 1
    scorer: str = "auto"
    max_body_bytes: int = 8 * 1024 * 1024
    max_rows: int = 100_000
    max_wait_ms: int = 1000
    connections: int = 1000
    graceful_timeout: int = 30
    keep_alive: int = 75
    read_timeout: int = 30
    access_log: str = "errors"
    api_keys: Path | None = None
    gate_key_sha256: str = ""
    capture_dir: Path | None = None
    capture_share: float = 0.0
    capture_max_bytes: int = 64 * 1024 * 1024
    capture_redact: tuple[str, ...] = ()


def settings_from(environment: Mapping[str, str]) -> Settings:
    """Raise ValueError with one line that names the variable, what was expected and what was found."""
    for name in ("MODEL_BUNDLE", "MODEL_SERVICE"):
        if not environment.get(name):
            raise ValueError(f"{name}: expected a value in the environment, found none")
    if _share(environment, "CAPTURE_SHARE", Settings.capture_share) and not environment.get("CAPTURE_DIR"):
        raise ValueError("CAPTURE_DIR: expected a folder, for CAPTURE_SHARE is set, found none")
    return Settings(
        bundle=Path(environment["MODEL_BUNDLE"]),
        service=environment["MODEL_SERVICE"],
        digest=_digits(environment, "MODEL_DIGEST"),
        bind=environment.get("BIND", Settings.bind),
        metrics_bind=environment.get("METRICS_BIND") or None,
        workers=_number(environment, "WORKERS", Settings.workers),
        threads=_number(environment, "THREADS", Settings.threads),
        scorer=_choice(environment, "SCORER", Settings.scorer, SCORERS),
        max_body_bytes=_number(environment, "MAX_BODY_BYTES", Settings.max_body_bytes),
        max_rows=_number(environment, "MAX_ROWS", Settings.max_rows),
        max_wait_ms=_number(environment, "MAX_WAIT_MS", Settings.max_wait_ms),
        connections=_number(environment, "CONNECTIONS", Settings.connections),
        graceful_timeout=_number(environment, "GRACEFUL_TIMEOUT", Settings.graceful_timeout),
        keep_alive=_number(environment, "KEEP_ALIVE", Settings.keep_alive),
        read_timeout=_number(environment, "READ_TIMEOUT", Settings.read_timeout),
        access_log=_choice(environment, "ACCESS_LOG", Settings.access_log, ACCESS_LOGS),
        api_keys=_path(environment, "API_KEYS"),
        gate_key_sha256=_sha256(environment, "GATE_KEY_SHA256"),
        capture_dir=_path(environment, "CAPTURE_DIR"),
        capture_share=_share(environment, "CAPTURE_SHARE", Settings.capture_share),
        capture_max_bytes=_number(environment, "CAPTURE_MAX_BYTES", Settings.capture_max_bytes),
        capture_redact=tuple(filter(None, map(str.strip, environment.get("CAPTURE_REDACT", "").split(",")))),
    )


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{name}: expected a whole number from 1, found {text!r}")
    return int(text)


def _share(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, str(default))
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise ValueError(f"{name}: expected a number from 0 to 1, found {text!r}")
    return found


def _choice(environment: Mapping[str, str], name: str, default: str, choices: tuple[str, ...]) -> str:
    found = environment.get(name, default)
    if found not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, found {found!r}")
    return found


def _sha256(environment: Mapping[str, str], name: str) -> str:
    text = environment.get(name, "")
    if text and not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f"{name}: expected a sha256 in hexadecimal, found {len(text)} other characters")
    return text


def _digits(environment: Mapping[str, str], name: str) -> str:
    text = environment.get(name, "")
    if text and not re.fullmatch(r"[0-9a-f]{1,64}", text):
        raise ValueError(f"{name}: expected a sha256 in hexadecimal, or its first digits, found {text!r}")
    return text


def _path(environment: Mapping[str, str], name: str) -> Path | None:
    return Path(environment[name]) if environment.get(name) else None
