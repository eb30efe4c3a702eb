# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.modelfleet.onprem.plugins.plugin_utils.history import history_lines, rollout_lines

DOCUMENTATION = """
name: rollout_history
short_description: A table of rollouts, or one of them whole
version_added: 0.1.0
author: modelfleet contributors (@modelfleet)
description:
  - Lays out the journals of all balancers as one. Of a rollout that they tell apart, the fullest record is shown.
positional: services, rollout
options:
  _input:
    description: What M(modelfleet.onprem.lb_info) returned as C(load_balancer) with C(rollouts), by balancer.
    type: dict
    required: true
  services:
    description: The services whose rollouts are shown.
    type: list
    elements: str
    required: true
  rollout:
    description: The one rollout to show whole.
    type: str
"""

EXAMPLES = """
- name: Show the rollouts of a service
  ansible.builtin.debug:
    msg: "{{ balancer_states | modelfleet.onprem.rollout_history(['tumour']) }}"
"""

RETURN = """
_value:
  description: Lines; the first of a table is its heading.
  type: list
  elements: str
"""


def rollout_history(
    balancers: Mapping[str, Mapping[str, Any]], services: Sequence[str], rollout: str | None = None
) -> list[str]:
    journals = {name: state["rollouts"] for name, state in balancers.items()}
    return rollout_lines(journals, rollout) if rollout else history_lines(journals, services)


class FilterModule:
    """Offers the filter to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rollout_history": rollout_history}
