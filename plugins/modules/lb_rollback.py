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
  - Where a canary has a share of the requests, going back is to end it, unless O(to) is another release than the one
    that serves. Nothing moves then.
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
  targets:
    description:
      - For services that were started to go back to, the C(slot) and the C(release) that runs there, which need not be
        what O(to) would find.
      - As C(record), if it is given, the C(slots) with their releases and the C(history) that are to be recorded then.
        After a rollout that died balancers may know different ones.
    type: dict
    default: {}
  up:
    description:
      - For services the number of servers that need be UP at most, though more are in the slot that serves now.
      - It is for a host that serves and that nothing could be started on, for it did not answer Ansible.
    type: dict
    default: {}
  begin:
    description:
      - The rollout that this is, as M(modelfleet.onprem.rollout_request) returned it. It begins, moves and ends in the
        same run, and is in the journal then; unless it is to O(hold).
      - A service that another rollout holds is cold, for there is more to do than to move. Where one is cold none
        moves.
      - Where it is only O(staged), it begins and no more. Of several balancers the first one is where rollouts meet,
        and who is refused there asks no other to move.
    type: dict
  hold:
    description:
      - What has begun with O(begin) does not end here, but holds its services until M(modelfleet.onprem.lb_rollout)
        ends it. It is for one of several balancers, of which the others may not have moved yet.
    type: bool
    default: false
  rollout:
    description:
      - The id of a rollout that has begun already and that this is the step C(move) of.
      - It must hold the services still.
    type: str
  staged:
    description:
      - Only see that all is ready for the move, and change nothing. Of several balancers each is asked so before one
        moves. Unlike in check mode, what was started is waited for and asked.
    type: bool
    default: false
  at:
    description:
      - The moment, in seconds since 1970 by the balancer's clock, at which the running HAProxy changes, so that several
        balancers do at once. At once where it is past, or more than five seconds ahead.
    type: float
  revisions:
    description: For each service its RV(revisions) as an earlier run returned them, which must still be so.
    type: dict
    default: {}
  gates:
    description: What the gates have found so far, for the journal, as M(modelfleet.onprem.rollout_gates) returned it.
    type: list
    elements: dict
    default: []
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
ended:
  description: For each service whose canary has ended the share that it had, in hundredths of a percent.
  returned: success
  type: dict
  sample: {}
held:
  description: The services of the rollouts that hold those that are asked for, which are cold for that.
  returned: success
  type: list
  elements: str
  sample: []
cold:
  description: >-
    For each service that could not move the release it would have gone to, null if none is known by that name, and why.
  returned: success
  type: dict
  sample:
    prices: {"release": "11-5e6f0a1b2c3d", "reason": "prices_blue: expected 3 of 3 servers UP within 0 s, found 0"}
revisions:
  description: For each service what changes with its route, its record and its rollouts.
  returned: success
  type: dict
  sample: {"tumour": "9c56cc51b374c3ba"}
clock:
  description: What the balancer's clock says, in seconds since 1970.
  returned: success
  type: float
  sample: 1767323045.123
