"""The images that hosts are made from: Debian out of its own packages, so that no image registry is needed."""

from __future__ import annotations

import concurrent.futures
import fcntl
import hashlib
import json
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed import engine
from testbed.command import STATE, StepError, as_root, install, last_line, run, say, step
from testbed.engine import docker
from testbed.inventory import RELEASES

LABEL = "modelfleet.testbed.recipe"
REPOSITORY = "modelfleet-testbed"

PACKAGES = (
    "ca-certificates",
    "curl",
    "dbus",
    "iproute2",
    "openssh-server",
    "procps",
    "python3",
    "sudo",
    "systemd",
    "systemd-sysv",
)
PREFETCHED = ("haproxy",)
"""Left in apt's cache, not installed: provisioning installs them as anywhere, without waiting for a mirror."""

_INIT = """#!/bin/sh
# Docker mounts the control groups read-only; systemd makes its own below ours, and sets their limits.
for mount in /sys/fs/cgroup /sys/fs/cgroup/*; do
    mountpoint --quiet "$mount" && mount -o remount,bind,rw "$mount"
done
exec /lib/systemd/systemd
"""
_SSHD = "PasswordAuthentication no\nMaxStartups 200\nMaxSessions 200\n"
_MASKED = "apt-daily.timer apt-daily-upgrade.timer console-getty.service getty.target"


@dataclass(frozen=True)
class Recipe:
    """How to make one image: what mmdebstrap is asked for."""

    release: str
    packages: tuple[str, ...]
    hooks: tuple[str, ...]

    def options(self) -> list[str]:
        """mmdebstrap's options, but for where packages come from and where the image goes."""
        excluded = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"]
        return [
            "--variant=minbase",
            "--skip=cleanup/apt",
            f"--include={','.join(self.packages)}",
            '--aptopt=Acquire::Languages "none"',
            "--dpkgopt=force-unsafe-io",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in excluded),
            *(f"--customize-hook={hook}" for hook in self.hooks),
        ]

    @property
    def digest(self) -> str:
        """Names the recipe: an image with the same digest need not be built again."""
        return hashlib.sha256(json.dumps([self.release, self.options()]).encode()).hexdigest()[:16]


def recipe(release: str, extra_packages: Iterable[str] = (), extra_hooks: Iterable[str] = ()) -> Recipe:
    """The recipe of a release's image."""
    hooks = (
        'chroot "$1" useradd --create-home --shell /bin/bash ops',
        write_hook("/etc/sudoers.d/ops", "ops ALL=(ALL) NOPASSWD: ALL\n", "0440"),
        write_hook("/etc/ssh/sshd_config.d/testbed.conf", _SSHD),
        write_hook("/etc/default/locale", "LANG=C.UTF-8\n"),
        write_hook("/usr/local/sbin/testbed-init", _INIT, "0755"),
        'rm -f "$1"/etc/ssh/ssh_host_*',
        f'chroot "$1" systemctl --quiet mask {_MASKED}',
        'chroot "$1" apt-get clean',
        f'chroot "$1" apt-get install --yes --download-only {" ".join(PREFETCHED)}',
        *extra_hooks,
    )
    return Recipe(release, (*PACKAGES, *extra_packages), hooks)


def write_hook(path: str, content: str, mode: str = "0644") -> str:
    quoted = content.replace("\\", "\\\\").replace("\n", "\\n").replace("%", "%%").replace("'", "'\\''")
    return f"""printf '{quoted}' > "$1{path}" && chmod {mode} "$1{path}\""""


def mirrors(codename: str, sources: Iterable[str]) -> tuple[str, str] | None:
    """Where this machine, a Debian ``codename``, gets packages and security updates: two URLs, out of apt's sources.

    None when the sources do not say both; mmdebstrap then takes its own default.
    """
    found: dict[str, str] = {}
    for text in sources:
        for uris, suites in _entries(text):
            for suite in suites:
                found.setdefault(suite, uris[0])
    main, security = found.get(codename), found.get(f"{codename}-security")
    return (main, security) if main and security else None


