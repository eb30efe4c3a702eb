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
  - Puts gates to a model server by asking it directly, past the balancers, in the order in which they are told here.
  - V(ready) wants it to be ready for the service, and V(version) to have loaded the very bundle that is asked for.
  - V(golden) wants every worker to answer the golden rows as the model did when the bundle was built. Of a server that
    takes fewer rows at once (V(413)) fewer are asked at once.
  - V(replay) sends recent captured requests to it and to the old release at O(baseline); without that one, what the
    release that it O(replaces) answered when they were captured counts, and no other release's answers. It compares
    the share of labels that flip, by the upper end of its Wilson interval, the largest and the p99 change of score,
    and each segment of a column, which is each of its values, or a quarter of a column of many numbers. All rows
    together and each segment must be within the thresholds. What has fewer than C(min_rows) rows is inconclusive. So is
    what has too few for the interval of no flip at all to be low enough, unless even its lower end is too high, which
    fails. Where nothing fails and a segment is inconclusive, the gate is, and says which are and how many rows it
    takes. Where the new release gives no scores, or of another number of classes, the changes of score are
    inconclusive. Scores are probabilities. Those of regressions and of anomaly detectors are in standard deviations of
    the old release's answers.
  - V(latency) wants p99 of single golden rows within C(max_ms), and within C(factor) times what the release at
    O(baseline) takes, asked in turns, up to 600 times each. It fails where more than one in a hundred requests are
    slower than the limit, and chance would hardly give so many more than one in a hundred (C(max_ms)), or than the old
    release has (C(factor)). Golden rows that the old release refuses are asked of neither. Where it O(replaces) a
    release that cannot be asked, refuses all or stops answering, it is inconclusive whether the factor holds. Without
    either the factor is not looked at.
  - Where the slots of O(service) want API keys, those on this host are asked with the key that
    M(modelfleet.onprem.model_slot) made for it. No other address is ever sent that key.
  - A gate of mode V(warn) that does not hold is told and does no more. The first one that blocks ends the run and fails
    it.
  - Of O(several) model servers, one is asked after the other, so that none takes another's time while it is measured.
options:
  address:
    description:
      - The model server, as C(host:port).
      - If it is not given, where O(slot) listens. One of these is needed unless O(several) is given.
    type: str
  service:
    description: The service that it must be ready for. Needed when O(slot) is given.
    type: str
  slot:
    description:
      - The slot of O(service) on this host that is asked. What it was started with says where it listens and where its
        golden rows are.
    type: str
    choices: [blue, green]
  version:
    description: The version that it must have loaded.
    type: str
  digest:
    description:
      - The sha256 of the manifest of the bundle that it must have loaded, or its first digits.
      - If it is not given, that of the release in O(slot).
    type: str
  golden:
    description:
      - The golden rows, a file C(golden.json) of a bundle on the host. Needed by V(golden), V(replay) and V(latency).
        The contract is the file C(contract.json) beside it.
      - If it is not given, that of the bundle in O(slot).
    type: path
  baseline:
    description:
      - The old release that runs beside this one, as C(host:port), or as the slot of O(service) on this host.
      - A slot that does not run is as if it were not given.
    type: str
  replaces:
    description:
      - The release that serves before this one, also where it does not run beside it.
      - Without one, and without O(baseline), V(replay) passes, with nothing to compare with, and V(latency) looks at
        C(max_ms) alone.
    type: str
  gates:
    description:
      - The policy of each gate that is to be put, by its name, a mapping with C(mode), one of V(enforce), V(warn) and
        V(off), and with thresholds.
      - A service's whole policy may be given. The gates of other modules are passed over.
      - For V(latency), C(factor), C(max_ms) and C(inconclusive), V(pass) or V(fail).
      - For V(replay), C(rows), at most so many of the newest (V(2000)); C(min_rows), at least so many of all and of
        each segment (V(100)); C(max_flip_rate) (V(0.01)), which a row that only the new release refuses counts for too;
        C(max_change) and C(max_p99_change); C(segment), a column; C(requests), a file of captured lines on the
        controller, relative to the inventory's folder, in place of what the service captured; and C(inconclusive),
        V(pass) or V(fail).
    type: dict
    default:
      ready: {mode: enforce}
      version: {mode: enforce}
      golden: {mode: enforce}
  timeout:
    description: Seconds within which each single request must be answered.
    type: int
    default: 10
