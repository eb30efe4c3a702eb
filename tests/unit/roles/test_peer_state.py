# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a balancer that comes back takes over from the others, between two real ones too."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.plugins.balancer import ROLE, Machine, ModelServer, pools_of, release, run_module, wait_until_up

sys.path.insert(0, str(ROLE / "files"))

import peer_state
from ansible_collections.modelfleet.onprem.plugins.modules import lb_maintenance, lb_rollout, lb_route, lb_server
from peer_state import Known, Places, find_best, knows_more, take_over

DONE = {"name": "move", "hosts": [], "state": "done", "at": ""}
OPEN = {**DONE, "state": "started"}


def rollout(number: int, *steps: dict[str, Any], ended: bool = True) -> dict[str, Any]:
    return {"id": f"2026010{number}T030405Z-0000000{number}", "steps": list(steps), "ended": "now" if ended else None}


def known(*rollouts: dict[str, Any], runs: bool = True, slot: str = "blue", **changed: Any) -> Known:
    maps = {"active.map": f"tumour tumour_{slot}\n", "canary.map": "", "maintenance.map": ""}
    return Known(runs, {**maps, **changed}, "", {f"{it['id']}.json": it for it in rollouts})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([rollout(1)], []),
        ([rollout(1), rollout(2)], [rollout(1)]),
        ([rollout(2)], [rollout(1), rollout(2, ended=False)]),
        ([rollout(2, DONE, OPEN, ended=False)], [rollout(2, DONE, ended=False)]),
        ([rollout(2, DONE, ended=False)], [rollout(2, OPEN, ended=False)]),
        # What is older than all that the other keeps was let go there.
        ([rollout(2), rollout(3)], [rollout(1), rollout(2)]),
        # Each went on without the other; what began last counts.
        ([rollout(1), rollout(3)], [rollout(1), rollout(2)]),
    ],
    ids=["any", "one more", "an end", "a step", "the end of a step", "let go", "both alone"],
)
def test_who_took_part_in_more_knows_more(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    assert knows_more(known(*one), known(*other))
    assert not knows_more(known(*other), known(*one))


def test_a_rollout_that_was_refused_before_it_began_says_nothing() -> None:
    refused = {**rollout(3), "verdict": "failed"}
    assert not knows_more(known(rollout(1), refused), known(rollout(1)))
    assert knows_more(known(rollout(1), rollout(2)), known(rollout(1), refused))
    assert knows_more(known({**rollout(3, DONE), "verdict": "failed"}), known(rollout(1)))


def test_a_lock_is_a_record_too_and_the_record_itself_is_fuller() -> None:
    begun = rollout(1, ended=False)
    assert Known(journal={"tumour.lock": begun}).rollouts == {begun["id"]: begun}
    whole = Known(journal={"tumour.lock": begun, f"{begun['id']}.json": rollout(1)})
    assert (whole.rollouts[begun["id"]]["ended"], whole.is_held) == ("now", False)


@pytest.mark.parametrize(
    ("mine", "peers", "found"),
    [
        (known(rollout(1), runs=False), [known(rollout(1)), known(rollout(1), rollout(2), runs=False)], 1),
        (known(rollout(1), runs=False), [known(rollout(1))], 0),
        (known(rollout(1), runs=True), [known(rollout(1))], None),
        (known(rollout(1), runs=False), [known(rollout(1), runs=False)], None),
        (known(rollout(1), rollout(2), runs=False), [known(rollout(1))], None),
        # In the midst of a rollout each has moved or not, and its journal says so.
        (known(rollout(1, ended=False), runs=False), [known(rollout(1, ended=False))], None),
        (known(runs=False), [], None),
    ],
    ids=["the best", "one that runs", "both run", "none runs", "behind", "in a rollout", "none"],
)
def test_whose_state_is_taken_over(mine: Known, peers: list[Known], found: int | None) -> None:
    best = find_best(peers, mine)
    assert best is (None if found is None else peers[found])


def test_what_is_taken_over_is_of_the_services_that_this_balancer_has() -> None:
    peer = Known(
        maps={
            "active.map": "tumour tumour_green\nprices tumour_green\nothers others_blue\n",
            "canary.map": "tumour_green 500\nothers_blue 500\nprices_blue 5\n",
            "maintenance.map": "tumour 60|Back%20soon\nothers 1|No\n",
        },
        releases=json.dumps({"tumour": {"slots": {"green": release(2)}, "history": []}, "others": {}}),
        journal={"tumour.lock": rollout(2, ended=False), "others.lock": rollout(1, ended=False)},
        forced={"tumour_blue/model1": 1, "others_blue/model1": 1},
    )
    mine = Known(
        maps={
            "active.map": "prices prices_green\ntumour tumour_blue\n",
            "canary.map": "tumour_blue 100\nprices_green 7\n",
            "maintenance.map": "prices 5|Closed\n",
        },
        releases=json.dumps({"prices": {"slots": {"green": release(1)}, "history": []}}),
        journal={"tumour.lock": rollout(1), "prices.lock": rollout(1, ended=False)},
        forced={"tumour_blue/model1": 0, "tumour_blue/model2": 8},
    )
    found = take_over(peer, mine)
    assert found.maps == {
        "active.map": "prices prices_green\ntumour tumour_green\n",
        "canary.map": "prices_green 7\ntumour_green 500\n",
        "maintenance.map": "prices 5|Closed\ntumour 60|Back%20soon\n",
    }
    assert sorted(json.loads(found.releases)) == ["prices", "tumour"]
    assert found.journal == {"tumour.lock": rollout(2, ended=False), "prices.lock": rollout(1, ended=False)}
    assert found.forced == {"tumour_blue/model1": 1, "tumour_blue/model2": 8}


@pytest.mark.parametrize(
    "told",
    [
        "",
        "[]",
        '{"runs": true, "rest": 1}',
        '{"journal": {"../../etc/passwd": {"id": "1"}}}',
        '{"journal": {"tumour.lock": 1}}',
        '{"forced": {"a/b; shutdown sessions": 1}}',
        '{"forced": {"a/b": 4}}',
        '{"maps": {"active.map": 1}}',
        '{"releases": "[]"}',
    ],
)
def test_what_is_no_state_is_not_taken(told: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        peer_state.parse_known(told)


def test_values_that_haproxy_should_not_read_are_left_out() -> None:
    peer = known(**{"active.map": "tumour tumour_green_\n", "canary.map": "tumour_blue 5;\n"})
    mine = known()
    assert take_over(peer, mine) == mine


class Pair:
    """Two balancers before the same servers, as in two machines. The second one can be told by the first."""

    def __init__(self, folder: Path) -> None:
        self.models = {
            "tumour": {slot: [ModelServer("tumour", version)] for slot, version in (("blue", 1), ("green", 2))}
        }
        self.machines = []
        for name in ("lb1", "lb2"):
            (folder / name).mkdir()
            self.machines.append(Machine(folder / name, pools_of(self.models)))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._answer, daemon=True).start()

    @staticmethod
    def places(machine: Machine) -> Places:
        folder = machine.state_dir
        params = machine.params
        return Places(folder, Path(params["rollouts_dir"]), folder / "servers.state", params["socket"])

    def _answer(self) -> None:
        """As the socket unit does, with the command that it starts."""
        with contextlib.suppress(OSError):
            while True:
                connection, (address, _port) = self.listener.accept()
                with connection, contextlib.redirect_stdout(io.StringIO()) as told:
                    with pytest.MonkeyPatch.context() as environment:
                        environment.setenv("REMOTE_ADDR", address)
                        peer_state.tell(["127.0.0.1"], self.places(self.machines[0]))
                    connection.sendall(told.getvalue().encode())

    def adopt(self) -> list[str]:
        return peer_state.adopt(["127.0.0.1"], self.port, self.places(self.machines[1]))

    def stop(self) -> None:
        self.listener.close()
        for machine in self.machines:
            machine.stop()
        for servers in self.models["tumour"].values():
            for server in servers:
                server.stop()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    found = Pair(tmp_path)
    try:
        for machine in found.machines:
            machine.start()
        wait_until_up(found.machines[0])
        yield found
    finally:
        found.stop()


ID = "20260102T030405Z-0a1b2c3d"


def roll_out(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = {"tumour": {"slot": "green", "release": release(2)}}
    begun = {"id": ID, "action": "deploy", "services": {"tumour": {"release": release(2), "slot": "green"}}}
    for step in ({"state": "begun", "rollout": begun}, None, {"state": "ended", "id": ID, "verdict": "done"}):
        if step:
            done = run_module(lb_rollout, capsys, **machine.params, **step)
        else:
            done = run_module(lb_route, capsys, **machine.params, services=wanted, rollout=ID)
        assert "msg" not in done


@pytest.mark.parametrize("runs", [False, True], ids=["down", "back before it was over"])
def test_a_balancer_that_missed_a_rollout_has_its_routes_before_it_takes_requests(
    pair: Pair, capsys: pytest.CaptureFixture[str], runs: bool
) -> None:
    first, second = pair.machines
    if not runs:
        second.stop()
    roll_out(first, capsys)
    assert pair.adopt() == ["releases.json", "active.map", f"{ID}.json"]
    if runs:
        second.reload()
    else:
        second.start()
    wait_until_up(second)
    assert second.get("/tumour/predict")[1]["version"] == "2"
    for name in ("active.map", "canary.map", "releases.json"):
        assert (second.state_dir / name).read_text() == (first.state_dir / name).read_text()
    journals = [{path.name: path.read_text() for path in it.folder.glob("rollouts/*")} for it in pair.machines]
    assert journals[0] == journals[1]
    assert pair.adopt() == []


def test_what_is_taken_out_by_hand_is_out_where_haproxy_starts_again(
    pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = pair.machines
    wait_until_up(second)
    (second.state_dir / "servers.state").write_text(second.ask("show servers state") + "\n")
    second.stop()
    run_module(lb_server, capsys, **first.params, servers=["tumour_green/model1"], state="maint")
    run_module(lb_maintenance, capsys, **first.params, services=["tumour"], state="present", detail="Back soon.")
    assert pair.adopt() == ["maintenance.map", "servers.state"]
    second.start()
    status, problem = second.get("/tumour/predict")
    assert (status, problem["detail"]) == (503, "Back soon.")
    states = {
        line.split()[3]: line.split()[6] for line in second.ask("show servers state tumour_green").splitlines()[2:]
    }
    assert states == {"model1": "1"}
    # What runs is told by its operator, not by the other.
    assert pair.adopt() == []


def test_a_running_balancer_that_was_away_takes_servers_out_and_in_at_once(
    pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = pair.machines
    run_module(lb_server, capsys, **second.params, servers=["tumour_blue/model1"], state="drain")
    run_module(lb_server, capsys, **first.params, servers=["tumour_green/model1"], state="maint")
    roll_out_alone = {"id": ID, "action": "deploy", "services": {"tumour": {"release": release(2), "slot": "green"}}}
    run_module(lb_rollout, capsys, **first.params, state="begun", rollout=roll_out_alone)
    assert pair.adopt() == [f"{ID}.json", "tumour.lock", "tumour_blue/model1", "tumour_green/model1"]
    rows = [line.split() for line in second.ask("show servers state").splitlines()[2:]]
    assert {row[1]: row[6] for row in rows} == {"tumour_blue": "0", "tumour_green": "1"}


def test_nobody_but_a_peer_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REMOTE_ADDR", "10.0.0.7")
    with pytest.raises(SystemExit, match=r"10\.0\.0\.7: expected one of the balancers 10\.0\.0\.8, 10\.0\.0\.9"):
        peer_state.tell(["10.0.0.8", "10.0.0.9"], Places(tmp_path))


def test_a_peer_that_says_nothing_is_passed_over(
    pair: Pair, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_state, "SECONDS_TO_CONNECT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert peer_state.adopt(["127.0.0.1"], port, Pair.places(pair.machines[1])) == []
    assert peer_state.adopt(["127.0.0.1"], port, Pair.places(pair.machines[1])) == []
    said = capsys.readouterr().err.splitlines()
    assert [f"127.0.0.1 port {port}: expected what that balancer has, found: " in line for line in said] == [True] * 2
