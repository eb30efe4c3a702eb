# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

DOCUMENTATION = """
name: host_servers
short_description: The servers of a host in a balancer's pools
version_added: 0.1.0
author: modelfleet contributors (@modelfleet)
description:
  - Finds the host in the pools of every service, and says why it may not be taken out of them.
positional: host
options:
  _input:
    description: What M(modelfleet.onprem.lb_info) returned as C(load_balancer.services).
    type: dict
    required: true
  host:
    description: The host.
    type: str
    required: true
"""

EXAMPLES = """
- name: Show where a host serves
  ansible.builtin.debug:
    msg: "{{ (found.load_balancer.services | modelfleet.onprem.host_servers('model1')).active }}"
"""

RETURN = """
_value:
  description: >-
    C(active) are its servers in pools from which a release serves, C(idle) the others, each as a pool, a slash and its
    name. C(held) has a line for each of its services that a rollout holds, C(alone) one for each where no other server
    takes requests.
  type: dict
"""


def host_servers(services: Mapping[str, Mapping[str, Any]], host: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"active": [], "idle": [], "held": [], "alone": []}
    for name, service in services.items():
        slots = [slot for slot, pool in service["pools"].items() if host in pool["servers"]]
        for slot in slots:
            serves = slot == service["slot"] and service["pools"][slot]["release"]
            found["active" if serves else "idle"].append(f"{name}_{slot}/{host}")
        rollout = service["rollout"]
        if slots and rollout and rollout["held"]:
            found["held"].append(f"{name}: expected no rollout to hold it, found {rollout['id']} by {rollout['by']}")
        if service["slot"] in slots:
            servers = service["pools"][service["slot"]]["servers"]
            others = [it for other, it in servers.items() if other != host]
            takes = servers[host]["status"] == "UP" and servers[host]["admin"] == "ready"
            if takes and not any(it["status"] == "UP" and it["admin"] == "ready" for it in others):
                found["alone"].append(f"{name}: expected another server than {host} that takes requests, found none")
    return found


class FilterModule:
    """Offers the filter to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"host_servers": host_servers}
