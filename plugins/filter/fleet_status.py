# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.modelfleet.onprem.plugins.plugin_utils.rollout import status_lines
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.service import parse_services

DOCUMENTATION = """
name: fleet_status
short_description: A table of services, slots and hosts
version_added: 0.1.0
author: modelfleet contributors (@modelfleet)
description:
  - Lays out what M(modelfleet.onprem.model_info) and M(modelfleet.onprem.lb_info) found, a line for each service, slot
    and host.
positional: groups, hosts, balancers
options:
  _input:
    description: The definitions of the services to show.
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
    description: The services to show; all of them when it is not given.
    type: list
    elements: str
"""

EXAMPLES = """
- name: Show the fleet
  ansible.builtin.debug:
    msg: "{{ modelfleet_services | modelfleet.onprem.fleet_status(groups, hosts, balancers) }}"
"""

RETURN = """
_value:
  description: The lines of the table, the first of them its heading.
  type: list
  elements: str
"""


def fleet_status(
    definitions: object,
    groups: Mapping[str, Sequence[str]],
    hosts: Mapping[str, Mapping[str, Any]],
    balancers: Mapping[str, Mapping[str, Any]],
    only: Sequence[str] | None = None,
) -> list[str]:
    services = parse_services(definitions, groups)
    return status_lines({name: services[name] for name in only or services}, hosts, balancers)


class FilterModule:
    """Offers the filter to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"fleet_status": fleet_status}
