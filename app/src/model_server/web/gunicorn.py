# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gunicorn around a service: its settings, and its master."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import signal
from dataclasses import replace
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from model_server.web.app import create_app
from model_server.web.logs import GunicornLogger
from model_server.web.protocol import Served
from model_server.web.service import Service
from model_server.web.settings import Settings
from model_server.web.worker import Worker

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 8 * 1024 * 1024
_GARBAGE = 20_000


class Server(BaseApplication):
    """The gunicorn of one loaded model. ``run()`` returns only by ending the process.

    OSError or ValueError: it could not serve with these settings.
    """

    def __init__(self, served: Served, settings: Settings) -> None:
        # A byte that the master writes and every worker reads, for signals reach the workers one after the other, and
        # one that a worker writes once it serves.
        self._shared = mmap.mmap(-1, 2)
        self.settings = settings
        # While workers are replaced there are twice as many; a few more for those that take long to end.
        self.service = Service(replace(served, is_stopping=self.is_stopping), settings, 3 * settings.workers + 4)
        self.service.read()
        _keep_memory()
        super().__init__()

    def is_stopping(self) -> bool:
        return self._shared[0] != 0

    def stop(self) -> None:
        self._shared[0] = 1

    def has_served(self) -> bool:
        """Whether any worker has ever come so far that it serves."""
        return self._shared[1] != 0

    def serves(self) -> None:
        self._shared[1] = 1

    def load_config(self) -> None:
        settings = self.settings
        options: dict[str, Any] = {
            "bind": [settings.bind, *([settings.metrics_bind] if settings.metrics_bind else [])],
            "workers": settings.workers,
            "worker_class": Worker,
            "preload_app": True,
            "graceful_timeout": settings.graceful_timeout,
            # A heartbeat, not a limit on requests: a model that holds the interpreter lock this long is hung.
            "timeout": 60,
            "control_socket_disable": True,
            # A heartbeat on a disk can block; systemd's read-only file system leaves this one writable.
            "worker_tmp_dir": "/dev/shm" if os.access("/dev/shm", os.W_OK) else None,
            "proc_name": f"model-server {settings.service}",
            "logger_class": GunicornLogger,
            "pre_fork": _give_lane,
            "when_ready": _share_memory,
            "child_exit": _forget_worker,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        return create_app(self.service)

    def run(self) -> None:
        Master(self).run()


class Master(Arbiter):
    """Tells the workers that the server is about to stop before it does anything else to stop it."""

    _is_ending = False

    def signal(self, sig: int, frame: Any) -> None:
        if sig in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            self.app.stop()
        super().signal(sig, frame)

    def reload(self) -> None:
        """Not with what no worker could serve with: then those that serve go on as they are."""
        try:
            self.app.service.read()
        except (OSError, ValueError) as error:
            self.log.error("not reloaded, what serves goes on: %s", error)
            return
        super().reload()

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        self._is_ending = True
        # The only reason that there is. Gunicorn's own words for it do not say where to look.
        super().halt("a worker could not begin, and its own line says why" if reason else None, exit_status)

    def reap_workers(self) -> None:
        """A worker that could not begin ends the server, but the next one must not end its ending."""
        try:
            super().reap_workers()
        except HaltServer:
            if not self._is_ending:
                raise

    def handle_usr2(self) -> None:
        """Not upgraded in place: a release starts in the other slot, and systemd knows this process alone."""
        self.log.warning("SIGUSR2 ignored")


def _keep_memory() -> None:
    """Let the workers keep the memory of a large request for the next one, and not look through each for garbage.

    The C library would give it back to the system, and have it cleared page by page at the next request, which takes
    as long as a thousand rows take to be predicted; the collector would look at every row that is decoded.
    """
    gc.set_threshold(_GARBAGE)
    # Only the GNU library has it.
    set_option = getattr(ctypes.CDLL(None), "mallopt", lambda option, value: 0)
    set_option(_MMAP_THRESHOLD, _KEPT_BYTES)
    set_option(_TRIM_THRESHOLD, _KEPT_BYTES)


def _give_lane(arbiter: Arbiter, worker: Worker) -> None:
    taken = {other.lane for other in arbiter.WORKERS.values()}
    lanes = range(arbiter.app.service.metrics.lanes)
    # More workers than lanes is workers that do not end; then two share one, and may miss a count now and then.
    worker.lane = next((lane for lane in lanes if lane not in taken), worker.age % len(lanes))


def _share_memory(arbiter: Arbiter) -> None:
    """Keep the model's pages shared with the workers: the collector must not write to them after the fork."""
    gc.collect()
    gc.freeze()


def _forget_worker(arbiter: Arbiter, worker: Worker) -> None:
    arbiter.app.service.metrics.forget(worker.lane)