extends_documentation_fragment:
  - modelfleet.onprem.several
  - modelfleet.onprem.attributes.info
  - modelfleet.onprem.attributes.action
attributes:
  check_mode:
    details: It changes nothing in any mode, so it asks the model server that runs, also in check mode.
seealso:
  - module: modelfleet.onprem.model_slot
"""

EXAMPLES = r"""
- name: Check the green slot
  modelfleet.onprem.model_probe:
    service: tumour
    slot: green
    version: "3"
    digest: 0a1b2c3d4e5f
    baseline: blue
    replaces: 2-5e6f0a1b2c3d
    gates:
      ready: {mode: enforce}
      version: {mode: enforce}
      golden: {mode: enforce}
      replay: {mode: enforce, max_flip_rate: 0.02, inconclusive: fail}
      latency: {mode: warn, factor: 3, max_ms: 50}

- name: See whether a model that takes its time still answers as when it was built, whoever is served by it now
  modelfleet.onprem.model_probe:
    address: 127.0.0.1:8101
    golden: /var/lib/modelfleet/tumour/blue/bundle/golden.json
    gates:
      golden: {mode: enforce}
    timeout: 60

- name: Check what two services have started
  modelfleet.onprem.model_probe:
    several:
      - service: tumour
        slot: green
        version: "3"
      - service: iris
        slot: blue
        version: "7"
        gates:
          ready: {mode: enforce}
          version: {mode: enforce}
"""

RETURN = r"""
service:
  description: The service, if one was given.
  returned: unless O(several) is given and nothing failed
  type: str
  sample: tumour
slot:
  description: The slot, if one was given.
  returned: unless O(several) is given and nothing failed
  type: str
  sample: green
address:
  description: The model server that was asked; null if it is not known where O(slot) listens.
  returned: unless O(several) is given and nothing failed
  type: str
  sample: 127.0.0.1:8102
gates:
  description: A verdict for each gate, up to the first one that blocks.
  returned: unless O(several) is given and nothing failed
  type: list
  elements: dict
  contains:
    gate:
      description: The gate.
      type: str
      sample: golden
    where:
      description: What was asked.
      type: str
      sample: 127.0.0.1:8102/predict
    mode:
      description: The mode that the policy gives it.
      type: str
      sample: enforce
    verdict:
      description: V(pass), V(fail), V(warn), V(inconclusive) or V(off).
      type: str
      sample: pass
    expected:
      description: What was expected, in words.
      type: str
      sample: the answers to 20 golden rows from each of 2 workers
    found:
      description: What was found, in words.
      type: str
      sample: the same
    seconds:
      description: How long the gate took.
      type: float
      sample: 0.012
    details:
      description: Figures, where a gate has some.
      type: dict
      sample: {"workers": 2}
golden_answers:
  description: What the model server answered to the golden rows, to be compared with other hosts, and their tolerance.
  returned: when the gate V(golden) was put and answered
  type: dict
  sample:
    predictions: [1, 0]
    probabilities: null
    scores: null
    tolerance: {"relative": 1.0e-6, "absolute": 1.0e-9}
several:
  description:
    - All of this for each model server that was asked, in order, with C(changed), and with C(failed) for one that a
      gate blocked.
    - What that one returned is there beside it, too.
  returned: when O(several) is given
  type: list
  elements: dict
  sample:
    - {"service": "tumour", "slot": "green", "changed": false, "address": "127.0.0.1:8102", "gates": []}
