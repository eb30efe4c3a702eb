# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

DOCUMENTATION = """
name: host_releases
short_description: The releases that a step of a rollout places or starts on a host
version_added: 0.1.0
author: modelfleet contributors (@modelfleet)
description:
  - Puts together what is asked for and what is planned for each service, as the role M(modelfleet.onprem.model_service)
    takes it.
  - A service whose step is not about the host is left out.
positional: host, step, parts, wheelhouses
options:
  _input:
    description: The plan of each service in their order, as M(modelfleet.onprem.rollout_plan) returned them.
    type: list
    elements: dict
    required: true
  host:
    description: The host.
    type: str
    required: true
  step:
    description: The step, a key of each plan that has its hosts.
    type: str
    required: true
  parts:
    description: What is asked of each service, C(request.parts) of M(modelfleet.onprem.rollout_request).
    type: dict
    required: true
  wheelhouses:
    description: Results of M(modelfleet.onprem.wheelhouse) in a loop over entries with C(env), if wheels were gathered.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = """
- name: Show what starts on this host
  ansible.builtin.debug:
    msg: "{{ plan.plans | modelfleet.onprem.host_releases(inventory_hostname, 'idle', request.parts) }}"
"""

RETURN = """
_value:
  description: A mapping for each release, with the keys of the role's variable C(model_service_releases).
  type: list
  elements: dict
"""

# What a part calls otherwise than the role does.
_PART = {"src": "bundle", "keep": "keep_releases", "url": "url", "ready_timeout": "ready_timeout", "gates": "policy"}


def host_releases(
    plans: Iterable[Mapping[str, Any]],
    host: str,
    step: str,
    parts: Mapping[str, Mapping[str, Any]],
    wheelhouses: Iterable[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    wheels = {house["item"]["env"]: house["folder"] for house in wheelhouses if "folder" in house}
    found = [_release(plan, parts[plan["service"]], host, wheels) for plan in plans if host in plan[step]]
    return [{key: value for key, value in release.items() if value not in (None, "")} for release in found]


def _release(plan: Mapping[str, Any], part: Mapping[str, Any], host: str, wheels: Mapping[str, str]) -> dict[str, Any]:
    release, trust = plan["release"], part.get("trust") or {}
    env = (plan.get("envs") or {}).get(host)
    return {
        "service": plan["service"],
        "slot": plan["slot"],
        "release": release["name"],
        "version": release["version"],
        # What is known by its name alone has the first digits there.
        "digest": release["digest"] or release["name"].rpartition("-")[2],
        "env": env,
        "wheels": wheels.get(env or ""),
        **{name: part.get(key) for name, key in _PART.items()},
        **{name: trust.get(name) for name in ("allowed_signers", "revoked_keys", "signers")},
        **{name: plan.get(name) for name in ("pinned", "settings", "limits")},
        "baseline": plan.get("baseline_slot"),
        "replaces": plan.get("replaces"),
    }


class FilterModule:
    """Offers the filter to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"host_releases": host_releases}
