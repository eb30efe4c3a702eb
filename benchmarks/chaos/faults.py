"""What can break: each fault breaks one thing on the fleet, and mends it again.

A fault says whether requests may be lost with what it breaks: those that were in flight on it, one a connection.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from testbed import fleet as hosts
from testbed.command import StepError, run, succeeds
from testbed.engine import docker
from testbed.fleet import container_name
from testbed.inventory import Fleet

PERSON_SECONDS = 2
SMALL_DISK = 256 * 1024
"""Bytes that are left to a file system that is to be full, before they are filled, too."""


@dataclass
class Scene:
    """Where a fault happens: the fleet, the run of Ansible that it interrupts, and where its randomness is from."""

    fleet: Fleet
    playbook: subprocess.Popen[str]
    random: random.Random
    chosen: dict[str, str] = field(default_factory=dict)

    def choose(self, group: str) -> str:
        """A host whose name begins so, the same one for as long as the fault lasts.

        ``active`` is the balancer that has the floating address, which clients use, ``standby`` another one.
        """
        if group not in self.chosen:
            self.chosen[group] = self.random.choice(self._of(group))
        return self.chosen[group]

    def _of(self, group: str) -> list[str]:
        names = [host.name for host in self.fleet.hosts if host.name.startswith(group)]
        if group not in ("active", "standby"):
            return names
        address = f" {self.fleet.floating[0]}/"
        balancers = [host.name for host in self.fleet.hosts if host.name.startswith("lb")]
        holds = {name: address in self.on(name, "ip", "-4", "-oneline", "address") for name in balancers}
        return [name for name in balancers if holds[name] == (group == "active")]

    def on(self, name: str, *command: str, timeout: float = 60) -> str:
        """Run a command as root on a host, not by way of SSH."""
        return on(self.fleet, name, *command, timeout=timeout)

    def engine(self, verb: str, name: str) -> None:
        """Have the engine do something to a host."""
        run([*docker(), verb, _container(self.fleet, name)], timeout=60)


def on(fleet: Fleet, name: str, *command: str, timeout: float = 60) -> str:
    """Run a command as root on a host of the fleet, not by way of SSH."""
    return run([*docker(), "exec", _container(fleet, name), *command], timeout=timeout)


def _container(fleet: Fleet, name: str) -> str:
    return container_name(fleet, next(host for host in fleet.hosts if host.name == name))


def _nothing(_scene: Scene) -> None:
    """What ends a fault that is over at once."""


@dataclass(frozen=True)
class Fault:
    """Something that breaks. ``loses`` says what is killed, and with it the requests in flight on it; nothing if empty.

    ``seconds`` it lasts at the least; the rollout may come to its end meanwhile, or wait for it to be over.
    """

    name: str
    begin: Callable[[Scene], None]
    end: Callable[[Scene], None] = _nothing
    loses: str = ""
    seconds: float = 0.0


def kill(process: subprocess.Popen[str]) -> None:
    """End a process that runs still, with all that it has started: Ansible's workers have sessions of their own."""
    if process.poll() is not None:
        return
    found: list[int] = []
    while new := [pid for pid in _family(process.pid) if pid not in found]:
        found += new
        # What is stopped starts nothing more.
        for pid in new:
            _signal(pid, signal.SIGSTOP)
    for pid in found:
        _signal(pid, signal.SIGKILL)


def _family(pid: int) -> list[int]:
    """A process and all that have it above them."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue  # It has ended just now.
        children.setdefault(parent, []).append(int(path.parent.name))
    family = [pid]
    for one in family:
        family += children.get(one, [])
    return family


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _kill_controller(scene: Scene) -> None:
    kill(scene.playbook)
    # What its modules do on the hosts they do still, as when the machine goes; a person needs a moment to see it.
    time.sleep(PERSON_SECONDS)


def _power_off(group: str) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        hosts.kill(scene.fleet, scene.choose(group), silent=True)

    return act


def _power_on(scene: Scene) -> None:
    hosts.up(scene.fleet)


def _freeze(scene: Scene) -> None:
    # The kernel may not manage to stop everything at the first try.
    for attempt in range(5):
        try:
            scene.engine("pause", scene.choose("model"))
        except StepError:
            if attempt == 4:
                raise
            time.sleep(0.2)
        else:
            return


def _thaw(scene: Scene) -> None:
    scene.engine("unpause", scene.choose("model"))


def _cut_ssh(scene: Scene) -> None:
    """End every SSH session on a host, in the middle of what it does."""
    scene.on(scene.choose("model"), "sh", "-c", "pkill -KILL -f '^sshd(-session)?: ' || :")


def _run_on(group: str, *command: str) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        scene.on(scene.choose(group), *command)

    return act


def _haproxy(verb: str) -> Callable[[Scene], None]:
    return _run_on("active", "systemctl", verb, "haproxy")


def _fill(group: str, folder: str) -> Callable[[Scene], None]:
    """A small file system with the same content takes the folder's place, and is filled."""
    program = f"""
        used=$(du --summarize --block-size=1 {folder} | cut -f1)
        mount -t tmpfs -o size=$((used + {SMALL_DISK})),mode=755 tmpfs /mnt
        cp --archive {folder}/. /mnt
        mount --move /mnt {folder} || {{ umount /mnt; exit 1; }}
        dd if=/dev/zero of={folder}/.filling bs=4k 2>/dev/null || :
    """
    return _run_on(group, "sh", "-ec", program)


