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
    that the strategy is known, that the gates' policy can be used, that every byte of the bundle is what its manifest
    says, and, where the service has C(allowed_signers), that one of them signed it.
  - A version, an alias or V(latest) is looked up in the registry once, here. The bundle that it means is fetched into
    the controller's cache, in check mode too, and its digest is that of the whole rollout.
  - Credentials for a registry are taken from E(MODELFLEET_REGISTRY_TOKEN) or from netrc, and are never shown.
  - For a deploy it also finds the model server's wheel, building it in the controller's cache when it is given as
    source.
extends_documentation_fragment:
  - modelfleet.onprem.attributes.info
  - modelfleet.onprem.attributes.action
options:
  action:
    description: >-
      What is asked for. V(status) needs no service and then means all of them. V(resume) with O(balancers) is what the
      rollout was that died.
    type: str
    choices: [deploy, rollback, resume, retire, canary, status]
    default: status
  services:
    description: The definitions of the services, as in C(modelfleet_services).
    type: raw
    required: true
  service:
    description: The service the request is about.
    type: str
  several:
    description:
      - The services that the request is about, where it is about several, which move as one.
      - A list of their names, or a mapping of names to versions, or to mappings with C(version) or C(bundle).
      - Either this or O(service).
    type: raw
  bundle:
    description: The bundle to deploy, a folder or a C(.tar), as a path on the controller.
    type: path
  version:
    description:
      - The version to deploy, out of the registry; an alias of one, or V(latest) for the one published last.
      - Either this or O(bundle).
    type: str
  registry:
    description:
      - The registry, where the service has no key C(registry) of its own; a folder or an http(s) address.
      - A relative folder is below that of the inventory, as those of C(allowed_signers) and C(revoked_keys) are.
    type: str
  strategy:
    description: The strategy of this rollout, where it is not the one of the inventory.
    type: str
  override:
    description:
      - Gates that the service enforces and that shall only warn in this rollout. It wants O(override_reason).
      - Of several services one must enforce each of them, and nothing changes for the others. A rollout that is gone on
        with after the inventory was changed keeps those of its overrides that are needed still.
      - V(digest) and V(signature) cannot be overridden.
    type: list
    elements: str
    default: []
  override_reason:
    description: Why O(override) is given, for whoever reads of this rollout later.
    type: str
  balancers:
    description: >-
      What M(modelfleet.onprem.lb_info) returned as C(load_balancer), by balancer. With it a request is what the rollout
      was that died, for all services that it was about.
    type: dict
  hooks:
    description: Lists of task files for all services, as in C(modelfleet_hooks).
    type: raw
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

- name: Check a deploy of two services that move as one
  modelfleet.onprem.rollout_request:
    action: deploy
    services: "{{ modelfleet_services }}"
    several: {tumour: "7", prices: {bundle: bundles/prices-2}}
  register: checked
"""

RETURN = r"""
request:
  description: >-
    What is asked for, with the hosts and balancers it is about. C(parts) has what is of each service alone; where there
    is one, all of that is beside it, too.
  returned: success, and when a gate refuses the bundle
  type: dict
  sample:
    action: rollback
    service: tumour
    hosts: [model1, model2]
    balancers: [lb1]
    machines: [lb1, model1, model2]
    policy:
      contract: {mode: warn}
      latency: {mode: warn, factor: 3, max_ms: null}
    overrides:
      - {gate: contract, reason: the only client sends the new columns already}
refused:
  description: >-
    Why the gates V(digest) and V(signature) refuse a bundle, and as C(rollout) what the journal is to keep. C(parts) of
    RV(request) have what the gates found.
  returned: when a gate refuses the bundle
  type: dict
  sample:
    reason: >-
      bundle: /bundles/tumour-3: gate signature: expected a signature by release@example.com, found none: have it
      signed (model-bundle sign), or deploy another
"""
