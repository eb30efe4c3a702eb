from __future__ import annotations

import base64
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from testbed import __main__ as command_line
from testbed import command, engine, keys, vm
from testbed.fleet import container_arguments, digest, kill, largest_packet
from testbed.inventory import Fleet, Host, Port

HOST = Host("lb1", "10.0.0.2", 22, "bookworm", (Port(18080, 80),), (("/data", "size=1m"), ("/more", "")))
FLEET = Fleet("try", "containers", "10.0.0.0/24", "ops", (HOST,))
VM = Host("vm1", "127.0.0.1", 18022, "bookworm", (Port(18083, 80),))


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(keys, "STATE", tmp_path)
    monkeypatch.setattr(keys, "USER_KEY", tmp_path / "id_ed25519")
    return tmp_path


def test_a_container_has_what_systemd_needs_and_no_more() -> None:
    arguments = container_arguments(FLEET, HOST, ("--env=X=1",))
    assert {"--name=try-lb1", "--hostname=lb1", "--network=try", "--ip=10.0.0.2", "--env=X=1"} <= set(arguments)
    assert {"--publish=127.0.0.1:18080:80", "--tmpfs=/data:size=1m", "--tmpfs=/more"} <= set(arguments)
    assert "--privileged" not in arguments


def test_a_host_of_another_checkout_is_another_host(state: Path) -> None:
    made_from = digest(["--name=try-lb1"], "sha256:1\n", keys.files(FLEET, HOST))
    assert digest(["--name=try-lb1"], "sha256:1\n", keys.files(FLEET, HOST)) == made_from
    for path in state.glob("**/*ed25519*"):
        path.unlink()
    assert digest(["--name=try-lb1"], "sha256:1\n", keys.files(FLEET, HOST)) != made_from
    assert digest(["--name=try-lb2"], "sha256:1\n", b"") != digest(["--name=try-lb1"], "sha256:1\n", b"")


@pytest.mark.parametrize(("mtu", "expected"), [("1400", 1400), ("65536", 1500)])
def test_packets_are_no_larger_than_the_way_out_bears(tmp_path: Path, mtu: str, expected: int) -> None:
    routes = tmp_path / "route"
    routes.write_text("Iface\tDestination\tGateway\nlan0\t0000000A\t0\neth0\t00000000\t010200C0\n")
    (tmp_path / "eth0").mkdir()
    (tmp_path / "eth0" / "mtu").write_text(f"{mtu}\n")
    assert largest_packet(routes, tmp_path) == expected


def test_without_a_way_out_packets_have_dockers_own_size(tmp_path: Path) -> None:
    routes = tmp_path / "route"
    routes.write_text("Iface\tDestination\tGateway\n")
    assert largest_packet(routes, tmp_path) == 1500


def test_keys_are_made_once_and_pinned(state: Path) -> None:
    fleet = Fleet("try", "vm", None, "ops", (HOST, VM))
    keys.pin(fleet)
    first = keys.known_hosts(fleet).read_text()
    keys.pin(fleet)
    assert keys.known_hosts(fleet).read_text() == first
    lines = first.splitlines()
    assert lines[0].startswith("10.0.0.2 ssh-ed25519 AAAA")
    assert lines[1].startswith("[127.0.0.1]:18022 ssh-ed25519 AAAA")
    assert keys.known_hosts(fleet).is_relative_to(state)


def test_what_lets_us_in_goes_with_the_last_fleet(state: Path) -> None:
    other = Fleet("other", "vm", None, "ops", (VM,))
    keys.user_key()
    keys.pin(FLEET)
    keys.pin(other)
    assert not keys.forget(FLEET)
    assert sorted(path.name for path in state.iterdir()) == ["id_ed25519", "id_ed25519.pub", "other"]
    assert keys.forget(other)
    assert list(state.iterdir()) == []


def test_a_host_gets_its_own_key_and_lets_ours_in(state: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(keys.files(FLEET, HOST))) as archive:
        entries = {entry.name: entry for entry in archive}
        authorized = archive.extractfile("home/ops/.ssh/authorized_keys")
        assert authorized is not None
        assert authorized.read().decode() == (state / "id_ed25519.pub").read_text()
    assert entries["etc/ssh/ssh_host_ed25519_key"].mode == 0o600
    assert entries["etc/ssh/ssh_host_ed25519_key"].uid == 0
    assert (entries["home/ops/.ssh"].mode, entries["home/ops/.ssh"].uid) == (0o700, 1000)


