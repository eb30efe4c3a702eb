# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where work waits that would hold up the event loop: the model's own code, and large requests."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from selectors import DefaultSelector, SelectorKey
from threading import Thread

from model_server.web.logs import log_failure
from model_server.web.service import Outcome

_ASLEEP = 0.0005
"""The seconds from which on the loop is taken to have had nothing to do."""


class Job:
    """Something to be answered. ``done`` is called with the outcome in the event loop, unless ``cancelled`` by then.

    ``failed`` gives the outcome where ``run`` raises, whatever it is.
    """

    __slots__ = ("cancelled", "deadline", "done", "failed", "run")

    def __init__(
        self,
        run: Callable[[], Outcome],
        failed: Callable[[BaseException], Outcome],
        done: Callable[[Outcome], None],
        deadline: float | None,
    ) -> None:
        self.run = run
        self.failed = failed
        self.done = done
        self.deadline = deadline
        self.cancelled = False


class Queue:
    """Jobs for ``threads`` threads, in order. All of it is called in the event loop but ``_work``.

    ``tell`` is told of the depth whenever that changes.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threads: int,
        name: str,
        tell: Callable[[int], None] = lambda depth: None,
    ) -> None:
        self._loop = loop
        self._tell = tell
        self._threads = threads
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self.depth = 0
        self._mean = 0.0
        self._done = 0
        # When the job of each thread began; infinity where there is none.
        self._begun = [math.inf] * threads
        for number in range(threads):
            Thread(target=self._work, args=(number,), name=f"{name}-{number}", daemon=True).start()

    @property
    def wait(self) -> float:
        """About how many seconds a job that is put in now waits before it begins."""
        waiting = self.depth - self._threads
        if waiting < 0:
            # It begins at once.
            return 0.0
        # A job that has run for so long is taken to run for as long again, for nothing else is known of it.
        running = max(self._mean, time.monotonic() - max(self._begun))
        return (running + waiting * (self._mean or running)) / self._threads

    def put(self, job: Job) -> None:
        self.depth += 1
        self._tell(self.depth)
        self._jobs.put(job)

    def _work(self, number: int) -> None:
        while True:
            job = self._jobs.get()
            begun = self._begun[number] = time.monotonic()
            outcome = None
            # Nobody waits for the answer of a job whose deadline is past: that was told them when it passed.
            if not job.cancelled and (job.deadline is None or begun < job.deadline):
                try:
                    outcome = job.run()
                except BaseException as error:
                    # A model may raise SystemExit. Without its thread no request would be answered any more.
                    outcome = job.failed(error)
            self._begun[number] = math.inf
            # The loop is closed once the worker has given up waiting.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._finish, job, outcome, time.monotonic() - begun)

    def _finish(self, job: Job, outcome: Outcome | None, seconds: float) -> None:
        self.depth -= 1
        self._tell(self.depth)
        if outcome is None:
            return
        self._done += 1
        # The first job waits for all that the model has to load, so the second says more.
        self._mean = seconds if self._done <= 2 else self._mean + (seconds - self._mean) / 8
        if not job.cancelled:
            job.done(outcome)
        elif outcome.error is not None:
            # Nobody is told any more, so nobody logs it with the request.
            log_failure(outcome.error, {})


class Turns(DefaultSelector):
    """An event loop's selector that knows how long requests wait: those that came together are answered in turn."""

    def __init__(self) -> None:
        super().__init__()
        self._woke = time.monotonic()
        self._length = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        slept = time.monotonic()
        found = super().select(timeout)
        woke = time.monotonic()
        # What came while the loop slept has not waited at all.
        self._length = slept - self._woke if woke - slept < _ASLEEP else 0.0
        self._woke = woke
        return found

    def wait(self, now: float, sent_after: float = 0.0) -> float:
        """At most how many seconds the request that is looked at ``now`` has waited already.

        It came while those before it in this turn of the loop were answered, or during the turn before; and it was sent
        after the client had its last answer, unless it did not wait for that.
        """
        return now - max(self._woke - self._length, sent_after)
