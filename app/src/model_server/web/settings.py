# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's settings, from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Times are in seconds. ``metrics_dir`` is where the workers share their metrics; None: a folder of its own."""

    bundle: Path
    service: str
    bind: str = "127.0.0.1:8000"
    workers: int = 2
    threads: int = 4
    max_body_bytes: int = 8 * 1024 * 1024
    graceful_timeout: int = 30
    keep_alive: int = 75
    metrics_dir: Path | None = None


def settings_from(environment: Mapping[str, str]) -> Settings:
    """Raise ValueError with one line that names the variable, what was expected and what was found."""
    for name in ("MODEL_BUNDLE", "MODEL_SERVICE"):
        if not environment.get(name):
            raise ValueError(f"{name}: expected a value in the environment, found none")
    metrics_dir = environment.get("PROMETHEUS_MULTIPROC_DIR")
    return Settings(
        bundle=Path(environment["MODEL_BUNDLE"]),
        service=environment["MODEL_SERVICE"],
        bind=environment.get("BIND", Settings.bind),
        workers=_number(environment, "WORKERS", Settings.workers),
        threads=_number(environment, "THREADS", Settings.threads),
        max_body_bytes=_number(environment, "MAX_BODY_BYTES", Settings.max_body_bytes),
        graceful_timeout=_number(environment, "GRACEFUL_TIMEOUT", Settings.graceful_timeout),
        keep_alive=_number(environment, "KEEP_ALIVE", Settings.keep_alive),
        metrics_dir=Path(metrics_dir) if metrics_dir else None,
    )


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{name}: expected a whole number from 1, found {text!r}")
    return int(text)
