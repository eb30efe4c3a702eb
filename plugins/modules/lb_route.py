#!/usr/bin/python
# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Move services to slots."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lb_route
short_description: Move the requests of services to slots, all in one step
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - Waits until the servers of each target pool are UP, asks them whether they run the release, and then moves all
    services in one step. A request that arrives sees every service moved, or none. Requests in flight finish where
    they are; connections that are kept alive move with their next request.
  - The running HAProxy, the map file that its next start reads, and C(releases.json) are all compared with what is
    wanted, and whatever differs is put right. So a run that died half-way is completed by running it again.
  - A service that has moved gets all of its requests in the slot. What M(modelfleet.onprem.lb_canary) gave to the slot
    beside it ends in the same moment.
  - If the active release of a service changes, the one that was active before is added to its history.
options:
  services:
    description:
      - For each service the C(slot) its requests are to go to, C(blue) or C(green), and the C(release) that runs there.
    type: dict
    required: true
  wait_timeout:
    description: For how many seconds to wait until the servers of a target pool are UP.
    type: float
    default: 30
  min_up:
    description: How many servers of each target pool must be UP, as a number or as a percentage, which is rounded up.
    type: str
    default: 100%
  verify:
    description: Ask each server of the target pools that is UP whether it is ready and runs the release.
    type: bool
    default: true
  staged:
    description:
      - Only see that all is ready for the move, and change nothing. Of several balancers each is asked so before one
        moves.
    type: bool
    default: false
  at:
    description:
      - The moment, in seconds since 1970 by the balancer's clock, at which the running HAProxy changes, so that several
        balancers do at once. At once where it is past, or more than five seconds ahead.
    type: float
  rollout:
    description:
      - The id of the rollout that this is the step C(move) of, which is noted in the journal before and after it.
      - It must hold the services still, and if it is a canary nobody must have ended it.
    type: str
  gates:
    description: What the gates have found so far, for the journal, as M(modelfleet.onprem.rollout_gates) returned it.
    type: list
    elements: dict
    default: []
extends_documentation_fragment:
  - modelfleet.onprem.attributes
  - modelfleet.onprem.balancer
attributes:
  check_mode:
    details: It does not wait for servers nor ask them, since what starts them has changed nothing in check mode either.
seealso:
  - module: modelfleet.onprem.lb_canary
  - module: modelfleet.onprem.lb_rollback
"""

EXAMPLES = r"""
- name: Send the requests to the release in the green slot
  modelfleet.onprem.lb_route:
    services:
      tumour:
        slot: green
        release: 3-9c56cc51b374

- name: Move two services at the same moment
  modelfleet.onprem.lb_route:
    services:
      tumour: {slot: green, release: 3-9c56cc51b374}
      prices: {slot: blue, release: 12-0a1b2c3d4e5f}
"""

RETURN = r"""
routes:
  description: >-
    For each service where its requests went before and where they go now, and which share of them to the other slot,
    in hundredths of a percent.
  returned: success
  type: dict
  sample:
    tumour:
      before: {"slot": "blue", "release": "2-0a1b2c3d4e5f", "share": 2500}
      after: {"slot": "green", "release": "3-9c56cc51b374", "share": 0}
clock:
  description: What the balancer's clock says, in seconds since 1970.
  returned: success
  type: float
  sample: 1767323045.123
seconds:
  description: How long it took, most of it waiting for servers.
  returned: success
  type: float
  sample: 0.05
"""

import time
from collections.abc import Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelfleet.onprem.plugins.module_utils._control import ControlFile
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
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal_folder import JournalFolder
from ansible_collections.modelfleet.onprem.plugins.module_utils._route import State, Target, count_needed, move

ARGUMENTS = {
    **OPTIONS,
    "services": {"type": "dict", "required": True},
    "wait_timeout": {"type": "float", "default": 30},
    "min_up": {"type": "str", "default": "100%"},
    "verify": {"type": "bool", "default": True},
    "staged": {"type": "bool", "default": False},
    "at": {"type": "float"},
    "rollout": {"type": "str"},
    "gates": {"type": "list", "elements": "dict", "default": []},
}


def parse_targets(services: dict[str, Any]) -> list[Target]:
    """The targets that were asked for."""
    targets = []
    for service, wanted in services.items():
        if not isinstance(wanted, dict) or set(wanted) != {"slot", "release"}:
            raise ValueError(f"services: expected a slot and a release for {service}, found {wanted!r}")
        targets.append(Target(service, str(wanted["slot"]), str(wanted["release"])))
    return targets


def check_pools(balancer: Balancer, targets: Sequence[Target], params: dict[str, Any]) -> None:
    """HaproxyError unless every target pool has enough servers UP, and these run the release."""
    for target in targets:
        servers = wait_for_pool(balancer.process, target.pool, params["min_up"], params["wait_timeout"])
        wrong = wrong_servers(target, servers) if params["verify"] else []
        if wrong:
            raise HaproxyError("; ".join(wrong))


def move_routes(balancer: Balancer, params: dict[str, Any], check_mode: bool) -> tuple[State, State]:
    """The state before and after, which are the same where it is only ``staged``.

    Only what differs is waited for, asked and written.
    """
    targets = parse_targets(params["services"])
    servers = read_servers(balancer.process)
    for target in targets:
        count_needed(params["min_up"], len(find_pool(servers, target.pool)))
    before = balancer.read()
    if check_mode or move(before, targets) == before:
        return before, before if params["staged"] else move(before, targets)
    journal = JournalFolder(params["rollouts_dir"])
    if not params["staged"]:
        journal.start_step(params["rollout"], "move", gates=params["gates"])
    check_pools(balancer, [target for target in targets if move(before, [target]) != before], params)
    if params["staged"]:
        return before, before
    # Waiting took its time: only what holds the services still may move them.
    with journal.holding(params["rollout"]) as rollout, balancer.alone("changing routes"):
        before = balancer.read()
        for target in targets if rollout and rollout.strategy == "canary" else []:
            if target.slot != before.slot(target.service):
                ControlFile(params["rollouts_dir"], target.service).check_goes_on()
        after = move(before, targets)
        balancer.commit(before, after, params["at"])
    journal.finish_step(params["rollout"])
    return before, after


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    started = time.monotonic()
    params = module.params
    try:
        with Process(params["socket"]) as process:
            balancer = Balancer(process, params["state_dir"], params["master_socket"])
            before, after = move_routes(balancer, params, module.check_mode)
    except (ValueError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=before != after,
        routes={
            service: {"before": before.summary(service), "after": after.summary(service)}
            for service in params["services"]
        },
        clock=time.time(),
        seconds=round(time.monotonic() - started, 3),
        diff={"before": state_diff(before), "after": state_diff(after)},
    )


if __name__ == "__main__":
    main()
