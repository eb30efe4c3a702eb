# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.modelfleet.onprem.plugins.plugin_utils.consistency import find_problems
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.service import parse_services

DOCUMENTATION = """
name: fleet_problems
short_description: Where routes, files, hosts and journal do not agree
version_added: 0.1.0
author: modelfleet contributors (@modelfleet)
description:
  - Compares what M(modelfleet.onprem.model_info) found with its O(modelfleet.onprem.model_info#module:verify) and what
    M(modelfleet.onprem.lb_info) found with each other and with the inventory.
positional: groups, hosts, balancers
options:
  _input:
    description: The definitions of the services to check.
    type: dict
    required: true
  groups:
    description: The inventory's groups.
    type: dict
    required: true
  hosts:
    description: What M(modelfleet.onprem.model_info) returned as C(model_host), by host.
    type: dict
    required: true
  balancers:
    description: What M(modelfleet.onprem.lb_info) returned as C(load_balancer), by balancer.
    type: dict
    required: true
  only:
    description: The services to check; all of them when it is not given.
    type: list
    elements: str
"""

EXAMPLES = """
- name: Check the fleet
  ansible.builtin.fail:
    msg: "{{ problems | join('; ') }}"
  when: problems | length > 0
  vars:
    problems: "{{ modelfleet_services | modelfleet.onprem.fleet_problems(groups, hosts, balancers) }}"
"""

RETURN = """
_value:
  description: A line for each disagreement, with what is expected and what is found; none, where all is well.
  type: list
  elements: str
"""


def fleet_problems(
    definitions: object,
    groups: Mapping[str, Sequence[str]],
    hosts: Mapping[str, Mapping[str, Any]],
    balancers: Mapping[str, Mapping[str, Any]],
    only: Sequence[str] | None = None,
) -> list[str]:
    services = parse_services(definitions, groups)
    asked = {name: services[name] for name in only or services}
    return find_problems(asked, hosts, balancers, groups.get("load_balancers", ()))


class FilterModule:
    """Offers the filter to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"fleet_problems": fleet_problems}
