#!/usr/bin/python
# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take servers out of rotation, and bring them back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lb_server
short_description: Take servers out of rotation without losing a request, and bring them back
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - Sends servers no more requests and waits until they have answered those they have, or brings servers back.
  - A process that a reload of HAProxy has replaced still sends requests of the connections it holds. It is told the
    same, and its requests are waited for as well.
  - After each change the state of all servers is saved for the next start of HAProxy.
options:
  servers:
    description: The servers, each as its pool, a slash and its name.
    type: list
    elements: str
    required: true
  state:
    description:
      - V(drain) sends no more requests and waits until none is in flight; health checks go on. Of a pool that
        requests are sent to and that has other servers, the last one that is UP does not go, but for O(last).
      - V(maint) does the same, and then stops the health checks.
      - V(ready) sends requests again. With O(wait_up) the server itself must say first that it is ready, and then pass
        HAProxy's health checks, for one that leaves maintenance counts as UP before its first.
    type: str
    required: true
    choices: [ready, drain, maint]
  timeout:
    description:
      - For how many seconds to wait, for all servers together. Then the module fails.
      - Servers that did not become free of requests in time are put back to what they were, and so are the others of
        the same run.
    type: float
    default: 30
  wait_up:
    description: With O(state=ready), wait until the servers are UP and no health check of theirs has failed last.
    type: bool
    default: true
  recorded:
    description:
      - With O(state=ready), bring servers back only if all of them answer as the release that the balancer has recorded
        for their pool. A pool for which it has recorded none is not asked.
      - It is for servers of which nobody has said what they run now, as after maintenance.
    type: bool
    default: false
  rollout:
    description:
      - The id of the rollout that takes the servers out and brings them back. It must hold its services still.
      - Taking them out begins the step O(step) in the journal; bringing them back is its end.
      - What the module waited for it does not do any more where another rollout has taken the services over meanwhile.
    type: str
  step:
    description: The name of the step.
    type: str
    default: replace
  idle:
    description:
      - Take servers out of rotation only where no requests are sent to their pool, neither all of a service's nor a
        share of them.
    type: bool
    default: false
  last:
    description: The last server that is UP may go, too, as where a rollback is worth more than the requests meanwhile.
    type: bool
    default: false
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
    details: It does not wait.
"""

EXAMPLES = r"""
- name: Take two servers out of rotation
  modelfleet.onprem.lb_server:
    servers: [tumour_blue/model1, tumour_blue/model2]
    state: maint
    timeout: 30

- name: Bring them back
  modelfleet.onprem.lb_server:
    servers: [tumour_blue/model1, tumour_blue/model2]
    state: ready
"""

RETURN = r"""
servers:
  description: For each server its administrative state before and after.
  returned: success
  type: dict
  sample:
    tumour_blue/model1: {"before": "ready", "after": "maint"}
