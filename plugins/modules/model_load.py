#!/usr/bin/python
# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load a release in a sandbox before it may start."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_load
short_description: Load a release in a sandbox before it may start
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - A pickle is a program. This module has it run where it can do no harm, in a fresh process under systemd that has the
    limits and the confinement of the installed unit C(model-server@.service), a user that exists for its time alone, no
    network at all, and O(timeout) seconds. As another user than the slots it can neither end nor trace what serves. The
    process checks the digests of the very bytes that it loads, and the packages that are installed, loads the model and
    answers the golden rows. Nothing of it is left running. Of what it prints the last MiB is read, so that one which
    prints without end takes no memory of the host.
  - V(environment) wants the packages to be those of the bundle's lock, the pickle to be of the scikit-learn that is
    installed, and Python to be that of the bundle or a newer one. With an older Python the model is loaded all the
    same, and served where the gate only warns. The others the model server refuses itself, so the gate fails for them
    in any mode.
  - V(load) wants the model to load and to answer, within the limits, and to fit into the host's memory beside what runs
    there. What the process took at most, and once more for each worker what answering added, must not be more than
    C(MemAvailable) of C(/proc/meminfo) and what O(slot) gives back when the release replaces what runs in it.
    Whether the answers are right is what M(modelfleet.onprem.model_probe) asks of each worker.
  - A release that passed on this host in the same environment, with the same settings and limits, is not tried again;
    only whether it fits is looked at anew.
  - Of O(several) releases, each is tried after the one before. What those before it will take once they start, less
    what their slots give back, is not there for it, so that some which do not fit together are refused before any of
    them starts. The first that is refused ends the run.
options:
  service:
    description: The service. Needed unless O(several) is given.
    type: str
  slot:
    description: The slot that the release is to start in. Needed unless O(several) is given.
    type: str
    choices: [blue, green]
  release:
    description:
      - The release to try, as M(modelfleet.onprem.model_release) placed it.
      - Needed unless O(several) is given.
    type: str
  settings:
    description: The model server's settings, as M(modelfleet.onprem.model_slot) will have them.
    type: dict
    default: {}
  limits:
    description: Limits of the unit, as M(modelfleet.onprem.model_slot) will have them.
    type: dict
    default: {}
  timeout:
    description: Seconds within which the model must have loaded and answered.
    type: int
    default: 60
  gates:
    description:
      - The policy of each gate that is to be put, by its name, a mapping with C(mode).
      - A service's whole policy may be given. The gates of other modules are passed over.
    type: dict
    default:
      environment: {mode: enforce}
      load: {mode: enforce}
extends_documentation_fragment:
  - modelfleet.onprem.several
  - modelfleet.onprem.attributes.info
attributes:
  check_mode:
    details:
      - A release that is on the host is tried in check mode too, which changes nothing; that it passed is not kept.
      - One that is not there is no failure, for an earlier step would have placed it; no gate is put to it.
seealso:
  - module: modelfleet.onprem.model_probe
  - module: modelfleet.onprem.model_slot
"""

EXAMPLES = r"""
- name: Load the release before it may start in green
  modelfleet.onprem.model_load:
    service: tumour
    slot: green
    release: 3-0a1b2c3d4e5f
    limits:
      MemoryMax: 1G
    timeout: 60

- name: Load what two services are to start together
  modelfleet.onprem.model_load:
    several:
      - service: tumour
        slot: green
        release: 3-0a1b2c3d4e5f
      - service: iris
        slot: blue
        release: 7-6a5b4c3d2e1f
        timeout: 120
"""

RETURN = r"""
service:
  description: The service.
  returned: unless O(several) is given and nothing failed
  type: str
  sample: tumour
slot:
  description: The slot that the release is to start in.
  returned: unless O(several) is given and nothing failed
  type: str
  sample: green
gates:
  description:
    - A verdict for each gate, up to the first one that blocks.
    - That of the gate C(digest) alone, where the manifest is another one than the release's, or where the release did
      not load and its bytes are not those that were placed.
  returned: unless O(several) is given and nothing failed
  type: list
  elements: dict
  sample:
    - gate: load
      where: /var/lib/modelfleet/tumour/releases/3-0a1b2c3d4e5f
      mode: enforce
      verdict: pass
      expected: a model that loads and answers within 60 s and 1G, and fits into the host's memory
      found: 0.4 s to load, 45 MiB, 20 rows answered
      seconds: 0.71
      details:
        seconds: 0.4
        peak_bytes: 47185920
        needed_bytes: 48234496
        freed_bytes: 0
        available_bytes: 8589934592
tried:
  description: Whether the release was tried now, and not on an earlier day.
  returned: unless O(several) is given and nothing failed
  type: bool
  sample: true
several:
  description:
    - All of this for each release that was tried, in order, with C(changed), and with C(failed) for one that was
      refused.
    - What the refused one returned is there beside it, too.
  returned: when O(several) is given
  type: list
  elements: dict
  sample:
    - {"service": "tumour", "slot": "green", "changed": false, "gates": [], "tried": true}
