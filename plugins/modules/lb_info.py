#!/usr/bin/python
# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what a balancer does."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lb_info
short_description: Read the routes, pools and servers of a balancer
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - Reads from the running HAProxy where each service's requests go, and the state of each server of its two pools.
  - Reads from C(releases.json) which release each slot was last given, and which releases were active before.
  - Reads from the journal which rollout holds a service, or was the last one.
options:
  services:
    description: The services to read; all that have a route, if it is not given. One without a route is left out.
    type: list
    elements: str
  rollouts:
    description: Whether to return the whole journal, too.
    type: bool
    default: false
extends_documentation_fragment:
  - modelfleet.onprem.attributes.info
  - modelfleet.onprem.balancer
seealso:
  - module: modelfleet.onprem.lb_route
"""

EXAMPLES = r"""
- name: Read where the requests of the service go
  modelfleet.onprem.lb_info:
    services: [tumour]
  register: found
"""

RETURN = r"""
load_balancer:
  description: What the balancer does.
  returned: success
  type: dict
  contains:
    version:
      description: The version of the running HAProxy.
      type: str
      sample: 3.0.11-1+deb13u2
    services:
      description: >-
          For each service the active slot and its pool, which C(share) of the requests goes to the other one, in
          hundredths of a percent, the releases that were active before, oldest first, and its pools. C(release) is null
          if the slot was never given one. C(status) is HAProxy's verdict on the server whatever C(admin) says;
          C(sessions) and C(queue) count requests. C(persisted) says whether HAProxy's next start would send the
          requests where they go now. C(revision) changes with the route, the share, the record and the rollouts of the
          service. C(maintenance) is what clients are told while the balancer answers for the service itself, null where
          it does not. C(rollout) is the rollout that holds the service, which C(held) says, or else its last one; null
          if there was none. C(watched) says whether a run is watching its canary.
      type: dict
      sample:
        tumour:
          slot: blue
          revision: 9c56cc51b374c3ba
          rollout:
            id: 20260102T030405Z-0a1b2c3d
            action: deploy
            strategy: rolling
            verdict: running
            held: true
            step: replace (model1) started
            by: anna
            from: ops1
            since: "2026-01-02T03:04:05Z"
            gates: []
            services: {tumour: {release: 4-1c9de2c0b5f3, slot: blue, was: {release: 3-9c56cc51b374, slot: blue}}}
          pool: tumour_blue
          share: 0
          watched: false
          maintenance: {retry_after: 120, detail: Back at noon.}
          persisted: true
          history: [1-5e6f0a1b2c3d, 2-0a1b2c3d4e5f]
          pools:
            blue:
              release: 3-9c56cc51b374
              servers:
                model1:
                  address: 10.0.0.11
                  port: 8101
                  status: UP
                  admin: ready
                  weight: 100
                  sessions: 2
                  queue: 0
            green:
              release: 2-0a1b2c3d4e5f
              servers: {}
    rollouts:
      description: With O(rollouts), the record of every rollout that the journal keeps, the latest last.
      returned: with O(rollouts)
      type: list
      elements: dict
"""

import re
from collections.abc import Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelfleet.onprem.plugins.module_utils._control import ControlFile
from ansible_collections.modelfleet.onprem.plugins.module_utils._haproxy import (
    OPTIONS,
    Balancer,
    Process,
    read_live_map,
    read_servers,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal import Journal, revision, show_rollout
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal_folder import JournalFolder
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import SLOTS
from ansible_collections.modelfleet.onprem.plugins.module_utils._maintenance import MAP, parse_notice
from ansible_collections.modelfleet.onprem.plugins.module_utils._route import entries_of, pool_of, shares_of

ARGUMENTS = {
    **OPTIONS,
    "services": {"type": "list", "elements": "str"},
    "rollouts": {"type": "bool", "default": False},
}
SHOWN = ("address", "port", "status", "admin", "weight", "sessions", "queue")


def read_last(journal: Journal, service: str) -> dict[str, Any] | None:
    """The rollout that holds a service, or the last one."""
    last = journal.last(service)
    if last is None:
        return None
    held = journal.holder(service) is not None
    return {**show_rollout(last), "held": held, "step": last.step, "by": last.who, "since": last.begun}


def read_notice(value: str | None) -> dict[str, Any] | None:
    """What clients are told by a value of the map, in the words of lb_maintenance's options."""
    if value is None:
        return None
    notice = parse_notice(value)
    return {"retry_after": notice.retry_after, "detail": notice.message}


def read_balancer(balancer: Balancer, folder: JournalFolder, asked: Sequence[str] | None) -> dict[str, Any]:
    """All that is known of the services that are ``asked`` for, or of all of them."""
    journal, state = folder.read(), balancer.read()
    servers = read_servers(balancer.process)
    notices = dict(read_live_map(balancer.process, str(balancer.folder / MAP)))
    version = re.search(r"^Version: *(\S+)", balancer.process.ask("show info"), re.MULTILINE)
    services = {}
    for service in dict.fromkeys(key for key, _pool in (*state.live, *state.file)):
        slot = state.slot(service)
        if slot is None or (asked is not None and service not in asked):
            continue
        record = state.record(service)
        services[service] = {
            "slot": slot,
            "pool": pool_of(service, slot),
            "share": state.share(service),
            "watched": ControlFile(str(folder.path), service).is_watched(),
            "maintenance": read_notice(notices.get(service)),
            "persisted": entries_of(service, state.live) == entries_of(service, state.file)
            and shares_of(service, state.live_shares) == shares_of(service, state.file_shares),
            "history": list(record.earlier(slot)),
            "revision": revision(state, journal, service),
            "rollout": read_last(journal, service),
            "pools": {
                slot: {
                    "release": record.active(slot),
                    "servers": {
                        server.name: {name: getattr(server, name) for name in SHOWN}
                        for server in servers
                        if server.pool == pool_of(service, slot)
                    },
                }
                for slot in SLOTS
            },
        }
    return {"version": version[1] if version else "unknown", "services": services}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        folder = JournalFolder(module.params["rollouts_dir"])
        with Process(module.params["socket"]) as process:
            found = read_balancer(Balancer(process, module.params["state_dir"]), folder, module.params["services"])
    except (ValueError, OSError) as error:
        module.fail_json(msg=str(error))
    if module.params["rollouts"]:
        found["rollouts"] = [show_rollout(rollout) for rollout in folder.read().rollouts]
    module.exit_json(changed=False, load_balancer=found)


if __name__ == "__main__":
    main()
