"""A fleet of virtual machines: each has a kernel of its own, as the machines of a user have, under QEMU."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from testbed import image, keys
from testbed.command import STATE, StepError, as_root, install, last_line, run, say, step, succeeds
from testbed.inventory import Fleet, Host

MEMORY = "1536M"
DISK_SIZE = "6G"
_NAME_SERVER = "10.0.2.3"
_SIGN_OF_LIFE_SECONDS = {"kvm": 20, "tcg": 180}
_READY_SECONDS = {"kvm": 120, "tcg": 600}

_NETWORK = "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n"


def up(fleet: Fleet) -> None:
    """Start the machines that do not run yet, and wait until every one answers."""
    with step(f"Fleet {fleet.name}: {len(fleet.hosts)} virtual machines are up"):
        _needs_x86()
        install("qemu-system-x86", "e2fsprogs", "mmdebstrap", "debian-archive-keyring")
        keys.user_key()
        keys.pin(fleet)
        for host in fleet.hosts:
            _bring_up(fleet, host)


def down(fleet: Fleet) -> None:
    """End the machines and remove their disks."""
    folders = [folder for host in fleet.hosts if (folder := _folder(fleet, host)).is_dir()]
    if not folders:
        say(f"Fleet {fleet.name}: nothing of it is there")
        return
    with step(f"Fleet {fleet.name}: removed {len(folders)} virtual machines with their disks"):
        for folder in folders:
            _end(folder)
            shutil.rmtree(folder)


def status(fleet: Fleet) -> None:
    """Say of each machine whether it runs and answers. A problem if one does not."""
    silent = []
    for host in fleet.hosts:
        running = _process(_folder(fleet, host)) is not None
        answers = running and succeeds(keys.ssh(fleet, host, "true", seconds=20), timeout=40)
        systemd = _systemd_state(fleet, host) if answers else "silent"
        text = f"systemd {systemd}, SSH {'answers' if answers else 'silent'}" if running else "not running"
        ports = "".join(f" {port}" for port in host.publish)
        say(f"{host.name:<12} {host.address}:{host.port} {host.release:<9} {text}{ports}")
        if not answers:
            silent.append(host.name)
    if silent:
        raise StepError(f"fleet {fleet.name}: not up: {', '.join(silent)}")


def recipe(release: str) -> image.Recipe:
    """The recipe of a machine's disk: that of the containers, with a kernel and a network of its own."""
    hooks = (
        image.write_hook("/etc/systemd/network/20-testbed.network", _NETWORK),
        'chroot "$1" systemctl --quiet enable systemd-networkd',
        # The same place for the kernel and its initial file system, whatever the kernel's version.
        'cp "$1"/boot/vmlinuz-* "$1/boot/vmlinuz" && cp "$1"/boot/initrd.img-* "$1/boot/initrd.img"',
    )
    return image.recipe(release, ["linux-image-cloud-amd64", "udev"], hooks)


def first_boot_files(fleet: Fleet, host: Host) -> str:
    """What systemd-tmpfiles writes when the machine starts: its keys, its name, its name server."""
    private, public = keys.host_key(fleet, host)
    ssh = f"/home/{fleet.user}/.ssh"
    files = [
        (f"{ssh}/authorized_keys", "0600", fleet.user, keys.user_key()),
        ("/etc/ssh/ssh_host_ed25519_key", "0600", "root", private),
        ("/etc/ssh/ssh_host_ed25519_key.pub", "0644", "root", public),
        ("/etc/hosts", "0644", "root", f"127.0.0.1 localhost\n127.0.1.1 {host.name}\n"),
        ("/etc/hostname", "0644", "root", f"{host.name}\n"),
        ("/etc/resolv.conf", "0644", "root", f"nameserver {_NAME_SERVER}\n"),
    ]
    lines = [f"d {ssh} 0700 {fleet.user} {fleet.user}"]
    for path, mode, owner, content in files:
        lines.append(f"f+~ {path} {mode} {owner} {owner} - {base64.b64encode(content.encode()).decode()}")
    return "\n".join(lines) + "\n"


def qemu_arguments(host: Host, folder: Path, base: Path, accelerator: str) -> list[str]:
    """The command line that starts a machine, in the background."""
    forwards = [f"hostfwd=tcp:{host.address}:{host.port}-:22"]
    forwards += [f"hostfwd=tcp:127.0.0.1:{port.outer}-:{port.inner}" for port in host.publish]
    processor = (
        ["-accel", "kvm", "-cpu", "host"] if accelerator == "kvm" else ["-accel", "tcg,thread=multi", "-cpu", "max"]
    )
    # What a kernel does against an attack by way of the processor's guesses takes an emulated one a third of its time.
    kernel = (
        "root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off quiet systemd.show_status=1 "
        f"systemd.hostname={host.name}"
    )
    return [
        "qemu-system-x86_64",
        *processor,
        *("-smp", "2", "-m", MEMORY, "-display", "none", "-monitor", "none", "-daemonize"),
        *("-pidfile", str(folder / "pid"), "-serial", f"file:{folder / 'console.log'}"),
        *("-kernel", str(base / "vmlinuz"), "-initrd", str(base / "initrd.img"), "-append", kernel),
        *("-drive", f"file={folder / 'disk.img'},format=raw,if=virtio,cache=unsafe"),
        *("-netdev", f"user,id=net,{','.join(forwards)}", "-device", "virtio-net-pci,netdev=net"),
        *("-device", "virtio-rng-pci", "-smbios", f"type=11,path={folder / 'credential'}"),
    ]


