# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What action plugins that do all of their work on the controller have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.plugins.action import ActionBase

Groups = Mapping[str, list[str]]


def work_here(
    action: ActionBase,
    tmp: str | None,
    task_vars: dict[str, Any] | None,
    specification: Mapping[str, Any],
    work: Callable[[dict[str, Any], Groups], Mapping[str, Any]],
) -> dict[str, Any]:
    """The result of a task: what ``work`` finds, given the checked arguments and the inventory's groups.

    A ``ValueError`` of ``work`` is the task's failure. AnsibleActionFail for arguments that are not as specified.
    """
    result: dict[str, Any] = ActionBase.run(action, tmp, task_vars)
    _checked, arguments = action.validate_argument_spec(specification)
    groups = {name: list(hosts) for name, hosts in (task_vars or {}).get("groups", {}).items()}
    try:
        return {**result, "changed": False, **work(arguments, groups)}
    except ValueError as error:
        return {**result, "failed": True, "msg": str(error)}
