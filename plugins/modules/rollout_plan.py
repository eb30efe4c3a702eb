# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

# A virtual module: the action plugin of the same name does the work, on the controller.

DOCUMENTATION = r"""
module: rollout_plan
short_description: Work out the steps of a rollout
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - Runs on the controller and changes nothing on any machine.
  - Compares what was asked for with what M(modelfleet.onprem.model_info) and M(modelfleet.onprem.lb_info) found, and
    names the hosts that each step of the rollout has something to do on.
  - For a deploy it puts the gate V(contract), which compares the contract of what serves, read with
    O(modelfleet.onprem.model_info#module:contracts), with that of the bundle.
extends_documentation_fragment:
  - modelfleet.onprem.attributes.info
  - modelfleet.onprem.attributes.action
options:
  services:
    description: The definitions of the services, as in C(modelfleet_services).
    type: raw
    required: true
  request:
    description: What M(modelfleet.onprem.rollout_request) returned.
    type: dict
    required: true
  hosts:
    description: What M(modelfleet.onprem.model_info) returned as C(model_host), by host.
    type: dict
    required: true
  balancers:
    description: What M(modelfleet.onprem.lb_info) returned as C(load_balancer), by balancer.
    type: dict
    required: true
  to:
    description: The version or release to roll back to; the one before the present release by default.
    type: str
  only_undo:
    description:
      - For a rollback, undo a rollout that died and do nothing if there is none, or if it runs still. So it is once
        a canary has got no requests any more.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Plan
  modelfleet.onprem.rollout_plan:
    services: "{{ modelfleet_services }}"
    request: "{{ checked.request }}"
    hosts: "{{ host_states }}"
    balancers: "{{ balancer_states }}"
  register: planned
"""

RETURN = r"""
plan:
  description: >-
    The steps of the rollout; an empty list of hosts is a step with nothing to do. C(plans) has those of each service;
    of several, the steps beside them have the hosts of all.
  returned: success
  type: dict
  sample:
    service: tumour
    release: {name: 3-0a1b2c3d4e5f, version: "3", digest: 0a1b2c3d4e5f}
    slot: green
    stage: [model1, model2]
    in_place: []
    put_back: {}
    idle: [model1, model2]
    record: [lb1]
    stop: []
    to: {tumour: {slot: green, release: 3-0a1b2c3d4e5f}}
    back: {tumour: {slot: blue, release: 2-5e4d3c2b1a09}}
    unchanged: false
    baseline_slot: blue
    replaces: 2-5e4d3c2b1a09
    lines:
      - "tumour: 3-0a1b2c3d4e5f in green; now 2-5e4d3c2b1a09 in blue serves"
      - "  place the release  model1, model2"
    verdicts:
      - gate: contract
        where: controller
        mode: enforce
        verdict: pass
        expected: the contract of 2-5e4d3c2b1a09, or a compatible one
        found: identical
        seconds: 0.0
    refused: null
"""
