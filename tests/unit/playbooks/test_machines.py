# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What provisioning looks at first: that every machine answers, and is new enough."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

REQUEST = {"machines": ["lb1", "m1"]}


def test_machines_that_are_new_enough_are_let_through(play: Callable[..., Any]) -> None:
    assert play("machines", REQUEST, {}).code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gone": ["m1"]}, "expected every machine to answer before anything is changed, found none from m1"),
        (
            {"extra": {"oldest": {"Debian": "99", "Ubuntu": "99.04"}}},
            r"m1: expected Debian 99 or Ubuntu 99\.04 or newer before anything is changed, found [A-Z]\w+ [0-9.]+",
        ),
        ({"extra": {"oldest": {"Plan": "9"}}}, r"lb1: expected Plan 9 or newer before anything is changed, found \w+"),
    ],
    ids=["no answer", "too old", "another distribution"],
)
def test_a_machine_that_cannot_be_used_ends_the_run(play: Callable[..., Any], options: Any, said: str) -> None:
    run = play("machines", REQUEST, {}, **options)
    assert run.code != 0
    assert re.search(f'"msg": "{said}', run.output)
