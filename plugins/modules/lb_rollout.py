#!/usr/bin/python
# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Begin and end rollouts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lb_rollout
short_description: Begin a rollout, note its steps and end it, in the journal of a balancer
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - A rollout that has begun holds its services until it ends. Another one is refused, and told who holds them, since
    when and at which step. A rollout whose controller died holds them still, until another one takes it over.
  - The journal is a folder that only root may read, with a record of each of the last 50 rollouts and a lock for each
    service that is held. Each file is written whole and flushed before the next.
options:
  state:
    description:
      - V(begun) takes the lock of each service, if what was read of it in O(revisions) is still so.
      - V(step) notes that O(step) begins, and that the one before it is done. A rollout that was taken over is refused.
      - V(ended) notes O(verdict) and lets go of the services. Nothing happens if the rollout holds none any more.
      - V(left) notes with O(reason) and O(gates) that it has failed half-way. It holds its services still, until
        another one finishes or undoes it. A rollout that was taken over is refused.
      - V(refused) notes a rollout that has failed before it began, with O(reason) and O(gates). It holds no service.
    type: str
    choices: [begun, step, ended, left, refused]
    required: true
  rollout:
    description: >-
      What begins, as M(modelfleet.onprem.rollout_plan) returned it. Required with O(state=begun) and O(state=refused).
    type: dict
  id:
    description: The id of the rollout. Required with O(state=step), O(state=ended) and O(state=left).
    type: str
  revisions:
    description: For each service what M(modelfleet.onprem.lb_info) returned as C(revision).
    type: dict
    default: {}
  step:
    description: The name of the step that begins.
    type: str
  hosts:
    description: The hosts that the step is about.
    type: list
    elements: str
    default: []
  verdict:
    description: How the rollout ended.
    type: str
    choices: [done, failed, withdrawn]
  reason:
    description: Why, if it is not V(done). Required with O(state=left).
    type: str
    default: ""
  gates:
    description: The verdicts of the gates.
    type: list
    elements: dict
    default: []
extends_documentation_fragment:
  - modelfleet.onprem.attributes
  - modelfleet.onprem.balancer
attributes:
  check_mode:
    details: >-
      A step or the end of a rollout is not looked for, since its beginning has changed nothing in check mode either.
  diff_mode:
    support: none
seealso:
  - module: modelfleet.onprem.lb_info
"""

EXAMPLES = r"""
- name: Begin
  modelfleet.onprem.lb_rollout:
    state: begun
    rollout: "{{ plan.rollout }}"
    revisions: {tumour: "{{ balancer_state.load_balancer.services.tumour.revision }}"}

- name: Note that the idle slot is started
  modelfleet.onprem.lb_rollout:
    state: step
    id: "{{ plan.rollout.id }}"
    step: start
    hosts: [model1, model2]

- name: End
  modelfleet.onprem.lb_rollout:
    state: ended
    id: "{{ plan.rollout.id }}"
    verdict: done
"""

RETURN = r"""
taken_over:
  description: The rollouts that died and whose services this one holds now.
  returned: with O(state=begun)
  type: list
  elements: str
  sample: [20260102T030405Z-0a1b2c3d]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelfleet.onprem.plugins.module_utils._haproxy import OPTIONS, Balancer, Process
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal import (
    Journal,
    Write,
    begin,
    check_revisions,
    end,
    leave,
    read_rollout,
    refuse,
    start_step,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal_folder import JournalFolder, now

ARGUMENTS = {
    **OPTIONS,
    "state": {"type": "str", "choices": ["begun", "step", "ended", "left", "refused"], "required": True},
    "rollout": {"type": "dict"},
    "id": {"type": "str"},
    "revisions": {"type": "dict", "default": {}},
    "step": {"type": "str"},
    "hosts": {"type": "list", "elements": "str", "default": []},
    "verdict": {"type": "str", "choices": ["done", "failed", "withdrawn"]},
    "reason": {"type": "str", "default": ""},
    "gates": {"type": "list", "elements": "dict", "default": []},
}
REQUIRED = [
    ("state", "begun", ["rollout"]),
    ("state", "step", ["id", "step"]),
    ("state", "ended", ["id", "verdict"]),
    ("state", "left", ["id", "reason"]),
    ("state", "refused", ["rollout"]),
]


def plan_begin(params: dict[str, Any], journal: Journal) -> list[Write]:
    """The writes of a beginning. A service that is held is told first, for that is why it was changed meanwhile."""
    writes = begin(journal, read_rollout(params["rollout"], "rollout"), now())
    if params["revisions"]:
        with Process(params["socket"]) as process:
            check_revisions(Balancer(process, params["state_dir"]).read(), journal, params["revisions"])
    return writes


def plan_writes(params: dict[str, Any], journal: Journal) -> list[Write]:
    if params["state"] == "begun":
        return plan_begin(params, journal)
    if params["state"] == "step":
        return start_step(journal, params["id"], params["step"], params["hosts"], now())
    if params["state"] == "refused":
        return refuse(journal, read_rollout(params["rollout"], "rollout"), now(), params["reason"], params["gates"])
    if params["state"] == "left":
        return leave(journal, params["id"], now(), params["reason"], params["gates"])
    return end(journal, params["id"], params["verdict"], now(), params["reason"], params["gates"])


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, required_if=REQUIRED, supports_check_mode=True)
    params = module.params
    folder = JournalFolder(params["rollouts_dir"])
    begins = params["state"] == "begun"
    try:
        if module.check_mode:
            journal = folder.read()
            changed = not begins or bool(plan_begin(params, journal))
        else:
            with folder.alone() as journal:
                writes = plan_writes(params, journal)
                folder.write(writes)
            changed = bool(writes)
    except (ValueError, OSError) as error:
        module.fail_json(msg=str(error))
    holders = [journal.holder(service) for service in params["rollout"]["services"]] if begins else []
    module.exit_json(changed=changed, taken_over=sorted({holder.id for holder in holders if holder}))


if __name__ == "__main__":
    main()
