#!/usr/bin/python
# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check a slot before it gets traffic."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_probe
short_description: Check that a model server may get traffic
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - Puts gates to a model server by asking it directly, past the balancers. V(ready) wants it to be ready for the
    service, V(version) to have loaded the very bundle that is asked for, V(golden) to answer the golden rows as the
    model did when the bundle was built, and V(latency) to answer single golden rows within O(max_latency_ms).
  - A gate that is not among these is refused, with those that there are, before the model server is asked.
  - The first gate that does not hold ends the run and fails it.
options:
  address:
    description: The model server, as C(host:port).
    type: str
    required: true
  service:
    description: The service that it must be ready for.
    type: str
  version:
    description: The version that it must have loaded.
    type: str
  digest:
    description: The sha256 of the manifest of the bundle that it must have loaded, or its first digits.
    type: str
  golden:
    description: The golden rows, a file C(golden.json) of a bundle on the host. Needed by V(golden) and V(latency).
    type: path
  max_latency_ms:
    description:
      - Milliseconds within which 99 of 100 requests of one golden row must be answered.
      - The gate V(latency) is put whenever this is given, after those of O(gates). V(0) is as if it were not.
    type: float
  gates:
    description: The gates, in the order in which they are put.
    type: list
    elements: str
    default: [ready, version, golden]
  timeout:
    description: Seconds within which each single request must be answered.
    type: int
    default: 10
extends_documentation_fragment:
  - modelfleet.onprem.attributes.info
attributes:
  check_mode:
    details: It changes nothing in any mode, so it asks the model server that runs, also in check mode.
seealso:
  - module: modelfleet.onprem.model_slot
"""

EXAMPLES = r"""
- name: Check the green slot
  modelfleet.onprem.model_probe:
    address: 127.0.0.1:8102
    service: tumour
    version: "3"
    digest: 0a1b2c3d4e5f
    golden: /var/lib/modelfleet/tumour/releases/3-0a1b2c3d4e5f/bundle/golden.json
    max_latency_ms: 50

- name: See whether a model that takes its time still answers as when it was built, whoever is served by it now
  modelfleet.onprem.model_probe:
    address: 127.0.0.1:8101
    golden: /var/lib/modelfleet/tumour/blue/bundle/golden.json
    gates: [golden]
    timeout: 60
"""

RETURN = r"""
gates:
  description: What each gate found.
  returned: always
  type: list
  elements: dict
  contains:
    gate:
      description: The gate.
      type: str
      sample: golden
    verdict:
      description: V(pass), V(fail), or V(not run) after one that failed.
      type: str
      sample: pass
    where:
      description: What was asked.
      type: str
      sample: 127.0.0.1:8102/predict
    expected:
      description: What was expected, in words.
      type: str
      sample: the answers to 20 golden rows
    found:
      description: What was found, in words.
      type: str
      sample: the same
    seconds:
      description: How long the gate took.
      type: float
      sample: 0.012
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelfleet.onprem.plugins.module_utils._gates import (
    DEFAULT_GATES,
    Expected,
    Golden,
    choose_gates,
    failure,
    run_gates,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._http import Server

ARGUMENTS = {
    "address": {"type": "str", "required": True},
    "service": {"type": "str"},
    "version": {"type": "str"},
    "digest": {"type": "str"},
    "golden": {"type": "path"},
    "max_latency_ms": {"type": "float"},
    "gates": {"type": "list", "elements": "str", "default": list(DEFAULT_GATES)},
    "timeout": {"type": "int", "default": 10},
}


def read_golden(path: Path) -> Golden:
    """The golden rows in ``path``."""
    try:
        document = json.loads(path.read_bytes())
        return Golden(
            document["instances"], document["predictions"], document.get("probabilities"), document["tolerance"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected golden rows, found: {error!r}") from error


def read_expected(params: Mapping[str, Any]) -> Expected:
    """What the gates compare with."""
    golden = read_golden(Path(params["golden"])) if params["golden"] else None
    return Expected(params["service"], params["version"], params["digest"], golden, params["max_latency_ms"])


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        expected = read_expected(module.params)
        gates = choose_gates(module.params["gates"], expected)
        with Server(module.params["address"], module.params["timeout"]) as server:
            results = run_gates(server, gates, expected)
    except (ValueError, OSError) as error:
        module.fail_json(msg=str(error), gates=[])
    problem = failure(results)
    if problem:
        module.fail_json(msg=problem, gates=results)
    module.exit_json(changed=False, gates=results)


if __name__ == "__main__":
    main()
