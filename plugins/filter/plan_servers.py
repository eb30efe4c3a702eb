# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

DOCUMENTATION = """
name: plan_servers
short_description: The balancers' servers that a step of a rollout is about
version_added: 0.1.0
author: modelfleet contributors (@modelfleet)
description:
  - Names the servers of hosts in the pools of the services that are planned for.
positional: step, slot
options:
  _input:
    description: The plan of each service, as M(modelfleet.onprem.rollout_plan) returned them.
    type: list
    elements: dict
    required: true
  step:
    description: The step, a key of each plan that has its hosts.
    type: str
    required: true
  slot:
    description: The key that has the step's slot.
    type: str
    default: slot
"""

EXAMPLES = """
- name: Take out of rotation what is to be stopped
  modelfleet.onprem.lb_server:
    servers: "{{ plan.plans | modelfleet.onprem.plan_servers('stop', 'stop_slot') }}"
    state: drain
"""

RETURN = """
_value:
  description: The servers, each as its pool, a slash and its host.
  type: list
  elements: str
"""


def plan_servers(plans: Iterable[Mapping[str, Any]], step: str, slot: str = "slot") -> list[str]:
    return [f"{plan['service']}_{plan[slot]}/{host}" for plan in plans for host in plan[step]]


class FilterModule:
    """Offers the filter to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"plan_servers": plan_servers}
