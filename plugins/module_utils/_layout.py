# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things live on a model host, and what they are called: the one place that knows."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

SLOTS = ("blue", "green")
USER = "model-server"

SERVICE = re.compile(r"[a-z][a-z0-9_-]{0,39}")
"""What a service may be called."""

_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+]{0,63}-[0-9a-f]{12}")
_ENV = re.compile(r"[0-9a-f]{16}")


class LayoutError(ValueError):
    """A name that cannot be used on a host, in one line."""


def check_service(name: str) -> str:
    """``name`` again, if a service can have it."""
    return _checked(name, SERVICE, "service", "up to 40 lower-case letters, digits, - and _")


def check_release(name: str) -> str:
    """``name`` again, if a release can have it."""
    return _checked(name, _RELEASE, "release", "a version, a dash and 12 hexadecimal digits")


def check_env(name: str) -> str:
    """``name`` again, if an environment can have it."""
    return _checked(name, _ENV, "env", "16 hexadecimal digits")


def _checked(name: str, pattern: re.Pattern[str], what: str, expected: str) -> str:
    if not pattern.fullmatch(name):
        raise LayoutError(f"{what}: expected {expected}, found {name!r}")
    return name


def digest_of(release: str) -> str:
    """The 12 hexadecimal digits of a manifest's sha256 that a release's name ends with."""
    return release.rpartition("-")[2]


@dataclass(frozen=True)
class Layout:
    """The paths below ``root``, which is ``/`` on a host."""

    root: Path = Path("/")

    @property
    def envs(self) -> Path:
        return self.root / "opt/modelfleet/envs"

    @property
    def services(self) -> Path:
        return self.root / "var/lib/modelfleet"

    def env(self, env: str) -> Path:
        return self.envs / env

    def service(self, service: str) -> Path:
        """Who tries a release of the service, or starts or stops a slot of it, holds this folder meanwhile."""
        return self.services / service

    def releases(self, service: str) -> Path:
        return self.service(service) / "releases"

    def release(self, service: str, release: str) -> Path:
        return self.releases(service) / release

    def slot(self, service: str, slot: str) -> Path:
        """The link that says which release a slot has; the model server runs through it."""
        return self.service(service) / slot

    def record(self, service: str, slot: str) -> Path:
        """What a slot was started with, written once it was ready."""
        return self.services / service / f"{slot}.json"

    def settings(self, service: str, slot: str) -> Path:
        return self.root / f"etc/modelfleet/{service}-{slot}.env"

    def gate_key(self, service: str) -> Path:
        """The API key that the gates of this host ask the service's slots with, root's alone."""
        return self.root / f"etc/modelfleet/{service}.key"

    def captured(self, service: str, slot: str) -> list[Path]:
        """The files of requests that a slot captured, the newest first."""
        folder = self.root / f"var/lib/model-server/{service}-{slot}"
        return sorted(folder.glob("*.jsonl"), key=lambda path: path.name, reverse=True)

    def unit_file(self) -> Path:
        """The unit that every slot is an instance of."""
        return self.root / "etc/systemd/system/model-server@.service"

    def trial(self, service: str, release: str) -> Path:
        """What trying a release found, written once it passed."""
        return self.release(service, release) / "trial.json"

    def trial_settings(self, service: str, slot: str) -> Path:
        """The settings of a release that is being tried, while it is."""
        return self.root / f"run/model-trial-{service}-{slot}.env"

    def limits(self, service: str, slot: str) -> Path:
        return self.root / f"etc/systemd/system/{unit(service, slot)}.d/limits.conf"


def unit(service: str, slot: str) -> str:
    """The systemd unit of a slot."""
    return f"model-server@{service}-{slot}.service"


def trial_unit(service: str, slot: str) -> str:
    """The systemd unit in which a release is tried before it may start in a slot."""
    return f"model-trial-{service}-{slot}.service"


@dataclass(frozen=True)
class PlacedRelease:
    """A release on a host. ``env`` is the name of the environment it runs in, ``placed`` a time in nanoseconds."""

    release: str
    version: str
    env: str | None
    placed: int


def list_services(layout: Layout) -> list[str]:
    """The services that have releases on this host."""
    return sorted(name for name in _names(layout.services) if layout.releases(name).is_dir())


def list_releases(layout: Layout, service: str) -> list[PlacedRelease]:
    """The releases of a service, the one placed first first."""
    found = []
    for name in _names(layout.releases(service)):
        path = layout.release(service, name)
        if _RELEASE.fullmatch(name) and path.is_dir():
            found.append(PlacedRelease(name, name.rpartition("-")[0], env_of(path), path.stat().st_mtime_ns))
    return sorted(found, key=lambda release: (release.placed, release.release))


def list_envs(layout: Layout) -> list[str]:
    """The environments that are complete: their ``env.json`` is written last."""
    return sorted(name for name in _names(layout.envs) if _ENV.fullmatch(name) and is_complete(layout, name))


def is_complete(layout: Layout, env: str) -> bool:
    return (layout.env(env) / "env.json").is_file()


def env_of(release: Path) -> str | None:
    """The environment that a release's folder points to."""
    return _target(release / "env")


def release_in(layout: Layout, service: str, slot: str) -> str | None:
    """The release that a slot points to."""
    return _target(layout.slot(service, slot))


def pinned(layout: Layout, service: str) -> set[str]:
    """The releases that a slot of the service points to, which nothing may remove."""
    return {release for slot in SLOTS for release in [release_in(layout, service, slot)] if release}


def _target(link: Path) -> str | None:
    return os.path.basename(os.readlink(link)) if link.is_symlink() else None


def _names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []
