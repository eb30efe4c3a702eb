# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ship a bundle to a host that lacks it; the module of the same name places it there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import BundleError, Manifest, pack, verify
from ansible_collections.modelfleet.onprem.plugins.module_utils._several import SEVERAL, failure, merge, named
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.shipping import ship

MODULE = "modelfleet.onprem.model_release"

Arguments = Mapping[str, Any]


class ActionModule(ActionBase):
    """Checks the bundles, then asks the host: releases that are there cost one short run of the module."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        several = arguments.get(SEVERAL)
        if several is None:
            return self._place(arguments, task_vars)
        if not isinstance(several, list) or not all(isinstance(each, Mapping) for each in several):
            # The module says what is wrong with it.
            return self._execute(arguments, task_vars)
        return self._place_several(arguments, several, task_vars)

    def _place(self, arguments: Arguments, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        try:
            bundle, asked = self._prepared(arguments)
            found = self._execute(asked, task_vars)
            if bundle is None or not _lacks(asked, found):
                return found
            return self._execute({**asked, "src": self._shipped([bundle])[bundle]}, task_vars)
        except BundleError as error:
            raise AnsibleActionFail(str(error), result=_refused(arguments, error)) from error

    def _place_several(
        self, arguments: Arguments, several: Sequence[Arguments], task_vars: dict[str, Any] | None
    ) -> dict[str, Any]:
        bundles, asked = [], []
        for each in several:
            try:
                bundle, options = self._prepared(each)
            except BundleError as error:
                raise AnsibleActionFail(str(error), result=merge([_refused(each, error)])) from error
            bundles.append(bundle)
            asked.append(options)
        found = self._execute({**arguments, SEVERAL: asked}, task_vars)
        if found.get("failed"):
            return found
        lacking = {
            number: bundle
            for number, bundle in enumerate(bundles)
            if bundle is not None and _lacks(asked[number], found[SEVERAL][number])
        }
        if not lacking:
            return found
        try:
            shipped = self._shipped(lacking.values())
        except BundleError as error:
            raise AnsibleActionFail(str(error)) from error
        placing = [{**asked[number], "src": shipped[bundle]} for number, bundle in lacking.items()]
        return _merged(found, self._execute({**arguments, SEVERAL: placing}, task_vars), list(lacking))

    def _execute(self, arguments: Arguments, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name=MODULE, module_args=dict(arguments), task_vars=task_vars
        )
        return result

    def _prepared(self, arguments: Arguments) -> tuple[Path | None, dict[str, Any]]:
        """The bundle on the controller, checked, and what the host is asked; no bundle if a release is removed."""
        if arguments.get("state", "present") == "absent":
            return None, dict(arguments)
        src = arguments.get("src")
        if not src:
            raise BundleError("src: expected a bundle on the controller, a folder or a tar of one, found none")
        bundle = Path(self._loader.path_dwim(src))
        manifest = _checked(bundle, arguments.get("release"), arguments.get("digest"))
        asked = {name: value for name, value in arguments.items() if name != "src"}
        return bundle, {**asked, "release": manifest.release, "digest": manifest.digest, "size": manifest.size}

    def _shipped(self, bundles: Iterable[Path]) -> dict[Path, str]:
        """Where each of ``bundles`` is on the host now, as a tar; one that several services need is sent once."""
        shipped = {}
        for number, bundle in enumerate(dict.fromkeys(bundles)):
            name = f"bundle-{number}.tar"
            with tempfile.TemporaryDirectory() as temporary:
                archive = bundle
                if bundle.is_dir():
                    archive = Path(temporary) / name
                    pack(bundle, archive)
                shipped[bundle] = ship(self, archive, name)
        return shipped


def _lacks(asked: Arguments, found: Mapping[str, Any]) -> bool:
    # With an address the host has fetched it itself by now, or failed: nothing is shipped instead.
    return not (asked.get("url") or found.get("failed") or found.get("changed") or found.get("placed", True))


def _checked(bundle: Path, expected: str | None, digest: str | None) -> Manifest:
    manifest = verify(bundle)
    if expected and manifest.release != expected:
        raise BundleError(f"{bundle}: expected the bundle {expected}, found {manifest.release}")
    if digest and manifest.digest != digest:
        raise BundleError(f"{bundle}: manifest.json: expected sha256 {digest}, found {manifest.digest}")
    return manifest


def _refused(arguments: Arguments, error: BundleError) -> dict[str, Any]:
    """What the module would return for a bundle that is refused before the host is asked."""
    return {**named(arguments), **failure(error)}


def _merged(found: Mapping[str, Any], placed: dict[str, Any], lacking: Sequence[int]) -> dict[str, Any]:
    """What the host found, with what came of placing the releases of the numbers ``lacking``.

    Those that were not attempted, for one before them failed, are left out.
    """
    if SEVERAL not in placed:
        return placed
    now = dict(zip(lacking, placed[SEVERAL], strict=False))
    kept = [number for number in range(len(found[SEVERAL])) if number in now or number not in lacking]
    return {
        **placed,
        "changed": found["changed"] or placed["changed"],
        SEVERAL: [now.get(number, found[SEVERAL][number]) for number in kept],
        "diff": [*found.get("diff", []), *placed.get("diff", [])],
    }