def test_a_machine_writes_its_keys_and_name_when_it_starts(state: Path) -> None:
    fleet = Fleet("try", "vm", None, "ops", (VM,))
    lines = [line.split() for line in vm.first_boot_files(fleet, VM).splitlines()]
    written = {line[1]: base64.b64decode(line[6]).decode() for line in lines if line[0] == "f+~"}
    assert written["/etc/hostname"] == "vm1\n"
    assert written["/home/ops/.ssh/authorized_keys"] == (state / "id_ed25519.pub").read_text()
    assert written["/etc/ssh/ssh_host_ed25519_key"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----")


@pytest.mark.parametrize(("accelerator", "processor"), [("kvm", "host"), ("tcg", "max")])
def test_a_machine_is_reached_through_loopback_alone(accelerator: str, processor: str) -> None:
    arguments = vm.qemu_arguments(VM, Path("/vm"), Path("/base"), accelerator)
    assert "user,id=net,hostfwd=tcp:127.0.0.1:18022-:22,hostfwd=tcp:127.0.0.1:18083-:80" in arguments
    assert arguments[arguments.index("-cpu") + 1] == processor


@pytest.mark.parametrize(
    ("pid", "name", "state", "stale"),
    [
        ("4711", None, "", True),
        ("4711", "bash", "S", True),
        ("4711", "dockerd", "S", False),
        ("4711", "dockerd", "Z", True),
        ("", None, "", True),
        (None, None, "", False),
    ],
)
def test_the_pid_file_of_a_dead_engine_is_removed(
    tmp_path: Path, pid: str | None, name: str | None, state: str, stale: bool
) -> None:
    pid_file, process = tmp_path / "docker.pid", tmp_path / "4711"
    if pid is not None:
        pid_file.write_text(pid)
    if name is not None:
        process.mkdir()
        (process / "comm").write_text(f"{name}\n")
        (process / "stat").write_text(f"4711 ({name}) {state} 1 4711 4711 0\n")
    assert engine.remove_stale_pid_file(pid_file, "dockerd", tmp_path) is stale
    assert pid_file.exists() is (pid is not None and not stale)


def test_a_pid_file_is_read_and_removed_as_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "containerd.pid").write_text("4711")
    asked: list[str] = []
    monkeypatch.setattr(engine, "as_root", lambda argv: asked.append(argv[0]) or argv)
    assert engine.remove_stale_pid_file(tmp_path / "containerd.pid", "containerd", tmp_path)
    assert asked == ["cat", "rm"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["sh", "-c", "echo first >&2; echo 'last one' >&2; exit 3"], "ended with 3: last one"),
        (["sh", "-c", "exit 1"], "ended with 1: no message"),
        (["not-a-program"], "not-a-program: this program is not installed"),
        (["sleep", "5"], "sleep 5: not done after 0 s"),
    ],
)
def test_a_program_that_fails_is_one_line(argv: list[str], message: str) -> None:
    with pytest.raises(command.StepError) as caught:
        command.run(argv, timeout=0.3)
    assert message in str(caught.value)


def test_a_program_without_input_reads_nothing() -> None:
    assert command.run([sys.executable, "-c", "import sys; print(repr(sys.stdin.read()))"]) == "''\n"


def test_the_command_line_ends_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["testbed", "up", str(tmp_path / "none.yml")])
    assert command_line.main() == 1
    assert (
        capsys.readouterr().out == f"testbed up: {tmp_path / 'none.yml'}: cannot be read: No such file or directory\n"
    )


@pytest.mark.parametrize(
    ("fleet", "message"),
    [
        (FLEET, "fleet try: expected a container (lb1), found lb2"),
        (Fleet("one", "vm", None, "ops", (VM,)), "fleet one: expected a container (none), found lb2"),
    ],
)
def test_a_host_that_is_no_container_is_not_ended(fleet: Fleet, message: str) -> None:
    with pytest.raises(command.StepError) as caught:
        kill(fleet, "lb2")
    assert str(caught.value) == message


def test_the_command_line_says_what_its_verbs_are() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "testbed", "--help"], cwd=command.ROOT, capture_output=True, text=True, check=True
    )
    assert all(verb in done.stdout for verb in ("engine", "image", "up", "down", "status", "kill"))
