# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

DOCUMENTATION = """
name: gates_found
short_description: What the gates found on a host, by service
version_added: 0.1.0
author: modelfleet contributors (@modelfleet)
description:
  - Sorts the results of modules that put gates for several services by these, and adds them to what was found before.
positional: placed, loaded, started, gated
options:
  _input:
    description: What was found before, as this filter returned it.
    type: dict
    required: true
  placed:
    description: The result of M(modelfleet.onprem.model_release).
    type: dict
    default: {}
  loaded:
    description: The result of M(modelfleet.onprem.model_load).
    type: dict
    default: {}
  started:
    description: The result of M(modelfleet.onprem.model_slot).
    type: dict
    default: {}
  gated:
    description: The result of M(modelfleet.onprem.model_probe).
    type: dict
    default: {}
"""

EXAMPLES = """
- name: Keep what the gates found
  ansible.builtin.set_fact:
    found: "{{ found | default({}) | modelfleet.onprem.gates_found(loaded=loaded, gated=gated) }}"
"""

RETURN = """
_value:
  description: For each service C(placed), C(loaded), C(started) and C(gated), each with what its module has of it.
  type: dict
"""

_KEPT = ("gates", "golden_answers", "release")


def gates_found(before: Mapping[str, Mapping[str, Any]], **results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found = {service: dict(kinds) for service, kinds in before.items()}
    for kind, result in results.items():
        for each in result.get("several", ()):
            kept = {key: each[key] for key in _KEPT if key in each}
            if kept:
                found.setdefault(each["service"], {})[kind] = kept
    return found


class FilterModule:
    """Offers the filter to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"gates_found": gates_found}
