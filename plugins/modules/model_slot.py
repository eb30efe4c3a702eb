#!/usr/bin/python
# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start, restart or stop a slot of a service, and wait until it is ready."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_slot
short_description: Start, restart or stop a slot of a service on a model host
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - A service has two places on a host where it can run, the slots V(blue) and V(green). This module points a slot to
    a release, writes its settings and limits, starts its systemd unit and waits until the model server in it says
    that it is ready with this very release.
  - A slot that runs already with exactly this release, environment, settings and limits, and is ready, is left alone.
    Another one is stopped first, so that no process ever sees another release's files.
  - If a start fails, the unit is stopped and the end of its log comes back in RV(log).
  - Another run that is starting or stopping a slot of the service on this host is waited for.
  - Of O(several) services, as many are started or stopped at once as the host has processors. What is asked for of one
    service is done in order. All are attempted, whichever fails; the first in order that did is what the module fails
    with.
options:
  service:
    description: The service. Needed unless O(several) is given.
    type: str
  slot:
    description: The slot. Needed unless O(several) is given.
    type: str
    choices: [blue, green]
  state:
    description:
      - V(started) starts the slot unless it runs as asked for.
      - V(restarted) starts it anew though it runs so, as after a file that it has read was changed, such as that of its
        API keys. Until it is ready again it answers nothing, so take it out of the balancer before.
      - V(stopped) lets requests in flight finish and ends it.
      - A started slot is started again when the machine boots, a stopped one is not.
    type: str
    choices: [started, restarted, stopped]
    default: started
  release:
    description:
      - The release to start, as M(modelfleet.onprem.model_release) placed it.
      - If it is not given, the one that the slot points to already.
    type: str
  settings:
    description:
      - The model server's settings, as environment variables, such as C(BIND) and C(WORKERS).
      - C(MODEL_BUNDLE), C(MODEL_DIGEST), C(MODEL_ENV) and C(MODEL_SERVICE) are set by the slot itself.
      - If they are not given, those that the slot has already.
      - With C(API_KEYS) so is C(GATE_KEY_SHA256), the sha256 of a random key of this host and service. The key is kept
        in C(/etc/modelfleet/SERVICE.key), which is root's alone, for M(modelfleet.onprem.model_probe). Where that file
        is removed, the next start makes another key.
      - They are part of what the module returns and of its diff, so they are no place for a secret.
    type: dict
  limits:
    description:
      - Limits of the unit by systemd's names, such as C(MemoryMax) and C(TasksMax).
      - C(TimeoutStopSec) follows from the setting C(GRACEFUL_TIMEOUT).
      - If they are not given, those that the slot has already.
    type: dict
  ready_timeout:
    description: Seconds from the start until the model server has to be ready.
    type: int
    default: 60
extends_documentation_fragment:
  - modelfleet.onprem.several
  - modelfleet.onprem.attributes
attributes:
  check_mode:
    details: A release that is not on the host is no failure in check mode, for an earlier step would have placed it.
seealso:
  - module: modelfleet.onprem.model_probe
"""

EXAMPLES = r"""
- name: Start the release in the idle slot
  modelfleet.onprem.model_slot:
    service: tumour
    slot: green
    release: 3-0a1b2c3d4e5f
    settings:
      BIND: 0.0.0.0:8102
      WORKERS: 2
    limits:
      MemoryMax: 1G

- name: Start a slot anew as it is, for its file of API keys has changed
  modelfleet.onprem.model_slot:
    service: tumour
    slot: green
    state: restarted

- name: Stop the old slot
  modelfleet.onprem.model_slot:
    service: tumour
    slot: blue
    state: stopped

- name: Start the releases of two services at once
  modelfleet.onprem.model_slot:
    several:
      - service: tumour
        slot: green
        release: 3-0a1b2c3d4e5f
        settings:
          BIND: 0.0.0.0:8102
      - service: iris
        slot: blue
        release: 7-6a5b4c3d2e1f
        settings:
          BIND: 0.0.0.0:8201
"""

RETURN = r"""
service:
  description: The service.
  returned: unless O(several) is given and nothing failed
  type: str
  sample: tumour
slot:
  description: The slot.
  returned: unless O(several) is given and nothing failed
  type: str
  sample: green
before:
  description: The slot before; null if it never had a release.
  returned: success, unless O(several) is given
  type: dict
  sample: null
