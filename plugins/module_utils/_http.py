# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a model server over HTTP, with the standard library alone."""

from __future__ import annotations

import http.client
import json
import socket
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

READY = "/v2/health/ready"


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
    """A connection to ``address`` (``host:port``) kept for several requests of at most ``timeout`` seconds each."""

    def __init__(self, address: str, timeout: float) -> None:
        host, _colon, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise HttpError(f"address: expected HOST:PORT, found {address!r}")
        self.address = address
        self._timeout = timeout
        self._connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=timeout)

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def get(self, path: str) -> Answer:
        return self._ask("GET", path, None)

    def post(self, path: str, document: object) -> Answer:
        return self._ask("POST", path, json.dumps(document).encode())

    def _ask(self, method: str, path: str, body: bytes | None) -> Answer:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        started = time.monotonic()
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            content = response.read()
        except (TimeoutError, socket.timeout) as error:
            self._connection.close()
            raise HttpError(
                f"{self.address}: expected an answer to {method} {path} within {self._timeout:g} s, found none"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            reason = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
            raise HttpError(f"{self.address}: expected an answer to {method} {path}, found: {reason}") from error
        return Answer(response.status, content, time.monotonic() - started)


@dataclass(frozen=True)
class Ready:
    """What a server says to ``GET /v2/health/ready``; ``found`` is that in words."""

    ready: bool
    found: str
    model: str | None = None
    version: str | None = None
    digest: str | None = None


def read_ready(server: Server) -> Ready:
    """Whether ``server`` is ready, and with which model; a server that does not answer is not."""
    try:
        answer = server.get(READY)
    except HttpError as error:
        return Ready(False, str(error))
    document = answer.json()
    if not isinstance(document, dict):
        return Ready(False, answer.shown)
    names = {name: str(document[name]) for name in ("model", "version", "digest") if document.get(name)}
    return Ready(answer.status == 200 and document.get("ready") is True, answer.shown, **names)
