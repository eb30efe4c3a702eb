# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal: who holds a service, what a rollout may write, and what is left of it whichever write was the last."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._journal import (
    KEPT,
    Journal,
    JournalError,
    Rollout,
    Step,
    begin,
    check_holds,
    check_revisions,
    end,
    finish_step,
    format_rollout,
    leave,
    merge,
    parse_rollout,
    read_rollout,
    refuse,
    revision,
    show_rollout,
    start_step,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._route import Record, State

AT = "2026-01-02T03:04:05Z"
LATER = "2026-01-02T03:05:00Z"


def name_of(number: int) -> str:
    return f"20260102T030405Z-{number:08x}"


def rollout(number: int = 1, *services: str, **changed: Any) -> Rollout:
    meant = {"release": "2-bbbbbbbbbbbb", "slot": "green", "was": {"release": "1-aaaaaaaaaaaa", "slot": "blue"}}
    found = dict.fromkeys(services or ("tumour",), meant)
    return Rollout(name_of(number), "deploy", found, "blue_green", "anna", "ops1", **changed)


def begun(*services: str, **changed: Any) -> Journal:
    return Journal().after(begin(Journal(), rollout(1, *services, **changed), AT))


def test_a_rollout_holds_its_services_until_it_ends() -> None:
    journal = begun("tumour", "prices")
    assert journal.holder("tumour") == journal.holder("prices") == journal.find(name_of(1))
    assert journal.holder("weather") is None
    ended = journal.after(end(journal, name_of(1), "done", LATER))
    assert (ended.holder("tumour"), set(ended.files)) == (None, {f"{name_of(1)}.json"})
    last = ended.last("prices")
    assert last
    assert (last.verdict, last.begun, last.ended) == ("done", AT, LATER)


def test_another_rollout_is_refused_with_who_holds_it_since_when_and_at_which_step() -> None:
    journal = begun()
    journal = journal.after(start_step(journal, name_of(1), "start", ["m1", "m2"], LATER))
    with pytest.raises(JournalError) as error:
        begin(journal, rollout(2), LATER)
    assert str(error.value) == (
        f"tumour: expected no other rollout to hold it, found deploy {name_of(1)} of 2-bbbbbbbbbbbb by anna from ops1 "
        f"since {AT}, at start (m1, m2) started; resume.yml -e service=tumour finishes it, "
        "rollback.yml -e service=tumour undoes it"
    )
    assert begin(journal, rollout(2, "prices"), LATER)


@pytest.mark.parametrize(("undoes", "verdict"), [(None, "resumed"), (name_of(1), "rolled_back")])
def test_a_rollout_that_died_is_taken_over_and_may_not_go_on(undoes: str | None, verdict: str) -> None:
    journal = begun()
    journal = journal.after(start_step(journal, name_of(1), "start", ["m1"], AT))
    journal = journal.after(begin(journal, rollout(2, takes_over=(name_of(1),), undoes=undoes), LATER))
    left, holder = journal.find(name_of(1)), journal.holder("tumour")
    assert left
    assert holder
    assert (left.verdict, left.reason, left.step, holder.id) == (
        verdict,
        f"by {name_of(2)}",
        "start (m1) failed",
        name_of(2),
    )
    with pytest.raises(JournalError, match=f"{name_of(1)}: expected to hold tumour, found deploy {name_of(2)} of"):
        start_step(journal, name_of(1), "move", [], LATER)
    assert end(journal, name_of(1), "failed", LATER) == []


def test_a_rollout_that_is_left_holds_its_services_and_says_why() -> None:
    journal = begun("tumour", "prices")
    journal = journal.after(start_step(journal, name_of(1), "replace", ["model2"], AT))
    gates = [{"gate": "golden", "verdict": "fail"}]
    left = journal.after(leave(journal, name_of(1), LATER, "it crashed", gates))
    found = left.holder("tumour")
    assert found == left.holder("prices")
    assert found
    assert (found.verdict, found.reason, found.gates, found.ended) == ("running", "it crashed", tuple(gates), None)
    assert found.step == "replace (model2) failed"
    taken = left.after(begin(left, rollout(2, "tumour", "prices", takes_over=(name_of(1),)), LATER))
    known = taken.find(name_of(1))
    assert known
    assert (known.verdict, known.reason) == ("resumed", f"by {name_of(2)}; it crashed")
    with pytest.raises(JournalError, match="expected to hold tumour"):
        leave(taken, name_of(1), LATER, "it crashed")


def test_a_rollout_that_is_refused_before_it_began_is_kept_and_holds_nothing() -> None:
    journal = begun()
    wanted = rollout(2, takes_over=(name_of(1),), undoes=name_of(1), steps=(Step("stage", ("m1",), "started", AT, AT),))
    gate = {"gate": "contract", "verdict": "fail"}
    writes = refuse(journal, wanted, LATER, "gate contract: no", [gate])
    after = journal.after(writes)
    kept, holder = after.find(name_of(2)), after.holder("tumour")
    assert kept
    assert holder
    assert (kept.verdict, kept.reason, kept.begun, kept.ended) == ("failed", "gate contract: no", LATER, LATER)
    assert (kept.gates, kept.steps, kept.takes_over, kept.undoes) == ((gate,), (), (), None)
    assert holder.id == name_of(1)
    free = Journal().after(writes)
    assert (free.holder("tumour"), free.last("tumour")) == (None, kept)
    # A rollout that was planned before goes on.
    assert revision(STATE, free, "tumour") == revision(STATE, Journal(), "tumour")


def test_refusals_let_the_oldest_records_go_too() -> None:
    journal = Journal()
    for number in range(KEPT + 3):
        journal = journal.after(refuse(journal, rollout(number), AT, "no", []))
    assert [it.id for it in journal.rollouts] == [name_of(number) for number in range(3, KEPT + 3)]