"""

import json
import time
from dataclasses import replace
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelfleet.onprem.plugins.module_utils import _systemd
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import BundleError
from ansible_collections.modelfleet.onprem.plugins.module_utils._files import (
    DiskError,
    make_folder,
    only_one,
    write_file,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import (
    SLOTS,
    Layout,
    LayoutError,
    check_release,
    check_service,
    trial_unit,
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
    Start,
    check_placed,
    plan_start,
    read_text,
    render_limits,
    render_settings,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._systemd import SystemdError
from ansible_collections.modelfleet.onprem.plugins.module_utils._trial import (
    Memory,
    Trial,
    bind,
    confinement,
    fingerprint,
    judge_environment,
    judge_load,
    memory_max,
    parse_available,
    read_trial,
    takes,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._trust import TrustError, check_bytes
from ansible_collections.modelfleet.onprem.plugins.module_utils._verdict import (
    Finding,
    GateError,
    parse_policies,
    put_gates,
)

GATES = ("environment", "load")
OPTIONS = Options(
    {
        "service": {"type": "str", "required": True},
        "slot": {"type": "str", "choices": list(SLOTS), "required": True},
        "release": {"type": "str", "required": True},
        "settings": {"type": "dict", "default": {}},
        "limits": {"type": "dict", "default": {}},
        "timeout": {"type": "int", "default": 60},
        "gates": {"type": "dict", "default": {gate: {"mode": "enforce"} for gate in GATES}},
    }
)
MEMINFO = Path("/proc/meminfo")


STALE_SECONDS = 120
"""For how much longer than its own time a trial is waited for that another run began."""


def read_stamp(path: Path, mark: str) -> tuple[Trial, str] | None:
    """The trial that the release passed here and when, if it was for the same ``mark``."""
    try:
        stamp = json.loads(read_text(path) or "{}")
    except ValueError:
        return None
    return (Trial(stamp["found"]), stamp["tried"]) if stamp.get("for") == mark else None


def write_stamp(path: Path, mark: str, trial: Trial) -> None:
    tried = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    document = {"for": mark, "tried": tried, "found": trial.document}
    write_file(path, json.dumps(document, indent=2, sort_keys=True) + "\n")


def run_trial(layout: Layout, params: Params, start: Start, confined: list[str]) -> Trial:
    """Load the release in its sandbox."""
    service, slot, seconds = params["service"], params["slot"], params["timeout"]
    settings = layout.trial_settings(service, slot)
    make_folder(settings.parent)
    try:
        # Read by systemd before it gives up its rights; secrets in it are on no command line.
        write_file(settings, render_settings(start.settings), mode=0o600)
        python = Path(start.settings["MODEL_ENV"]) / "bin/python"
        command = [str(python), "-m", "model_server.trial"]
        properties = [*confined, f"EnvironmentFile={settings}"]
        ended = _systemd.run_unit(trial_unit(service, slot), properties, command, seconds)
    finally:
        settings.unlink(missing_ok=True)
    return read_trial(ended, memory_max(confined), seconds)


def load(params: Params, layout: Layout, check_mode: bool, promised: int) -> Result:
    """Put the gates to the release. ``promised`` are bytes that those take which will start before it."""
    policies = parse_policies(params["gates"], GATES)
    service, release = check_service(params["service"]), check_release(params["release"])
    start = plan_start(layout, service, release, params["settings"], params["limits"])
    place = layout.release(service, release)
    began = time.monotonic()
    put = [gate for gate, policy in policies.items() if policy["mode"] != "off"]
    if not put or (check_mode and not place.exists()):
        trial, tried, is_new = Trial({}), None, False
        policies = policies if not put else {}
    else:
        try:
            check_placed(layout, service, start)
        except TrustError as error:
            return failure(error, gates=error.verdicts, tried=False)
        render_limits(start.limits, start.settings)
        confined = confinement(read_text(layout.unit_file()), start.limits)
        mark = fingerprint(start, confined, params["timeout"])
        # One whose controller died goes on here: the unit is its own, and what it finds is good for this one, too.
        with only_one(layout.service(service), "trying a release", params["timeout"] + STALE_SECONDS):
            stamp = read_stamp(layout.trial(service, release), mark)
            trial, tried = stamp or (run_trial(layout, params, start, confined), None)
            is_new = stamp is None
            if not trial.passed:
                check_bytes(place, release)
            if is_new and trial.passed and not check_mode:
                write_stamp(layout.trial(service, release), mark, trial)
    took = time.monotonic() - began

    def check(gate: str) -> Finding:
        if gate == "environment":
            return judge_environment(trial, release)
        freed = _systemd.show_one(unit(service, params["slot"])).memory
        memory = Memory(parse_available(read_text(MEMINFO)), freed, promised)
        workers = int(start.settings.get("WORKERS", "2"))
        finding = judge_load(trial, memory_max(confined), params["timeout"], workers, memory, tried)
        return replace(finding, seconds=took)

    found = put_gates(bind(policies, trial), dict.fromkeys(GATES, str(place)), check)
    blocked = {"failed": True, "msg": found.problem} if found.problem else {}
    return {"changed": False, "gates": found.verdicts, "tried": is_new, **blocked}


def attempt(params: Params, layout: Layout, check_mode: bool, promised: int) -> Result:
    """What came of putting the gates to the release."""
    try:
        return load(params, layout, check_mode, promised)
    except TrustError as error:
        return failure(error, gates=error.verdicts, tried=True)
    except (BundleError, DiskError, GateError, LayoutError, SlotError, SystemdError, OSError) as error:
        return failure(error, gates=[], tried=False)


def main() -> None:
    module = AnsibleModule(**OPTIONS.of_module(), supports_check_mode=True)
    promised: list[int] = []

    def do(params: Params) -> Result:
        result = attempt(params, Layout(), module.check_mode, sum(promised))
        promised.append(takes(result["gates"]))
        return result

    result = run(OPTIONS, module.params, do)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
