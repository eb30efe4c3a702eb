"""The client against a socket that speaks as HAProxy does, and says what a real one says only if something is wrong."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._haproxy import (
    Balancer,
    HaproxyError,
    Process,
    find_leaving,
    in_flight,
    read_live_map,
    read_servers,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._route import Target, move, parse_map

STATE = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_port
3 tumour_blue 1 model1 10.0.0.11 2 0 100 100 8101
3 tumour_blue 2 model2 10.0.0.12 0 1 50 100 8101
3 tumour_blue 3 model3 10.0.0.13 2 8 100 100 8101
"""
STAT = """# pxname,svname,qcur,scur,check_status,last_chk,
tumour_blue,model1,1,2,L7OK,"passed, at last",
tumour_blue,model2,0,0,,,
tumour_blue,model3,0,0,L7OK,,
"""


class FakeSocket:
    """HAProxy's stats socket with a map, in prompt mode or, as ``master``, a command a connection."""

    def __init__(self, path: Path, map_name: str, replies: Mapping[str, str], master: bool = False) -> None:
        self.entries: list[tuple[str, str]] = [("tumour", "tumour_blue")]
        self.prepared: dict[str, list[tuple[str, str]]] = {}
        self.commands: list[str] = []
        self._map = map_name
        self._replies = replies
        self._master = master
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream, contextlib.suppress(OSError):
                for line in stream:
                    command = line.decode().strip()
                    self.commands.append(command)
                    reply = self._answer(command)
                    if reply == "close":
                        break
                    stream.write(f"{reply}\n\n".encode() if self._master else f"{reply}\n> ".encode())
                    stream.flush()

    def _answer(self, command: str) -> str:
        for start, reply in self._replies.items():
            if command.startswith(start):
                return reply
        words = command.split()
        if words[:2] == ["prepare", "map"]:
            version = str(len(self.prepared) + 1)
            self.prepared[version] = []
            return f"New version created: {version}\n"
        if words[:2] == ["add", "map"]:
            self.prepared[words[2].lstrip("@")].append((words[4], words[5]))
        if words[:2] == ["commit", "map"]:
            self.entries = self.prepared[words[2].lstrip("@")]
        if words[:2] == ["show", "map"] and words[2].endswith("active.map"):
            return "".join(f"0x55 {key} {value}\n" for key, value in self.entries)
        return ""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[object]:
    with contextlib.ExitStack() as stack:

        def start(replies: Mapping[str, str] | None = None, name: str = "admin.sock") -> FakeSocket:
            fake = FakeSocket(tmp_path / name, str(tmp_path / "active.map"), replies or {}, name == "master.sock")
            stack.callback(fake.stop)
            return fake

        yield start


def balancer(process: Process, folder: Path) -> Balancer:
    (folder / "active.map").write_text("tumour tumour_blue\n")
    return Balancer(process, str(folder), str(folder / "master.sock"))


def commit(folder: Path) -> None:
    with Process(str(folder / "admin.sock"), timeout=2) as process:
        found = balancer(process, folder)
        before = found.read()
        found.commit(before, move(before, [Target("tumour", "green", "2-000000000002")]))


def route(folder: Path) -> object:
    return parse_map((folder / "active.map").read_text(), "active.map")


def test_a_move_is_one_commit_that_is_read_back(serve, tmp_path: Path) -> None:
    fake = serve()
    commit(tmp_path)
    name = tmp_path / "active.map"
    assert fake.commands == [
        "prompt",
        f"show map {name}",
        f"show map {tmp_path / 'canary.map'}",
        f"prepare map {name}",
        f"add map @1 {name} tumour tumour_green",
        f"commit map @1 {name}",
        f"show map {name}",
    ]
    assert route(tmp_path) == (("tumour", "tumour_green"),)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("prepare map", "expected HAProxy to prepare a new version of the map, found: no"),
        ("add map", "expected HAProxy to take tumour tumour_green, found: no"),
        ("commit map", "expected HAProxy to take version 1 of the map, found: no"),
    ],
)
def test_a_refusal_leaves_the_map_file_as_it_was(serve, tmp_path: Path, command: str, message: str) -> None:
    fake = serve({command: "no"})
    with pytest.raises(HaproxyError, match=message):
        commit(tmp_path)
    assert route(tmp_path) == (("tumour", "tumour_blue"),)
    prepared = bool(fake.prepared)
    assert (fake.commands[-1] == f"clear map @1 {tmp_path}/active.map") is prepared


