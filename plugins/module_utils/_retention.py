# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which releases and environments a host keeps, and which it lets go."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

FORGOTTEN_SECONDS = 24 * 3600


def expendable(releases: Sequence[str], pinned: Collection[str], keep: int) -> list[str]:
    """The releases to remove so that ``keep`` are left; ``releases`` has the one placed first first.

    One that is in ``pinned`` stays whatever its age, so that more than ``keep`` may be left.
    """
    surplus = max(0, len(releases) - keep)
    return [release for release in releases if release not in pinned][:surplus]


def unused_envs(ages: Mapping[str, float], used: Collection[str], freed: Collection[str]) -> list[str]:
    """The environments to remove: no release uses them, and their last release goes now or they are a day old.

    ``ages`` is in seconds. A younger one may have been built for a release that is about to be placed.
    """
    return sorted(env for env, age in ages.items() if env not in used and (env in freed or age >= FORGOTTEN_SECONDS))