def test_steps_follow_each_other_and_the_last_is_told() -> None:
    journal = begun()
    for step, at in (("stage", AT), ("start", LATER)):
        journal = journal.after(start_step(journal, name_of(1), step, ["m1"], at))
    assert check_holds(journal, name_of(1)).steps == (
        Step("stage", ("m1",), "done", LATER, begun=AT),
        Step("start", ("m1",), "started", LATER, begun=LATER),
    )
    failed = journal.after(end(journal, name_of(1), "failed", LATER, "gate golden")).find(name_of(1))
    assert failed
    assert (failed.step, failed.reason) == ("start (m1) failed", "gate golden")
    done = journal.after(finish_step(journal, name_of(1), LATER)).find(name_of(1))
    assert done
    assert done.step == "start (m1) done"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../../etc/passwd", "rollout: expected an id such as 20260102T030405Z-0a1b2c3d, found '../../etc/passwd'"),
        (name_of(9), f"{name_of(9)}: expected a rollout that has begun, found none of that id"),
    ],
)
def test_a_step_of_no_rollout_is_refused(name: str, message: str) -> None:
    with pytest.raises(JournalError, match=message):
        start_step(begun(), name, "move", [], AT)


def test_a_rollout_that_has_ended_takes_no_more_steps() -> None:
    journal = begun()
    ended = journal.after(end(journal, name_of(1), "done", LATER))
    with pytest.raises(JournalError, match=f"{name_of(1)}: expected to hold tumour, found that it has ended"):
        start_step(ended, name_of(1), "move", [], AT)


def test_the_last_records_are_kept_and_the_one_that_holds_a_service() -> None:
    journal = begun("prices")
    for number in range(2, KEPT + 10):
        journal = journal.after(begin(journal, rollout(number), AT))
        journal = journal.after(end(journal, name_of(number), "done", LATER))
    names = [it.id for it in journal.rollouts]
    assert names == [name_of(1), *(name_of(number) for number in range(11, KEPT + 10))]
    assert journal.holder("prices")


def test_a_record_survives_its_file() -> None:
    full = rollout(7, steps=(Step("move", ("m1",), "done", AT),), gates=({"gate": "golden"},), takes_over=(name_of(3),))
    assert parse_rollout(format_rollout(full), "file") == full
    assert read_rollout(show_rollout(full), "view") == full


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"id": 5}', '{"id": "20260102T030405Z-0a1b2c3d"}'])
def test_a_file_that_is_none_is_named(text: str) -> None:
    with pytest.raises(JournalError, match=r"/x\.json: expected the record of a rollout, found: "):
        parse_rollout(text, "/x.json")


def test_of_what_balancers_tell_apart_the_fullest_is_taken() -> None:
    first = rollout(1, steps=(Step("stage", (), "done", AT),))
    ended = replace(first, verdict="done", ended=LATER, steps=(*first.steps, Step("move", (), "done", AT)))
    second = rollout(2)
    assert merge(map(show_rollout, (second, ended, first))) == [first, second]
    assert merge(map(show_rollout, (ended, ended))) == [ended]


BLUE = (("tumour", "tumour_blue"), ("prices", "prices_blue"))
STATE = State(BLUE, BLUE, {"tumour": Record({"blue": "1-aaaaaaaaaaaa"})})


@pytest.mark.parametrize(
    ("state", "journal"),
    [
        (replace(STATE, live=(("tumour", "tumour_green"),)), Journal()),
        (replace(STATE, file=(("tumour", "tumour_green"),)), Journal()),
        (replace(STATE, records={}), Journal()),
        (replace(STATE, live_shares=(("tumour_blue", "500"),)), Journal()),
        (replace(STATE, file_shares=(("tumour_blue", "500"),)), Journal()),
        (STATE, begun()),
    ],
    ids=["running map", "map file", "record", "running share", "share in the file", "a rollout"],
)
def test_a_revision_changes_with_whatever_a_plan_relies_on(state: State, journal: Journal) -> None:
    read = revision(STATE, Journal(), "tumour")
    check_revisions(STATE, Journal(), {"tumour": read})
    assert revision(STATE, begun("prices"), "tumour") == read
    with pytest.raises(JournalError, match=f"tumour: expected it as it was read .revision {read}., found it changed"):
        check_revisions(state, journal, {"tumour": read})


@pytest.mark.parametrize("services", [("tumour",), ("tumour", "prices")])
def test_whichever_write_is_the_last_the_rollout_can_be_taken_over(services: tuple[str, ...]) -> None:
    """Every beginning of the writes of a rollout leaves services free, or held by a rollout that says all it means."""
    changes: list[Any] = [
        lambda journal: begin(journal, rollout(1, *services), AT),
        lambda journal: start_step(journal, name_of(1), "start", ["m1"], AT),
        lambda journal: finish_step(journal, name_of(1), AT),
        lambda journal: end(journal, name_of(1), "done", LATER),
    ]
    journal = Journal()
    for change in changes:
        writes = change(journal)
        for count in range(len(writes) + 1):
            cut = journal.after(writes[:count])
            for holder in filter(None, map(cut.holder, services)):
                assert holder.services == rollout(1, *services).services
            again = cut.after(begin(cut, rollout(2, *services, takes_over=(name_of(1),)), LATER))
            assert [again.holder(service) for service in services] == [again.find(name_of(2))] * len(services)
            done = again.after(end(again, name_of(2), "done", LATER))
            assert [done.holder(service) for service in services] == [None] * len(services)
            assert not [name for name in done.files if name.endswith(".lock")]
        journal = journal.after(writes)
    assert not [name for name in journal.files if name.endswith(".lock")]
