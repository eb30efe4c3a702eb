# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.modelfleet.onprem.plugins.plugin_utils.service import resolve_address

DOCUMENTATION = """
name: addresses
short_description: IP addresses under which machines of the fleet reach each other
version_added: 0.1.0
author: modelfleet contributors (@modelfleet)
description:
  - Looks up C(modelfleet_address), else C(ansible_host), else the host's name.
  - A name is resolved on the controller, to all of its addresses. One that does not resolve is an error.
positional: hosts
options:
  _input:
    description: The variables of every host, as in C(hostvars).
    type: dict
    required: true
  hosts:
    description: The hosts whose addresses are wanted.
    type: list
    elements: str
    required: true
"""

EXAMPLES = """
- name: Let the balancers alone reach the model servers
  ansible.builtin.debug:
    msg: "{{ hostvars | modelfleet.onprem.addresses(groups['load_balancers']) }}"
"""

RETURN = """
_value:
  description: The addresses of each host, sorted, in the order of O(hosts).
  type: list
  elements: str
"""


def addresses(hostvars: Mapping[str, Mapping[str, Any]], hosts: Iterable[str]) -> list[str]:
    return [address for host in hosts for address in resolve_address(host, hostvars)]


class FilterModule:
    """Offers the filter to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"addresses": addresses}
