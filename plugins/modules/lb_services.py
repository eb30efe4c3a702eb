#!/usr/bin/python
# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prepare what HAProxy reads when it starts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lb_services
short_description: Give a balancer a route for each service
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - Makes the files that HAProxy's configuration refers to. A service that is new gets a route to its blue slot; the
    route of a service that is there already is never changed; what is known of any other service is removed.
  - Tells whether the running HAProxy still has to read the files or its configuration, which is so if a run died
    between writing them and reloading. HAProxy may be absent or stopped.
options:
  services:
    description: All services of the balancer.
    type: list
    elements: str
    required: true
  config:
    description: The configuration that the running HAProxy must not be older than.
    type: path
    default: /etc/haproxy/haproxy.cfg
extends_documentation_fragment:
  - modelfleet.onprem.attributes
  - modelfleet.onprem.balancer
seealso:
  - module: modelfleet.onprem.lb_route
"""

EXAMPLES = r"""
- name: Give every service a route
  modelfleet.onprem.lb_services:
    services: [tumour, prices]
  notify: Reload HAProxy
"""

RETURN = r"""
added:
  description: The services that got a route.
  returned: success
  type: list
  elements: str
  sample: [prices]
removed:
  description: The services that lost theirs.
  returned: success
  type: list
  elements: str
  sample: []
reload_needed:
  description: Why the running HAProxy must reload, null if it need not.
  returned: success
  type: str
  sample: it runs since before /etc/haproxy/haproxy.cfg was changed
"""

import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelfleet.onprem.plugins.module_utils._files import make_folder, only_one, write_file
from ansible_collections.modelfleet.onprem.plugins.module_utils._haproxy import (
    OPTIONS,
    Process,
    read_files,
    read_live_map,
    state_diff,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._maintenance import MAP
from ansible_collections.modelfleet.onprem.plugins.module_utils._route import (
    State,
    format_map,
    format_records,
    provide,
)

ARGUMENTS = {
    **OPTIONS,
    "services": {"type": "list", "elements": "str", "required": True},
    "config": {"type": "path", "default": "/etc/haproxy/haproxy.cfg"},
}


def why_reload(params: dict[str, Any]) -> str | None:
    """Why the running HAProxy is not what the files say, None if it is or if none runs."""
    config = Path(params["config"])
    if not Path(params["socket"]).exists() or not config.exists():
        return None
    with Process(params["socket"]) as process:
        started = re.search(r"^Start_time_sec: *(\d+)", process.ask("show info"), re.MULTILINE)
        if started and int(config.stat().st_mtime) > int(started[1]):
            return f"it runs since before {config} was changed"
        folder = Path(params["state_dir"])
        maps = process.ask("show map")
        if not all(str(folder / name) in maps for name in ("active.map", "canary.map")):
            return None
        files = read_files(folder)
        for what, name, file in (("routes", "active.map", files[0]), ("shares", "canary.map", files[2])):
            if sorted(read_live_map(process, str(folder / name))) != sorted(file):
                return f"its {what} differ from {folder / name}"
    return None


def read_state(folder: Path) -> State:
    """What the files say, whether HAProxy runs or not."""
    file, records, shares = read_files(folder)
    return State((), file, records, (), shares)


def write(folder: Path, before: State, after: State) -> None:
    """Write what differs or is missing; HAProxy does not start without the maps and the state file."""
    for name, old, new, mode in (
        ("releases.json", format_records(before.records), format_records(after.records), 0o644),
        ("active.map", format_map(before.file), format_map(after.file), 0o644),
        ("canary.map", format_map(before.file_shares), format_map(after.file_shares), 0o644),
        ("servers.state", "", "", 0o600),
        (MAP, "", "", 0o644),
    ):
        if old != new or not (folder / name).exists():
            write_file(folder / name, new, mode)


def is_complete(folder: Path) -> bool:
    names = ("releases.json", "active.map", "canary.map", "servers.state", MAP)
    return all((folder / name).exists() for name in names)


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    folder = Path(params["state_dir"])
    try:
        reason = why_reload(params)
        if not module.check_mode:
            make_folder(folder)
            with only_one(folder, "changing routes"):
                before = read_state(folder)
                after = provide(before, params["services"])
                missing = not is_complete(folder)
                write(folder, before, after)
        else:
            before = read_state(folder)
            after = provide(before, params["services"])
            missing = not is_complete(folder)
    except (ValueError, OSError) as error:
        module.fail_json(msg=str(error))
    had, has = [{service for service, _pool in state.file} for state in (before, after)]
    module.exit_json(
        changed=before != after or missing or reason is not None,
        added=sorted(has - had),
        removed=sorted(had - has),
        reload_needed=reason,
        diff={"before": state_diff(before), "after": state_diff(after)},
    )


if __name__ == "__main__":
    main()
