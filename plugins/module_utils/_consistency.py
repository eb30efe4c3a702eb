# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on a model host that should not be, or is not as it should be: read from every byte, nothing mended."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ansible_collections.modelfleet.onprem.plugins.module_utils import _systemd
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import BundleError, verify
from ansible_collections.modelfleet.onprem.plugins.module_utils._files import PARTIAL
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import (
    SLOTS,
    Layout,
    is_complete,
    list_releases,
    list_services,
    release_in,
    trial_unit,
    unit,
)


def find_problems(layout: Layout) -> list[str]:
    """A line for each: a damaged release, a broken link, the rest of a run that was killed, a unit of no slot."""
    problems = []
    for service in list_services(layout):
        problems += _releases(layout, service) + _slots(layout, service)
    folders = [layout.envs, *(layout.releases(service) for service in list_services(layout))]
    problems += [f"{path}: expected no rest of a run that was killed" for path in _rests(folders)]
    problems += _units(layout)
    return problems


def find_trials(layout: Layout) -> list[str]:
    """The services of which a release is being tried now.

    Whether it should be only the balancers know, who hold the rollout that tries it.
    """
    running = set(_systemd.running(trial_unit("*", "*")))
    services = list_services(layout)
    return [service for service in services if running & {trial_unit(service, slot) for slot in SLOTS}]


def _units(layout: Layout) -> list[str]:
    """A line for each unit that runs and is of no slot of this host's services."""
    problems = []
    for named, what in ((unit, "slots"), (trial_unit, "trials for slots")):
        known = {named(service, slot) for service in list_services(layout) for slot in SLOTS}
        problems += [
            f"{name}: expected no unit but those of {what}"
            for name in _systemd.running(named("*", "*"))
            if name not in known
        ]
    return problems


def _releases(layout: Layout, service: str) -> list[str]:
    problems = []
    for release in list_releases(layout, service):
        place = layout.release(service, release.release)
        try:
            found = verify(place / "bundle").release
        except BundleError as error:
            problems.append(str(error))
            continue
        if found != release.release:
            problems.append(f"{place}: expected the bundle {release.release}, found {found}")
        if release.env is None or not is_complete(layout, release.env):
            problems.append(f"{place}: expected an environment that is complete, found {release.env or 'none'}")
    return problems


def _slots(layout: Layout, service: str) -> list[str]:
    known = {release.release for release in list_releases(layout, service)}
    held = {slot: release_in(layout, service, slot) for slot in SLOTS}
    return [
        f"{layout.slot(service, slot)}: expected a release of this host, found {release}"
        for slot, release in held.items()
        if release and release not in known
    ]


def _rests(folders: Iterable[Path]) -> list[str]:
    return [str(path) for folder in folders for path in sorted(folder.glob(f"{PARTIAL}*"))]
