# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Try a release in a sandbox: what confines it, and what its trial says about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.modelfleet.onprem.plugins.module_utils._files import format_size
from ansible_collections.modelfleet.onprem.plugins.module_utils._slot import Start
from ansible_collections.modelfleet.onprem.plugins.module_utils._systemd import Ended, UnitState, describe_end
from ansible_collections.modelfleet.onprem.plugins.module_utils._verdict import Finding, Policy

# What makes the unit a service. Everything else in it confines the process, and so it does in a trial,
# which has no network whose addresses could be filtered.
_OF_A_SERVICE = (
    "EnvironmentFile",
    "ExecStart",
    "IPAddressAllow",
    "IPAddressDeny",
    "KillMode",
    "OOMPolicy",
    "Restart",
    "RestartSec",
    "RuntimeDirectory",
    "RuntimeDirectoryMode",
    "StateDirectory",
    "StateDirectoryMode",
    "SyslogIdentifier",
    "TimeoutStartSec",
    "TimeoutStopSec",
    "Type",
    "WorkingDirectory",
)
# A trial has a user that exists for its time alone: as that of the slots it could kill whatever serves on the host.
# What it needs is readable for all. Its home is that of the slots, for the user has none.
_IDENTITY = ("DynamicUser", "Group", "SupplementaryGroups", "User")
_OF_A_TRIAL = ("DynamicUser=true", "Environment=HOME=/nonexistent", "PrivateNetwork=true")
_SIGKILL = 9
_NAMED = ("numpy", "scikit-learn")


def confinement(unit: str, limits: Mapping[str, str]) -> list[str]:
    """The properties of a trial: what confines the service of the unit file ``unit``, its ``limits``, a user of its own
    and no network.

    They are taken from the unit that is installed, so that the two cannot differ.
    """
    section, found = "", []
    others = (*_OF_A_SERVICE, *_IDENTITY, *limits)
    for line in unit.splitlines():
        if line.startswith("["):
            section = line
        name, equals, value = line.partition("=")
        if section == "[Service]" and equals and not name.startswith("#") and name not in others:
            found.append(f"{name}={value}")
    return [*found, *(f"{name}={limits[name]}" for name in sorted(limits)), *_OF_A_TRIAL]


def memory_max(properties: list[str]) -> str:
    """The last MemoryMax of ``properties``, which is the one that holds."""
    values = [line.partition("=")[2] for line in properties if line.startswith("MemoryMax=")]
    return values[-1] if values else "infinity"


@dataclass(frozen=True)
class Trial:
    """What a trial found: its document, as ``model_server.trial`` prints it, or how else the process ended."""

    document: Mapping[str, Any]
    ended: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the model loaded and answered, in an environment that may be another than the bundle's."""
        return self.ended is None and not self.document.get("load") and not self.refused

    @property
    def refused(self) -> bool:
        """Whether the model server itself does not serve in this environment, so that nothing was loaded."""
        document = self.document
        unloaded = self.ended is None and not document.get("load") and "seconds" not in document
        return unloaded and bool(document.get("environment"))


def read_trial(ended: Ended, limit: str, seconds: float) -> Trial:
    """The trial of a process that may take memory up to ``limit`` and has ``seconds``."""
    document = _last_document(ended.output)
    if ended.failed is not None:
        return Trial(document, _describe(ended.failed, ended.said, limit, seconds))
    trial = Trial(document)
    # What it took at most is said at its end alone, and all of this of what has passed.
    if document.get("peak") is None or (trial.passed and any(document.get(name) is None for name in _TAKEN)):
        return Trial(document, f"that its process ended before it had answered{_last_words(ended.said)}")
    return trial


_NONE = type(None)
_DOCUMENT: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("environment", "load"), (str, _NONE)),
    **dict.fromkeys(("python", "packages"), (dict, _NONE)),
    **dict.fromkeys(("peak", "answering", "rows"), (int, _NONE)),
    "seconds": (int, float, _NONE),
}
_TAKEN = ("seconds", "rows", "peak", "answering")


def _is_document(found: Any) -> bool:
    """Whether it is what a trial prints. The model runs in its process, and may print what it likes."""
    if not isinstance(found, dict) or not all(isinstance(found.get(name), kinds) for name, kinds in _DOCUMENT.items()):
        return False
    python, packages = found.get("python"), found.get("packages") or {}
    return (not python or _is_pin(python, str)) and all(_is_pin(pin, str, _NONE) for pin in packages.values())


def _is_pin(pin: Any, *found: type) -> bool:
    return isinstance(pin, dict) and isinstance(pin.get("expected"), str) and isinstance(pin.get("found", 0), found)


def _last_document(output: str) -> dict[str, Any]:
    """The last line of ``output`` that is a document of a trial; empty if none is."""
    for line in reversed(output.splitlines()):
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if _is_document(document):
            found: dict[str, Any] = document
            return found
    return {}


