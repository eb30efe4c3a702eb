"""Who may log in and which host is which: one key pair for all fleets, one pinned host key for each host."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path

from testbed.command import STATE, install, run
from testbed.inventory import Fleet, Host

USER_KEY = STATE / "id_ed25519"


def user_key() -> str:
    """The public key of the key pair that logs in; made when it is not there yet."""
    return _public_key(USER_KEY, "testbed")


def host_key(fleet: Fleet, host: Host) -> tuple[str, str]:
    """The private and the public key that a host shows; made when they are not there yet."""
    path = STATE / fleet.name / f"{host.name}_host_key"
    public = _public_key(path, host.name)
    return path.read_text(), public


def _public_key(path: Path, comment: str) -> str:
    if not path.exists():
        install("openssh-client")
        path.parent.mkdir(parents=True, exist_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])
    return path.with_suffix(".pub").read_text()


def known_hosts(fleet: Fleet) -> Path:
    """Where a fleet's host keys are pinned."""
    return STATE / fleet.name / "known_hosts"


def known_hosts_lines(hosts: Iterable[tuple[Host, str]]) -> str:
    """The content of known_hosts for hosts and their public keys."""
    lines = []
    for host, public in hosts:
        name = host.address if host.port == 22 else f"[{host.address}]:{host.port}"
        lines.append(f"{name} {' '.join(public.split()[:2])}\n")
    return "".join(lines)


def pin(fleet: Fleet) -> None:
    """Write the fleet's known_hosts, making keys that are not there yet."""
    text = known_hosts_lines((host, host_key(fleet, host)[1]) for host in fleet.hosts)
    path = known_hosts(fleet)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def forget(fleet: Fleet) -> bool:
    """Remove the keys of a fleet that is down, and with those of the last fleet our own. Whether it was the last."""
    shutil.rmtree(STATE / fleet.name, ignore_errors=True)
    if any(STATE.glob("*/known_hosts")):
        return False
    for path in (USER_KEY, USER_KEY.with_suffix(".pub")):
        path.unlink(missing_ok=True)
    return True


def files(fleet: Fleet, host: Host) -> bytes:
    """A tar archive, to be unpacked at ``/`` of the host, with its own keys and the key that may log in."""
    private, public = host_key(fleet, host)
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        _add(archive, "etc/ssh/ssh_host_ed25519_key", private, 0o600, owner=0)
        _add(archive, "etc/ssh/ssh_host_ed25519_key.pub", public, 0o644, owner=0)
        _add(archive, f"home/{fleet.user}/.ssh", None, 0o700, owner=1000)
        _add(archive, f"home/{fleet.user}/.ssh/authorized_keys", user_key(), 0o600, owner=1000)
    return output.getvalue()


def _add(archive: tarfile.TarFile, path: str, content: str | None, mode: int, owner: int) -> None:
    entry = tarfile.TarInfo(path)
    entry.mode, entry.uid, entry.gid = mode, owner, owner
    if content is None:
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
        return
    data = content.encode()
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def ssh(fleet: Fleet, host: Host, *command: str, seconds: int = 5) -> list[str]:
    """The command line that logs in to a host, as Ansible will."""
    options = [f"UserKnownHostsFile={known_hosts(fleet)}", "StrictHostKeyChecking=yes", "BatchMode=yes"]
    options += [f"ConnectTimeout={seconds}", "LogLevel=ERROR"]
    asked = [part for option in options for part in ("-o", option)]
    return ["ssh", "-i", str(USER_KEY), *asked, "-p", str(host.port), f"{fleet.user}@{host.address}", *command]
