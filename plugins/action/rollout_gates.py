# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the controller: see the module of the same name for its documentation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.controller import Groups, work_here
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.verdicts import (
    Verdict,
    collect,
    compare_answers,
    failure,
    timed,
    verdict_lines,
)

ARGUMENTS = {
    "parts": {"type": "dict", "required": True},
    "plans": {"type": "list", "elements": "dict"},
    "found": {"type": "dict", "default": {}},
    "judge": {"type": "list", "elements": "dict", "default": []},
    "show": {"type": "bool", "default": False},
}
KINDS = ("placed", "loaded", "started", "gated")
display = Display()


class ActionModule(ActionBase):
    """Collects what the gates of a rollout found; changes nothing and asks no host."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = work_here(self, tmp, task_vars, ARGUMENTS, _work)
        # As it is: a callback that writes YAML would fold the lines, one that writes JSON would quote them.
        if not result.get("failed") and boolean(self._task.args.get("show", False)):
            display.display("\n".join(result["table"]))
        return result


def _work(arguments: dict[str, Any], _groups: Groups) -> dict[str, Any]:
    plans = arguments["plans"] or [{"service": service, "verdicts": []} for service in arguments["parts"]]
    verdicts: list[Verdict] = []
    table: list[str] = []
    disagreements = []
    for plan in plans:
        service = plan["service"]
        part = arguments["parts"][service]
        policy = part["policy"]
        found = {host: services[service] for host, services in arguments["found"].items() if service in services}
        mode, answers = policy["golden"]["mode"], _of(found, "gated", "golden_answers")
        compared = timed(partial(compare_answers, mode, answers))
        of_controller = [*part.get("verdicts", ()), *plan["verdicts"], *arguments["judge"], *compared]
        collected = collect(policy, of_controller, [_of(found, kind, "gates") for kind in KINDS])
        disagreements.append(failure(compared))
        verdicts += [{**each, "service": service} for each in collected] if len(plans) > 1 else collected
        table += [f"{service}:"] if len(plans) > 1 else []
        table += verdict_lines(collected, policy, part["overrides"])
    return {"verdicts": verdicts, "table": table, "disagreement": "; ".join(filter(None, disagreements)) or None}


def _of(found: Mapping[str, Mapping[str, Any]], kind: str, key: str) -> dict[str, Any]:
    """What the results of a kind have as ``key``, by host; a host whose result has none is left out."""
    return {host: results[kind][key] for host, results in found.items() if key in results.get(kind, {})}
