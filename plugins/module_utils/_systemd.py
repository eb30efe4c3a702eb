# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drive systemd: the units' states, starting and stopping them, and their last log lines."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

_PROPERTIES = (
    "Id",
    "ActiveState",
    "SubState",
    "Result",
    "ExecMainStatus",
    "NRestarts",
    "InvocationID",
    "MemoryCurrent",
)
_PROGRAM_SECONDS = 30
_KEPT = 1 << 20
_CHUNK = 1 << 16
# With cgroups of version 1, or with OOMPolicy=continue, systemd does not tell the kernel's kill from another.
_SIGNALS = {9: ", which the kernel sends for want of memory (see MemoryMax)"}


class SystemdError(ValueError):
    """systemd did not do what it was asked, in one line."""


class StartFailedError(SystemdError):
    """A unit did not start, or did not get ready: what was ``expected`` and ``found``, in words."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"expected {expected}, found {found}")
        self.expected = expected
        self.found = found


@dataclass(frozen=True)
class UnitState:
    """A unit as systemd shows it. ``active`` and ``sub`` are its states (``active``, ``running``), ``memory`` is what
    it takes now, in bytes."""

    active: str
    sub: str
    result: str
    exit_status: int
    restarts: int
    invocation: str
    memory: int = 0


def parse_show(text: str) -> dict[str, UnitState]:
    """The units in the output of ``systemctl show``: blocks of ``Name=value`` with an empty line between."""
    states = {}
    for block in text.split("\n\n"):
        found = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" in found:
            states[found["Id"]] = UnitState(
                active=found["ActiveState"],
                sub=found["SubState"],
                result=found["Result"],
                exit_status=int(found["ExecMainStatus"] or 0),
                restarts=int(found["NRestarts"] or 0),
                invocation=found["InvocationID"],
                # "[not set]" where it does not run.
                memory=int(memory) if (memory := found.get("MemoryCurrent", "")).isdigit() else 0,
            )
    return states


def show(units: Sequence[str]) -> dict[str, UnitState]:
    """The states of all ``units``, by one call."""
    if not units:
        return {}
    return parse_show(_systemctl("show", f"--property={','.join(_PROPERTIES)}", "--", *units))


def running(pattern: str) -> list[str]:
    """The units whose names match ``pattern`` and that run, or are about to."""
    states = "active,activating,reloading,deactivating"
    lines = _systemctl("list-units", "--plain", "--no-legend", f"--state={states}", "--", pattern).splitlines()
    return sorted(line.split()[0] for line in lines if line.strip())


def show_one(unit: str) -> UnitState:
    return show([unit])[unit]


def reload() -> None:
    """Make systemd read changed unit files."""
    _systemctl("daemon-reload")


def start(unit: str, seconds: float) -> None:
    """Start ``unit`` and wait until it says that it has started; StartFailedError if it does not."""
    # What failed before must not count against this start.
    _run(["systemctl", "reset-failed", "--", unit], _PROGRAM_SECONDS)
    done = _run(["systemctl", "start", "--", unit], seconds)
    if done is None:
        raise StartFailedError(f"it to start within {seconds:g} s", "it still starting")
    if done.returncode:
        state = show_one(unit)
        if state.result == "success":
            raise StartFailedError("it to start", _said(done))
        raise StartFailedError("it to start", describe_end(state))


def stop(unit: str, seconds: float) -> None:
    """Stop ``unit`` and wait until its processes have ended."""
    done = _run(["systemctl", "stop", "--", unit], seconds)
    if done is None:
        raise SystemdError(f"{unit}: expected it to stop within {seconds:g} s, found it still stopping")
    if done.returncode:
        raise SystemdError(f"{unit}: expected it to stop, found: {_said(done)}")


@dataclass(frozen=True)
class Ended:
    """A program that ran in a unit of its own: how it ended, None if it ended well, and what it printed.

    Of each stream it is the last MiB, and what is not UTF-8 in it is replaced.
    """

    output: str
    said: str
    failed: UnitState | None


def run_unit(unit: str, properties: Sequence[str], command: Sequence[str], seconds: float) -> Ended:
    """Run ``command`` in a unit called ``unit`` that has ``properties`` (``Name=value``), and wait for its end.

    It is killed after ``seconds``, with all that it started. No process of it is left in any case.
    """
    # One of a run that was cut short may be there.
    if show_one(unit).active != "inactive":
        stop(unit, _PROGRAM_SECONDS)
        _run(["systemctl", "reset-failed", "--", unit], _PROGRAM_SECONDS)
    options = [f"--property={each}" for each in (*properties, f"RuntimeMaxSec={seconds:g}", "TimeoutStopSec=1")]
    # A unit that failed stays to be asked why: how it ended must not be read from what its own process may print.
    run = ["systemd-run", "--quiet", "--wait", "--pipe", f"--unit={unit}", *options, "--", *command]
    done = _run_talkative(run, seconds + _PROGRAM_SECONDS)
    if done is not None and done.returncode == 0:
        return Ended(done.stdout, done.stderr, None)
    state = show_one(unit)
    _run(["systemctl", "stop", "--", unit], _PROGRAM_SECONDS)
    _run(["systemctl", "reset-failed", "--", unit], _PROGRAM_SECONDS)
    if done is None:
        raise SystemdError(f"{unit}: expected its end within {seconds:g} s, found it still running")
    if state.result == "success":
        raise SystemdError(f"{unit}: expected it to run, found: {_said(done)}")
    return Ended(done.stdout, done.stderr, state)


def is_enabled(unit: str) -> bool:
    """Whether ``unit`` is started when the machine boots, by the files there are now: ``show`` may say what was."""
    done = _run(["systemctl", "is-enabled", "--quiet", "--", unit], _PROGRAM_SECONDS)
    return done is not None and done.returncode == 0


def enable(unit: str) -> None:
    """Have ``unit`` started when the machine boots."""
    _systemctl("enable", "--quiet", "--no-reload", "--", unit)


def disable(unit: str) -> None:
    """Have ``unit`` no longer started when the machine boots."""
    _systemctl("disable", "--quiet", "--no-reload", "--", unit)


@dataclass(frozen=True)
class LogLine:
    """A line of a unit's log. ``own`` tells the unit's own words from those of systemd about it."""

    text: str
    own: bool


def journal(unit: str, since: float, lines: int) -> list[LogLine]:
    """The last log lines of ``unit`` since ``since``, in seconds since the epoch; none if there is no journal."""
    # What was written just now may not be in it yet.
    _run(["journalctl", "--sync"], _PROGRAM_SECONDS)
    selection = [f"--unit={unit}", f"--since=@{since:.3f}", f"--lines={lines}", "--no-pager", "--quiet"]
    output = ["--output=json", "--output-fields=MESSAGE,_PID"]
    done = _run(["journalctl", *selection, *output], _PROGRAM_SECONDS)
    return parse_journal(done.stdout) if done else []


def parse_journal(text: str) -> list[LogLine]:
    """The lines in the output of ``journalctl --output=json``, which has what is not text as a list of bytes."""
    lines = []
    for line in text.splitlines():
        entry = json.loads(line)
        message = entry.get("MESSAGE") or ""
        if isinstance(message, list):
            message = bytes(message).decode(errors="replace")
        if message.strip():
            lines.append(LogLine(message, own=entry.get("_PID") != "1"))
    return lines


def last_words(log: Sequence[LogLine]) -> str | None:
    """The last line that the unit itself logged."""
    return next((line.text for line in reversed(log) if line.own), None)


def describe_end(state: UnitState) -> str:
    """How the unit's process ended, in words."""
    words = {
        "exit-code": f"its process ended with status {state.exit_status}",
        "oom-kill": "its process was killed for want of memory (see MemoryMax)",
        "timeout": "systemd's own time for a start was over",
        "signal": f"its process was ended by signal {state.exit_status}{_SIGNALS.get(state.exit_status, '')}",
        "core-dump": f"its process crashed with signal {state.exit_status}",
        "resources": "systemd lacked something that the unit needs, such as its settings file",
    }
    return words.get(state.result, f"{state.active} ({state.result}, status {state.exit_status})")


