from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from testbed.command import StepError
from testbed.playbook import ansible, playbook

RECAP = """\
PLAY [Move the route] **********************************************************

TASK [Move the route] **********************************************************
changed: [lb1]
lb1                        : this line is of a task, and no count

PLAY RECAP *********************************************************************
lb1                        : ok=6    changed=2    unreachable=0    failed=0    skipped=1    rescued=0    ignored=0
model-1.example            : ok=11   changed=1    unreachable=0    failed=0    skipped=0    rescued=0    ignored=0
"""


@pytest.fixture
def ansible_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a command in the place of ansible-playbook, which keeps its words, prints a text and ends with a status."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    def says(text: str, status: int = 0) -> Path:
        (tmp_path / "output").write_text(text)
        command = tmp_path / "ansible-playbook"
        command.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$@" "$ANSIBLE_NOCOLOR" > {tmp_path}/words\n'
            f"cat {tmp_path}/output\necho trouble >&2\nexit {status}\n"
        )
        command.chmod(0o755)
        return tmp_path / "words"

    return says


def test_the_counts_of_each_host_are_read_from_the_recap(ansible_says) -> None:
    ansible_says(RECAP)
    run = ansible("ansible-playbook")
    assert set(run.counts) == {"lb1", "model-1.example"}
    assert run.counts["lb1"] == {
        "ok": 6,
        "changed": 2,
        "unreachable": 0,
        "failed": 0,
        "skipped": 1,
        "rescued": 0,
        "ignored": 0,
    }
    assert (run.changed, run.output) == (3, RECAP)


def test_a_run_without_hosts_has_no_counts(ansible_says) -> None:
    ansible_says("PLAY RECAP ****\n\n")
    run = ansible("ansible-playbook")
    assert (run.counts, run.changed) == ({}, 0)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, []),
        ({"service": "tumour", "to": "2"}, ["--extra-vars", json.dumps({"service": "tumour", "to": "2"})]),
    ],
)
def test_a_playbook_gets_its_inventory_and_variables(ansible_says, variables, words) -> None:
    kept = ansible_says(RECAP)
    playbook(Path("/inventory"), "rollback", **variables)
    assert kept.read_text().splitlines() == ["--inventory", "/inventory", "playbooks/rollback.yml", *words, "1"]


def test_a_run_that_fails_shows_the_end_of_what_it_said(ansible_says) -> None:
    ansible_says("".join(f"line {number}\n" for number in range(100)), status=2)
    with pytest.raises(StepError) as failed:
        ansible("ansible-playbook", "x.yml")
    lines = str(failed.value).splitlines()
    assert lines[0] == "ansible-playbook x.yml ended with 2:"
    assert (lines[1], lines[-2], lines[-1]) == ("line 61", "line 99", "trouble")