def accelerators() -> Sequence[str]:
    """How to run a machine, the quickest way first. KVM may be there and not work: it is tried, not believed."""
    return ("kvm", "tcg") if os.access("/dev/kvm", os.R_OK | os.W_OK) else ("tcg",)


def _needs_x86() -> None:
    if os.uname().machine != "x86_64":
        raise StepError(f"virtual machines are for x86_64, and this machine is {os.uname().machine}")


def _folder(fleet: Fleet, host: Host) -> Path:
    return STATE / fleet.name / host.name


def _bring_up(fleet: Fleet, host: Host) -> None:
    folder = _folder(fleet, host)
    if _process(folder) is not None:
        with step(f"{host.name}: runs already") as remarks:
            _wait_until_ready(fleet, host, _READY_SECONDS["kvm"], remarks)
        return
    base = _base(host.release)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "disk.img").exists():
        run(["cp", "--sparse=always", "--reflink=auto", str(base / "disk.img"), str(folder / "disk.img")])
    content = base64.b64encode(first_boot_files(fleet, host).encode()).decode()
    credential = folder / "credential"
    credential.touch(mode=0o600)
    credential.write_text(f"io.systemd.credential.binary:tmpfiles.extra={content}")
    for accelerator in accelerators():
        try:
            with step(f"{host.name}: started under {accelerator}") as remarks:
                _start(host, folder, base, accelerator)
                _wait_until_ready(fleet, host, _READY_SECONDS[accelerator], remarks)
        except StepError as error:
            _end(folder)
            if accelerator == "tcg":
                raise
            say(f"{host.name}: KVM does not work on this machine, so the processor is emulated: {error}")
        else:
            return


def _start(host: Host, folder: Path, base: Path, accelerator: str) -> None:
    """Start a machine, and see its kernel write something to its console."""
    console = folder / "console.log"
    console.write_text("")
    run(qemu_arguments(host, folder, base, accelerator))
    deadline = time.monotonic() + _SIGN_OF_LIFE_SECONDS[accelerator]
    while not console.stat().st_size:
        if _process(folder) is None:
            raise StepError(f"{host.name}: QEMU ended before the kernel wrote anything")
        if time.monotonic() > deadline:
            raise StepError(f"{host.name}: the kernel wrote nothing in {_SIGN_OF_LIFE_SECONDS[accelerator]} s")
        time.sleep(0.2)


def _wait_until_ready(fleet: Fleet, host: Host, seconds: float, remarks: list[str]) -> None:
    folder = _folder(fleet, host)
    deadline = time.monotonic() + seconds
    while True:
        try:
            run(keys.ssh(fleet, host, "true", seconds=20), timeout=40)
            break
        except StepError as problem:
            console = last_line((folder / "console.log").read_text(errors="replace"))
            if _process(folder) is None:
                raise StepError(f"{host.name}: the machine ended; its console's last line: {console}") from problem
            if time.monotonic() > deadline:
                raise StepError(
                    f"{host.name}: no SSH after {seconds:.0f} s: {problem}; console: {console}"
                ) from problem
            time.sleep(1)
    while (state := _systemd_state(fleet, host)) not in ("running", "degraded"):
        if time.monotonic() > deadline:
            raise StepError(f"{host.name}: systemd is {state} after {seconds:.0f} s")
        time.sleep(1)
    remarks.append(f"systemd {state}")
    if state == "degraded":
        failed = run(keys.ssh(fleet, host, "systemctl", "--failed", "--plain", "--no-legend"), timeout=40).splitlines()
        remarks.append(f"failed: {' '.join(line.split()[0] for line in failed if line.strip())}")
    remarks.append(f"SSH answers at {host.address} port {host.port}")


def _systemd_state(fleet: Fleet, host: Host) -> str:
    try:
        return run(keys.ssh(fleet, host, "systemctl is-system-running || :", seconds=20), timeout=60).strip()
    except StepError:
        return "silent"


def _process(folder: Path) -> int | None:
    """The process of a machine, if it is one and runs."""
    try:
        pid = int((folder / "pid").read_text())
        running = f"{folder / 'pid'}\0" in Path(f"/proc/{pid}/cmdline").read_text()
    except (OSError, ValueError):
        return None
    return pid if running else None


def _end(folder: Path) -> None:
    pid = _process(folder)
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 10
    while _process(folder) is not None:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _base(release: str) -> Path:
    """A folder with the disk, kernel and initial file system that a release's machines start from."""
    made_by = recipe(release)
    base = STATE / "vm" / f"{release}-{made_by.digest}"
    with image.locked("vm.lock"):
        if base.is_dir():
            say(f"Disk of {release} is there already")
            return base
        say(f"Building a disk of {release} from Debian's packages, which takes a minute or two")
        with step(f"Built a disk of {release}"):
            building = base.with_name(f"{base.name}.building")
            root = building / "root"
            run(as_root(["rm", "--recursive", "--force", str(building)]))
            building.mkdir(parents=True)
            image.debootstrap(made_by, str(root))
            owner = f"{os.getuid()}:{os.getgid()}"
            for name in ("vmlinuz", "initrd.img"):
                run(as_root(["mv", str(root / "boot" / name), str(building / name)]))
            disk = str(building / "disk.img")
            run(as_root(["mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", str(root), disk, DISK_SIZE]), timeout=300)
            run(as_root(["rm", "--recursive", "--force", str(root)]))
            run(as_root(["chown", "--recursive", owner, str(building)]))
            building.rename(base)
            # Machines have copies: nothing needs the disks of earlier recipes.
            for earlier in base.parent.glob(f"{release}-*"):
                if earlier != base:
                    run(as_root(["rm", "--recursive", "--force", str(earlier)]))
    return base
