from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._route import (
    HISTORY,
    Cold,
    Record,
    State,
    Target,
    count_needed,
    find_earlier,
    format_map,
    format_records,
    move,
    move_back,
    parse_map,
    parse_records,
    provide,
)

ONE, TWO, THREE = (f"{number}-{number:012x}" for number in (1, 2, 3))
BLUE = (("tumour", "tumour_blue"),)
GREEN = (("tumour", "tumour_green"),)


def on_blue(**record: Any) -> State:
    return State(BLUE, BLUE, {"tumour": Record(**record)})


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (("tumour", "red", ONE), "slot of tumour: expected blue or green, found 'red'"),
        (("Tumour", "blue", ONE), "service: expected up to 40 lower-case letters"),
        (("tumour", "blue", "1"), "release: expected a version, a dash and 12 hexadecimal digits, found '1'"),
    ],
)
def test_a_target_that_cannot_be_is_refused(target: tuple[str, str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Target(*target)


def test_moving_remembers_the_release_that_is_left() -> None:
    after = move(on_blue(slots={"blue": ONE}), [Target("tumour", "green", TWO)])
    assert after == State(GREEN, GREEN, {"tumour": Record({"blue": ONE, "green": TWO}, (ONE,))})


def test_a_new_release_in_the_active_slot_is_remembered_too() -> None:
    after = move(on_blue(slots={"blue": ONE}), [Target("tumour", "blue", TWO)])
    assert after == State(BLUE, BLUE, {"tumour": Record({"blue": TWO}, (ONE,))})


def test_the_same_release_in_the_other_slot_is_no_earlier_one() -> None:
    after = move(on_blue(slots={"blue": ONE}), [Target("tumour", "green", ONE)])
    assert after.record("tumour").earlier("green") == ()


def test_going_back_again_goes_further_back() -> None:
    state = on_blue(slots={"blue": ONE})
    for slot, release in (("green", TWO), ("blue", THREE)):
        state = move(state, [Target("tumour", slot, release)])
    gone_to = []
    for slot in ("green", "blue"):
        target = find_earlier(state, "tumour", None)
        assert isinstance(target, Target)
        assert target.slot == slot
        gone_to.append(target.release)
        state = move_back(state, [target])
    assert gone_to == [TWO, ONE]
    with pytest.raises(ValueError, match=f"found none; active is {ONE}, earlier ones are none"):
        find_earlier(state, "tumour", None)


def test_going_back_two_releases_forgets_both() -> None:
    state = on_blue(slots={"blue": THREE, "green": TWO}, history=(ONE, TWO))
    target = find_earlier(state, "tumour", "1")
    assert target == Target("tumour", "green", ONE)
    assert move_back(state, [target]).record("tumour").earlier("green") == ()


@pytest.mark.parametrize(
    ("to", "found"),
    [
        (THREE, None),
        ("3", None),
        ("2", Target("tumour", "green", TWO)),
        ("4-000000000004", Target("tumour", "green", "4-000000000004")),
    ],
)
def test_a_release_is_found_by_its_name_or_version(to: str, found: Target | None) -> None:
    assert find_earlier(on_blue(slots={"blue": THREE}, history=(ONE, TWO)), "tumour", to) == found


def test_a_name_that_no_release_has_is_cold_or_refused() -> None:
    state = on_blue(slots={"blue": THREE}, history=(ONE, TWO))
    reason = f"expected a release that was active before, found no 9; active is {THREE}, earlier ones are {ONE}, {TWO}"
    assert find_earlier(state, "tumour", "9") == Cold("tumour", None, reason)
    with pytest.raises(ValueError, match=f"tumour: {reason}"):
        find_earlier(state, "tumour", "9", cold_ok=False)


def test_a_service_without_a_route_cannot_go_back() -> None:
    with pytest.raises(ValueError, match="prices: expected a route to blue or green, found none in the map"):
        find_earlier(on_blue(), "prices", None)


def random_walk(seed: int) -> list[tuple[State, State]]:
    """States before and after moves and ways back, in an order that ``seed`` decides."""
    chance = random.Random(seed)
    state = on_blue(slots={"blue": ONE})
    steps = []
    for number in range(2, 40):
        if chance.random() < 0.4 and state.record("tumour").earlier(state.slot("tumour")):
            target = find_earlier(state, "tumour", None)
            assert isinstance(target, Target)
            after = move_back(state, [target])
        else:
            release = f"{number}-{chance.randrange(6):012x}" if chance.random() < 0.7 else TWO
            after = move(state, [Target("tumour", chance.choice(["blue", "green"]), release)])
        steps.append((state, after))
        state = after
    return steps


@pytest.mark.parametrize("seed", range(30))
def test_a_crash_at_any_moment_of_a_move_is_completed_by_the_same_move(seed: int) -> None:
    for before, after in random_walk(seed):
        slot, record = after.slot("tumour"), after.record("tumour")
        target = Target("tumour", str(slot), str(record.active(slot)))
        half = State(before.live, before.file, after.records)
        more = State(before.live, after.file, after.records)
        forward = move(before, [target]) == after
        for died in (half, more) if forward else ():
            completed = move(died, [target])
            assert (completed.live, completed.file) == (after.live, after.file)
            assert completed.record("tumour").earlier(slot) == record.earlier(slot)
        for died in () if forward else (half, more):
            assert find_earlier(died, "tumour", None) == target
            assert move_back(died, [target]) == after


@pytest.mark.parametrize("seed", range(30))
def test_moving_twice_is_moving_once_and_no_release_is_before_itself(seed: int) -> None:
    for _before, after in random_walk(seed):
        slot, record = after.slot("tumour"), after.record("tumour")
        active = str(record.active(slot))
        assert move(after, [Target("tumour", str(slot), active)]) == after
        history = record.earlier(slot)
        assert not history or history[-1] != active
        assert all(one != other for one, other in itertools.pairwise(history))


def test_the_history_has_an_end() -> None:
    state = on_blue(slots={"blue": ONE})
    for number in range(2, 2 * HISTORY):
        state = move(state, [Target("tumour", "blue", f"{number}-{number:012x}")])
    assert len(state.record("tumour").history) == HISTORY


def test_other_services_stay_and_a_service_has_one_entry() -> None:
    live = (("tumour", "tumour_blue"), ("prices", "prices_green"), ("tumour", "tumour_green"))
    after = move(State(live, BLUE, {}), [Target("tumour", "blue", ONE), Target("weather", "green", TWO)])
    assert after.live == (("tumour", "tumour_blue"), ("prices", "prices_green"), ("weather", "weather_green"))
    assert after.file == (("tumour", "tumour_blue"), ("weather", "weather_green"))


def test_services_that_come_start_at_blue_and_those_that_go_are_forgotten() -> None:
    before = State((), (("tumour", "tumour_green"), ("old", "old_blue")), {"tumour": Record(), "old": Record()})
    after = provide(before, ["prices", "tumour"])
    assert after.file == (("prices", "prices_blue"), ("tumour", "tumour_green"))
    assert set(after.records) == {"tumour"}


@pytest.mark.parametrize(
    ("min_up", "servers", "needed"), [("100%", 3, 3), ("50%", 3, 2), ("1", 3, 1), ("0%", 3, 1), ("100%", 0, 1)]
)
def test_a_share_of_servers_is_rounded_up(min_up: str, servers: int, needed: int) -> None:
    assert count_needed(min_up, servers) == needed


@pytest.mark.parametrize("min_up", ["101%", "all", "-1", "", "1.5"])
def test_a_share_that_is_none_is_refused(min_up: str) -> None:
    with pytest.raises(ValueError, match="min_up: expected a number of servers or a percentage such as 50%, found"):
        count_needed(min_up, 3)


def test_files_are_read_as_they_are_written() -> None:
    entries = (("tumour", "tumour_blue"), ("prices", "prices_green"))
    assert parse_map("# routes\n\n" + format_map(entries), "active.map") == entries
    records = {"tumour": Record({"blue": ONE}, (TWO, THREE))}
    assert parse_records(format_records(records), "releases.json") == records
    assert parse_records("", "releases.json") == {}


def test_a_map_line_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match=r"active\.map, line 2: expected a service and a pool, found 'prices'"):
        parse_map("tumour tumour_blue\nprices\n", "active.map")


@pytest.mark.parametrize("text", ["[]", "{", '{"tumour": {}}', '{"tumour": {"slots": 1, "history": []}}'])
def test_records_that_are_none_are_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"releases\.json: expected slots and history for each service, found: "):
        parse_records(text, "releases.json")


@pytest.mark.parametrize("history", [("1-aaaaaaaaaaaa", "2-bbbbbbbbbbbb"), ("1-aaaaaaaaaaaa",), ()])
def test_what_serves_already_is_gone_back_to_without_forgetting_anything(history: tuple[str, ...]) -> None:
    """It may have served before: a deploy that died before it moved is undone."""
    entries = (("tumour", "tumour_blue"),)
    record = Record({"blue": "1-aaaaaaaaaaaa", "green": "2-bbbbbbbbbbbb"}, history)
    state = State(entries, entries, {"tumour": record})
    after = move_back(state, [Target("tumour", "blue", "1-aaaaaaaaaaaa")])
    assert after.record("tumour").earlier("blue") == record.earlier("blue")
