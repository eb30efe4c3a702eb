# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

# A virtual module: the action plugin of the same name does the work, on the controller.

DOCUMENTATION = r"""
module: rollout_request
short_description: Check a request against the inventory and the bundle
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - Runs on the controller and changes nothing on any machine. What is wrong is told in one line, before anything is
    done.
  - Checks the services of the inventory, that there are hosts and a balancer, that no two services want the same port,
    that the strategy is known, and that every byte of the bundle is what its manifest says.
  - For a deploy it also finds the model server's wheel, building it in the controller's cache when it is given as
    source.
extends_documentation_fragment:
  - modelfleet.onprem.attributes.info
  - modelfleet.onprem.attributes.action
options:
  action:
    description: What is asked for. V(status) needs no service and then means all of them.
    type: str
    choices: [deploy, rollback, retire, status]
    default: status
  services:
    description: The definitions of the services, as in C(modelfleet_services).
    type: raw
    required: true
  service:
    description: The service the request is about.
    type: str
  bundle:
    description: The bundle to deploy, a folder or a C(.tar), as a path on the controller.
    type: path
  strategy:
    description: The strategy of this rollout, where it is not the one of the inventory.
    type: str
  server:
    description: The model server, as a wheel or as its source folder; the one that came with the collection by default.
    type: path
"""

EXAMPLES = r"""
- name: Check a deploy
  modelfleet.onprem.rollout_request:
    action: deploy
    services: "{{ modelfleet_services }}"
    service: tumour
    bundle: bundles/tumour-3
  register: checked
"""

RETURN = r"""
request:
  description: What is asked for, with the hosts and balancers it is about.
  returned: success
  type: dict
  sample:
    action: rollback
    service: tumour
    hosts: [model1, model2]
    balancers: [lb1]
    machines: [lb1, model1, model2]
"""