seconds:
  description: How long it took.
  returned: success
  type: float
  sample: 0.02
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelfleet.onprem.plugins.module_utils._control import Control, ControlFile
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
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal import (
    Journal,
    Rollout,
    Step,
    begin,
    check_revisions,
    end,
    read_rollout,
    refusal,
    revision,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal_folder import JournalFolder, now
from ansible_collections.modelfleet.onprem.plugins.module_utils._route import (
    Canary,
    Cold,
    Record,
    State,
    Target,
    find_earlier,
    give,
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
    "targets": {"type": "dict", "default": {}},
    "up": {"type": "dict", "default": {}},
    "begin": {"type": "dict"},
    "hold": {"type": "bool", "default": False},
    "rollout": {"type": "str"},
    "staged": {"type": "bool", "default": False},
    "at": {"type": "float"},
    "revisions": {"type": "dict", "default": {}},
    "gates": {"type": "list", "elements": "dict", "default": []},
}


def find_cold(balancer: Balancer, state: State, target: Target, seconds: float, most: int | None = None) -> Cold | None:
    """Why the target cannot take requests now, None if it can.

    As many of its servers must be UP as there are UP in the pool that serves now, but not more than ``most``: a host
    that is down is down in both, one that does not answer Ansible can serve still but not start, and going back must
    not wait for either to be mended.
    """
    servers = read_servers(balancer.process)
    serving = find_pool(servers, pool_of(target.service, state.slot(target.service) or other(target.slot)))
    needed = min(sum(server.in_rotation for server in serving), len(find_pool(servers, target.pool)))
    needed = needed if most is None else min(needed, most)
    try:
        servers = wait_for_pool(balancer.process, target.pool, str(max(1, needed)), seconds)
    except HaproxyError as error:
        return Cold(target.service, target.release, str(error))
    wrong = wrong_servers(target, servers)
    return Cold(target.service, target.release, "; ".join(wrong)) if wrong else None


def find_canaries(state: State, params: dict[str, Any]) -> list[Canary]:
    """The canaries that going back ends. A rollout that has begun goes back itself."""
    return [
        Canary(service, 0)
        for service in dict.fromkeys(params["services"])
        if state.share(service)
        and not params["rollout"]
        and (params["to"] is None or find_earlier(state, service, params["to"]) is None)
    ]


def find_target(state: State, journal: Journal, params: dict[str, Any], service: str) -> Target | Cold | None:
    """Where a service is to go, or why it cannot go there at once; None if it is there already."""
    holder = journal.holder(service)
    if params["begin"] and holder and holder.id != params["begin"].get("id"):
        return Cold(service, None, refusal(service, holder))
    wanted = params["targets"].get(service)
    if wanted is None:
        return find_earlier(state, service, params["to"], params["cold_ok"])
    record = wanted.get("record")
    known = Record(dict(record["slots"]), tuple(record["history"])) if record else None
    target = Target(service, wanted["slot"], wanted["release"], known)
    return None if move_back(state, [target]) == state else target


def held_with(journal: Journal, service: str) -> list[str]:
    """The services of the rollout that holds ``service``, none if it is free."""
    holder = journal.holder(service)
    return list(holder.services) if holder else []


def sort_services(
    balancer: Balancer,
    journal: Journal,
    state: State,
    services: Sequence[str],
    params: dict[str, Any],
    check_mode: bool,
) -> tuple[list[Target], list[Cold]]:
    """The targets that are warm, and the services that are not.

    Where nothing may be cold, something has just started the releases; in check mode it has not, so none is asked.
    """
    found = [find_target(state, journal, params, service) for service in services]
    warm, cold = [], [service for service in found if isinstance(service, Cold)]
    for target in found:
        if isinstance(target, Target):
            trusted = check_mode and not params["cold_ok"]
            most = params["up"].get(target.service)
            reason = None if trusted else find_cold(balancer, state, target, params["wait_timeout"], most)
            if reason is None:
                warm.append(target)
            else:
                cold.append(reason)
    if cold and not params["cold_ok"]:
        raise HaproxyError("; ".join(f"{service.service} is not warm: {service.reason}" for service in cold))
    return warm, cold


@dataclass(frozen=True)
class Change:
    """What is to come of the state that was read: ``targets`` get all requests, ``canaries`` no share any more."""

    read: State
    targets: Sequence[Target]
    canaries: Sequence[Canary]

    def of(self, state: State) -> State:
        return give(move_back(state, self.targets), self.canaries)

    def commit(self, balancer: Balancer, at: float | None) -> None:
        """Make it so, unless one of its services has changed since; others may have."""
        with balancer.alone("changing routes"):
            state = balancer.read()
            for service in [it.service for it in (*self.targets, *self.canaries)]:
                if revision(state, Journal({}), service) != revision(self.read, Journal({}), service):
                    raise HaproxyError(
                        f"{service}: expected no other change of its route meanwhile, found one; "
                        "read where it goes and run again"
                    )
            balancer.commit(state, self.of(state), at)


def rollout_of(begun: dict[str, Any], state: State, targets: Sequence[Target]) -> Rollout:
    """The rollout that a run is all of."""
    services = {
        target.service: {
            "release": target.release,
            "slot": target.slot,
            "digest": target.digest,
            "was": {key: state.summary(target.service)[key] for key in ("release", "slot")},
        }
        for target in targets
    }
    rollout = read_rollout({**begun, "action": "rollback", "services": services}, "begin")
    return replace(rollout, steps=(Step("move", (), "started", ""),))


def begin_rollout(folder: JournalFolder, params: dict[str, Any], change: Change) -> Rollout:
    """The rollout of ``begin``, in the journal, unless something has changed that an earlier run returned."""
    rollout = rollout_of(params["begin"], change.read, change.targets)
    with folder.alone() as journal:
        writes = begin(journal, rollout, now())
        # What it has begun to hold only it has changed, by that.
        held = {name for name in rollout.services if (holder := journal.holder(name)) and holder.id == rollout.id}
        read = {name: found for name, found in params["revisions"].items() if name not in held}
        check_revisions(change.read, journal, read)
        folder.write(writes)
    return rollout


def move_in_rollout(
    balancer: Balancer,
    folder: JournalFolder,
    params: dict[str, Any],
    change: Change,
) -> None:
    """Move, with the journal written before and after it."""
    if not params["begin"]:
        folder.start_step(params["rollout"], "move", gates=params["gates"])
        with folder.holding(params["rollout"]):
            change.commit(balancer, params["at"])
        folder.finish_step(params["rollout"])
        return
    rollout = begin_rollout(folder, params, change)
    try:
        with folder.holding(rollout.id):
            change.commit(balancer, params["at"])
    except (ValueError, OSError) as error:
        with folder.alone() as journal:
            folder.write(end(journal, rollout.id, "failed", now(), str(error)))
        raise
    if params["hold"]:
        folder.finish_step(rollout.id)
        return
    with folder.alone() as journal:
        folder.write(end(journal, rollout.id, "done", now()))


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    started = time.monotonic()
    params = module.params
    try:
        with Process(params["socket"]) as process:
            balancer = Balancer(process, params["state_dir"], params["master_socket"])
            folder = JournalFolder(params["rollouts_dir"])
            journal = folder.read()
            before = balancer.read()
            canaries = find_canaries(before, params)
            ended = {canary.service: {"share": before.share(canary.service)} for canary in canaries}
            services = [service for service in dict.fromkeys(params["services"]) if service not in ended]
            warm, cold = sort_services(balancer, journal, before, services, params, module.check_mode)
            if cold and params["begin"]:
                # They go back together, once what is cold was started.
                warm = []
            change = Change(before, warm, canaries)
            after = before if params["staged"] else change.of(before)
            if params["staged"] and params["begin"] and warm and not cold and not module.check_mode:
                begin_rollout(folder, params, change)
            if before != after and not module.check_mode:
                for service in ended:
                    # Whoever takes it through its steps must not go on.
                    ControlFile(params["rollouts_dir"], service).write(Control("abort", "rollback.yml"))
                if warm:
                    move_in_rollout(balancer, folder, params, change)
                else:
                    change.commit(balancer, params["at"])
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
        ended=ended,
        cold={service.service: {"release": service.release, "reason": service.reason} for service in cold},
        held=sorted({name for service in params["services"] for name in held_with(journal, service)}),
        revisions={service: revision(before, journal, service) for service in params["services"]},
        clock=time.time(),
        seconds=round(time.monotonic() - started, 3),
        diff={"before": state_diff(before), "after": state_diff(after)},
    )


if __name__ == "__main__":
    main()
