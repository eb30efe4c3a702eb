#!/usr/bin/python
# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watch a canary for a while."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lb_watch
short_description: Watch a canary for a while, and count what both sides answered
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - Reads the counters of the balancer and of the model servers in both pools, waits, reads them again and returns the
    differences.
  - Looks every other second whether an operator has said something (see M(modelfleet.onprem.lb_control)), and whether
    the canary fails at half of its requests or has no server left. Then it waits no longer.
options:
  service:
    description: The service.
    type: str
    required: true
  seconds:
    description: How long to watch.
    type: float
    required: true
  metrics_ports:
    description: The port of C(/metrics) of each slot, where it is not the service's own.
    type: dict
    default: {}
  rollout:
    description:
      - The id of the rollout whose canary this is.
      - One that was taken over meanwhile is not watched any longer, and fails.
    type: str
extends_documentation_fragment:
  - modelfleet.onprem.attributes.info
  - modelfleet.onprem.balancer
attributes:
  check_mode:
    details: It does not wait, for in check mode nothing has changed that could be watched.
seealso:
  - module: modelfleet.onprem.lb_canary
"""

EXAMPLES = r"""
- name: Watch the canary for a minute
  modelfleet.onprem.lb_watch:
    service: tumour
    seconds: 60
  register: watched
"""

RETURN = r"""
control:
  description: What an operator has said last, V(go) if nothing.
  returned: success
  type: str
  sample: go
by:
  description: Who said it.
  returned: success
  type: str
  sample: kim
failing:
  description: Why the canary must not go on, or nothing.
  returned: success
  type: str
  sample: "tumour_green: expected a server in rotation, found none"
seconds:
  description: How long it was watched.
  returned: success
  type: float
  sample: 60.1
unread:
  description: The servers whose metrics could not be read twice, and so are in no figure but the balancer's.
  returned: success
  type: list
  elements: str
  sample: []
sides:
  description: >-
    What both sides answered within these seconds. C(requests) and C(errors) are the balancer's, answers with 4xx and
    5xx, its own among them; C(latency) are the model servers' requests up to each edge in seconds; C(predictions) are
    those of each class, of as many rows as there were requests.
  returned: success
  type: dict
  sample:
    baseline:
      requests: 950
      errors: 1
      latency: {"0.005": 900, "+Inf": 950}
      predictions: {"0": 350, "1": 600}
    canary:
      requests: 50
      errors: 0
      latency: {"0.005": 47, "+Inf": 50}
      predictions: {"0": 18, "1": 32}
"""

import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelfleet.onprem.plugins.module_utils._control import Control, ControlFile
from ansible_collections.modelfleet.onprem.plugins.module_utils._figures import (
    Balanced,
    Served,
    read_exposition,
    side,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._haproxy import OPTIONS, PoolServer
from ansible_collections.modelfleet.onprem.plugins.module_utils._http import HttpError, Server
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal import check_holds
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal_folder import JournalFolder
from ansible_collections.modelfleet.onprem.plugins.module_utils._route import other, pool_of
from ansible_collections.modelfleet.onprem.plugins.module_utils._watch import (
    INTERVAL,
    Pools,
    look,
    read_slot,
    why_fails,
)

ARGUMENTS = {
    **OPTIONS,
    "service": {"type": "str", "required": True},
    "seconds": {"type": "float", "required": True},
    "metrics_ports": {"type": "dict", "default": {}},
    "rollout": {"type": "str"},
}
NOTHING = {
    "control": "go",
    "by": "",
    "failing": "",
    "seconds": 0.0,
    "unread": [],
    "sides": {name: side(Balanced(), []) for name in ("baseline", "canary")},
}


def scrape(servers: Iterable[PoolServer], ports: Mapping[str, int], timeout: float = 3) -> dict[str, Served]:
    """The counters of each model server that answers, all asked at once, by its label.

    ``ports`` are those of the metrics, by pool, where these have ports of their own.
    """
    found: dict[str, Served] = {}

    def ask(server: PoolServer) -> None:
        host = f"[{server.address}]" if ":" in server.address else server.address
        try:
            with Server(f"{host}:{ports.get(server.pool, server.port)}", timeout) as connection:
                answer = connection.get("/metrics")
        except HttpError:
            return
        if answer.status == 200:
            found[server.label] = read_exposition(answer.body.decode(errors="replace"))

    threads = [threading.Thread(target=ask, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def watch(params: Mapping[str, Any]) -> dict[str, Any]:
    """What was seen within the seconds, or until there was a reason to wait no longer."""
    service = params["service"]
    slot = read_slot(params, service)
    pools = Pools(baseline=pool_of(service, slot), canary=pool_of(service, other(slot)))
    ports = {pool_of(service, name): int(port) for name, port in params["metrics_ports"].items()}
    control_file = ControlFile(params["rollouts_dir"], service)
    journal = JournalFolder(params["rollouts_dir"])
    started = time.monotonic()
    first = last = look(params["socket"], pools)
    before = scrape(first.servers, ports)
    failing, control = "", Control()
    while True:
        # Before it says that somebody watches: an orphan of a controller that died must not keep others waiting.
        if params["rollout"]:
            check_holds(journal.read(), params["rollout"])
        control_file.touch()
        control = control_file.read()
        left = started + params["seconds"] - time.monotonic()
        if failing or control.word in ("promote", "abort") or left <= 0:
            break
        time.sleep(min(INTERVAL, left))
        last = look(params["socket"], pools)
        failing = why_fails(first, last, pools)
    after = scrape(last.servers, ports)
    return {
        "control": control.word,
        "by": control.by,
        "failing": failing,
        "seconds": round(time.monotonic() - started, 3),
        "unread": sorted(server.label for server in last.servers if not {server.label} <= set(before) & set(after)),
        "sides": {
            name: side(
                last.balanced[pool].since(first.balanced[pool]),
                [
                    after[label].since(before[label])
                    for label in sorted(set(before) & set(after))
                    if label.startswith(f"{pool}/")
                ],
            )
            for name, pool in (("baseline", pools.baseline), ("canary", pools.canary))
        },
    }


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        found = NOTHING if module.check_mode else watch(module.params)
    except (ValueError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
