"""A fleet of containers: each runs systemd and an SSH server, and has its own address."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from testbed import engine, image, keys
from testbed.command import StepError, last_line, run, say, step, succeeds
from testbed.engine import docker
from testbed.inventory import Fleet, Host

FLEET_LABEL = "modelfleet.testbed.fleet"
SPECIFICATION_LABEL = "modelfleet.testbed.specification"
READY_SECONDS = 90
_UP = ("running", "degraded")
"""What systemd says when it has started everything; of what failed, degraded names the units."""

T = TypeVar("T")


def up(fleet: Fleet) -> None:
    """Create what is missing, start what is stopped, and wait until every host answers."""
    with step(f"Fleet {fleet.name}: {len(fleet.hosts)} hosts are up"):
        engine.ensure()
        image.ensure([host.release for host in fleet.hosts])
        keys.user_key()
        keys.pin(fleet)
        _make_network(fleet)
        # Made before any host is created, so that hosts are specified alike however many are made at once.
        flags = _engine_flags()
        _on_each_host(fleet, lambda host: _bring_up(fleet, host, flags))


def down(fleet: Fleet) -> None:
    """Remove the fleet's containers, their volumes and its network."""
    if not engine.is_running():
        say(f"Fleet {fleet.name}: no Docker engine runs, so nothing of it is up")
        return
    mine = f"--filter=label={FLEET_LABEL}={fleet.name}"
    containers = run([*docker(), "ps", "--all", "--quiet", mine]).split()
    networks = run([*docker(), "network", "ls", "--quiet", mine]).split()
    if not containers and not networks:
        say(f"Fleet {fleet.name}: nothing of it is there")
        return
    with step(f"Fleet {fleet.name}: removed {len(containers)} hosts with their disks, and {len(networks)} network"):
        if containers:
            run([*docker(), "rm", "--force", "--volumes", *containers])
        for network in networks:
            run([*docker(), "network", "rm", network])


def kill(fleet: Fleet, name: str, *, silent: bool = False) -> None:
    """End one host at once. Its disk stays, and ``up`` starts it again.

    Its kernel ends its connections, as after a crash of all programs. With ``silent`` nobody hears of the end, as when
    the power of a machine is cut.
    """
    containers = {host.name: container_name(fleet, host) for host in fleet.hosts if fleet.kind == "containers"}
    if name not in containers:
        raise StepError(f"fleet {fleet.name}: expected a container ({', '.join(containers) or 'none'}), found {name}")
    with step(f"{name}: ended"):
        if silent:
            run([*docker(), "exec", containers[name], "ip", "link", "set", "eth0", "down"])
        run([*docker(), "kill", containers[name]])


def status(fleet: Fleet) -> None:
    """Say of each host whether it runs, how its systemd does, and whether SSH answers. A problem if one does not."""
    if not engine.is_running():
        raise StepError("no Docker engine runs")
    answers = _on_each_host(fleet, lambda host: _status(fleet, host))
    for host, (text, _healthy) in zip(fleet.hosts, answers, strict=True):
        ports = "".join(f" {port}" for port in host.publish)
        say(f"{host.name:<12} {host.address:<15} {host.release:<9} {text}{ports}")
    silent = [host.name for host, (_text, healthy) in zip(fleet.hosts, answers, strict=True) if not healthy]
    if silent:
        raise StepError(f"fleet {fleet.name}: not up: {', '.join(silent)}")


def container_name(fleet: Fleet, host: Host) -> str:
    """The name of a host's container."""
    return f"{fleet.name}-{host.name}"


def container_arguments(fleet: Fleet, host: Host, flags: tuple[str, ...]) -> list[str]:
    """The arguments of ``docker create`` for a host, but for its labels and image.

    systemd needs to mount and to be told to stop by its own signal; it does not need ``--privileged``, which asks for
    rights that a machine that is itself confined cannot give.
    """
    arguments = [f"--name={container_name(fleet, host)}", f"--hostname={host.name}"]
    arguments += [f"--network={fleet.name}", f"--ip={host.address}"]
    arguments += ["--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN", "--security-opt=seccomp=unconfined"]
    arguments += ["--cgroupns=private", "--stop-signal=SIGRTMIN+3", *flags]
    arguments += ["--tmpfs=/run", "--tmpfs=/run/lock", "--tmpfs=/tmp:exec,mode=1777"]
    arguments += [f"--tmpfs={folder}:{options}" if options else f"--tmpfs={folder}" for folder, options in host.tmpfs]
    arguments += [f"--publish={port}" for port in host.publish]
    return arguments


def digest(arguments: Sequence[str], image_id: str, files: bytes) -> str:
    """Names what a container is made from: one with another digest is made anew."""
    content = [list(arguments), image_id.strip(), hashlib.sha256(files).hexdigest()]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _engine_flags() -> tuple[str, ...]:
    """What the kind of machine asks for: AppArmor's default profile forbids mounting, and so systemd."""
    about = json.loads(run([*docker(), "info", "--format", "{{json .}}"]))
    flags = []
    if any("apparmor" in option for option in about.get("SecurityOptions") or ()):
        flags.append("--security-opt=apparmor=unconfined")
    if about.get("CgroupVersion") == "1":
        # From version 256, systemd refuses version 1 of the control groups unless it is told to take it.
        flags.append("--env=SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1")
    return tuple(flags)


