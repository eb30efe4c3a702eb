#!/usr/bin/python
# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give the release in the idle slot a share of the requests."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lb_canary
short_description: Send a share of a service's requests to the release in the slot that is not active
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - Sets which share of a service's users the slot beside the active one gets. Who they are is told by a hash of what
    the service's key C(canary) in the inventory says, so that the users of a smaller share stay in as it grows.
  - Before it gives a share, it waits until the servers of that slot are UP and asks them whether they run the release.
    To take the share back it waits for nothing.
  - The running HAProxy, the map file that its next start reads, and C(releases.json) are all compared with what is
    wanted, and whatever differs is put right.
  - Gives no share to a canary that M(modelfleet.onprem.lb_control) has aborted.
options:
  services:
    description:
      - For each service the C(share) in hundredths of a percent, V(0) to V(10000), and the C(release) that gets it. At
        V(0) no release is needed.
    type: dict
    required: true
  wait_timeout:
    description: For how many seconds to wait until the servers of the slot are UP.
    type: float
    default: 30
  rollout:
    description:
      - The id of the rollout that this is a step of, which begins in the journal before the share is given and lasts
        until the next one. It must hold the services still.
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
  - module: modelfleet.onprem.lb_route
  - module: modelfleet.onprem.lb_watch
"""

EXAMPLES = r"""
- name: Send 5 % of the users to the release beside the one that serves
  modelfleet.onprem.lb_canary:
    services:
      tumour:
        share: 500
        release: 3-9c56cc51b374

- name: Send all of them to the one that serves
  modelfleet.onprem.lb_canary:
    services:
      tumour: {share: 0}
"""

RETURN = r"""
shares:
  description: For each service the share before and now, in hundredths of a percent.
  returned: success
  type: dict
  sample:
    tumour: {"before": 100, "after": 500}
seconds:
  description: How long it took, most of it waiting for servers.
  returned: success
  type: float
  sample: 0.03
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelfleet.onprem.plugins.module_utils._control import ControlFile
from ansible_collections.modelfleet.onprem.plugins.module_utils._haproxy import (
    OPTIONS,
    Balancer,
    HaproxyError,
    Process,
    state_diff,
    wait_for_pool,
    wrong_servers,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal_folder import JournalFolder
from ansible_collections.modelfleet.onprem.plugins.module_utils._route import (
    Canary,
    State,
    Target,
    give,
    other,
    show_share,
)

ARGUMENTS = {
    **OPTIONS,
    "services": {"type": "dict", "required": True},
    "wait_timeout": {"type": "float", "default": 30},
    "rollout": {"type": "str"},
    "gates": {"type": "list", "elements": "dict", "default": []},
}


def parse_canaries(services: dict[str, Any]) -> list[Canary]:
    """The canaries that were asked for."""
    canaries = []
    for service, wanted in services.items():
        if not isinstance(wanted, dict) or "share" not in wanted or set(wanted) - {"share", "release"}:
            raise ValueError(f"services: expected a share and a release for {service}, found {wanted!r}")
        try:
            share = int(str(wanted["share"]))
        except ValueError as error:
            raise ValueError(f"share of {service}: expected a whole number, found {wanted['share']!r}") from error
        canaries.append(Canary(service, share, str(wanted["release"]) if wanted.get("release") else None))
    return canaries


def check_pool(balancer: Balancer, state: State, canary: Canary, seconds: float) -> None:
    """HaproxyError unless all servers beside the active ones are UP and run the canary's release."""
    target = Target(canary.service, other(str(state.slot(canary.service))), str(canary.release))
    wrong = wrong_servers(target, wait_for_pool(balancer.process, target.pool, "100%", seconds))
    if wrong:
        raise HaproxyError("; ".join(wrong))


def set_shares(balancer: Balancer, params: dict[str, Any], check_mode: bool) -> tuple[State, State]:
    """The state before and after."""
    canaries = parse_canaries(params["services"])
    before = balancer.read()
    after = give(before, canaries)
    if check_mode:
        return before, after
    journal = JournalFolder(params["rollouts_dir"])
    shares = ", ".join(show_share(canary.share) for canary in canaries)
    journal.start_step(params["rollout"], f"canary {shares}", gates=params["gates"])
    if before == after:
        return before, after
    for canary in canaries:
        if canary.share > before.share(canary.service):
            check_pool(balancer, before, canary, params["wait_timeout"])
    # Waiting took its time: only what holds the services still may give a share.
    with journal.holding(params["rollout"]), balancer.alone("changing routes"):
        before = balancer.read()
        for canary in canaries:
            if canary.share > before.share(canary.service):
                ControlFile(params["rollouts_dir"], canary.service).check_goes_on()
        after = give(before, canaries)
        balancer.commit(before, after)
    return before, after


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    started = time.monotonic()
    params = module.params
    try:
        with Process(params["socket"]) as process:
            balancer = Balancer(process, params["state_dir"], params["master_socket"])
            before, after = set_shares(balancer, params, module.check_mode)
    except (ValueError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=before != after,
        shares={
            service: {"before": before.share(service), "after": after.share(service)} for service in params["services"]
        },
        seconds=round(time.monotonic() - started, 3),
        diff={"before": state_diff(before), "after": state_diff(after)},
    )


if __name__ == "__main__":
    main()
