# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What action plugins that do all of their work on the controller have in common."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

Groups = Mapping[str, list[str]]

# Where continuous integration says for whom it runs.
_CI = {
    "GITHUB_ACTOR": "GitHub Actions",
    "GITLAB_USER_LOGIN": "GitLab CI",
    "BUILD_USER_ID": "Jenkins",
    "BUILD_REQUESTEDFOR": "Azure Pipelines",
}


def new_rollout() -> dict[str, Any]:
    """What a rollout is called, who begins it, and where from."""
    return {
        "id": f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}",
        "who": name_user(getpass.getuser(), os.environ),
        "from": socket.gethostname(),
        "process": _own_process(),
    }


def _own_process() -> str | None:
    # An action runs in a child of ansible-playbook.
    return name_process(os.getppid())


def name_user(user: str, environment: Mapping[str, str]) -> str:
    """The user, and whom it acts for: by sudo, or in continuous integration."""
    behind = [f"{environment['SUDO_USER']} by sudo"] if environment.get("SUDO_USER") else []
    behind += [f"{environment[name]} by {system}" for name, system in _CI.items() if environment.get(name)]
    return f"{user} ({', '.join(behind)})" if behind else user


def name_process(pid: int) -> str | None:
    """A process, so that another one with its number is not taken for it; None where that cannot be told."""
    try:
        # After the name, which may have spaces and is in parentheses, the 20th word is when it started.
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
    return f"{pid}-{started}"


def still_runs(process: str) -> bool:
    """Whether the process that ``name_process`` named has not ended, and is another one than this run's own."""
    return process != _own_process() and name_process(int(process.partition("-")[0])) == process


def work_here(
    action: ActionBase,
    tmp: str | None,
    task_vars: dict[str, Any] | None,
    specification: Mapping[str, Any],
    work: Callable[[dict[str, Any], Groups], Mapping[str, Any]],
) -> dict[str, Any]:
    """The result of a task: what ``work`` finds, given the checked arguments and the inventory's groups.

    A ``ValueError`` of ``work`` is the task's failure, and so is a run that leaves hosts out. AnsibleActionFail for
    arguments that are not as specified.
    """
    result: dict[str, Any] = ActionBase.run(action, tmp, task_vars)
    _checked, arguments = action.validate_argument_spec(specification)
    variables = task_vars or {}
    groups = {name: list(hosts) for name, hosts in variables.get("groups", {}).items()}
    if limit := variables.get("ansible_limit"):
        message = f"--limit: expected none, for a playbook is about all hosts of a service, found {limit!r}"
        return {**result, "failed": True, "msg": message}
    try:
        return {**result, "changed": False, **work(arguments, groups)}
    except ValueError as error:
        return {**result, "failed": True, "msg": str(error)}


def inventory_folder(task_vars: Mapping[str, Any]) -> Path:
    """What relative paths in an inventory are meant from: its folder, the last one's where there are several.

    That one has the last word in what variables say, too.
    """
    sources = [Path(source) for source in task_vars.get("ansible_inventory_sources") or () if Path(source).exists()]
    last = sources[-1] if sources else Path.cwd()
    return last if last.is_dir() else last.parent
