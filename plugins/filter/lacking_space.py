# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.modelfleet.onprem.plugins.plugin_utils.space import lacking_space

DOCUMENTATION = """
name: lacking_space
short_description: Hosts without room for what a rollout places on them
version_added: 0.1.0
author: modelfleet contributors (@modelfleet)
description:
  - Compares the bytes of releases and of their environments with what is free on each host that is to get them.
positional: hosts, parts, wheelhouses
options:
  _input:
    description: What M(modelfleet.onprem.rollout_plan) returned as C(plan.plans).
    type: list
    elements: dict
    required: true
  hosts:
    description: What M(modelfleet.onprem.model_info) returned as C(model_host), by host.
    type: dict
    required: true
  parts:
    description: What M(modelfleet.onprem.rollout_request) returned as C(request.parts), with the bytes of each release.
    type: dict
    required: true
  wheelhouses:
    description: What M(modelfleet.onprem.wheelhouse) returned for each of the plan's C(wheels).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = """
- name: Check that every host has room
  ansible.builtin.fail:
    msg: "{{ lacking | join('; ') }}"
  when: lacking | length > 0
  vars:
    lacking: "{{ plan.plans | modelfleet.onprem.lacking_space(host_states, request.parts, wheelhouses.results) }}"
"""

RETURN = """
_value:
  description: A line for each host and file system that lacks room, with what is expected and what is found.
  type: list
  elements: str
"""


def _lacking(
    plans: Sequence[Mapping[str, Any]],
    hosts: Mapping[str, Mapping[str, Any]],
    parts: Mapping[str, Mapping[str, Any]],
    wheelhouses: Iterable[Mapping[str, Any]],
) -> list[str]:
    env_sizes = {gathered["item"]["env"]: gathered["size"] for gathered in wheelhouses}
    return lacking_space(plans, hosts, {service: part["size"] for service, part in parts.items()}, env_sizes)


class FilterModule:
    """Offers the filter to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"lacking_space": _lacking}
