"""Runs the shipped playbooks as a user would, and reads what Ansible says it did."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.command import ROOT, StepError

_RECAP = re.compile(r"^(?P<host>\S+)\s*: (?P<counts>ok=\d+.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """One finished run: seconds by the clock, Ansible's counts by host (``changed``, ``failed``…), and its output."""

    seconds: float
    counts: dict[str, dict[str, int]]
    output: str

    @property
    def changed(self) -> int:
        """Changes over all hosts."""
        return sum(counts.get("changed", 0) for counts in self.counts.values())


def ansible(*words: str) -> Run:
    """A command of Ansible out of this checkout's environment; StepError with the end of its output if it fails."""
    command = [str(Path(sys.executable).with_name(words[0])), *words[1:]]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        end = "\n".join((done.stdout + done.stderr).strip().splitlines()[-40:])
        raise StepError(f"{' '.join(words)} ended with {done.returncode}:\n{end}")
    counts = {
        found["host"]: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", found["counts"])}
        for found in _RECAP.finditer(done.stdout)
    }
    return Run(seconds, counts, done.stdout)


def playbook(inventory: Path, name: str, **variables: Any) -> Run:
    """``playbooks/NAME.yml`` on an inventory, with extra variables."""
    extra = ["--extra-vars", json.dumps(variables)] if variables else []
    return ansible("ansible-playbook", "--inventory", str(inventory), f"playbooks/{name}.yml", *extra)