def _describe(state: UnitState, said: str, limit: str, seconds: float) -> str:
    if state.result == "timeout":
        return f"that it did not answer within {seconds:g} s{_last_words(said)}"
    # With cgroups of version 1 systemd does not tell the kernel's kill for want of memory from another.
    if state.result == "oom-kill" or (state.result == "signal" and state.exit_status == _SIGKILL):
        return f"that it needs more than {limit}: the kernel killed it for want of memory{_last_words(said)}"
    return describe_end(state) + _last_words(said)


def _last_words(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return f": {lines[-1][:300]}" if lines else ""


def bind(policies: Mapping[str, Policy], trial: Trial) -> dict[str, Policy]:
    """``policies``, with the gate environment enforced where the model server itself refuses what is installed.

    No mode of the gate has a model served there, so it says so, and not the start of the slot.
    """
    if not trial.refused:
        return dict(policies)
    others = {gate: policy for gate, policy in policies.items() if gate != "environment"}
    return {"environment": {"mode": "enforce"}, **others}


def judge_environment(trial: Trial, bundle: str) -> Finding:
    """Whether Python and the packages on the host are those of the bundle.

    Another Python is none worse if it is newer: pickles hold no byte code, and what compiled code needs is in the lock.
    """
    python, packages = trial.document.get("python"), trial.document.get("packages")
    if not isinstance(python, dict) or not isinstance(packages, dict):
        # What is wrong instead the next gate says.
        return Finding(None, f"the packages of {bundle}", "that the trial ended before it could say")
    named = [f"{name} {packages[name]['expected']}" for name in _NAMED if name in packages]
    others = len(packages) - len(named)
    expected = ", ".join([f"Python {python['expected']}, the bundle's, or newer", *named])
    expected += f" and {others} other packages of the lock" if others else ""
    details = {"python": python["found"], "packages": {name: pin["found"] for name, pin in packages.items()}}
    problem = trial.document.get("environment")
    if problem:
        refused = ", which the model server refuses whatever the gate's mode is" if trial.refused else ""
        return Finding(False, expected, f"{problem}{refused}", details)
    newer = "" if python["found"].split(".")[:2] == python["expected"].split(".")[:2] else ", which is newer"
    return Finding(True, expected, f"Python {python['found']}{newer}, and the same packages", details)


@dataclass(frozen=True)
class Memory:
    """What the host has for a release, in bytes.

    ``available`` is what Linux says is available, ``freed`` what the slot that it will replace gives back, and
    ``promised`` what others take that will start before it.
    """

    available: int
    freed: int = 0
    promised: int = 0

    @property
    def left(self) -> int:
        return max(0, self.available + self.freed - self.promised)


def judge_load(trial: Trial, limit: str, seconds: float, workers: int, memory: Memory, tried: str | None) -> Finding:
    """Whether the model loads, answers, and fits into the host's ``memory`` beside what runs there.

    ``tried`` is when the trial was, if it was not now.
    """
    document = trial.document
    expected = f"a model that loads and answers within {seconds:g} s and {limit}, and fits into the host's memory"
    problem = trial.ended or document.get("load") or (document["environment"] if trial.refused else None)
    if problem:
        return Finding(False, expected, str(problem))
    # Workers share the master's memory until they write to it; what a worker adds is what answering took.
    needed = document["peak"] + workers * document["answering"]
    found = f"{document['seconds']:g} s to load, {format_size(document['peak'])}, {document['rows']} rows answered"
    found += f" (tried {tried})" if tried else ""
    details = {
        "seconds": document["seconds"],
        "peak_bytes": document["peak"],
        "needed_bytes": needed,
        "freed_bytes": memory.freed,
        "available_bytes": memory.left,
    }
    if needed > memory.left:
        others = f" and the {format_size(memory.promised)} of those that start before it" if memory.promised else ""
        room = f"{format_size(needed)} needed with {workers} workers"
        room += f", {format_size(memory.left)} left beside what runs{others}"
        return Finding(False, expected, f"{found}; {room}", details)
    return Finding(True, expected, found, details)


def takes(verdicts: Sequence[Mapping[str, Any]]) -> int:
    """Bytes that a release will take once it has started, by its ``verdicts``; 0 if the gate load tells nothing.

    What its slot gives back is taken off. If that is more it is 0, for it may be given back later than others start.
    """
    for verdict in verdicts:
        details = verdict.get("details", {})
        if verdict["gate"] == "load" and "needed_bytes" in details:
            return max(0, int(details["needed_bytes"]) - int(details["freed_bytes"]))
    return 0


def fingerprint(start: Start, confined: list[str], seconds: float) -> str:
    """What a passed trial is good for: this release in this environment with these settings and limits, on any port."""
    settings = {name: value for name, value in start.settings.items() if name not in ("BIND", "METRICS_BIND")}
    # A digest, for settings may hold secrets.
    inputs = json.dumps([start.release, start.env, settings, confined, seconds], sort_keys=True)
    return hashlib.sha256(inputs.encode()).hexdigest()


def parse_available(meminfo: str) -> int:
    """``MemAvailable`` in the text of ``/proc/meminfo``, in bytes."""
    for line in meminfo.splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return 0
