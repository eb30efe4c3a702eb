# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gunicorn around the application: its settings, and stopping without losing a request."""

from __future__ import annotations

import gc
import mmap
import os
import signal
import time
from http import HTTPStatus
from socket import socket
from typing import Any

from flask import Flask
from gunicorn import util
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.gthread import ThreadWorker
from prometheus_client.multiprocess import mark_process_dead
from werkzeug.http import HTTP_STATUS_CODES

from model_server.scoring.scorer import Scorer
from model_server.web.app import create_app, model_headers
from model_server.web.problems import SERVER_FAILED, problem
from model_server.web.settings import Settings

LINGER = 2.0
"""Seconds in which a stopping worker still takes what a balancer sends that has not noticed yet."""


class Server(BaseApplication):
    """The gunicorn of one loaded scorer. ``run()`` returns only by ending the process."""

    def __init__(self, scorer: Scorer, settings: Settings) -> None:
        self.scorer = scorer
        self.settings = settings
        # One byte that the master writes and every worker reads, for signals reach the workers one after the other.
        self.stopping = mmap.mmap(-1, 1)
        super().__init__()

    def load_config(self) -> None:
        options: dict[str, Any] = {
            "bind": self.settings.bind,
            "workers": self.settings.workers,
            "threads": self.settings.threads,
            "worker_class": Worker,
            "preload_app": True,
            "keepalive": self.settings.keep_alive,
            "graceful_timeout": self.settings.graceful_timeout,
            # A heartbeat, not a limit on requests: a model that holds the interpreter lock this long is hung.
            "timeout": 60,
            "control_socket_disable": True,
            # A heartbeat on a disk can block; systemd's read-only file system leaves this one writable.
            "worker_tmp_dir": "/dev/shm" if os.access("/dev/shm", os.W_OK) else None,
            "proc_name": f"model-server {self.settings.service}",
            "when_ready": _share_memory,
            "child_exit": _forget_worker,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        return create_app(
            self.scorer, self.settings.service, self.settings.max_body_bytes, lambda: self.stopping[0] != 0
        )

    def write_error(self, client: socket, status: int, _reason: str, message: str) -> None:
        """Answer what never got to the application, such as a malformed header, as the application would."""
        title = HTTP_STATUS_CODES[status]
        answer = problem(HTTPStatus(status), title, message or SERVER_FAILED)
        answer.headers.update(model_headers(self.scorer.manifest), Connection="close")
        util.write_nonblock(client, f"HTTP/1.1 {status} {title}\r\n{answer.headers}".encode("latin-1") + answer.data)

    def run(self) -> None:
        # Gunicorn has no setting for its error pages.
        util.write_error = self.write_error
        Master(self).run()


class Master(Arbiter):
    """Tells the workers that the server is about to stop before it does anything else to stop it."""

    def signal(self, sig: int, frame: Any) -> None:
        if sig in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            self.app.stopping[0] = 1
        super().signal(sig, frame)

    def handle_usr2(self) -> None:
        """Not upgraded in place: a release starts in the other slot, and systemd knows this process alone."""
        self.log.warning("SIGUSR2 ignored")


class Worker(ThreadWorker):
    """A threaded worker that, when the server stops, answers what was sent before its clients could know.

    Gunicorn's own stops accepting at once, but the socket goes on listening until the last worker has left: a request
    sent on a new connection meanwhile would be reset.
    """

    def set_accept_enabled(self, enabled: bool) -> None:
        if not enabled and not self.alive and self.app.stopping[0]:
            self._linger()
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            self._take_accepted()

    def _linger(self) -> None:
        """Go on as before, though every answer now closes its connection, until nobody is connected or LINGER ends."""
        deadline = time.monotonic() + LINGER
        self._cap_keepalive(deadline)
        while self.nr_conns > 0 and (left := deadline - time.monotonic()) > 0:
            self.notify()
            self.wait_for_and_dispatch_events(timeout=min(left, 1.0))
            self.murder_keepalived()
            self.murder_pending()

    def _take_accepted(self) -> None:
        """Take the connections that the kernel has accepted for us, then stop listening."""
        for listener in self.sockets:
            listener.setblocking(False)
            before = -1
            while self.app.stopping[0] and before != self.nr_conns:
                before = self.nr_conns
                self.accept(listener)
            listener.close()


def _share_memory(arbiter: Arbiter) -> None:
    """Keep the model's pages shared with the workers: the collector must not write to them after the fork."""
    gc.collect()
    gc.freeze()


def _forget_worker(arbiter: Arbiter, worker: Worker) -> None:
    mark_process_dead(worker.pid)
