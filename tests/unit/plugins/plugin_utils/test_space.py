# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host without room is named before anything is placed on any host."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.rollout import plan_deploy
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.space import lacking_space

from tests.unit.plugins.states import ONE, SERVICE, TWO, balancer_state, host_state, slot_state

MB = 1_000_000
ENVS, RELEASES = "/opt/modelfleet/envs", "/var/lib/modelfleet"


def host(*releases: Any, envs: int, releases_free: int, one_disk: bool = False) -> dict[str, Any]:
    """A host with the bytes that are free for environments and for releases."""
    free = {"envs": envs, "releases": releases_free}
    blue = slot_state(ONE) if releases else None
    return host_state(*releases, blue=blue, free_bytes=free, one_disk=one_disk)


def lacking(**hosts: dict[str, Any]) -> list[str]:
    """What a deploy of the second release finds: it takes 20 MB, and its environment 400 MB."""
    plan = plan_deploy(SERVICE, "rolling", TWO, hosts, {"lb1": balancer_state(blue=ONE)}, lambda _state: "e1")
    return lacking_space([plan.as_dict()], hosts, {"tumour": 20 * MB}, {"e1": 400 * MB})


@pytest.mark.parametrize(
    ("state", "found"),
    [
        (host(envs=400 * MB, releases_free=20 * MB), []),
        (
            host(envs=399 * MB, releases_free=20 * MB),
            [f"m2: {ENVS}: expected 400.0 MB free for the environment e1, found 399.0 MB"],
        ),
        (
            host(envs=400 * MB, releases_free=5 * MB),
            [f"m2: {RELEASES}: expected 20.0 MB free for the release {TWO.name} of tumour, found 5000 kB"],
        ),
        (
            host(envs=0, releases_free=0),
            [
                f"m2: {ENVS}: expected 400.0 MB free for the environment e1, found 0 kB",
                f"m2: {RELEASES}: expected 20.0 MB free for the release {TWO.name} of tumour, found 0 kB",
            ],
        ),
        (host(envs=420 * MB, releases_free=420 * MB, one_disk=True), []),
        (
            host(envs=410 * MB, releases_free=410 * MB, one_disk=True),
            [
                f"m2: {ENVS} and {RELEASES}: expected 420.0 MB free for the environment e1 and the release "
                f"{TWO.name} of tumour, found 410.0 MB"
            ],
        ),
        (host(ONE, envs=0, releases_free=20 * MB), []),
        (host(ONE, TWO, envs=0, releases_free=0, one_disk=True), []),
    ],
    ids=[
        "just enough",
        "none for the environment",
        "none for the release",
        "none for either",
        "enough on one disk",
        "none for both on one disk",
        "the environment is there",
        "both are there",
    ],
)
def test_a_host_without_room_is_named_with_what_it_needs_and_has(state: dict[str, Any], found: list[str]) -> None:
    assert lacking(m1=host(envs=500 * MB, releases_free=500 * MB), m2=state) == found


def test_every_host_without_room_is_named() -> None:
    full = host(envs=500 * MB, releases_free=0)
    assert [line.partition(":")[0] for line in lacking(m1=full, m2=full)] == ["m1", "m2"]


def test_several_services_need_the_room_for_all_of_their_releases_and_for_an_environment_they_share_once() -> None:
    state = host(envs=430 * MB, releases_free=430 * MB, one_disk=True)
    plan = plan_deploy(
        SERVICE, "rolling", TWO, {"m1": state, "m2": state}, {"lb1": balancer_state(blue=ONE)}, lambda _it: "e1"
    )
    plans = [{**plan.as_dict(), "stage": ["m1"], "service": name} for name in ("tumour", "prices")]
    sizes = dict.fromkeys(("tumour", "prices"), 20 * MB)
    assert lacking_space(plans, {"m1": state}, sizes, {"e1": 400 * MB}) == [
        f"m1: {ENVS} and {RELEASES}: expected 440.0 MB free for the environment e1 and the release {TWO.name} of "
        f"tumour and the release {TWO.name} of prices, found 430.0 MB"
    ]
