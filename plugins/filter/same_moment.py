# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Callable, Iterable

DOCUMENTATION = """
name: same_moment
short_description: A moment at which several balancers can change at once
version_added: 0.1.0
author: modelfleet contributors (@modelfleet)
description:
  - Takes what the balancers' clocks said when each was ready, and names a moment a little ahead of all of them.
  - It is for balancers whose clocks agree, as those of machines do that ask time servers. Where they cannot, for they
    are further apart than a task may take, there is no such moment, and each changes when it is told.
options:
  _input:
    description: What the balancers returned as C(clock), in seconds since 1970.
    type: list
    elements: float
    required: true
"""

EXAMPLES = """
- name: Move the route at the same moment
  modelfleet.onprem.lb_route:
    services: {tumour: {slot: green, release: 3-9c56cc51b374}}
    at: "{{ [staged.clock, hostvars.lb2.staged.clock] | modelfleet.onprem.same_moment }}"
"""

RETURN = """
_value:
  description: The moment in seconds since 1970; 0 where there is none, or nobody to wait for.
  type: float
"""

AHEAD = 1.5
"""What it takes until a task runs on every balancer, on a busy controller, too. A later one would move late."""
APART = 3.0


def same_moment(clocks: Iterable[float]) -> float:
    times = [float(clock) for clock in clocks]
    if len(times) < 2 or max(times) - min(times) > APART:
        return 0.0
    return max(times) + AHEAD


class FilterModule:
    """Offers the filter to Ansible."""

    def filters(self) -> dict[str, Callable[..., object]]:
        return {"same_moment": same_moment}
