# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemctl and journalctl print, read."""

from __future__ import annotations

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._systemd import (
    LogLine,
    UnitState,
    describe_end,
    last_words,
    parse_journal,
    parse_show,
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
