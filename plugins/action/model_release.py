# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ship a bundle to a host that lacks it; the module of the same name places it there."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import BundleError, Manifest, pack, verify
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.shipping import ship

MODULE = "modelfleet.onprem.model_release"


class ActionModule(ActionBase):
    """Checks the bundle, then asks the host: a release that is there costs one short run of the module."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.get("state", "present") == "absent":
            return self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        src = arguments.pop("src", None)
        if not src:
            raise AnsibleActionFail("src: expected a bundle on the controller, a folder or a tar of one, found none")
        bundle = Path(self._loader.path_dwim(src))
        manifest = _checked(bundle, arguments.get("release"), arguments.get("digest"))
        arguments.update(release=manifest.release, digest=manifest.digest, size=manifest.size)
        found = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        # With an address the host has fetched it itself by now, or failed: nothing is shipped instead.
        if arguments.get("url") or found.get("failed") or found.get("changed") or found.get("placed", True):
            return found
        with tempfile.TemporaryDirectory() as temporary:
            archive = bundle
            if bundle.is_dir():
                archive = Path(temporary) / "bundle.tar"
                _packed(bundle, archive)
            arguments["src"] = ship(self, archive)
        return self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)


def _checked(bundle: Path, expected: str | None, digest: str | None) -> Manifest:
    try:
        manifest = verify(bundle)
    except BundleError as error:
        raise AnsibleActionFail(str(error)) from error
    if expected and manifest.release != expected:
        raise AnsibleActionFail(f"{bundle}: expected the bundle {expected}, found {manifest.release}")
    if digest and manifest.digest != digest:
        raise AnsibleActionFail(f"{bundle}: manifest.json: expected sha256 {digest}, found {manifest.digest}")
    return manifest


def _packed(bundle: Path, archive: Path) -> None:
    try:
        pack(bundle, archive)
    except BundleError as error:
        raise AnsibleActionFail(str(error)) from error