def test_a_connection_that_ends_during_the_commit_is_said_so(serve, tmp_path: Path) -> None:
    serve({"commit map": "close"})
    with pytest.raises(HaproxyError, match=r"expected a reply to 'commit map @1 .*', found a closed connection"):
        commit(tmp_path)
    assert route(tmp_path) == (("tumour", "tumour_blue"),)


def test_a_map_that_is_not_what_was_written_is_said_so(serve, tmp_path: Path) -> None:
    serve({"show map": "0x55 tumour tumour_blue\n0x66 tumour tumour_green\n"})
    expected = "expected tumour tumour_green, found tumour tumour_blue, tumour tumour_green after the change"
    with pytest.raises(HaproxyError, match=expected):
        commit(tmp_path)


def test_a_map_that_haproxy_does_not_use_is_named(serve, tmp_path: Path) -> None:
    serve({"show map": "Unknown map identifier. Please use #<id> or <file>.\n"})
    with (
        Process(str(tmp_path / "admin.sock")) as process,
        pytest.raises(HaproxyError, match=r"active\.map: expected HAProxy to use this map, found: Unknown map"),
    ):
        read_live_map(process, "active.map")


def test_servers_are_read_with_their_state_and_their_requests(serve, tmp_path: Path) -> None:
    serve({"show stat": STAT, "show servers state": STATE})
    with Process(str(tmp_path / "admin.sock")) as process:
        servers = read_servers(process)
        assert in_flight([process], servers) == {"tumour_blue/model1": 3}
    assert [(server.label, server.status, server.admin, server.weight) for server in servers] == [
        ("tumour_blue/model1", "UP", "ready", 100),
        ("tumour_blue/model2", "DOWN", "maint", 50),
        ("tumour_blue/model3", "UP", "drain", 100),
    ]
    assert (servers[0].sessions, servers[0].queue, servers[0].check) == (2, 1, "L7OK passed, at last")
    assert [server.in_rotation for server in servers] == [True, False, False]


@pytest.mark.parametrize("reply", ["2\n# other columns\n", "", "Permission denied\n"])
def test_a_state_in_another_format_is_refused(serve, tmp_path: Path, reply: str) -> None:
    serve({"show stat": STAT, "show servers state": reply})
    with (
        Process(str(tmp_path / "admin.sock")) as process,
        pytest.raises(HaproxyError, match="show servers state: expected format 1, found"),
    ):
        read_servers(process)


def test_processes_that_a_reload_replaced_are_found(serve, tmp_path: Path) -> None:
    serve({"show info": "Name: HAProxy\nPid: 20\n"})
    serve(
        {"show proc": "#<PID> <type>\n1 master 1\n# workers\n20 worker 0\n# old workers\n10 worker 1\n"}, "master.sock"
    )
    with Process(str(tmp_path / "admin.sock")) as process:
        assert [leaving.pid for leaving in find_leaving(process, str(tmp_path / "master.sock"))] == ["10"]
        assert find_leaving(process, str(tmp_path / "none.sock")) == []


def test_silence_of_a_process_that_was_replaced_is_not_taken_for_no_request(serve, tmp_path: Path) -> None:
    serve({"show info": "Pid: 20\n", "show stat": STAT, "show servers state": STATE})
    serve({"show proc": "# workers\n20 worker 0\n# old workers\n10 worker 1\n", "@!10": ""}, "master.sock")
    with Process(str(tmp_path / "admin.sock")) as process:
        servers = read_servers(process)[1:]
        leaving = find_leaving(process, str(tmp_path / "master.sock"))
        assert in_flight([process, *leaving], servers) == {
            "a process that a reload has replaced and that does not answer": 1
        }


def test_two_runs_at_once_take_turns(tmp_path: Path, serve) -> None:
    serve()
    with Process(str(tmp_path / "admin.sock")) as process:
        found = balancer(process, tmp_path)
        order: list[str] = []
        with found.alone("changing routes"):
            other = threading.Thread(target=lambda: take_turn(found, order))
            other.start()
            other.join(0.2)
            order.append("first")
        other.join()
    assert order == ["first", "second"]


def take_turn(found: Balancer, order: list[str]) -> None:
    with found.alone("changing routes"):
        order.append("second")


def test_a_folder_that_is_missing_is_named(tmp_path: Path, serve) -> None:
    serve()
    with (
        Process(str(tmp_path / "admin.sock")) as process,
        pytest.raises(HaproxyError, match="none: expected the folder that the role load_balancer makes, found none"),
        Balancer(process, str(tmp_path / "none")).alone("changing routes"),
    ):
        pass
