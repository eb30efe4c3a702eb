#!/usr/bin/python
# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build a Python environment on a host out of shipped wheels."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_env
short_description: Build a Python environment on a model host
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - Builds the environment that releases run in, out of a folder of wheels on the controller, which
    M(modelfleet.onprem.wheelhouse) gathers there by means of C(uv). The host unpacks them with the Python of its
    distribution; it needs no package index, C(uv), C(pip) or C(venv).
  - An environment's name is a digest of all that goes into it, so an environment with that name is never built
    twice, and every release that needs the same one shares it.
  - The wheels travel only to a host that lacks the environment. It is built beside its place by the Python that it
    is for, byte-compiled, and appears whole or not at all.
options:
  name:
    description:
      - Sixteen hexadecimal digits, a digest of C(env.lock), the model server's wheel, the Python's tag and the
        machine. What was shipped is compared with it.
    type: str
    required: true
  wheels:
    description:
      - Folder on the controller with one wheel of the model server, one of each package to install, and C(env.lock),
        with a line C(name==version) for each of these packages.
      - Needed when the host lacks the environment.
    type: path
  python:
    description: The host's interpreter that the environment is made for.
    type: path
    default: /usr/bin/python3
  size:
    description:
      - Bytes that the environment will take. If they are not free, nothing is shipped.
      - The action plugin works it out from O(wheels).
    type: int
    default: 0
  checksum:
    description: The sha256 of the archive that was shipped. Set by the action plugin.
    type: str
  state:
    description:
      - With V(absent) the environment is removed, unless a release or a slot uses it.
    type: str
    choices: [present, absent]
    default: present
extends_documentation_fragment:
  - modelfleet.onprem.attributes
  - modelfleet.onprem.attributes.action
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  action:
    support: full
seealso:
  - module: modelfleet.onprem.model_release
"""

EXAMPLES = r"""
- name: Build the environment that the release needs
  modelfleet.onprem.model_env:
    name: 9c56cc51b374c3ba
    wheels: wheels/9c56cc51b374c3ba
"""

RETURN = r"""
name:
  description: The environment's name.
  returned: success
  type: str
  sample: 9c56cc51b374c3ba
built:
  description: Whether the environment is on the host now.
  returned: success
  type: bool
  sample: true
seconds:
  description: How long the building took, without the shipping.
  returned: when it was built
  type: float
  sample: 2.41
