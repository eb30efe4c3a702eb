# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemctl and journalctl print, read, and what a program in a unit prints, which may be anything."""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils import _systemd
from ansible_collections.modelfleet.onprem.plugins.module_utils._systemd import (
    Ended,
    LogLine,
    SystemdError,
    UnitState,
    describe_end,
    last_words,
    parse_journal,
    parse_show,
    run_unit,
)

# `systemctl show` of systemd 252, one unit that runs and one that does not exist.
SHOWN = """ExecMainStatus=0
Result=success
NRestarts=0
Id=model-server@tumour-blue.service
ActiveState=active
SubState=running
InvocationID=5f3b9a4bb6ab4c2ea6a3a3e7a9a7b0e1

ExecMainStatus=0
Result=success
NRestarts=0
Id=model-server@tumour-green.service
ActiveState=inactive
SubState=dead
InvocationID=
"""


def test_all_units_of_one_call_are_read() -> None:
    states = parse_show(SHOWN)
    blue = states["model-server@tumour-blue.service"]
    assert (blue.active, blue.sub) == ("active", "running")
    assert states["model-server@tumour-green.service"] == UnitState("inactive", "dead", "success", 0, 0, "")


def test_a_log_has_the_units_words_and_systemds() -> None:
    text = (
        '{"MESSAGE": "Starting", "_PID": "1"}\n'
        '{"MESSAGE": [99, 97, 102, 233], "_PID": "77"}\n'
        '{"MESSAGE": null, "_PID": "77"}\n'
        '{"MESSAGE": "Failed", "_PID": "1"}\n'
    )
    log = parse_journal(text)
    assert log == [LogLine("Starting", False), LogLine("caf\ufffd", True), LogLine("Failed", False)]
    assert last_words(log) == "caf\ufffd"
    assert last_words([]) is None


@pytest.mark.parametrize(
    ("result", "status", "words"),
    [
        ("exit-code", 1, "its process ended with status 1"),
        ("oom-kill", 9, "its process was killed for want of memory (see MemoryMax)"),
        ("signal", 11, "its process was ended by signal 11"),
        (
            "signal",
            9,
            "its process was ended by signal 9, which the kernel sends for want of memory (see MemoryMax)",
        ),
        ("start-limit-hit", 0, "failed (start-limit-hit, status 0)"),
    ],
)
def test_an_end_is_described_in_words(result: str, status: int, words: str) -> None:
    assert describe_end(UnitState("failed", "failed", result, status, 0, "")) == words


@pytest.fixture
def run_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Run Python's ``-c PROGRAM`` as a unit, by a systemd-run that does nothing but run it."""
    scripts = {"systemd-run": 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"', "systemctl": f"echo '{SHOWN}'"}
    for name, script in scripts.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    unit = "model-server@tumour-green.service"
    return lambda program, seconds=30: run_unit(unit, [], [sys.executable, "-c", program], seconds)


def test_of_a_program_that_prints_much_the_end_is_kept_and_no_more_is_held(run_program: Callable[..., Ended]) -> None:
    program = "import sys\nfor stream in (sys.stdout, sys.stderr):\n for _ in range(64): stream.write('x' * (1 << 20))"
    tracemalloc.start()
    try:
        ended = run_program(f"{program}\n stream.write('\\nthe end')")
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(ended.output), len(ended.said)) == (1 << 20, 1 << 20)
    assert [text.splitlines()[-1] for text in (ended.output, ended.said)] == ["the end", "the end"]
    assert peak < 16 << 20


def test_what_a_program_prints_need_not_be_text(run_program: Callable[..., Ended]) -> None:
    ended = run_program(r"import os; os.write(1, b'\xff\xfe\n{}'); os.write(2, b'caf\xe9')")
    assert ended == Ended("\ufffd\ufffd\n{}", "caf\ufffd", None)


@pytest.mark.parametrize(
    "program",
    ["while True: print('x' * 4096)", "import os, time; os.close(1); os.close(2); time.sleep(60)"],
    ids=["it prints for ever", "it closed what it prints to"],
)
def test_a_program_that_systemd_does_not_end_is_waited_for_no_longer(
    run_program: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr(_systemd, "_PROGRAM_SECONDS", 3)
    began = time.monotonic()
    with pytest.raises(SystemdError, match=r"expected its end within 0\.2 s, found it still running"):
        run_program(program, 0.2)
    assert time.monotonic() - began < 20