after:
  description: The slot afterwards, in check mode what it would be, as far as that is known.
  returned: success, unless O(several) is given
  type: dict
  contains:
    release:
      description: The release that the slot points to.
      type: str
      sample: 3-0a1b2c3d4e5f
    env:
      description: The environment that the release runs in.
      type: str
      sample: 9c56cc51b374c3ba
    settings:
      description: The model server's settings.
      type: dict
      sample: {"BIND": "0.0.0.0:8102", "WORKERS": "2"}
    limits:
      description: The unit's limits.
      type: dict
      sample: {"MemoryMax": "1G"}
    unit:
      description: The state of the systemd unit.
      type: str
      sample: active
    started:
      description: The release and the environment that it was started with, once it was ready.
      type: dict
      sample: {"release": "3-0a1b2c3d4e5f", "env": "9c56cc51b374c3ba"}
    ready:
      description: Whether the model server says that it is ready.
      type: bool
      sample: true
    digest:
      description: The sha256 of the manifest of the bundle that the model server has loaded.
      type: str
      sample: 0a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6e7f8a9b0c1d2e3f4a5b6c7d8e9f0a1b
address:
  description: Where the model server answers.
  returned: when O(state=started) or O(state=restarted), on success
  type: str
  sample: 127.0.0.1:8102
seconds:
  description: How long it took from the start until the slot was ready.
  returned: when it was started
  type: float
  sample: 1.38
log:
  description: The last lines that the unit logged in this start, at most 30.
  returned: when a start fails
  type: list
  elements: str
  sample: ["model.pkl: expected scikit-learn 1.9.1, found 1.8.0"]
gates:
  description:
    - The verdict of the gate C(ready), for a slot that does not start is not ready, whatever the gate's mode is.
    - That of the gate C(digest) instead, as M(modelfleet.onprem.model_release) returns it, where the release's bytes
      are not those that were placed.
  returned: when a start fails
  type: list
  elements: dict
  sample:
    - gate: ready
      where: model-server@tumour-green.service
      mode: enforce
      verdict: fail
      expected: it to start
      found: "its process ended with status 1; its last words: model.pkl: expected scikit-learn 1.9.1, found 1.8.0"
      seconds: 2.05