def _free(group: str, folder: str) -> Callable[[Scene], None]:
    """What was written meanwhile goes to where the folder was before."""
    program = f"""
        rm --force {folder}/.filling
        cp --archive {folder} /root/kept
        umount {folder}
        find {folder} -mindepth 1 -delete
        cp --archive /root/kept/. {folder}
        rm --recursive --force /root/kept
    """
    return _run_on(group, "sh", "-ec", program)


def install_needs(fleet: Fleet) -> None:
    """What the faults need on the hosts, before any trial: it would take longer than the moment that a fault is for."""
    for host in fleet.hosts:
        name = container_name(fleet, host)
        if not succeeds([*docker(), "exec", name, "test", "-e", "/usr/bin/faketime"]):
            apt = ["apt-get", "install", "--quiet", "--yes", "--no-install-recommends", "faketime"]
            run([*docker(), "exec", name, *apt], timeout=300)


def _shift_clock(scene: Scene) -> None:
    """Every program that is started from now on believes that it is an hour later."""
    scene.on(
        scene.choose("model"),
        "sh",
        "-ec",
        "echo +3600s >/etc/faketimerc; find /usr/lib -name libfaketime.so.1 >/etc/ld.so.preload",
    )


def _set_clock(scene: Scene) -> None:
    scene.on(scene.choose("model"), "rm", "--force", "/etc/ld.so.preload", "/etc/faketimerc")


def _address(scene: Scene, name: str) -> str:
    return next(host.address for host in scene.fleet.hosts if host.name == name)


def _drop(scene: Scene) -> None:
    """The active balancer and one host do not hear of each other any more; both say nothing, as a cut cable does."""
    target = _address(scene, scene.choose("model"))
    scene.on(scene.choose("active"), "ip", "route", "add", "blackhole", f"{target}/32")


def _restore(scene: Scene) -> None:
    target = _address(scene, scene.choose("model"))
    scene.on(scene.choose("active"), "ip", "route", "del", "blackhole", f"{target}/32")


def _slow(scene: Scene) -> None:
    """What a host sends is late and partly lost; where the kernel has no netem, it is held back by its bulk."""
    add = "tc qdisc add dev eth0 root"
    program = f"{add} netem delay 150ms loss 2% || {add} tbf rate 128kbit burst 4kb latency 400ms"
    scene.on(scene.choose("model"), "sh", "-c", program)


def _fast(scene: Scene) -> None:
    scene.on(scene.choose("model"), "tc", "qdisc", "del", "dev", "eth0", "root")


KILLED_CONTROLLER = Fault("the controller is killed", _kill_controller)

ACTIVE_BALANCER = Fault("the active balancer loses its power", _power_off("active"), _power_on, loses="the balancer")

FAULTS: tuple[Fault, ...] = (
    Fault("a host loses its power", _power_off("model"), _power_on, loses="the host"),
    Fault("a host hangs", _freeze, _thaw, loses="the host", seconds=8),
    Fault("SSH to a host is cut", _cut_ssh),
    ACTIVE_BALANCER,
    Fault("the other balancer loses its power", _power_off("standby"), _power_on),
    Fault("the active balancer is restarted", _haproxy("restart"), loses="the balancer"),
    Fault("the active balancer is reloaded", _haproxy("reload")),
    Fault("a host's disk is full", _fill("model", "/var/lib/modelfleet"), _free("model", "/var/lib/modelfleet")),
    Fault("a balancer's disk is full", _fill("lb", "/var/lib/modelfleet"), _free("lb", "/var/lib/modelfleet")),
    Fault("a host's clock is an hour off", _shift_clock, _set_clock),
    Fault("the active balancer does not reach a host", _drop, _restore, loses="the way between them", seconds=6),
    Fault("the network of a host is slow", _slow, _fast, seconds=6),
)
