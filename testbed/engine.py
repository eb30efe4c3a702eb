"""The Docker engine of this machine: find it, install it, start it."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import time
from pathlib import Path

from testbed.command import STATE, StepError, as_root, install, last_line, run, say, step, succeeds

# Those of the engine, and of the containerd that it starts where no init does.
PID_FILES = {"dockerd": Path("/var/run/docker.pid"), "containerd": Path("/var/run/docker/containerd/containerd.pid")}
_START_SECONDS = 60


@functools.cache
def docker() -> tuple[str, ...]:
    """The docker command, by way of sudo where this user may not talk to the engine."""
    client = shutil.which("docker") or "docker"
    socket = Path("/var/run/docker.sock")
    return tuple([client] if os.environ.get("DOCKER_HOST") or os.access(socket, os.W_OK) else as_root([client]))


def is_running() -> bool:
    """Whether an engine answers."""
    docker.cache_clear()
    return bool(shutil.which("docker")) and succeeds([*docker(), "version", "--format", "{{.Server.Version}}"])


def ensure() -> None:
    """Make sure that a Docker engine runs."""
    if not is_running():
        if not shutil.which("dockerd") or not shutil.which("docker"):
            install("docker.io")
            if not shutil.which("docker"):
                # From Debian 13 on the command is a package of its own.
                install("docker-cli")
        if not is_running():
            _start()
    about = run([*docker(), "info", "--format", "{{.ServerVersion}}, {{.Driver}}, cgroup v{{.CgroupVersion}}"]).strip()
    say(f"Docker engine: {about}")


def _start() -> None:
    for program, pid_file in PID_FILES.items():
        remove_stale_pid_file(pid_file, program)
    if Path("/run/systemd/system").is_dir():
        with step("Started the Docker engine through systemd"):
            run(as_root(["systemctl", "start", "docker"]))
            _wait(None, None)
        return
    try:
        _start_by_hand()
    except StepError as problem:
        if "driver" not in str(problem):
            raise
        say(f"{problem}; trying the storage driver vfs, which works on every file system but is slow")
        _start_by_hand("--storage-driver=vfs")


def remove_stale_pid_file(pid_file: Path, program: str = "dockerd", proc: Path = Path("/proc")) -> bool:
    """Remove the pid file of a program that is no more: a new one would refuse to start. True when it was stale."""
    try:
        # As root, for containerd's is in a folder that nobody else may enter.
        pid = run(as_root(["cat", str(pid_file)])).strip()
    except StepError:
        return False
    if pid and _runs(proc / pid, program):
        return False
    run(as_root(["rm", "--force", str(pid_file)]))
    say(f"Removed {pid_file}: its {program} (process {pid or 'unknown'}) is no more")
    return True


def _runs(process: Path, program: str) -> bool:
    """Whether it is a process of that program, and one that lives: nobody may have buried what has ended."""
    try:
        name = (process / "comm").read_text().strip()
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return name == program and state not in "ZX"


def _start_by_hand(*arguments: str) -> None:
    STATE.mkdir(exist_ok=True)
    log = STATE / "dockerd.log"
    daemon = shutil.which("dockerd") or "/usr/sbin/dockerd"
    with step(f"Started the Docker engine by hand, for no init system runs here; its log is {log}"):
        with log.open("wb") as output:
            process = subprocess.Popen(
                as_root([daemon, *arguments]),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _wait(process, log)


def _wait(process: subprocess.Popen[bytes] | None, log: Path | None) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not is_running():
        if process is not None and log is not None and process.poll() is not None:
            message = last_line(log.read_text(errors="replace"))
            raise StepError(f"dockerd ended with {process.returncode}: {message}")
        if time.monotonic() > deadline:
            raise StepError(
                f"the Docker engine does not answer after {_START_SECONDS} s" + (f": see {log}" if log else "")
            )
        time.sleep(0.3)