def _make_network(fleet: Fleet) -> None:
    template = "{{range .IPAM.Config}}{{.Subnet}}{{end}}"
    try:
        subnet = run([*docker(), "network", "inspect", "--format", template, fleet.name]).strip()
    except StepError:
        pass
    else:
        if subnet != fleet.subnet:
            raise StepError(f"network {fleet.name}: expected {fleet.subnet}, found {subnet}: take the fleet down first")
        say(f"Network {fleet.name} is there already")
        return
    with step(f"Created network {fleet.name} ({fleet.subnet})"):
        labels = [f"--label={FLEET_LABEL}={fleet.name}", f"--opt=com.docker.network.driver.mtu={largest_packet()}"]
        run([*docker(), "network", "create", f"--subnet={fleet.subnet}", *labels, fleet.name])


def largest_packet(routes: Path = Path("/proc/net/route"), interfaces: Path = Path("/sys/class/net")) -> int:
    """The largest packet that leaves this machine: Docker takes 1500, and larger ones than the way bears are lost."""
    for line in routes.read_text().splitlines()[1:]:
        name, destination = line.split()[:2]
        if destination == "00000000":
            return min(1500, int((interfaces / name / "mtu").read_text()))
    return 1500


def _on_each_host(fleet: Fleet, action: Callable[[Host], T]) -> list[T]:
    """Do it on all hosts at once. The first problem is raised, after all have come to an end."""
    with concurrent.futures.ThreadPoolExecutor(len(fleet.hosts)) as pool:
        return list(pool.map(action, fleet.hosts))


def _bring_up(fleet: Fleet, host: Host, flags: tuple[str, ...]) -> None:
    name = container_name(fleet, host)
    built = f"{image.REPOSITORY}:{host.release}"
    arguments = container_arguments(fleet, host, flags)
    files = keys.files(fleet, host)
    specification = digest(arguments, run([*docker(), "image", "inspect", "--format", "{{.Id}}", built]), files)
    state, made_from = _container(name)
    if state is not None and made_from != specification:
        with step(f"{host.name}: removed, for it has another image, description or keys, as of another checkout"):
            run([*docker(), "rm", "--force", "--volumes", name])
        state = None
    if state == "running":
        with step(f"{host.name}: runs already") as remarks:
            _wait_until_ready(fleet, host, remarks)
        return
    with step(f"{host.name}: {'created' if state is None else 'started'}") as remarks:
        if state is None:
            labels = [f"--label={FLEET_LABEL}={fleet.name}", f"--label={SPECIFICATION_LABEL}={specification}"]
            run([*docker(), "create", *arguments, *labels, built])
            run([*docker(), "cp", "--archive", "-", f"{name}:/"], stdin=files)
        try:
            run([*docker(), "start", name])
        except StepError as problem:
            raise StepError(f"{host.name}: {problem}") from problem
        _wait_until_ready(fleet, host, remarks)


def _container(name: str) -> tuple[str | None, str | None]:
    """A container's state and what it was made from; None and None when there is none."""
    template = f'{{{{.State.Status}}}} {{{{index .Config.Labels "{SPECIFICATION_LABEL}"}}}}'
    try:
        state, made_from = run([*docker(), "container", "inspect", "--format", template, name]).split()
    except StepError:
        return None, None
    return state, made_from


def _wait_until_ready(fleet: Fleet, host: Host, remarks: list[str]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while (state := _systemd_state(fleet, host)) not in _UP:
        if time.monotonic() > deadline:
            raise StepError(
                f"{host.name}: systemd is {state or 'silent'} after {READY_SECONDS} s: {_evidence(fleet, host)}"
            )
        time.sleep(0.3)
    remarks.append(f"systemd {state}{_failed_units(fleet, host) if state == 'degraded' else ''}")
    while True:
        try:
            run(keys.ssh(fleet, host, "true"))
        except StepError as problem:
            if time.monotonic() > deadline:
                raise StepError(f"{host.name}: SSH does not answer after {READY_SECONDS} s: {problem}") from problem
            time.sleep(0.3)
        else:
            remarks.append(f"SSH answers at {host.address}")
            return


def _systemctl(fleet: Fleet, host: Host, *arguments: str) -> list[str]:
    return [*docker(), "exec", container_name(fleet, host), "systemctl", *arguments]


def _systemd_state(fleet: Fleet, host: Host) -> str:
    """What systemd says of itself, empty when it does not answer. (It ends with 1 in every state but one.)"""
    try:
        return run(
            [*docker(), "exec", container_name(fleet, host), "sh", "-c", "systemctl is-system-running || :"]
        ).strip()
    except StepError:
        return ""


def _failed_units(fleet: Fleet, host: Host) -> str:
    lines = run(_systemctl(fleet, host, "--failed", "--plain", "--no-legend")).splitlines()
    return f" (failed: {' '.join(line.split()[0] for line in lines if line.strip())})"


def _evidence(fleet: Fleet, host: Host) -> str:
    """Why a host is not ready: the jobs that systemd still waits for, or what it wrote last."""
    try:
        jobs = run(_systemctl(fleet, host, "list-jobs", "--plain", "--no-legend"))
    except StepError:
        return last_line(run([*docker(), "logs", "--tail=5", container_name(fleet, host)]))
    return f"it waits for {last_line(jobs)}"


def _status(fleet: Fleet, host: Host) -> tuple[str, bool]:
    """How a host does, in words, and whether it can be worked on."""
    state, _made_from = _container(container_name(fleet, host))
    if state != "running":
        return state or "not there", False
    systemd = _systemd_state(fleet, host) or "silent"
    failed = _failed_units(fleet, host) if systemd == "degraded" else ""
    answers = succeeds(keys.ssh(fleet, host, "true"))
    return f"systemd {systemd}{failed}, SSH {'answers' if answers else 'silent'}", answers and systemd in _UP
