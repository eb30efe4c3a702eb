# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

DOCUMENTATION = """
name: pick
short_description: Some keys of each mapping of a list
version_added: 0.1.0
author: modelfleet contributors (@modelfleet)
description:
  - Makes the options of a module that takes several out of mappings that have more than it takes.
  - A key that a mapping has not is left out, so that the module's default counts.
  - A key that the module calls otherwise is given as C(its_name='key').
positional: keys
options:
  _input:
    description: The mappings.
    type: list
    elements: dict
    required: true
  keys:
    description: The keys that are wanted.
    type: list
    elements: str
"""

EXAMPLES = """
- name: Stop what two plans started
  modelfleet.onprem.model_slot:
    several: "{{ plans | modelfleet.onprem.pick('service', slot='stop_slot') | map('combine', {'state': 'stopped'}) }}"
"""

RETURN = """
_value:
  description: The mappings, in their order, with those keys alone.
  type: list
  elements: dict
"""


def pick(mappings: Iterable[Mapping[str, Any]], *keys: str, **renamed: str) -> list[dict[str, Any]]:
    wanted = {**{key: key for key in keys}, **renamed}
    return [{name: each[key] for name, key in wanted.items() if key in each} for each in mappings]


class FilterModule:
    """Offers the filter to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"pick": pick}
