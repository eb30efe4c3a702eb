# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept on a host and what goes."""

from __future__ import annotations

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._retention import expendable, unused_envs


@pytest.mark.parametrize(
    ("releases", "pinned", "keep", "gone"),
    [
        (["1", "2"], set(), 2, []),
        (["1", "2", "3"], set(), 2, ["1"]),
        (["1", "2", "3"], {"1"}, 2, ["2"]),
        (["1", "2", "3"], {"1", "2", "3"}, 1, []),
        (["1", "2", "3", "4"], {"2"}, 1, ["1", "3", "4"]),
        ([], set(), 1, []),
    ],
)
def test_the_oldest_go_unless_a_slot_points_to_them(
    releases: list[str], pinned: set[str], keep: int, gone: list[str]
) -> None:
    assert expendable(releases, pinned, keep) == gone


@pytest.mark.parametrize(
    ("ages", "used", "freed", "gone"),
    [
        ({"a": 5}, {"a"}, {"a"}, []),
        ({"a": 5}, set(), {"a"}, ["a"]),
        ({"a": 5}, set(), set(), []),
        ({"a": 86_400}, set(), set(), ["a"]),
        ({"a": 86_400}, {"a"}, set(), []),
    ],
    ids=["used", "freed now", "young", "forgotten", "old and used"],
)
def test_environments_go_when_no_release_can_need_them(
    ages: dict[str, float], used: set[str], freed: set[str], gone: list[str]
) -> None:
    assert unused_envs(ages, used, freed) == gone