"""

import hashlib
import inspect
import json
import shutil
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelfleet.onprem.plugins.module_utils import _install
from ansible_collections.modelfleet.onprem.plugins.module_utils._env import (
    EnvError,
    Wheelhouse,
    env_name,
    read_python,
    read_wheelhouse,
    run,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._files import (
    PARTIAL,
    DiskError,
    check_space,
    clear_errors,
    flush_folder,
    make_folder,
    only_one,
    remove_folder,
    remove_partial,
    write_file,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import (
    Layout,
    LayoutError,
    check_env,
    is_complete,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._slot import envs_in_use

ARGUMENTS = {
    "name": {"type": "str", "required": True},
    "wheels": {"type": "path"},
    "python": {"type": "path", "default": "/usr/bin/python3"},
    "size": {"type": "int", "default": 0},
    "checksum": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
BUILD_SECONDS = 600


def build(layout: Layout, name: str, wheels: Path, checksum: str | None, python: str) -> None:
    """Build the environment ``name`` from ``wheels``, a folder or a tar of one, and put it in its place."""
    make_folder(layout.envs)
    with only_one(layout.envs, "building an environment"), clear_errors(layout.envs, f"the environment {name}"):
        remove_partial(layout.envs)
        if is_complete(layout, name):
            return
        partial = layout.envs / f"{PARTIAL}{name}"
        partial.mkdir(mode=0o755)
        try:
            house = read_wheelhouse(unpack(wheels, checksum, partial / "wheels") if wheels.is_file() else wheels)
            about = check_name(name, house, python)
            install(house, python, partial / "env")
            # Before the flush, which would write them to the disk, too.
            shutil.rmtree(partial / "wheels", ignore_errors=True)
            run(["sync", "--file-system", str(partial)], BUILD_SECONDS)
            write_file(partial / "env/env.json", json.dumps({"name": name, **about}, indent=2, sort_keys=True) + "\n")
            place = layout.env(name)
            if place.exists():
                remove_folder(place)
            (partial / "env").rename(place)
            flush_folder(layout.envs)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def unpack(archive: Path, checksum: str | None, into: Path) -> Path:
    """The folder that the shipped ``archive`` holds, once its sha256 is found to be ``checksum``."""
    digest = hashlib.sha256()
    with open(archive, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != checksum:
        raise EnvError(f"{archive}: expected wheels with sha256 {checksum}, found {digest.hexdigest()}")
    into.mkdir()
    with tarfile.open(archive, "r:") as wheels:
        for member in wheels:
            stream_in = wheels.extractfile(member)
            if stream_in is None or Path(member.name).name != member.name:
                raise EnvError(f"{archive}: expected plain files at the top level, found {member.name}")
            with stream_in, open(into / member.name, "xb") as stream_out:
                shutil.copyfileobj(stream_in, stream_out, 1 << 20)
    return into


def check_name(name: str, house: Wheelhouse, python: str) -> dict[str, Any]:
    """What the environment is made of, once that is found to be what ``name`` stands for."""
    found = read_python(python)
    made_of = env_name(house.lock_text, house.server_sha256, found.tag, found.machine)
    if made_of != name:
        raise EnvError(
            f"{python}: expected what the environment {name} was named for, found {found.tag} on {found.machine} "
            f"with {house.server.name} and its lock, which is {made_of}"
        )
    if strangers := [wheel.name for wheel in house.wheels if not found.takes(wheel.name)]:
        raise EnvError(
            f"{python}: expected wheels for {found.tag} on {found.machine} with C library {found.glibc}, "
            f"found {', '.join(strangers)}"
        )
    return {
        "python": {"tag": found.tag, "version": found.version},
        "packages": house.lock_text.splitlines(),
        "server": {"wheel": house.server.name, "sha256": house.server_sha256},
    }


def install(house: Wheelhouse, python: str, env: Path) -> None:
    """Make the environment ``env`` out of the wheels."""
    wheels = [str(wheel) for wheel in house.wheels]
    run([python, "-I", "-S", "-c", inspect.getsource(_install), str(env), *wheels], BUILD_SECONDS)


def remove(layout: Layout, name: str) -> None:
    with only_one(layout.envs, "building an environment"):
        remove_folder(layout.env(name))


def ensure(params: Mapping[str, Any], layout: Layout, check_mode: bool) -> dict[str, Any]:
    """Bring the environment into the state that is asked for, and say what changed."""
    name, present = check_env(params["name"]), params["state"] == "present"
    before = is_complete(layout, name)
    result: dict[str, Any] = {"changed": before != present, "name": name}
    states = {False: "absent\n", True: "present\n"}
    result["diff"] = {"before_header": name, "after_header": name, "before": states[before], "after": states[present]}
    if not present and before and (users := envs_in_use(layout).get(name)):
        raise EnvError(f"{layout.env(name)}: expected nothing that uses it, found {', '.join(users)}")
    if present and not before:
        check_space(layout.envs, params["size"], f"the environment {name}")
    if check_mode or before == present:
        return {**result, "built": before}
    if not present:
        remove(layout, name)
        return {**result, "built": False}
    if params["wheels"] is None:
        # The action plugin asks in this way whether it has to ship the wheels.
        return {**result, "changed": False, "built": False}
    started = time.monotonic()
    build(layout, name, Path(params["wheels"]), params["checksum"], params["python"])
    return {**result, "built": True, "seconds": round(time.monotonic() - started, 2)}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = ensure(module.params, Layout(), module.check_mode)
    except (EnvError, DiskError, LayoutError, OSError, tarfile.TarError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
