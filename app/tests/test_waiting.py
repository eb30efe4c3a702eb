# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from model_server.web.lanes import Lanes
from model_server.web.protocol import Answer
from model_server.web.service import Outcome
from model_server.web.waiting import Job, Queue, Turns


def run(work: Coroutine[Any, Any, Any], turns: Turns | None = None) -> Any:
    loop = asyncio.SelectorEventLoop(turns or Turns())
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


def failed(error: BaseException) -> Outcome:
    return Outcome(Answer(500, b""), type(error).__name__)


def test_what_comes_while_the_loop_is_busy_has_waited_and_what_comes_later_has_not() -> None:
    turns = Turns()

    async def work() -> list[float]:
        found = []
        await asyncio.sleep(0.01)
        found.append(turns.wait(time.monotonic()))
        time.sleep(0.05)
        found.append(turns.wait(time.monotonic()))
        await asyncio.sleep(0)
        # The turn before took this long, and it may have come at its beginning.
        found.append(turns.wait(time.monotonic()))
        # Unless its client cannot have sent it before it was answered.
        answered = time.monotonic()
        found.append(turns.wait(time.monotonic(), answered))
        await asyncio.sleep(0.01)
        found.append(turns.wait(time.monotonic()))
        return found

    idle, busy, after, answered, later = run(work(), turns)
    assert idle < 0.01
    assert busy >= 0.05
    assert after >= 0.05
    assert answered < 0.01
    assert later < 0.01


def test_a_queue_tells_how_long_it_is_and_scores_nothing_that_nobody_waits_for() -> None:
    ran: list[str] = []
    done: list[int] = []

    def job(name: str, seconds: float, deadline: float | None = None) -> Job:
        def work() -> Outcome:
            ran.append(name)
            time.sleep(seconds)
            return Outcome(Answer(200, b""))

        return Job(work, failed, lambda outcome: done.append(outcome.answer.status), deadline)

    async def work() -> tuple[float, float]:
        queue = Queue(asyncio.get_running_loop(), 1, "test")
        queue.put(job("first", 0.1))
        while queue.depth:
            await asyncio.sleep(0.01)
        empty = queue.wait
        cancelled = job("cancelled", 0)
        for waiting in (job("second", 0.1), cancelled, job("late", 0, time.monotonic() + 0.05)):
            queue.put(waiting)
        cancelled.cancelled = True
        full = queue.wait
        while queue.depth:
            await asyncio.sleep(0.01)
        return empty, full

    empty, full = run(work())
    assert empty == 0
    assert full == pytest.approx(0.3, rel=0.5)
    assert ran == ["first", "second"]
    assert done == [200, 200]


def job(seconds: float) -> Job:
    """One that takes so long, and of which nobody is told."""

    def take_time() -> Outcome:
        time.sleep(seconds)
        return Outcome(Answer(200, b""))

    return Job(take_time, failed, lambda _outcome: None, None)


def test_nothing_waits_while_a_thread_is_free() -> None:
    async def work() -> list[float]:
        queue = Queue(asyncio.get_running_loop(), 2, "test")
        queue.put(job(0.1))
        while queue.depth:
            await asyncio.sleep(0.01)
        waits = []
        for _job in range(4):
            waits.append(queue.wait)
            queue.put(job(0.1))
        while queue.depth:
            await asyncio.sleep(0.01)
        return waits

    assert run(work()) == [0, 0, pytest.approx(0.05, rel=0.5), pytest.approx(0.1, rel=0.5)]


def test_what_runs_already_tells_how_long_others_wait_before_any_job_has_ended() -> None:
    async def work() -> list[float]:
        queue = Queue(asyncio.get_running_loop(), 1, "test")
        waits = []
        for _job in range(3):
            queue.put(job(0.4))
            await asyncio.sleep(0.1)
            waits.append(queue.wait)
        while queue.depth:
            await asyncio.sleep(0.01)
        return [*waits, queue.wait]

    assert run(work()) == [pytest.approx(0.1, rel=0.3), pytest.approx(0.4, rel=0.3), pytest.approx(0.9, rel=0.3), 0]


def test_the_second_job_says_more_than_the_first_which_has_everything_to_load() -> None:
    async def work() -> float:
        queue = Queue(asyncio.get_running_loop(), 1, "test")
        for seconds in (0.3, 0.05):
            queue.put(job(seconds))
        while queue.depth:
            await asyncio.sleep(0.01)
        queue.put(job(0))
        return queue.wait

    assert run(work()) == pytest.approx(0.05, rel=0.3)


def test_a_queue_tells_its_depth_when_a_job_that_was_given_up_leaves_it_too() -> None:
    told: list[int] = []

    async def work() -> None:
        queue = Queue(asyncio.get_running_loop(), 1, "test", told.append)
        first, second = (Job(lambda: Outcome(Answer(200, b"")), failed, lambda _outcome: None, None) for _job in "ab")
        queue.put(first)
        queue.put(second)
        first.cancelled = second.cancelled = True
        while queue.depth:
            await asyncio.sleep(0.01)

    run(work())
    assert told == [1, 2, 1, 0]


@pytest.mark.parametrize("error", [ValueError, MemoryError, SystemExit, KeyboardInterrupt])
def test_a_thread_outlives_whatever_its_work_raises(error: type[BaseException]) -> None:
    done: list[tuple[int, str]] = []

    def job(raised: type[BaseException] | None) -> Job:
        def work() -> Outcome:
            if raised:
                raise raised
            return Outcome(Answer(200, b""))

        return Job(work, failed, lambda outcome: done.append((outcome.answer.status, outcome.kind)), None)

    async def work() -> int:
        queue = Queue(asyncio.get_running_loop(), 1, "test")
        for raised in (error, None):
            queue.put(job(raised))
        for _turn in range(200):
            if queue.depth:
                await asyncio.sleep(0.01)
        return queue.depth

    assert run(work()) == 0
    assert done == [(500, error.__name__), (200, "")]


def test_lanes_add_up_and_stay() -> None:
    lanes = Lanes(3, 4)
    for lane in range(3):
        lanes.cells(lane)[1] += lane + 1
        lanes.array(lane)[2:] += 10
    assert lanes.total() == [0, 6, 30, 30]
    # Of a worker that comes later.
    assert list(lanes.cells(2)) == [0, 3, 10, 10]
