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
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.policy import parse_policy

ROOT = Path(__file__).parents[3]
MODULES = (
    *("lb_canary", "lb_control", "lb_info", "lb_maintenance", "lb_rollback", "lb_rollout", "lb_route", "lb_server"),
    "lb_settle",
    *("lb_watch", "model_env", "model_info", "model_load", "model_probe", "model_release", "model_slot"),
)
HERE_ALONE = ("rollout_gates", "rollout_judge", "rollout_plan", "rollout_request", "wheelhouse")
SIDE = {"requests": 9000, "errors": 9, "latency": {"0.01": 8000, "0.1": 8990, "+Inf": 9000}, "predictions": {"0": 9000}}
WATCHED = {"shares": {}, "control": "go", "by": "", "failing": "", "sides": {"baseline": SIDE, "canary": SIDE}}
# A module that Ansible gives its arguments in a file. What it is told of several services it writes down for each. What
# it is to fail with is a file beside that; so is what its calls return, all of them the same or each call another one.
MODULE = """#!{python}
# WANT_JSON
import json, os, sys
from pathlib import Path
told, folder = json.loads(Path(sys.argv[1]).read_text()), Path({folder!r})
asked = told.pop("several", None) or [told]
with open(folder / "told", "a") as stream:
    stream.writelines(json.dumps({{"module": {name!r}, **told, **each}}) + "\\n" for each in asked)
found = {{}}
for answer in sorted(folder.glob("{name}.answer.*")):
    try:
        os.rename(answer, folder / f"taken.{{answer.name}}")
    except FileNotFoundError:
        continue
    found = json.loads((folder / f"taken.{{answer.name}}").read_text())
    break
said = folder / "says-{name}"
failure = folder / "-".join(["{name}", *filter(None, [asked[0].get("state")])])
if failure.exists():
    result = {{"failed": True, "msg": failure.read_text(), **found}}
elif said.exists():
    result = {{**json.loads(said.read_text()), **found}}
else:
    begun = {{"taken_over": [], "servers": {{}}, "routes": {{}}}}
    seen = {{"clock": 0, "failing": {{}}}}
    usual = {{"changed": True, **begun, **seen, "before": None, "after": {{}}}}
    result = {{**usual, **json.loads({watched!r}), **found}}
about = [{{key: each[key] for key in ("service", "slot") if key in each}} for each in asked]
if asked != [told]:
    result["several"] = [{{**result, **each}} for each in about]
print(json.dumps({{**result, **about[0]}}))
"""
GROUPS = {"model_hosts": {"hosts": {"m1": {}, "m2": {}}}}
HERE = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False}
# Nothing listens there, so it is unreachable at once.
GONE = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}


POLICY = parse_policy({"version": "off", "latency": {"max_ms": 5}})


def golden(value: int) -> dict[str, Any]:
    """What model_probe returns of a host that answers the golden row with ``value``."""
    return {
        "golden_answers": {"predictions": [value], "probabilities": None, "tolerance": {"relative": 0, "absolute": 0}}
    }


@dataclass(frozen=True)
class Run:
    """What a run of a play ended with: its code, what it printed, and what the modules were told, in order."""

    code: int
    output: str
    told: Sequence[Mapping[str, Any]]


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """The collection, with modules that do nothing but write down what they were told, and say what they are to say."""
    found = tmp_path / "ansible_collections/modelfleet/onprem"
    for folder in ("modules", "action"):
        (found / "plugins" / folder).mkdir(parents=True)
    for name in ("playbooks", "roles", "galaxy.yml"):
        (found / name).symlink_to(ROOT / name)
    for name in ("filter", "module_utils", "plugin_utils"):
        (found / "plugins" / name).symlink_to(ROOT / "plugins" / name)
    for place in [f"plugins/{kind}/{name}.py" for kind in ("modules", "action") for name in HERE_ALONE]:
        (found / place).symlink_to(ROOT / place)
    for name in MODULES:
        (found / "plugins/modules" / f"{name}.py").write_text(
            MODULE.format(python=sys.executable, name=name, folder=str(tmp_path), watched=json.dumps(WATCHED))
        )
    return found


def run_ansible(
    folder: Path, playbook: str, inventory: Mapping[str, Any], extra: Mapping[str, Any], *options: str
) -> Run:
    (folder / "inventory.yml").write_text(json.dumps(inventory))
    (folder / "ansible.cfg").write_text(f"[defaults]\ncollections_path = {folder}\n")
    settings = {"ANSIBLE_CONFIG": str(folder / "ansible.cfg"), "NO_COLOR": "1"}
    command = [
        Path(sys.executable).with_name("ansible-playbook"),
        "-i",
        "inventory.yml",
        "-e",
        json.dumps(extra),
        *options,
        playbook,
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env={**os.environ, **settings}
    )
    told = folder / "told"
    lines = told.read_text().splitlines() if told.exists() else []
    return Run(done.returncode, done.stdout + done.stderr, [json.loads(line) for line in lines])


