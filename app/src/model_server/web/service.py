# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One served model: its routes, its limits, and what is counted, logged and kept of each request.

Both ways in share it: the connections of gunicorn's worker, and the Flask application.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from os import urandom
from typing import Any, NamedTuple

import msgspec

from model_server.web.capture import Capture
from model_server.web.failures import SERVER_FAILED, body_too_large, failure, failure_of, wrong_content_type
from model_server.web.keys import Keys, read_keys
from model_server.web.logs import LOG, log_failure
from model_server.web.metrics import Metrics
from model_server.web.protocol import Answer, Ask, Failure, Protocol, Route, Served
from model_server.web.protocols import PROTOCOLS
from model_server.web.settings import Settings

METRICS = "/metrics"

LONGEST_ID = 128


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route with what goes with it: its protocol's errors, and its number in the metrics."""

    route: Route
    failed: Callable[[Failure], Answer]
    number: int


class Outcome(NamedTuple):
    """The answer to a request; ``kind`` is that of its failure, or empty.

    ``number`` is that of the path in the metrics where it is no endpoint's, -1 for one that has none of its own.
    ``error`` is what the server or the model raised, for the log.
    """

    answer: Answer
    kind: str = ""
    number: int = -1
    error: BaseException | None = None


class Service:
    """What serves one model. ``lanes`` is how many processes may count at a time."""

    def __init__(self, served: Served, settings: Settings, lanes: int = 1) -> None:
        self.served = served
        self.settings = settings
        protocols = [(protocol, protocol.routes(served)) for protocol in PROTOCOLS]
        paths = list(dict.fromkeys(route.path for _protocol, routes in protocols for route in routes))
        self.metrics = Metrics(served, [*paths, METRICS], lanes)
        self.numbers = {path: number for number, path in enumerate(self.metrics.routes)}
        self.endpoints = {
            (route.method, route.path): Endpoint(route, protocol.failure, self.numbers[route.path])
            for protocol, routes in protocols
            for route in routes
        }
        # Of any method.
        self._failures = {route.path: protocol.failure for protocol, routes in protocols for route in routes}
        manifest = served.scorer.manifest
        self.headers = {"X-Model-Version": manifest.version, "X-Model-Digest": manifest.digest[:12]}
        self.keys: Keys | None = None
        self.capture: Capture | None = None
        # Long after a prefix of its own to the worker, a number is as good as more random bytes, and sooner made.
        self._id_prefix = urandom(6).hex().encode()
        self._id_numbers = count(1)
        self._logs_all = settings.access_log == "all"
        self._logs_errors = settings.access_log in ("all", "errors")

    def read(self) -> None:
        """Read what is outside the settings: the API keys, and the folder of captured requests.

        Those who serve inherit it, so all of them have the same keys. OSError or ValueError: they stay as they were.
        """
        settings = self.settings
        keys = read_keys(settings.api_keys, settings.gate_key_sha256) if settings.api_keys else None
        if settings.capture_dir and settings.capture_share:
            self.capture = Capture(
                self.served,
                settings.capture_dir,
                settings.capture_share,
                settings.capture_max_bytes,
                settings.capture_redact,
                settings.workers,
            )
        self.keys = keys

    def start(self, lane: int = 0) -> None:
        """Called once in each process that serves, after ``read`` and before its first request."""
        self._id_prefix = urandom(6).hex().encode()
        self.metrics.use(lane)
        self.served.scorer.start()

    def refused(self, endpoint: Endpoint | None, content_type: str, headers: Mapping[bytes, bytes]) -> Failure | None:
        """Why a request is not even looked at, whatever its body; None if it is. ``endpoint`` None: no route."""
        if self.keys is not None and not (endpoint and endpoint.route.is_open) and self.keys.owner(headers) is None:
            return failure("unauthorized", "an API key: expected one of this server's in Authorization or X-API-Key")
        if endpoint:
            expected = endpoint.route.content_types
            if expected and content_type not in expected:
                return wrong_content_type(expected, content_type)
        return None

    def answer(self, endpoint: Endpoint, ask: Ask) -> Outcome:
        """Run the route. Every error becomes an answer, which has what the server or the model raised beside it."""
        try:
            if len(ask.body) > self.settings.max_body_bytes:
                return self.failed(endpoint, body_too_large(self.settings.max_body_bytes))
            return Outcome(endpoint.route.answer(ask))
        except Exception as error:
            found = failure_of(error)
            is_logged = found.status >= 500 or error.__cause__ is not None
            return self.failed(endpoint, found)._replace(error=error if is_logged else None)

    def golden_ask(self) -> Callable[[], Outcome] | None:
        """What asks the model for a golden row, and is no client's request; None if that is cheap, or there is none."""
        rows = self.served.golden.get("instances", [])[:1]
        if not rows or self.served.scorer.cheap(1):
            return None
        ask = Ask(msgspec.json.encode({"instances": rows}), "application/json", "", ())
        endpoint = self.endpoints["POST", "/predict"]
        return lambda: self.answer(endpoint, ask)

    def crashed(self, endpoint: Endpoint | None, error: BaseException, path: str = "") -> Outcome:
        """The answer where ``answer`` did not come back but raised ``error``, as the SystemExit of a model."""
        return self.failed(endpoint, failure("server", SERVER_FAILED), path)._replace(error=error)

    def failed(self, endpoint: Endpoint | None, found: Failure, path: str = "") -> Outcome:
        """``found`` as the endpoint's protocol says it, or the protocol that ``path`` is of."""
        say = endpoint.failed if endpoint else self._failures.get(path) or protocol_of(path, PROTOCOLS).failure
        answer = say(found)
        if found.kind == "unauthorized":
            answer = answer._replace(headers=(*answer.headers, ("WWW-Authenticate", "Bearer")))
        elif "retry_after" in found.details:
            answer = answer._replace(headers=(*answer.headers, ("Retry-After", str(found.details["retry_after"]))))
        return Outcome(answer, found.kind)

    def request_id(self, given: bytes | None) -> bytes:
        """The client's own id if it is up to 128 visible characters of ASCII, else a new one."""
        if (
            given
            and len(given) <= LONGEST_ID
            and given.isascii()
            and b" " not in given
            and given.decode().isprintable()
        ):
            return given
        return b"%b-%x" % (self._id_prefix, next(self._id_numbers))

    def record(
        self,
        number: int,
        outcome: Outcome,
        seconds: float,
        request_id: bytes,
        method: bytes | None,
        path: bytes | None,
        headers: Mapping[bytes, bytes],
    ) -> None:
        """Count an answered request, and log and keep it if that is asked for. What was no request has no method.

        It raises nothing: the answer was sent, and the connection goes on.
        """
        answer = outcome.answer
        if outcome.error is not None:
            log_failure(outcome.error, _names(request_id, headers))
        try:
            self.metrics.answered(number, answer.status, outcome.kind, seconds)
            if answer.scored is not None:
                self.metrics.scored(answer.scored)
                if self.capture is not None:
                    self._keep(request_id, answer)
        except Exception as error:
            log_failure(error, _names(request_id, headers), "an answered request is not counted or captured")
        # Who is refused for want of time is counted alone: to log it, too, would cost the time that is wanting.
        if self._logs_all or (self._logs_errors and answer.status >= 400 and outcome.kind != "busy"):
            fields: dict[str, Any] = {
                **_names(request_id, headers),
                "method": (method or b"").decode("latin-1"),
                # No more of it than tells which, for it is the client's.
                "path": (path or b"")[:200].decode("latin-1"),
                "status": answer.status,
                "milliseconds": round(seconds * 1000, 3),
            }
            if answer.scored is not None:
                fields["rows"] = answer.scored.request.count
            if outcome.kind:
                fields["kind"] = outcome.kind
            LOG.info("request", extra={"fields": fields})

    def tick(self) -> None:
        """Called every half second: what is counted and kept reaches those who read it."""
        try:
            self.metrics.look()
        except Exception as error:
            log_failure(error, {}, "some answered rows are not counted")
        if self.capture is not None:
            try:
                self.capture.write()
            except OSError as error:
                self._give_up_capture(error)

    def _keep(self, request_id: bytes, answer: Answer) -> None:
        assert self.capture is not None
        assert answer.scored is not None
        try:
            self.capture.take(request_id.decode(), answer.scored)
        except OSError as error:
            self._give_up_capture(error)
        except UnicodeError:
            # Half of a surrogate pair, which JSON may have and no file. The answer was sent, and all else goes on.
            LOG.warning(
                "a request is not captured, for text of it is no Unicode",
                extra={"fields": {"id": request_id.decode()}},
            )

    def _give_up_capture(self, error: OSError) -> None:
        # A full disk must not stop the model, nor be met again at each request.
        self.capture = None
        LOG.error("nothing is captured any more: %s", error)


def _names(request_id: bytes, headers: Mapping[bytes, bytes]) -> dict[str, str]:
    """What a request is found by, in this log and in those of others."""
    names = {"id": request_id.decode()}
    if b"traceparent" in headers:
        names["traceparent"] = headers[b"traceparent"][:LONGEST_ID].decode("latin-1")
    return names


def protocol_of(path: str, protocols: Sequence[Protocol]) -> Protocol:
    """The protocol whose prefix ``path`` is at or below; else the first, whose errors are for everything."""
    for protocol in protocols:
        if protocol.prefix and (path == protocol.prefix or path.startswith(protocol.prefix + "/")):
            return protocol
    return protocols[0]


def media_type(header: str) -> str:
    """A Content-Type without its parameters, in lower case."""
    return header.partition(";")[0].strip().lower()
