# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

DOCUMENTATION = """
name: read_state
short_description: What was read of each host
version_added: 0.1.0
author: modelfleet contributors (@modelfleet)
description:
  - Collects a result that a task registered on several hosts. Hosts that did not answer are left out.
positional: hosts, variable, key
options:
  _input:
    description: The variables of every host, as in C(hostvars).
    type: dict
    required: true
  hosts:
    description: The hosts that the task ran on.
    type: list
    elements: str
    required: true
  variable:
    description: The variable that the task registered.
    type: str
    required: true
  key:
    description: The key of the result that is wanted.
    type: str
    required: true
"""

EXAMPLES = """
- name: Show the state of all model hosts
  ansible.builtin.debug:
    msg: "{{ hostvars | modelfleet.onprem.read_state(groups['model_hosts'], 'host_state', 'model_host') }}"
"""

RETURN = """
_value:
  description: For each host that answered, the value of O(key).
  type: dict
"""


def read_state(hostvars: Mapping[str, Any], hosts: Iterable[str], variable: str, key: str) -> dict[str, Any]:
    results = {host: hostvars[host].get(variable) or {} for host in hosts}
    return {host: result[key] for host, result in results.items() if key in result}


class FilterModule:
    """Offers the filter to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"read_state": read_state}
