"""One trial: a rollout under load, a fault at some moment of it, and what there is afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.chaos.faults import Fault, Scene, kill, on
from testbed.command import ROOT, StepError
from testbed.inventory import Fleet, read_fleet
from testbed.load import Load
from testbed.playbook import playbook

INVENTORY = ROOT / "inventories" / "chaos"
BUNDLES = ROOT / ".testbed" / "bundles"
CLIENTS = {"keepalive": 6, "fresh": 2}
RATE = 40
ROLLOUT_SECONDS = 240
SETTLE_SECONDS = 20
NEXT = {"1": "2", "2": "3", "3": "1"}
"""What is deployed where a version serves. The hosts keep two releases, so that they have to be given the third."""
RECORDS = "/var/lib/modelfleet/lb/releases.json"
"""Where a balancer notes which releases served before, by their services."""
KEPT = 50
"""So many of them it tells of."""
STRATEGIES = {"swap": "blue_green", "gradual": "canary", "rolling": "rolling", "basic": "basic"}
"""The services of the inventory, and the strategy of each."""
COUNTED = ("swap", "rolling")
"""Those that lose no request of themselves, and whose releases are not judged by what clients see: a canary ends, as it
should, when a host of it breaks."""


@dataclass(frozen=True)
class Trial:
    """What is tried: a deploy to ``service`` meets ``fault`` after a share ``moment`` of the time that it takes.

    ``then`` is what is done about it, where the rollout was cut short: ``resume``, ``again`` (the very same deploy) or
    ``rollback``.
    """

    service: str
    fault: Fault
    moment: float
    then: str

    @property
    def strategy(self) -> str:
        return STRATEGIES[self.service]

    def __str__(self) -> str:
        return f"{self.strategy}: {self.fault.name} after {self.moment:.0%}, then {self.then}"


@dataclass(frozen=True)
class Outcome:
    """What came of a trial. ``problem`` says what is not as promised, nothing if all is; ``done``, how it ended.

    ``lost`` of the requests ``sent`` failed, ``allowed`` of them may have; None where any may, as in the strategy
    basic.
    """

    trial: str
    fault: str
    seconds: float
    sent: int
    lost: int
    allowed: int | None
    serves: str
    done: str
    problem: str

    @property
    def excess(self) -> int:
        """Requests that were lost and should not have been."""
        return 0 if self.allowed is None else max(0, self.lost - self.allowed)


def entrance(fleet: Fleet) -> str:
    """The address that clients use, whichever balancer holds it."""
    return fleet.floating[0]


def serving(address: str, service: str) -> str:
    """The version that answers at an address now; in words why none does."""
    try:
        with urllib.request.urlopen(f"http://{address}/v2/models/{service}", timeout=5) as answer:
            return str(answer.headers["X-Model-Version"])
    except (urllib.error.URLError, OSError) as error:
        return f"none ({error})"


def served(fleet: Fleet, service: str, now: str) -> dict[str, list[str]]:
    """The versions that served before that of ``now``, oldest first, as each balancer has noted them."""
    found = {}
    for name in [host.name for host in fleet.hosts if host.name.startswith("lb")]:
        history = json.loads(on(fleet, name, "cat", RECORDS))[service]["history"]
        versions = [str(release).rpartition("-")[0] for release in history]
        # What was gone back to may be the last of them still.
        while versions[-1:] == [now]:
            versions.pop()
        found[name] = versions[-KEPT:]
    return found


def deploy(service: str, version: str) -> subprocess.Popen[str]:
    """A deploy in a process group of its own, so that all of it can be killed."""
    variables = json.dumps({"service": service, "bundle": str(BUNDLES / f"tumour-{version}")})
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    return subprocess.Popen(
        [program, f"--inventory={INVENTORY}", "playbooks/deploy.yml", f"--extra-vars={variables}"],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def load(fleet: Fleet, service: str) -> Load:
    """Clients of a service, who know what scikit-learn itself answers."""
    url = f"http://{entrance(fleet)}/{service}/predict"
    expected = json.loads((BUNDLES / "answers.json").read_text())
    return Load(url, (BUNDLES / "request.json").read_bytes(), **CLIENTS, rate=RATE, expected=expected)


def run(trial: Trial, usual_seconds: float, random: Random) -> Outcome:
    """Try it. ``usual_seconds`` is what the deploy takes when nothing breaks."""
    fleet = read_fleet(INVENTORY)
    before = serving(entrance(fleet), trial.service)
    after = NEXT.get(before, "1")
    noted = served(fleet, trial.service, before)
    started, started_at = time.monotonic(), time.time()
    done, problem, said = "not mended", "", ""
    with load(fleet, trial.service) as clients, deploy(trial.service, after) as process:
        scene = Scene(fleet, process, random)
        time.sleep(trial.moment * usual_seconds)
        try:
            try:
                trial.fault.begin(scene)
                time.sleep(trial.fault.seconds)
                said = end_of(process)
            finally:
                trial.fault.end(scene)
            done, expected = _recover(trial, fleet, scene, process.returncode, before, after)
            problem = _settle(trial, fleet, expected) or _noted_wrongly(trial, fleet, noted, before, expected)
        except StepError as error:
            problem = f"{error}; the deploy had ended with {process.returncode}: {said}"
        finally:
            kill(process)
    result = clients.result
    if lost := too_many(_allowed(trial), result):
        problem = "; ".join(filter(None, [problem, lost, *balancers_say(fleet, started_at)]))
    return Outcome(
        trial=str(trial),
        fault=trial.fault.name,
        seconds=round(time.monotonic() - started, 1),
        sent=result["sent"],
        lost=result["failed"],
        allowed=_allowed(trial),
        serves=serving(entrance(fleet), trial.service),
        done=done,
        problem=problem,
    )


def _allowed(trial: Trial) -> int | None:
    """One request a connection may be in flight on what is killed; a deploy by ``basic`` is an outage by itself."""
    if trial.strategy == "basic":
        return None
    return sum(CLIENTS.values()) if trial.fault.loses else 0


def too_many(allowed: int | None, result: dict[str, Any]) -> str:
    """In words how many requests were lost and in which ways, nothing if no more than ``allowed`` were."""
    if allowed is None or result["failed"] <= allowed:
        return ""
    return f"expected at most {allowed} requests to be lost, found {result['failed']}: {json.dumps(result['failures'])}"


def balancers_say(fleet: Fleet, since: float) -> list[str]:
    """What the balancers logged since then that is no good answer: other answers, and who held the floating address."""
    program = (
        f"journalctl --output=short-precise --no-pager --since=@{since:.0f} --unit=haproxy --unit=keepalived"
        " | grep --extended-regexp 'STATE|(client=.* status=([^2]|2.*(ended=[^-]|retries=[^0])))' | tail --lines=8"
    )
    said: list[str] = []
    for name in [host.name for host in fleet.hosts if host.name.startswith("lb")]:
        try:
            said += on(fleet, name, "sh", "-c", program).splitlines()
        except StepError as error:
            said.append(str(error))
    return said


def end_of(process: subprocess.Popen[str]) -> str:
    """How the run ended, in the last of its words that say something."""
    try:
        output, _ = process.communicate(timeout=ROLLOUT_SECONDS)
    except subprocess.TimeoutExpired:
        kill(process)
        output, _ = process.communicate()
        return f"not done after {ROLLOUT_SECONDS} s: {output[-600:]}"
    lines = [line.strip() for line in output.splitlines() if "msg:" in line or "fatal:" in line or "expected" in line]
    return " ".join(lines[-6:])


def _recover(trial: Trial, fleet: Fleet, scene: Scene, ended: int, before: str, after: str) -> tuple[str, str]:
    """Do what a person would; what was done, and the version that is to serve then."""
    unfinished = any(_is_locked(scene, host.name, trial.service) for host in fleet.hosts if host.name.startswith("lb"))
    if ended == 0:
        return "went on", after
    if not unfinished and ended > 0:
        # It has ended by itself: it failed, and put everything back. The next deploy must work.
        if trial.then == "rollback":
            return "put back", before
        return "put back, deployed", _again(trial, after)
    if not unfinished and trial.then == "rollback":
        # Killed before it had begun or after it was done, it has nothing to be undone.
        found = serving(entrance(fleet), trial.service)
        return "nothing to undo", after if found == after else before
    if trial.then == "rollback":
        playbook(INVENTORY, "rollback", service=trial.service)
        return "rolled back", before
    if trial.then == "resume" and unfinished:
        playbook(INVENTORY, "resume", service=trial.service)
        return "resumed", after
    return "deployed again", _again(trial, after)


def _again(trial: Trial, version: str) -> str:
    playbook(INVENTORY, "deploy", service=trial.service, bundle=str(BUNDLES / f"tumour-{version}"))
    return version


def _is_locked(scene: Scene, balancer: str, service: str) -> bool:
    lock = f"/var/lib/modelfleet/rollouts/{service}.lock"
    return scene.on(balancer, "sh", "-c", f"test -e {lock} && echo locked || :").strip() == "locked"


def _settle(trial: Trial, fleet: Fleet, expected: str) -> str:
    """What is not as it should be once health checks had their time: nothing, if routes, files and journal agree."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        try:
            playbook(INVENTORY, "status", service=trial.service, verify=True)
        except StepError as error:
            if time.monotonic() > deadline:
                return f"status.yml -e verify=true: {error}"
            continue
        break
    for address in (entrance(fleet), *(host.address for host in fleet.hosts if host.name.startswith("lb"))):
        found = serving(address, trial.service)
        if found != expected:
            return f"expected version {expected} at {address}, found {found}"
    return ""


def _noted_wrongly(trial: Trial, fleet: Fleet, noted: dict[str, list[str]], before: str, expected: str) -> str:
    """What balancers have noted of earlier releases that was not so: nothing, if the version before is added, or none.

    It is added where another one serves now. What was put back, or undone, never served.
    """
    found = served(fleet, trial.service, expected)
    wanted = {name: [*known, *([before] if expected != before else [])][-KEPT:] for name, known in noted.items()}
    if found == wanted and len({tuple(known) for known in found.values()}) == 1:
        return ""
    return f"expected the balancers to know as earlier versions {json.dumps(wanted)}, found {json.dumps(found)}"