seconds:
  description: How long it took, most of it waiting.
  returned: success
  type: float
  sample: 1.2
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelfleet.onprem.plugins.module_utils._haproxy import (
    OPTIONS,
    Balancer,
    HaproxyError,
    PoolServer,
    Process,
    ask_ready,
    find_server,
    in_flight,
    read_servers,
    wait_until,
    wrong_servers,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal_folder import JournalFolder
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import SLOTS
from ansible_collections.modelfleet.onprem.plugins.module_utils._route import Target

ARGUMENTS = {
    **OPTIONS,
    "servers": {"type": "list", "elements": "str", "required": True},
    "state": {"type": "str", "required": True, "choices": ["ready", "drain", "maint"]},
    "timeout": {"type": "float", "default": 30},
    "wait_up": {"type": "bool", "default": True},
    "recorded": {"type": "bool", "default": False},
    "rollout": {"type": "str"},
    "step": {"type": "str", "default": "replace"},
    "idle": {"type": "bool", "default": False},
    "last": {"type": "bool", "default": False},
    "gates": {"type": "list", "elements": "dict", "default": []},
}


class Servers:
    """The servers of these labels, which one rollout takes out and brings back; without one, nobody is asked.

    A module goes on where its controller died, and waits here for long. So what it waited for it does only while its
    rollout holds the services still, to the servers as they are then.
    """

    def __init__(self, balancer: Balancer, journal: JournalFolder, params: Mapping[str, Any]) -> None:
        self._balancer = balancer
        self._journal = journal
        self._labels = dict.fromkeys(params["servers"])
        self._rollout = params["rollout"]
        self._idle = params["idle"]
        self._last = params["last"]
        self._recorded = params["recorded"]

    def read(self) -> list[PoolServer]:
        """The servers, as they are now."""
        servers = read_servers(self._balancer.process)
        return [find_server(servers, label) for label in self._labels]

    def set(self, admins: Mapping[str, str]) -> None:
        """Put each server into the state that ``admins`` has for the one that it is in; a state of none stays."""
        with self._journal.holding(self._rollout):
            servers = self.read()
            for admin in ("ready", "drain", "maint"):
                self._put([server for server in servers if admins.get(server.admin) == admin != server.admin], admin)

    def put_back(self, before: Sequence[PoolServer]) -> None:
        """Put each server into the state that it had before."""
        with self._journal.holding(self._rollout):
            for admin in ("ready", "drain", "maint"):
                self._put([server for server in before if server.admin == admin], admin)

    def _put(self, servers: Sequence[PoolServer], admin: str) -> None:
        if not self._idle or admin == "ready":
            self._balancer.set_servers(servers, admin)
            return
        # No route may come to go there meanwhile.
        with self._balancer.alone("taking servers out of rotation"):
            state = self._balancer.read()
            for pool in dict.fromkeys(server.pool for server in servers):
                if state.sends_to(pool):
                    raise HaproxyError(f"{pool}: expected that no requests are sent to this pool, found that some are")
            self._balancer.set_servers(servers, admin)

    def _check_others(self) -> None:
        """HaproxyError where the last server would go that takes a pool's requests, though the pool has others."""
        pools: dict[str, list[PoolServer]] = {}
        for server in read_servers(self._balancer.process):
            pools.setdefault(server.pool, []).append(server)
        state = self._balancer.read()
        for pool, servers in pools.items():
            if not state.sends_to(pool):
                continue
            up = [server for server in servers if server.in_rotation]
            going = [server.label for server in servers if server.label in self._labels]
            if len(going) < len(servers) and up and all(server.label in going for server in up):
                raise HaproxyError(
                    f"{pool}: expected another server to be UP while {', '.join(going)} is out, found none"
                )

    def empty(self, state: str, seconds: float) -> None:
        """Drain the servers, wait until they have no request, and put them into ``state``; all of them, or none."""
        if not (self._idle or self._last):
            self._check_others()
        before = self.read()
        self.set({"ready": "drain"})
        busy: dict[str, int] = {}

        def free() -> bool:
            busy.clear()
            busy.update(in_flight(self._balancer.processes(), before))
            return not busy

        if not wait_until(free, seconds):
            self.put_back(before)
            found = ", ".join(f"{count} of {label}" for label, count in sorted(busy.items()))
            raise HaproxyError(
                f"expected no request in flight within {seconds:g} s, found {found}; "
                "all servers are as they were before"
            )
        self.set(dict.fromkeys(("ready", "drain", "maint"), state))

    def bring_back(self, seconds: float, wait_up: bool) -> None:
        """Put the servers into rotation, and wait until HAProxy counts them as UP by a check of its own."""
        deadline = time.monotonic() + seconds
        coming = [server for server in self.read() if server.admin != "ready"]
        missing: list[str] = []

        def all_ready() -> bool:
            answers = ask_ready(coming)
            missing[:] = [f"{label}: {answer.found}" for label, answer in answers.items() if not answer.ready]
            return not missing

        def all_up() -> bool:
            # What leaves maintenance is UP until its first check: the next ones to be taken out may rely on it.
            missing[:] = [f"{server.pool}: {server.found}" for server in self.read() if not server.is_sure]
            return not missing

        if wait_up and not wait_until(all_ready, seconds, 0.1):
            raise HaproxyError(f"expected to be ready within {seconds:g} s, found {'; '.join(missing)}")
        if self._recorded:
            self._check_recorded(coming)
        self.set({"drain": "ready", "maint": "ready"})
        if wait_up and not wait_until(all_up, max(0.0, deadline - time.monotonic())):
            raise HaproxyError(f"expected to be UP within {seconds:g} s, found {'; '.join(missing)}")

    def _check_recorded(self, coming: Sequence[PoolServer]) -> None:
        """HaproxyError unless the servers answer as the release that is recorded for their pool, where one is."""
        records = self._balancer.read().records
        recorded = [
            Target(service, slot, release)
            for service, record in records.items()
            for slot in SLOTS
            if (release := record.active(slot))
        ]
        wrong = [
            line
            for target in recorded
            for line in wrong_servers(target, [server for server in coming if server.pool == target.pool])
        ]
        if wrong:
            raise HaproxyError(f"{'; '.join(wrong)}: deploy what is to serve there, which brings it back")


def put(balancer: Balancer, params: dict[str, Any], check_mode: bool) -> list[PoolServer]:
    """Put the servers into the state that was asked for, and say how they were before."""
    journal = JournalFolder(params["rollouts_dir"])
    servers = Servers(balancer, journal, params)
    before = servers.read()
    if check_mode:
        return before
    if params["state"] != "ready":
        names = dict.fromkeys(server.name for server in before)
        journal.start_step(params["rollout"], params["step"], list(names), params["gates"])
    try:
        if params["state"] == "ready":
            servers.bring_back(params["timeout"], params["wait_up"])
        elif any(server.admin != params["state"] or server.admin == "drain" for server in before):
            servers.empty(params["state"], params["timeout"])
    finally:
        balancer.save_servers()
    if params["state"] == "ready":
        journal.finish_step(params["rollout"], params["gates"])
    return before


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    started = time.monotonic()
    params = module.params
    try:
        with Process(params["socket"]) as process:
            balancer = Balancer(process, params["state_dir"], params["master_socket"])
            before = put(balancer, params, module.check_mode)
    except (ValueError, OSError) as error:
        module.fail_json(msg=str(error))
    servers = {server.label: {"before": server.admin, "after": params["state"]} for server in before}
    module.exit_json(
        changed=any(server.admin != params["state"] for server in before),
        servers=servers,
        seconds=round(time.monotonic() - started, 3),
        diff={
            "before": "".join(f"{label} {states['before']}\n" for label, states in servers.items()),
            "after": "".join(f"{label} {states['after']}\n" for label, states in servers.items()),
        },
    )


if __name__ == "__main__":
    main()
