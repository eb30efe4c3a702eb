# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a model server over HTTP, with the standard library alone."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

READY = "/v2/health/ready"

GATE = "modelfleet-gate"
"""The id of every request: a model server keeps none of them among those of its clients."""


class HttpError(ValueError):
    """A server did not answer as HTTP, in one line."""


@dataclass(frozen=True)
class Answer:
    """An answer with its body and the seconds it took."""

    status: int
    body: bytes
    seconds: float

    def json(self) -> Any:
        """The body as JSON, None if it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def shown(self) -> str:
        """The status and what the server says about it, for an error's text."""
        document = self.json()
        detail = document.get("detail") if isinstance(document, dict) else None
        return f"status {self.status}" + (f" ({str(detail)[:200]})" if detail else "")


class Server:
    """A connection to ``address`` (``host:port``) kept for several requests of at most ``timeout`` seconds each.

    ``key`` is the API key that goes with each request.
    """

    def __init__(self, address: str, timeout: float, key: str | None = None) -> None:
        host, _colon, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise HttpError(f"address: expected HOST:PORT, found {address!r}")
        self.address = address
        self.timeout = timeout
        self.key = key
        self._connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=timeout)

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def connect(self) -> None:
        """Connect now, and not with the first request."""
        with self._errors_of("a connection"):
            self._connection.connect()

    def get(self, path: str) -> Answer:
        return self._ask("GET", path, None)

    def post(self, path: str, document: object) -> Answer:
        return self._ask("POST", path, json.dumps(document).encode())

    def _ask(self, method: str, path: str, body: bytes | None) -> Answer:
        headers = {"X-Request-ID": GATE}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        started = time.monotonic()
        with self._errors_of(f"an answer to {method} {path}"):
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            content = response.read()
        return Answer(response.status, content, time.monotonic() - started)

    @contextmanager
    def _errors_of(self, expected: str) -> Iterator[None]:
        try:
            yield
        except (TimeoutError, socket.timeout) as error:
            self._connection.close()
            raise HttpError(f"{self.address}: expected {expected} within {self.timeout:g} s, found none") from error
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            reason = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
            raise HttpError(f"{self.address}: expected {expected}, found: {reason}") from error


@dataclass(frozen=True)
class Ready:
    """What a server says to ``GET /v2/health/ready``; ``found`` is that in words.

    ``worker`` is the process that answered, one of ``workers``.
    """

    ready: bool
    found: str
    model: str | None = None
    version: str | None = None
    digest: str | None = None
    worker: str | None = None
    workers: int = 1


def read_ready(server: Server) -> Ready:
    """Whether ``server`` is ready, and with which model; a server that does not answer is not."""
    try:
        answer = server.get(READY)
    except HttpError as error:
        return Ready(False, str(error))
    document = answer.json()
    if not isinstance(document, dict):
        return Ready(False, answer.shown)
    names = {name: str(document[name]) for name in ("model", "version", "digest", "worker") if document.get(name)}
    workers = document.get("workers")
    count = workers if isinstance(workers, int) and workers > 0 else 1
    return Ready(answer.status == 200 and document.get("ready") is True, answer.shown, workers=count, **names)
