# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

# A virtual module: the action plugin of the same name does the work, on the controller.

DOCUMENTATION = r"""
module: wheelhouse
short_description: Gather the wheels of an environment on the controller
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - Fetches the wheels that a lock names, for the Python of a model host, which reaches no package index itself.
  - They are kept in the controller's cache folder and fetched once, in check mode too. No machine of the fleet is
    changed.
extends_documentation_fragment:
  - modelfleet.onprem.attributes.info
  - modelfleet.onprem.attributes.action
requirements:
  - uv on the controller
options:
  env:
    description: The name of the environment.
    type: str
    required: true
  lock:
    description: The lock, a line C(name==version) a package.
    type: str
    required: true
  server:
    description: The model server's wheel.
    type: path
    required: true
  tag:
    description: The host's Python, such as V(cp311).
    type: str
    required: true
  machine:
    description: The host's machine type, such as V(x86_64).
    type: str
    required: true
  glibc:
    description: The version of the host's C library, such as V(2.36).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Gather the wheels for Debian 12
  modelfleet.onprem.wheelhouse:
    env: 9f86d081884c7d65
    lock: "{{ checked.request.lock }}"
    server: "{{ checked.request.server.wheel }}"
    tag: cp311
    machine: x86_64
    glibc: "2.36"
"""

RETURN = r"""
folder:
  description: The folder with the wheels, and with the lock as C(env.lock).
  returned: success
  type: str
  sample: /home/ops/.cache/modelfleet/wheels/9f86d081884c7d65
size:
  description: The bytes that a host needs to build the environment from them.
  returned: success
  type: int
  sample: 498073600
"""
