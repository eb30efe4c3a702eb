# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A play of the collection, run by ansible-playbook itself, with modules that only write down what they were told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
MODULES = ("lb_server", "model_probe", "model_slot")
# A module that Ansible gives its arguments in a file. What it is to fail with is a file beside what it writes.
MODULE = """#!{python}
# WANT_JSON
import json, os, sys
from pathlib import Path
told, folder = json.loads(Path(sys.argv[1]).read_text()), Path({folder!r})
with open(folder / "told", "a") as stream:
    stream.write(json.dumps({{"module": {name!r}, **told}}) + "\\n")
failure = folder / "-".join(["{name}", *filter(None, [told.get("state")])])
if failure.exists():
    print(json.dumps({{"failed": True, "msg": failure.read_text()}}))
else:
    after = {{"settings": {{"MODEL_BUNDLE": "/bundle"}}}}
    print(json.dumps({{"changed": True, "servers": {{}}, "before": None, "after": after, "address": "127.0.0.1:1"}}))
"""
HERE = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False}
# Nothing listens there, so it is unreachable at once.
GONE = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}


@dataclass(frozen=True)
class Run:
    """What a run of a play ended with: its code, what it printed, and what the modules were told, in order."""

    code: int
    output: str
    told: Sequence[Mapping[str, Any]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., Run]:
    """Run a play of ``playbooks/rollout`` for a request and a plan.

    Hosts that are ``gone`` do not answer; ``failing`` has modules that fail, with a dash and their state, and what they
    say; ``variables`` are of every host, and ``extra`` are given with the command.
    """
    collection = tmp_path / "ansible_collections/modelfleet/onprem"
    (collection / "plugins/modules").mkdir(parents=True)
    for name in ("playbooks", "roles", "galaxy.yml"):
        (collection / name).symlink_to(ROOT / name)
    for name in ("filter", "module_utils", "plugin_utils"):
        (collection / "plugins" / name).symlink_to(ROOT / "plugins" / name)
    for name in MODULES:
        (collection / "plugins/modules" / f"{name}.py").write_text(
            MODULE.format(python=sys.executable, name=name, folder=str(tmp_path))
        )

    def run(
        name: str,
        request: Mapping[str, Any],
        plan: Mapping[str, Any],
        gone: Sequence[str] = (),
        failing: Mapping[str, str] | None = None,
        variables: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Run:
        hosts = {host: GONE if host in gone else HERE for host in ("lb1", "lb2", "m1", "m2")}
        (tmp_path / "inventory.yml").write_text(json.dumps({"all": {"hosts": hosts, "vars": variables or {}}}))
        facts = {"checked": {"request": request}, "planned": {"plan": plan}}
        plays = [
            {"hosts": "localhost", "gather_facts": False, "tasks": [{"ansible.builtin.set_fact": facts}]},
            {"import_playbook": str(collection / f"playbooks/rollout/{name}.yml")},
        ]
        (tmp_path / "play.yml").write_text(yaml.safe_dump(plays))
        for what, message in (failing or {}).items():
            (tmp_path / what).write_text(message)
        (tmp_path / "ansible.cfg").write_text(f"[defaults]\ncollections_path = {tmp_path}\n")
        settings = {"ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"), "NO_COLOR": "1"}
        command = [
            Path(sys.executable).with_name("ansible-playbook"),
            "-i",
            "inventory.yml",
            "-e",
            json.dumps(extra or {}),
            "play.yml",
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, **settings}
        )
        told = tmp_path / "told"
        lines = told.read_text().splitlines() if told.exists() else []
        return Run(done.returncode, done.stdout + done.stderr, [json.loads(line) for line in lines])

    return run
