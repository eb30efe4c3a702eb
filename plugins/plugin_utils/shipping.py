# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a file from the controller to a host, for the module that an action plugin runs there next."""

from __future__ import annotations

from pathlib import Path

from ansible.plugins.action import ActionBase


def ship(action: ActionBase, local: Path, name: str | None = None) -> str:
    """The path of ``local`` on the host, in the temporary folder that Ansible removes when the action is done.

    It is called ``name`` there, for an action that ships several, or as it is here.
    """
    shell = action._connection._shell
    # Ansible removes one such folder an action, so there must not be a second.
    folder = shell.tmpdir or action._make_tmp_path()
    remote: str = shell.join_path(folder, name or local.name)
    action._transfer_file(str(local), remote)
    action._fixup_perms2((folder, remote))
    return remote
