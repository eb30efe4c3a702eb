# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

# A virtual module: the action plugin of the same name does the work, on the controller.

DOCUMENTATION = r"""
module: rollout_judge
short_description: Decide what follows from a window of a canary
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - Runs on the controller and changes nothing on any machine.
  - Compares what both sides answered, and says whether the canary goes on, waits for another window, or ends. It fails
    if the canary fails, if an operator has aborted it, or if a balancer has no figures.
extends_documentation_fragment:
  - modelfleet.onprem.attributes.info
  - modelfleet.onprem.attributes.action
options:
  canary:
    description: The canary, as M(modelfleet.onprem.rollout_request) returned it.
    type: dict
    required: true
  step:
    description: The step that it is at, as M(modelfleet.onprem.rollout_plan) returned it.
    type: dict
    required: true
  window:
    description: The number of the window in the step, from 0 on.
    type: int
    required: true
  watched:
    description: What M(modelfleet.onprem.lb_watch) returned for the window, by balancer.
    type: dict
    required: true
  held:
    description: What it returned while the canary was held after that, by balancer.
    type: dict
    default: {}
  before:
    description: The figures of the windows before it in the same step.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Judge
  modelfleet.onprem.rollout_judge:
    canary: "{{ checked.request.canary }}"
    step: "{{ planned.plan.steps[0] }}"
    window: 0
    watched: {lb1: "{{ watched }}"}
  register: judged
"""

RETURN = r"""
outcome:
  description: >-
    V(pass) for the next step, V(wait) for the next window of this one, V(promote) for all requests at once, V(fail) for
    none.
  returned: success or a canary that fails
  type: str
  sample: pass
next:
  description: The number of the next window.
  returned: success or a canary that fails
  type: int
  sample: 1
figures:
  description: What both sides answered in this step so far.
  returned: success or a canary that fails
  type: dict
  sample:
    baseline: {requests: 950, errors: 1, latency: {"+Inf": 950}, predictions: {"0": 350, "1": 600}}
    canary: {requests: 50, errors: 0, latency: {"+Inf": 50}, predictions: {"0": 18, "1": 32}}
verdict:
  description: The same as the verdict of a gate.
  returned: success or a canary that fails
  type: dict
  sample:
    gate: judge
    where: controller
    mode: enforce
    verdict: pass
    expected: no worse answers than those beside it, at 5 %
    found: "errors: pass: canary 0 of 5000 (0.00%) against 1 of 95000 (0.00%): at most 0.05 points more"
    seconds: 0.002
    details: {share: 500, sides: {}, findings: []}
"""