def _entries(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """The URIs and suites of each entry, in apt's one-line or its deb822 form."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in lines:
        match = re.match(r"\s*deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)", line)
        if match:
            yield [match[1]], [match[2]]
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines)):
        fields = dict(re.findall(r"^(\S+):[ \t]*(.*(?:\n[ \t].*)*)", paragraph, re.MULTILINE))
        uris, suites = fields.get("URIs", "").split(), fields.get("Suites", "").split()
        if uris and suites and "deb" in fields.get("Types", "").split():
            yield uris, suites


def source_lines(release: str) -> list[str]:
    """The apt sources to build a release from; none for mmdebstrap's own default."""
    about = platform.freedesktop_os_release()
    folder = Path("/etc/apt")
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    texts = [
        path.read_text(errors="replace") for path in files if path.suffix in (".list", ".sources") and path.is_file()
    ]
    found = mirrors(about.get("VERSION_CODENAME", ""), texts) if about.get("ID") == "debian" else None
    if found is None:
        return []
    main, security = found
    return [
        f"deb {main} {release} main",
        f"deb {main} {release}-updates main",
        f"deb {security} {release}-security main",
    ]


def ensure(releases: Sequence[str] = (), rebuild: bool = False) -> None:
    """Build the images that are not there, or that were made by another recipe."""
    with locked("image.lock"), concurrent.futures.ThreadPoolExecutor() as pool:
        wanted = sorted(set(releases) or RELEASES)
        for release in wanted:
            if release not in RELEASES:
                raise StepError(f"image {release}: expected {' or '.join(RELEASES)}")
        missing = [release for release in wanted if rebuild or _built(release) != recipe(release).digest]
        for release in sorted(set(wanted) - set(missing)):
            say(f"Image {REPOSITORY}:{release} is there already")
        if missing:
            install("mmdebstrap", "debian-archive-keyring")
        for job in [pool.submit(_build, release) for release in missing]:
            job.result()


def remove_unused() -> None:
    """Remove the images that no fleet is made from any more."""
    if not engine.is_running():
        return
    for release in RELEASES:
        name = f"{REPOSITORY}:{release}"
        if _built(release) and not run([*docker(), "ps", "--all", "--quiet", f"--filter=ancestor={name}"]).strip():
            with step(f"Removed the image {name}"):
                run([*docker(), "rmi", name])


def remove_logs() -> None:
    """Remove what building images left beside them."""
    for path in [*STATE.glob("image-*.log"), STATE / "image.lock"]:
        path.unlink(missing_ok=True)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Wait for others that hold the lock of this name."""
    STATE.mkdir(exist_ok=True)
    with (STATE / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _built(release: str) -> str | None:
    template = f'{{{{index .Config.Labels "{LABEL}"}}}}'
    try:
        return run([*docker(), "image", "inspect", "--format", template, f"{REPOSITORY}:{release}"]).strip()
    except StepError:
        return None


def _build(release: str) -> None:
    made_by = recipe(release)
    say(f"Building image {REPOSITORY}:{release} from Debian's packages, which takes a minute or two")
    changes = ['CMD ["/usr/local/sbin/testbed-init"]', "ENV container=docker", f"LABEL {LABEL}={made_by.digest}"]
    importing = [*docker(), "import", *(f"--change={change}" for change in changes), "-", f"{REPOSITORY}:{release}"]
    with step(f"Built image {REPOSITORY}:{release}"):
        debootstrap(made_by, "-", importing)


def debootstrap(made_by: Recipe, target: str, reader: Sequence[str] = ()) -> None:
    """Run mmdebstrap, into a folder or, with the target ``-``, as a tar archive into the ``reader`` program."""
    log = STATE / f"image-{made_by.release}.log"
    builder = as_root(["mmdebstrap", *made_by.options(), made_by.release, target, *source_lines(made_by.release)])
    with log.open("wb") as output:
        building = subprocess.Popen(
            builder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if reader else output, stderr=output
        )
        reading = None
        if reader:
            reading = subprocess.run(reader, stdin=building.stdout, capture_output=True, check=False)
        if building.wait():
            message = last_line(log.read_text(errors="replace"))
            raise StepError(f"mmdebstrap of {made_by.release} ended with {building.returncode}: {message}; see {log}")
    if reading is not None and reading.returncode:
        raise StepError(f"docker import of {made_by.release}: {last_line(reading.stderr.decode(errors='replace'))}")
