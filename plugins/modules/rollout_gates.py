# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

# A virtual module: the action plugin of the same name does the work, on the controller.

DOCUMENTATION = r"""
module: rollout_gates
short_description: Collect what the gates of a rollout found
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - Runs on the controller, asks no machine and changes nothing.
  - Collects the verdicts of the gates that the controller and the hosts put, and lays them out as a table.
  - Compares how the hosts answered the golden rows. Hosts that differ, though each may be within the tolerance of what
    the bundle says, are a verdict of the gate V(golden).
extends_documentation_fragment:
  - modelfleet.onprem.attributes.info
  - modelfleet.onprem.attributes.action
options:
  parts:
    description:
      - For each service its policy, the gates that were overridden and the controller's verdicts, as
        M(modelfleet.onprem.rollout_request) returned them in C(request.parts).
    type: dict
    required: true
  plans:
    description:
      - The plan of each service in their order, as M(modelfleet.onprem.rollout_plan) returned them.
      - Left out where a gate has refused the request before there is a plan.
    type: list
    elements: dict
  found:
    description:
      - For each host and service the results of the modules that put gates there, as C(placed), C(loaded) and C(gated).
      - Where several hosts have C(golden_answers) of M(modelfleet.onprem.model_probe), these are compared.
    type: dict
    default: {}
  judge:
    description: The verdict of M(modelfleet.onprem.rollout_judge), if there is one.
    type: list
    elements: dict
    default: []
  show:
    description: Whether the table is printed, too, line by line and whatever the format of results is.
    type: bool
    default: false
seealso:
  - module: modelfleet.onprem.model_probe
"""

EXAMPLES = r"""
- name: Collect what the gates found
  modelfleet.onprem.rollout_gates:
    parts: "{{ request.parts }}"
    plans: "{{ plan.plans }}"
    found: {model1: {tumour: {gated: "{{ gated }}"}}}
  register: found
"""

RETURN = r"""
verdicts:
  description: >-
    Every verdict, in the order of the services and of the gates. One of a host has its name as C(host), and where there
    are several services that of its own as C(service).
  returned: success
  type: list
  elements: dict
  sample:
    - gate: golden
      host: model1
      where: 127.0.0.1:8102/predict
      mode: enforce
      verdict: pass
      expected: the answers to 20 golden rows
      found: the same
      seconds: 0.012
table:
  description: The lines of a table of the verdicts, its heading first. Hosts that found the same are one line.
  returned: success
  type: list
  elements: str
  sample:
    - gate    where           mode     verdict  expected                       found     seconds
    - golden  model1, model2  enforce  pass     the answers to 20 golden rows  the same  0.01
disagreement:
  description: Why the hosts' answers to the golden rows end the rollout; null where they do not.
  returned: success
  type: str
  sample: null
"""
