# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gunicorn's worker: an event loop that accepts connections, and stops without losing a request."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path
from socket import socket
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.workers.gasgi import ASGIWorker

from model_server.scoring.errors import line_of
from model_server.web.connection import Connection, Front, is_readable
from model_server.web.logs import LOG
from model_server.web.waiting import Turns

LINGER = 2.0
"""Seconds in which a stopping worker still takes what a balancer sends that has not noticed yet."""

RETRY = 2.0
"""Seconds from one try to begin a worker to the next, where workers have served before."""

OUT_OF_MEMORY_SCORE = 500
"""Where memory is short the kernel is to end a worker, which the master replaces, and not the master."""


class Worker(ASGIWorker):
    """Gunicorn's asynchronous worker, with connections of our own.

    ``self.app`` is the Server; ``lane`` is where this worker counts, given by the master.
    """

    lane = 0

    def _setup_event_loop(self) -> None:
        self._turns = Turns()
        self.loop = asyncio.SelectorEventLoop(self._turns)
        asyncio.set_event_loop(self.loop)

    def load_wsgi(self) -> None:
        self.flask = self.app.wsgi()

    def handle_exit_signal(self) -> None:
        super().handle_exit_signal()
        self._told.set()

    def handle_quit_signal(self) -> None:
        super().handle_quit_signal()
        self._told.set()

    async def _serve(self) -> None:
        self._told = asyncio.Event()
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(OUT_OF_MEMORY_SCORE))
        try:
            self.app.service.start(self.lane)
        except Exception as error:
            LOG.error("cannot serve: %s", line_of(error))
            if not self.app.has_served():
                # Not to be tried again and again.
                raise SystemExit(Arbiter.APP_LOAD_ERROR) from None
            # Others serve. The master begins another worker when this one has ended: not at once, over and over.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), RETRY)
            raise SystemExit(1) from None
        self.app.serves()
        self.front = Front(self.app.service, self.flask, self.loop, self._turns)
        self.front.warm_up()
        # The first address is the one for everything, a second one for metrics alone.
        self._listeners = [
            _Listener(self.front, listener.sock, is_private=number > 0) for number, listener in enumerate(self.sockets)
        ]
        self.front.when_count_changes = self._accept
        # A signal that comes while a worker begins is lost, the master's byte is not.
        while self.alive and self.ppid == os.getppid() and not self.app.is_stopping():
            await self._wait(0.5)
        await self._stop()

    def _accept(self) -> None:
        for listener in self._listeners:
            listener.listen(not self.front.is_full)

    async def _wait(self, seconds: float) -> None:
        """Go on serving for so long, or until a signal comes."""
        self.notify()
        self._accept()
        self.front.tick()
        if self.front.is_full and any(listener.is_awaited for listener in self._listeners):
            self.front.make_room()
        self.app.service.tick()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._told.wait(), seconds)
        self._told.clear()

    async def _stop(self) -> None:
        """Answer what was sent before its clients could know, and what the kernel has accepted for us; then end.

        If the server stops, nobody else takes new connections: they are taken for LINGER more seconds. If this worker
        alone is replaced, its successor has them.
        """
        front = self.front
        front.closing = True
        if not self.app.is_stopping():
            self._end_accepting(take=False)
        begun = time.monotonic()
        linger_until = begun + LINGER
        while front.connections and (left := linger_until - time.monotonic()) > 0 and not self._quick_shutdown:
            await self._wait(min(left, 0.05))
        self._end_accepting(take=not self._quick_shutdown)
        give_up_at = begun + self.cfg.graceful_timeout
        while front.connections and time.monotonic() < give_up_at and not self._quick_shutdown:
            for connection in list(front.connections):
                connection.close_if_idle(time.monotonic() - LINGER)
            await self._wait(0.05)
        self.app.service.tick()

    def _end_accepting(self, take: bool) -> None:
        """Stop listening, once the connections that the kernel has accepted are taken, if ``take``."""
        self.front.when_count_changes = lambda: None
        for listener in self._listeners:
            listener.close(take)
        self._listeners = []


class _Listener:
    """A socket that connections are accepted from, one at each turn of the loop: so the workers share them evenly."""

    def __init__(self, front: Front, sock: socket, is_private: bool) -> None:
        self._front = front
        self._sock = sock
        self._is_private = is_private
        self._is_listening = False
        self._tasks: set[asyncio.Task[Any]] = set()
        sock.setblocking(False)

    @property
    def is_awaited(self) -> bool:
        """Whether a client waits to be accepted."""
        return is_readable(self._sock)

    def listen(self, wanted: bool) -> None:
        if wanted != self._is_listening:
            self._is_listening = wanted
            if wanted:
                self._front.loop.add_reader(self._sock, self._accept)
            else:
                self._front.loop.remove_reader(self._sock)

    def close(self, take: bool) -> None:
        self.listen(False)
        while take and self._accept():
            pass
        self._sock.close()

    def _accept(self) -> bool:
        try:
            client, _address = self._sock.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            # Out of files: what is open must end first.
            LOG.error("cannot accept a connection: %s", error)
            self.listen(False)
            return False
        front = self._front
        connection = Connection(front, self._is_private)
        # From here on it counts, though it takes another turn of the loop until it can send.
        front.connections.add(connection)
        task = front.loop.create_task(self._connect(connection, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        front.when_count_changes()
        return True

    async def _connect(self, connection: Connection, client: socket) -> None:
        try:
            await self._front.loop.connect_accepted_socket(lambda: connection, client)
        except OSError as error:
            connection.connection_lost(error)
