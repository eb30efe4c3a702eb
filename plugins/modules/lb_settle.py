#!/usr/bin/python
# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watch services that have moved."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lb_settle
short_description: Watch services that have just moved, and say which of them fail
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - Looks every other second at the pools that the services have moved to. One fails if it has no server in rotation any
    more, or if half of its requests, ten at least, are answered with 4xx or 5xx, and these are twice the share of the
    pool that it moved from, over all the time that the balancer has counted.
  - Waits no longer once one fails.
options:
  services:
    description: The services that have moved.
    type: list
    elements: str
    required: true
  seconds:
    description: How long to watch.
    type: float
    required: true
  rollout:
    description: The id of the rollout that this is the step C(watch) of, which must hold the services still.
    type: str
extends_documentation_fragment:
  - modelfleet.onprem.attributes.info
  - modelfleet.onprem.balancer
attributes:
  check_mode:
    details: It does not wait, for in check mode nothing has moved.
seealso:
  - module: modelfleet.onprem.lb_route
  - module: modelfleet.onprem.lb_watch
"""

EXAMPLES = r"""
- name: Watch both for half a minute
  modelfleet.onprem.lb_settle:
    services: [tumour, prices]
    seconds: 30
  register: settled
"""

RETURN = r"""
failing:
  description: For each service that fails why it does.
  returned: success
  type: dict
  sample:
    prices: "prices_green: expected a server in rotation, found model1 DOWN"
seconds:
  description: How long it was watched.
  returned: success
  type: float
  sample: 30.1
"""

import time
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelfleet.onprem.plugins.module_utils._figures import Balanced
from ansible_collections.modelfleet.onprem.plugins.module_utils._haproxy import OPTIONS
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal_folder import JournalFolder
from ansible_collections.modelfleet.onprem.plugins.module_utils._route import other, pool_of
from ansible_collections.modelfleet.onprem.plugins.module_utils._watch import (
    INTERVAL,
    Look,
    Pools,
    look,
    read_slot,
    why_fails,
)

ARGUMENTS = {
    **OPTIONS,
    "services": {"type": "list", "elements": "str", "required": True},
    "seconds": {"type": "float", "required": True},
    "rollout": {"type": "str"},
}


def since_ever(first: Look, pools: Pools) -> Look:
    """The first look, but for what was moved from: that counts from the beginning, for it gets no requests any more."""
    return Look({**first.balanced, pools.baseline: Balanced()}, first.servers)


def settle(params: Mapping[str, Any]) -> dict[str, Any]:
    """What fails within the seconds, or until something does."""
    started = time.monotonic()
    sides = {}
    for service in params["services"]:
        slot = read_slot(params, service)
        sides[service] = Pools(baseline=pool_of(service, other(slot)), canary=pool_of(service, slot))
    first = {service: since_ever(look(params["socket"], pools), pools) for service, pools in sides.items()}
    failing: dict[str, str] = {}
    while not failing and time.monotonic() < started + params["seconds"]:
        time.sleep(max(0.0, min(INTERVAL, started + params["seconds"] - time.monotonic())))
        found = {
            service: why_fails(first[service], look(params["socket"], pools), pools) for service, pools in sides.items()
        }
        failing = {service: reason for service, reason in found.items() if reason}
    return {"failing": failing, "seconds": round(time.monotonic() - started, 3)}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    journal = JournalFolder(params["rollouts_dir"])
    try:
        if module.check_mode:
            found: dict[str, Any] = {"failing": {}, "seconds": 0.0}
        else:
            journal.start_step(params["rollout"], "watch")
            found = settle(params)
            journal.finish_step(params["rollout"])
    except (ValueError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