def _systemctl(*arguments: str) -> str:
    done = _run(["systemctl", *arguments], _PROGRAM_SECONDS)
    if done is None:
        raise SystemdError(f"systemctl {arguments[0]}: expected an end within {_PROGRAM_SECONDS} s, found it running")
    if done.returncode:
        raise SystemdError(f"systemctl {arguments[0]} ended with {done.returncode}: {_said(done)}")
    return done.stdout


def _said(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return lines[0] if lines else "no message"


def _run(command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str] | None:
    """The finished ``command``; None if it is not after ``seconds``."""
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return None
    except OSError as error:
        raise _no_program(command, error) from error


def _run_talkative(command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str] | None:
    """As ``_run``, for a ``command`` that may print without end: the last ``_KEPT`` bytes of each stream are kept."""
    deadline = time.monotonic() + seconds
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        raise _no_program(command, error) from error
    with process, selectors.DefaultSelector() as selector:
        output, said = bytearray(), bytearray()
        for stream, end in ((process.stdout, output), (process.stderr, said)):
            if stream:
                selector.register(stream, selectors.EVENT_READ, end)
        try:
            while selector.get_map():
                for key, _events in selector.select(_left(command, deadline)):
                    if chunk := os.read(key.fd, _CHUNK):
                        key.data.extend(chunk)
                        del key.data[:-_KEPT]
                    else:
                        selector.unregister(key.fileobj)
            status = process.wait(_left(command, deadline))
        except subprocess.TimeoutExpired:
            process.kill()
            return None
    return subprocess.CompletedProcess(command, status, _text(output), _text(said))


def _left(command: Sequence[str], deadline: float) -> float:
    """Seconds until ``deadline``; subprocess.TimeoutExpired if there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise subprocess.TimeoutExpired(command, 0)
    return left


def _text(end: bytearray) -> str:
    return end.decode(errors="replace")


def _no_program(command: Sequence[str], error: OSError) -> SystemdError:
    return SystemdError(f"{command[0]}: expected a program that runs, found: {error.strerror}")
