#!/usr/bin/python
# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take services out."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lb_maintenance
short_description: Let a balancer answer for services itself
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - A service in maintenance is answered with 503, a body and C(Retry-After), and none of its servers is asked.
    Requests in flight finish.
  - It is kept in a map beside the routes, and so survives reloads and restarts of HAProxy.
options:
  services:
    description: The services.
    type: list
    elements: str
    required: true
  state:
    description: V(present) puts them into maintenance, V(absent) takes them out of it.
    type: str
    choices: [present, absent]
    default: present
  retry_after:
    description: After how many seconds clients may come again.
    type: int
    default: 60
  detail:
    description: What the body says.
    type: str
    default: The service is in maintenance.
extends_documentation_fragment:
  - modelfleet.onprem.attributes
  - modelfleet.onprem.balancer
"""

EXAMPLES = r"""
- name: Take a service out for two minutes
  modelfleet.onprem.lb_maintenance:
    services: [tumour]
    retry_after: 120
    detail: The model is being replaced.

- name: Bring it back
  modelfleet.onprem.lb_maintenance:
    services: [tumour]
    state: absent
"""

RETURN = r"""
maintenance:
  description: The services that are in maintenance now, or would be.
  returned: success
  type: list
  elements: str
  sample: [tumour]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelfleet.onprem.plugins.module_utils._haproxy import (
    OPTIONS,
    Balancer,
    HaproxyError,
    Process,
    read_live_map,
    read_text,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._maintenance import MAP, Notice, put
from ansible_collections.modelfleet.onprem.plugins.module_utils._route import Entries, format_map, parse_map

ARGUMENTS = {
    **OPTIONS,
    "services": {"type": "list", "elements": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "retry_after": {"type": "int", "default": 60},
    "detail": {"type": "str", "default": "The service is in maintenance."},
}


def change(balancer: Balancer, params: dict[str, Any], check_mode: bool) -> tuple[Entries, Entries]:
    """The map before and after, both as files would have it."""
    path = balancer.folder / MAP
    known = {key for key, _pool in balancer.read().live}
    unknown = [service for service in params["services"] if service not in known]
    if unknown:
        raise HaproxyError(f"services: expected some of {', '.join(sorted(known))}, found {unknown[0]}")
    notice = Notice(params["retry_after"], params["detail"]) if params["state"] == "present" else None
    file, live = parse_map(read_text(path), str(path)), read_live_map(balancer.process, str(path))
    after = put(file, params["services"], notice)
    if not check_mode and (file, live) != (after, after):
        balancer.commit_map(path, file, after)
    return (live if file == after else file), after


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    try:
        with Process(params["socket"]) as process:
            balancer = Balancer(process, params["state_dir"], params["master_socket"])
            with balancer.alone("changing maintenance"):
                before, after = change(balancer, params, module.check_mode)
    except (ValueError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=before != after,
        maintenance=[service for service, _notice in after],
        diff={"before": format_map(before), "after": format_map(after)},
    )


if __name__ == "__main__":
    main()