"""

import json
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelfleet.onprem.plugins.module_utils import _systemd
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import CONTRACT, GOLDEN
from ansible_collections.modelfleet.onprem.plugins.module_utils._captured import Columns, read_columns
from ansible_collections.modelfleet.onprem.plugins.module_utils._gates import (
    DEFAULT_GATES,
    GATES,
    Expected,
    Golden,
    choose_gates,
    run_gates,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._http import Server
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import (
    SLOTS,
    Layout,
    check_service,
    digest_of,
    unit,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._several import (
    Options,
    Params,
    Result,
    failure,
    run,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._slot import (
    SlotError,
    listening_address,
    parse_settings,
    read_gate_key,
    read_text,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._verdict import parse_policies

OPTIONS = Options(
    {
        "address": {"type": "str"},
        "service": {"type": "str"},
        "slot": {"type": "str", "choices": list(SLOTS)},
        "version": {"type": "str"},
        "digest": {"type": "str"},
        "golden": {"type": "path"},
        "baseline": {"type": "str"},
        "replaces": {"type": "str"},
        "gates": {"type": "dict", "default": {gate: {"mode": "enforce"} for gate in DEFAULT_GATES}},
        "timeout": {"type": "int", "default": 10},
    },
    rules={"required_one_of": [["address", "slot"]], "required_by": {"slot": ["service"]}},
    leading=("address", "slot"),
)


def read_golden(path: Path) -> Golden:
    """The golden rows in ``path``."""
    try:
        document = json.loads(path.read_bytes())
        return Golden(
            document["instances"],
            document["predictions"],
            document.get("probabilities"),
            document.get("scores"),
            document["tolerance"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected golden rows, found: {error!r}") from error


def in_slot(params: Params, layout: Layout) -> Params:
    """``params`` with what is not given as the slot was started with; SlotError if it never was."""
    service, slot = params["service"], params["slot"]
    if slot is None:
        return params
    path = layout.settings(check_service(service), slot)
    settings = parse_settings(read_text(path))
    bundle = settings.get("MODEL_BUNDLE")
    if not bundle:
        raise SlotError(f"{path}: expected the settings of {service} {slot}, found none: run model_slot first")
    found = {
        "address": listening_address(settings),
        "golden": f"{bundle}/{GOLDEN}",
        "digest": digest_of(Path(bundle).parent.name),
    }
    return {**params, **{name: value for name, value in found.items() if params[name] is None}}


def find_baseline(params: Params, layout: Layout) -> str | None:
    """The address of the old release, if there is one."""
    service, baseline = params["service"], params["baseline"]
    if baseline not in SLOTS:
        return baseline or None
    if _systemd.show_one(unit(service, baseline)).active != "active":
        return None
    return slot_address(layout, service, baseline)


def slot_address(layout: Layout, service: str, slot: str) -> str:
    return listening_address(parse_settings(read_text(layout.settings(service, slot))))


def find_keys(service: str | None, layout: Layout) -> dict[str, str]:
    """The gates' API key by the addresses that take it: those of the service's slots on this host, and no other."""
    key = read_gate_key(layout, service) if service else None
    return {slot_address(layout, service, slot): key for slot in SLOTS} if service and key else {}


def read_expected(params: Params, layout: Layout) -> Expected:
    """What the gates compare with."""
    service = params["service"]
    path = Path(params["golden"]) if params["golden"] else None
    replays = parse_policies(params["gates"], GATES).get("replay", {"mode": "off"})["mode"] != "off"
    files = [file for slot in SLOTS for file in layout.captured(service, slot)] if replays and service else []
    return Expected(
        service,
        params["version"],
        params["digest"],
        read_golden(path) if path else None,
        find_baseline(params, layout),
        params["replaces"],
        sorted(files, key=lambda file: file.name, reverse=True),
        read_columns(path.with_name(CONTRACT)) if path and replays else Columns(),
        find_keys(service, layout),
    )


def probe(params: Params, layout: Layout) -> Result:
    """What came of putting the gates to the model server."""
    address = params["address"]
    try:
        params = in_slot(params, layout)
        address = params["address"]
        expected = read_expected(params, layout)
        gates = choose_gates(params["gates"], expected)
        with Server(address, params["timeout"], expected.keys.get(address)) as server:
            put = run_gates(server, gates, expected)
    except (ValueError, OSError) as error:
        return failure(error, address=address, gates=[])
    blocked = {"failed": True, "msg": put.problem} if put.problem else {}
    return {"changed": False, "address": address, "gates": put.verdicts, **put.gives, **blocked}


def main() -> None:
    module = AnsibleModule(**OPTIONS.of_module(), supports_check_mode=True)
    result = run(OPTIONS, module.params, lambda params: probe(params, Layout()))
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