several:
  description:
    - All of this for each service, in order, with C(changed), and with C(failed) for one that could not be started or
      stopped.
    - What the first that failed returned is there beside it, too.
  returned: when O(several) is given
  type: list
  elements: dict
  sample:
    - {"service": "tumour", "slot": "green", "changed": true, "before": null, "after": {"release": "3-0a1b2c3d4e5f"}}
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelfleet.onprem.plugins.module_utils import _systemd
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import BundleError
from ansible_collections.modelfleet.onprem.plugins.module_utils._files import (
    DiskError,
    make_folder,
    only_one,
    write_file,
    write_link,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._http import HttpError, Server, read_ready
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import (
    SLOTS,
    Layout,
    LayoutError,
    check_release,
    check_service,
    release_in,
    unit,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._several import (
    Options,
    Params,
    Result,
    at_once,
    failure,
    run,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._slot import (
    OWN_SETTINGS,
    STOP_MARGIN,
    SlotError,
    Start,
    check_placed,
    is_release,
    is_started,
    listening_address,
    parse_limits,
    parse_settings,
    plan_start,
    read_text,
    render_limits,
    render_settings,
    with_gate_key,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._slot_state import read_slot
from ansible_collections.modelfleet.onprem.plugins.module_utils._systemd import StartFailedError, SystemdError
from ansible_collections.modelfleet.onprem.plugins.module_utils._trust import TrustError, check_bytes
from ansible_collections.modelfleet.onprem.plugins.module_utils._verdict import Finding, put_gates

OPTIONS = Options(
    {
        "service": {"type": "str", "required": True},
        "slot": {"type": "str", "choices": list(SLOTS), "required": True},
        "state": {"type": "str", "choices": ["started", "restarted", "stopped"], "default": "started"},
        "release": {"type": "str"},
        "settings": {"type": "dict"},
        "limits": {"type": "dict"},
        "ready_timeout": {"type": "int", "default": 60},
    }
)
LOG_LINES = 30
POLL_SECONDS = 0.1
ASK_SECONDS = 5


class StartError(SlotError):
    """A start failed; ``log`` has the unit's last lines, and ``gates`` the verdict of the gate that says so."""

    def __init__(self, message: str, log: list[str], gates: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(message)
        self.log = log
        self.gates = list(gates)


def wanted_release(params: Params, layout: Layout) -> str:
    """The release to start: the one given, or the one that the slot has."""
    service, slot = params["service"], params["slot"]
    release = params["release"] or release_in(layout, service, slot)
    if not release:
        raise SlotError(f"release: expected one to start, for {service} {slot} has none yet, found none")
    return check_release(release)


def wanted_start(params: Params, layout: Layout) -> Start:
    """What the slot is to be started with: what is not given is as the slot has it."""
    service, slot = check_service(params["service"]), params["slot"]
    release, settings, limits = wanted_release(params, layout), params["settings"], params["limits"]
    if settings is None:
        settings = parse_settings(read_text(layout.settings(service, slot)))
        if release != release_in(layout, service, slot):
            settings = {name: value for name, value in settings.items() if name not in OWN_SETTINGS}
    if limits is None:
        limits = parse_limits(read_text(layout.limits(service, slot)))
    return plan_start(layout, service, release, settings, limits)


def runs_as(layout: Layout, service: str, slot: str, before: Mapping[str, Any] | None, start: Start) -> bool:
    """Whether the slot was started with exactly ``start`` and is ready."""
    return (
        before is not None
        and before["unit"] == "active"
        and before["ready"]
        and is_release(before["digest"], start.release)
        and is_started(layout, service, slot, start)
    )


def stop_unit(layout: Layout, service: str, slot: str, settings: Mapping[str, str]) -> None:
    """End the slot's processes, requests in flight first."""
    graceful = settings.get("GRACEFUL_TIMEOUT", "")
    # Longer than systemd waits itself before it kills.
    seconds = (int(graceful) if graceful.isdigit() else 90) + 2 * STOP_MARGIN
    layout.record(service, slot).unlink(missing_ok=True)
    _systemd.stop(unit(service, slot), seconds)


def write(layout: Layout, service: str, slot: str, start: Start) -> None:
    """Make ``start`` what the slot's unit starts with."""
    settings, limits = layout.settings(service, slot), layout.limits(service, slot)
    for path in (settings, limits):
        make_folder(path.parent)
    write_file(settings, render_settings(start.settings), mode=0o640)
    drop_in = render_limits(start.limits, start.settings)
    if read_text(limits) != drop_in:
        write_file(limits, drop_in)
        _systemd.reload()
    if release_in(layout, service, slot) != start.release:
        write_link(layout.slot(service, slot), f"releases/{start.release}")


def launch(layout: Layout, service: str, slot: str, start: Start, address: str, seconds: int) -> None:
    """Start the unit, wait until it is ready with the release, and only then have it started at boot."""
    name = unit(service, slot)
    began, started = time.time(), time.monotonic()
    deadline = started + seconds
    try:
        _systemd.start(name, seconds)
        wait_until_ready(name, start.release, address, deadline, seconds)
    except SystemdError as error:
        took = time.monotonic() - started
        log = _systemd.journal(name, began, LOG_LINES)
        stop_unit(layout, service, slot, start.settings)
        _systemd.disable(name)
        said = _systemd.last_words(log)
        words = f"; its last words: {said[:300]}" if said else ""
        lines = [line.text for line in log]
        try:
            check_bytes(layout.release(service, start.release), start.release)
        except TrustError as changed:
            raise StartError(str(changed), lines, changed.verdicts) from error
        raise StartError(f"{name}: {error}{words}", lines, not_ready(name, error, words, took)) from error
    _systemd.enable(name)
    # Root's alone, for the settings may hold secrets.
    write_file(layout.record(service, slot), start.to_json(), mode=0o600)


def not_ready(name: str, error: SystemdError, words: str, seconds: float) -> list[dict[str, Any]]:
    """The verdict of the gate ready on a unit that did not get as far as to be asked, whatever the gate's mode is."""
    failed = isinstance(error, StartFailedError)
    expected, found = (error.expected, error.found) if failed else ("it to start", str(error))
    finding = Finding(False, expected, found + words, seconds=seconds)
    return put_gates({"ready": {"mode": "enforce"}}, {"ready": name}, lambda _gate: finding).verdicts


def wait_until_ready(name: str, release: str, address: str, deadline: float, seconds: int) -> None:
    """Ask ``address`` until it is ready with ``release``.

    StartFailedError if it is another one, or not by ``deadline``.
    """
    invocation = _systemd.show_one(name).invocation
    while True:
        with Server(address, max(0.1, min(ASK_SECONDS, deadline - time.monotonic()))) as server:
            answer = read_ready(server)
        if answer.ready:
            if not is_release(answer.digest, release):
                raise StartFailedError(f"{release} to answer at {address}", f"the bundle {answer.digest}")
            return
        state = _systemd.show_one(name)
        if state.active != "active" or state.restarts or state.invocation != invocation:
            raise StartFailedError("it to become ready", _systemd.describe_end(state))
        if time.monotonic() >= deadline:
            raise StartFailedError(f"it to be ready within {seconds} s", answer.found)
        time.sleep(POLL_SECONDS)


def ensure_started(params: Params, layout: Layout, check_mode: bool) -> Result:
    """Start the slot with what is asked for, unless it runs so and is not to be restarted."""
    service, slot = params["service"], params["slot"]
    start = wanted_start(params, layout)
    render_settings(start.settings), render_limits(start.limits, start.settings)
    if not check_mode or layout.release(service, start.release).exists():
        try:
            check_placed(layout, service, start)
        except TrustError as changed:
            raise StartError(str(changed), [], changed.verdicts) from changed
    start = with_gate_key(layout, service, start, check_mode)
    address = listening_address(start.settings)
    before = read_slot(layout, service, slot)
    if params["state"] == "started" and runs_as(layout, service, slot, before, start):
        return {"changed": False, "address": address, "before": before, "after": before}
    planned = {
        **asdict(start),
        "unit": "active",
        "invocation": None,
        "started": {"release": start.release, "env": start.env},
        "ready": True,
        "digest": None,
    }
    if check_mode:
        return {"changed": True, "address": address, "before": before, "after": planned}
    began = time.monotonic()
    stop_unit(layout, service, slot, before["settings"] if before else {})
    write(layout, service, slot, start)
    launch(layout, service, slot, start, address, params["ready_timeout"])
    after = read_slot(layout, service, slot)
    seconds = round(time.monotonic() - began, 2)
    return {"changed": True, "address": address, "before": before, "after": after, "seconds": seconds}


def ensure_stopped(params: Params, layout: Layout, check_mode: bool) -> Result:
    """Stop the slot; its release, settings and limits stay for another start."""
    service, slot = check_service(params["service"]), params["slot"]
    name = unit(service, slot)
    before = read_slot(layout, service, slot)
    state = _systemd.show_one(name)
    changed = _systemd.is_enabled(name) or state.active not in ("inactive", "failed")
    after = (
        {**before, "unit": "inactive", "invocation": None, "started": None, "ready": False, "digest": None}
        if before
        else None
    )
    if changed and not check_mode:
        stop_unit(layout, service, slot, before["settings"] if before else {})
        _systemd.disable(name)
        after = read_slot(layout, service, slot)
    return {"changed": changed, "before": before, "after": after if changed else before}


@contextmanager
def alone(params: Params, layout: Layout, check_mode: bool) -> Iterator[None]:
    """Keep other runs from the slot: one whose controller died goes on here, and would stop what this one starts."""
    folder = layout.service(check_service(params["service"]))
    if check_mode or not folder.is_dir():
        yield
        return
    with only_one(folder, "starting or stopping a slot", params["ready_timeout"] + 120):
        yield


def difference(service: str, slot: str, result: Mapping[str, Any]) -> dict[str, str]:
    header = f"{service} {slot}"
    shown = {side: json.dumps(result[side], indent=2, sort_keys=True) + "\n" for side in ("before", "after")}
    return {"before_header": header, "after_header": header, **shown}


def attempt(params: Params, layout: Layout, check_mode: bool) -> Result:
    """What came of starting or stopping the slot."""
    ensure = ensure_stopped if params["state"] == "stopped" else ensure_started
    try:
        with alone(params, layout, check_mode):
            result = ensure(params, layout, check_mode)
    except StartError as error:
        return failure(error, log=error.log, gates=error.gates)
    except (BundleError, DiskError, HttpError, LayoutError, SlotError, SystemdError, OSError) as error:
        return failure(error)
    return {**result, "diff": difference(params["service"], params["slot"], result)}


def main() -> None:
    module = AnsibleModule(**OPTIONS.of_module(), supports_check_mode=True)
    result = run(OPTIONS, module.params, lambda params: attempt(params, Layout(), module.check_mode), at_once)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
