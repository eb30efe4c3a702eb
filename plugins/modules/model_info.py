#!/usr/bin/python
# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what is on a model host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_info
short_description: Read what is on a model host
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - Reads the Python, the free space, the releases, the environments and the state of every slot, in one run and
    without changing anything.
  - Slots that run are asked whether they are ready, and have two seconds to say so.
options:
  services:
    description: The services to read; all that have releases on the host, if it is not given.
    type: list
    elements: str
  contracts:
    description: Whether the contract of the release in each slot is read, too.
    type: bool
    default: false
  python:
    description: The host's interpreter that environments are made for.
    type: path
    default: /usr/bin/python3
  verify:
    description: Read every byte of every release, too, and look for what should not be there.
    type: bool
    default: false
  wait:
    description:
      - For how many seconds to wait, at most, until nothing starts or stops a slot of each of the O(services).
      - A module goes on where the controller that started it has died. What is read while it does so is not yet what
        will be.
    type: int
    default: 0
extends_documentation_fragment:
  - modelfleet.onprem.attributes.info
seealso:
  - module: modelfleet.onprem.model_slot
"""

EXAMPLES = r"""
- name: Read what the host has of the service
  modelfleet.onprem.model_info:
    services: [tumour]
  register: found
"""

RETURN = r"""
model_host:
  description: What is on the host.
  returned: success
  type: dict
  contains:
    python:
      description: The interpreter that environments are made for.
      type: dict
      sample: {"tag": "cp311", "version": "3.11.2", "machine": "x86_64", "glibc": "2.36"}
    free_bytes:
      description: The bytes free for environments and for releases.
      type: dict
      sample: {"envs": 52428800000, "releases": 52428800000}
    one_disk:
      description: Whether environments and releases share what is free, as they are on the same file system.
      type: bool
      sample: true
    envs:
      description: The environments that are complete.
      type: list
      elements: str
      sample: [9c56cc51b374c3ba]
    problems:
      description: What is not as it should be, a line each, in all services of the host; empty unless O(verify) is set.
      type: list
      elements: str
      sample: ["/var/lib/modelfleet/tumour/releases/.partial-3-0a1b2c3d4e5f: expected no rest of a run that was killed"]
    trials:
      description: The services of which a release is being tried in a sandbox now; empty unless O(verify) is set.
      type: list
      elements: str
      sample: [tumour]
    services:
      description:
        - For each service its releases, the one placed first first, and its two slots.
        - The C(invocation) of a slot is systemd's name for this start of its unit, another one for every start. It is
          null where the unit does not run.
        - A slot has a C(contract) where O(contracts) is true, the document of its release's C(contract.json), which is
          null where that is not what the bundle's manifest says.
      type: dict
      sample:
        tumour:
          releases:
            - release: 3-0a1b2c3d4e5f
              version: "3"
              digest: 0a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6e7f8a9b0c1d2e3f4a5b6c7d8e9f0a1b
              env: 9c56cc51b374c3ba
          slots:
            blue:
              release: 3-0a1b2c3d4e5f
              env: 9c56cc51b374c3ba
              settings: {"BIND": "0.0.0.0:8101", "WORKERS": "2"}
              limits: {"MemoryMax": "1G"}
              unit: active
              invocation: 5f0c1d2e3b4a59687786958493a2b1c0
              started: {"release": "3-0a1b2c3d4e5f", "env": "9c56cc51b374c3ba"}
              ready: true
              digest: 0a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6e7f8a9b0c1d2e3f4a5b6c7d8e9f0a1b
            green: null
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import (
    CONTRACT,
    BundleError,
    read_manifest,
    read_verified,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._consistency import find_problems, find_trials
from ansible_collections.modelfleet.onprem.plugins.module_utils._env import EnvError, read_python
from ansible_collections.modelfleet.onprem.plugins.module_utils._files import (
    DiskError,
    free_bytes,
    on_one_disk,
    only_one,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._http import HttpError
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import (
    SLOTS,
    Layout,
    LayoutError,
    check_service,
    list_envs,
    list_releases,
    list_services,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._slot_state import read_slots
from ansible_collections.modelfleet.onprem.plugins.module_utils._systemd import SystemdError

ARGUMENTS = {
    "services": {"type": "list", "elements": "str"},
    "contracts": {"type": "bool", "default": False},
    "python": {"type": "path", "default": "/usr/bin/python3"},
    "verify": {"type": "bool", "default": False},
    "wait": {"type": "int", "default": 0},
}


def wait_for_slots(layout: Layout, services: Sequence[str], seconds: int) -> None:
    """Wait until nothing starts or stops a slot of the services; DiskError if something still does after so long."""
    for service in services:
        folder = layout.service(check_service(service))
        if folder.is_dir():
            with only_one(folder, "starting or stopping a slot", seconds):
                pass


def read_releases(layout: Layout, service: str) -> list[dict[str, Any]]:
    """The releases of a service; one whose manifest cannot be read has no digest."""
    return [
        {
            "release": release.release,
            "version": release.version,
            "digest": read_digest(layout, service, release.release),
            "env": release.env,
        }
        for release in list_releases(layout, service)
    ]


def read_digest(layout: Layout, service: str, release: str) -> str | None:
    try:
        return read_manifest(layout.release(service, release) / "bundle").digest
    except BundleError:
        return None


def read_contract(layout: Layout, service: str, release: str | None) -> Any:
    """The document of a release's contract; None where there is none that can be trusted."""
    try:
        return json.loads(read_verified(layout.release(service, release) / "bundle", CONTRACT)) if release else None
    except ValueError:
        return None


def read_host(layout: Layout, python: str, asked: Sequence[str] | None, contracts: bool = False) -> dict[str, Any]:
    """All that is known of the host and of the services that are ``asked`` for, or all of them."""
    here = list_services(layout)
    wanted = here if asked is None else [check_service(service) for service in asked]
    services = [name for name in here if name in wanted]
    places = [(service, slot) for service in services for slot in SLOTS]
    states = read_slots(layout, places)
    if contracts:
        for (service, _slot), state in states.items():
            if state is not None:
                state["contract"] = read_contract(layout, service, state["release"])
    return {
        "python": asdict(read_python(python)),
        "free_bytes": {"envs": free_bytes(layout.envs), "releases": free_bytes(layout.services)},
        "one_disk": on_one_disk(layout.envs, layout.services),
        "envs": list_envs(layout),
        "services": {
            service: {
                "releases": read_releases(layout, service),
                "slots": {slot: states[service, slot] for slot in SLOTS},
            }
            for service in services
        },
    }


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        layout = Layout()
        if module.params["wait"]:
            wait_for_slots(layout, module.params["services"] or (), module.params["wait"])
        found = read_host(layout, module.params["python"], module.params["services"], module.params["contracts"])
        found["problems"] = find_problems(layout) if module.params["verify"] else []
        found["trials"] = find_trials(layout) if module.params["verify"] else []
    except (DiskError, EnvError, HttpError, LayoutError, SystemdError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, model_host=found)


if __name__ == "__main__":
    main()
