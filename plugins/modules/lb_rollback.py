#!/usr/bin/python
# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Move services back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lb_rollback
short_description: Move the requests of services back to a release that is still warm
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - Finds the release to go back to. If as many servers are UP in the idle slot as in the one that serves now, and all
    of these answer as that release, the service is warm. All that are warm move in one step. For the others it changes
    nothing and says why they are cold.
  - The history is a stack. Going back takes the release off it, so going back again goes further back, and never to
    what was gone back from.
options:
  services:
    description: The services to move back.
    type: list
    elements: str
    required: true
  to:
    description:
      - The release or the version to go back to; the one that was active before, if it is not given.
      - If it is active already, nothing changes.
    type: str
  cold_ok:
    description: Report a service that cannot go back at once as cold. Otherwise it is a failure, and no service moves.
    type: bool
    default: true
  wait_timeout:
    description: For how many seconds to wait until the servers of the idle slot are UP. At once, if it is 0.
    type: float
    default: 0
extends_documentation_fragment:
  - modelfleet.onprem.attributes
  - modelfleet.onprem.balancer
seealso:
  - module: modelfleet.onprem.lb_route
"""

EXAMPLES = r"""
- name: Go back to what was active before
  modelfleet.onprem.lb_rollback:
    services: [tumour]
  register: back

- name: Go back to version 1, and fail if it is not warm
  modelfleet.onprem.lb_rollback:
    services: [tumour]
    to: "1"
    cold_ok: false
"""

RETURN = r"""
rolled_back:
  description: For each service that moved the release it left, the one it went to, and the slot that one runs in.
  returned: success
  type: dict
  sample:
    tumour: {"from": "3-9c56cc51b374", "to": "2-0a1b2c3d4e5f", "slot": "blue"}
cold:
  description: >-
    For each service that could not move the release it would have gone to, null if none is known by that name, and why.
  returned: success
  type: dict
  sample:
    prices: {"release": "11-5e6f0a1b2c3d", "reason": "prices_blue: expected 3 of 3 servers UP within 0 s, found 0"}
seconds:
  description: How long it took.
  returned: success
  type: float
  sample: 0.02
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelfleet.onprem.plugins.module_utils._haproxy import (
    OPTIONS,
    Balancer,
    HaproxyError,
    Process,
    find_pool,
    read_servers,
    state_diff,
    wait_for_pool,
    wrong_servers,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._route import (
    Cold,
    State,
    Target,
    find_earlier,
    move_back,
    other,
    pool_of,
)

ARGUMENTS = {
    **OPTIONS,
    "services": {"type": "list", "elements": "str", "required": True},
    "to": {"type": "str"},
    "cold_ok": {"type": "bool", "default": True},
    "wait_timeout": {"type": "float", "default": 0},
}


def find_cold(balancer: Balancer, target: Target, seconds: float) -> Cold | None:
    """Why the target cannot take requests now, None if it can.

    As many of its servers must be UP as there are UP in the pool that serves now: a host that is down is down in both,
    and going back must not wait for it to be mended.
    """
    servers = read_servers(balancer.process)
    serving = find_pool(servers, pool_of(target.service, other(target.slot)))
    needed = min(sum(server.in_rotation for server in serving), len(find_pool(servers, target.pool)))
    try:
        servers = wait_for_pool(balancer.process, target.pool, str(max(1, needed)), seconds)
    except HaproxyError as error:
        return Cold(target.service, target.release, str(error))
    wrong = wrong_servers(target, servers)
    return Cold(target.service, target.release, "; ".join(wrong)) if wrong else None


def sort_services(
    balancer: Balancer, state: State, params: dict[str, Any], check_mode: bool
) -> tuple[list[Target], list[Cold]]:
    """The targets that are warm, and the services that are not.

    Where nothing may be cold, something has just started the releases; in check mode it has not, so none is asked.
    """
    services = dict.fromkeys(params["services"])
    found = [find_earlier(state, service, params["to"], params["cold_ok"]) for service in services]
    warm, cold = [], [service for service in found if isinstance(service, Cold)]
    for target in found:
        if isinstance(target, Target):
            trusted = check_mode and not params["cold_ok"]
            reason = None if trusted else find_cold(balancer, target, params["wait_timeout"])
            if reason is None:
                warm.append(target)
            else:
                cold.append(reason)
    if cold and not params["cold_ok"]:
        raise HaproxyError("; ".join(f"{service.service} is not warm: {service.reason}" for service in cold))
    return warm, cold


def commit(balancer: Balancer, before: State, after: State) -> None:
    with balancer.alone("changing routes"):
        if balancer.read() != before:
            raise HaproxyError(
                "routes: expected no other change meanwhile, found one; read where they go and run again"
            )
        balancer.commit(before, after)


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    started = time.monotonic()
    params = module.params
    try:
        with Process(params["socket"]) as process:
            balancer = Balancer(process, params["state_dir"], params["master_socket"])
            before = balancer.read()
            warm, cold = sort_services(balancer, before, params, module.check_mode)
            after = move_back(before, warm)
            if before != after and not module.check_mode:
                commit(balancer, before, after)
    except (ValueError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=before != after,
        rolled_back={
            target.service: {
                "from": before.summary(target.service)["release"],
                "to": target.release,
                "slot": target.slot,
            }
            for target in warm
        },
        cold={service.service: {"release": service.release, "reason": service.reason} for service in cold},
        seconds=round(time.monotonic() - started, 3),
        diff={"before": state_diff(before), "after": state_diff(after)},
    )


if __name__ == "__main__":
    main()
