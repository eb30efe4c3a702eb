# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.modelfleet.onprem.plugins.plugin_utils.service import balancer_pools, parse_services

DOCUMENTATION = """
name: balancer_pools
short_description: The balancer's pools for the services of an inventory
version_added: 0.1.0
author: modelfleet contributors (@modelfleet)
description:
  - Gives two pools a service, one for each slot, with the servers in them.
positional: groups, hostvars
options:
  _input:
    description: The definitions of the services, as in C(modelfleet_services).
    type: dict
    required: true
  groups:
    description: The inventory's groups.
    type: dict
    required: true
  hostvars:
    description: The variables of every host.
    type: dict
    required: true
"""

EXAMPLES = """
- name: Show the pools
  ansible.builtin.debug:
    msg: "{{ modelfleet_services | modelfleet.onprem.balancer_pools(groups, hostvars) }}"
"""

RETURN = """
_value:
  description: Pools with C(name), C(service), C(slot), C(servers) and C(max_in_flight).
  type: list
  elements: dict
  sample:
    - name: tumour_blue
      service: tumour
      slot: blue
      servers: [{name: model1, address: 10.0.0.11, port: 8101}]
      max_in_flight: 8
"""


def _pools(
    definitions: object, groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    return balancer_pools(parse_services(definitions, groups), hostvars)


class FilterModule:
    """Offers the filter to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"balancer_pools": _pools}