def hosts_of(gone: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    return {host: GONE if host in gone else HERE for host in ("lb1", "lb2", "m1", "m2", "m3")}


def whole(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The plan of a run about one service, with what is there whatever a test is about."""
    steps = ("stage", "in_place", "idle", "kept", "running", "unready", "unshare", "record", "stop")
    alone = {"verdicts": [], "service": "tumour", **{step: [] for step in steps}, **plan}
    release, was, slot = alone.get("release") or {}, alone.get("was") or {}, alone.get("slot")
    moves = bool(was.get("release")) and was.get("slot") != slot
    undo = {"service": alone["service"], "stop": list(alone.get("envs", ())), "stop_slot": slot}
    return {
        "plans": [alone],
        "to": {alone["service"]: {"slot": slot, "release": release.get("name")}},
        "back": {alone["service"]: was} if moves else {},
        "up": {alone["service"]: len(alone.get("envs", ()))},
        "left_out": [],
        "undo": [undo] if moves else [],
        "half_done": False,
        **{key: value for key, value in alone.items() if key in plan or key == "verdicts"},
    }


@pytest.fixture
def play(tmp_path: Path, collection: Path) -> Callable[..., Run]:
    """Run a file of ``playbooks/rollout``, or one after the other, for a request and a plan.

    Hosts that are ``gone`` do not answer; ``failing`` has modules that fail, with a dash and their state, and what they
    say; ``answering`` has what a module's calls return besides, in any order; ``variables`` are of every host,
    ``facts`` of the controller, and ``extra`` are given with the command, which may be a ``check``.
    """

    def run(
        names: str | Sequence[str],
        request: Mapping[str, Any],
        plan: Mapping[str, Any],
        gone: Sequence[str] = (),
        failing: Mapping[str, str] | None = None,
        answering: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        variables: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
        check: bool = False,
    ) -> Run:
        # What every plan and request has, whatever a test is about.
        asked = {"hosts": [], "balancers": [], "policy": POLICY, "overrides": [], **request}
        asked = {"parts": {plan.get("service", "tumour"): asked}, **asked}
        known = {"checked": {"request": asked}, "planned": {"plan": whole(plan)}, **(facts or {})}
        plays = [
            {"hosts": "localhost", "gather_facts": False, "tasks": [{"ansible.builtin.set_fact": known}]},
            *(
                {"import_playbook": str(collection / f"playbooks/rollout/{name}.yml")}
                for name in ([names] if isinstance(names, str) else names)
            ),
        ]
        (tmp_path / "play.yml").write_text(yaml.safe_dump(plays))
        for what, message in (failing or {}).items():
            (tmp_path / what).write_text(message)
        for what, answers in (answering or {}).items():
            for place, answer in enumerate(answers):
                (tmp_path / f"{what}.answer.{place}").write_text(json.dumps(answer))
        inventory = {"all": {"hosts": hosts_of(gone), "children": GROUPS, "vars": variables or {}}}
        return run_ansible(tmp_path, "play.yml", inventory, extra or {}, *(["--check"] if check else []))

    return run


@pytest.fixture
def command(tmp_path: Path, collection: Path) -> Callable[..., Run]:
    """Run a playbook of the collection for the service tumour on two hosts behind ``balancers``.

    ``says`` has what modules return, by their names; ``extra`` are given with the command, unless they are None. Hosts
    that are ``gone`` do not answer; clients connect to balancers at the port ``bind``. With ``beside`` the two hosts
    are blue, and this one is green.
    """

    def run(
        name: str,
        says: Mapping[str, Mapping[str, Any]],
        balancers: Sequence[str] = ("lb1",),
        gone: Sequence[str] = (),
        bind: int = 1,
        beside: str = "",
        **extra: Any,
    ) -> Run:
        for module, result in says.items():
            (tmp_path / f"says-{module}").write_text(json.dumps({"changed": False, **result}))
        groups = {"load_balancers": balancers, "model_hosts": ["m1", "m2"], "green_hosts": [beside] if beside else []}
        children = {group: {"hosts": {name: {} for name in names}} for group, names in groups.items()}
        places = {"hosts": {"blue": "model_hosts", "green": "green_hosts"}} if beside else {}
        services = {"tumour": {"port": 8101, **places}}
        variables = {"modelfleet_services": services, "load_balancer_bind": f"*:{bind}"}
        inventory = {"all": {"hosts": hosts_of(gone), "children": children, "vars": variables}}
        given = {"service": "tumour", **extra}
        asked = {key: value for key, value in given.items() if value is not None}
        return run_ansible(tmp_path, str(collection / f"playbooks/{name}.yml"), inventory, asked)

    return run
