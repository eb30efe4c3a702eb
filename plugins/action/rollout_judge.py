# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the controller: see the module of the same name for its documentation."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.canary import decide
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.controller import Groups, work_here

ARGUMENTS = {
    "canary": {"type": "dict", "required": True},
    "step": {"type": "dict", "required": True},
    "window": {"type": "int", "required": True},
    "watched": {"type": "dict", "required": True},
    "held": {"type": "dict", "default": {}},
    "before": {"type": "dict", "default": {}},
}
# How a decision is called where gates' verdicts are: one that is put off is none yet.
_VERDICTS = {"pass": "pass", "promote": "pass", "fail": "fail", "wait": "inconclusive"}


class ActionModule(ActionBase):
    """Decides what follows from a window of a canary; changes nothing."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        return work_here(self, tmp, task_vars, ARGUMENTS, _work)


def _work(arguments: dict[str, Any], _groups: Groups) -> dict[str, Any]:
    started = time.monotonic()
    step, number = arguments["step"], arguments["window"]
    watched = {name: _last(found, arguments["held"].get(name, {})) for name, found in arguments["watched"].items()}
    try:
        decision = decide(arguments["canary"], step["windows"][number], watched, arguments["before"])
    except ValueError as error:
        raise ValueError(f"judge, at {step['shown']}: {error}") from error
    verdict = {
        "gate": "judge",
        "where": "controller",
        "mode": "enforce",
        "verdict": _VERDICTS[decision.outcome],
        "expected": f"no worse answers than those beside it, at {step['shown']}",
        "found": decision.line,
        "seconds": round(time.monotonic() - started, 3),
        "details": {"share": step["share"], "sides": decision.figures, "findings": list(decision.findings)},
    }
    result = {
        "outcome": decision.outcome,
        "next": number + 1,
        "figures": decision.figures,
        "verdict": verdict,
        "msg": f"judge, at {step['shown']}: {decision.line}",
    }
    return {**result, "failed": True} if decision.outcome == "fail" else result


def _last(watched: dict[str, Any], held: dict[str, Any]) -> dict[str, Any]:
    """What was seen on a balancer, and what its operator said and whether it failed while it was held after that."""
    if not held or held.get("skipped"):
        return watched
    if "control" not in held:
        return held
    said = {key: held[key] for key in ("control", "by")}
    return {**watched, **said, "failing": watched["failing"] or held["failing"]}
