# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client's connection: HTTP/1.1 from the bytes that arrive to the bytes that are sent.

Gunicorn's own ASGI connection makes two tasks and a scope for each request, which takes four times as long as all that
is done here, and leaves the limits of time, size and number to the application.
"""

from __future__ import annotations

import asyncio
import fcntl
import math
import select
import struct
import termios
import time
from asyncio import Transport
from collections.abc import Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

from flask import Flask

from model_server.web.bridge import call_flask
from model_server.web.failures import body_too_large, failure
from model_server.web.parser import ParseError, Parser
from model_server.web.protocol import Answer, Ask, Failure
from model_server.web.service import METRICS, Endpoint, Outcome, Service, media_type
from model_server.web.waiting import Job, Queue, Turns

DISCARD_SECONDS = 2.0
"""How long a client that was refused may go on sending, so that it comes to read why: else it would meet a reset."""

CROWDED_SECONDS = 2.0
"""How long a request may take to arrive while there are as many connections as there may be."""

LEAST_TAKEN = 65_536
"""Bytes of its answers that a client must take within READ_TIMEOUT while the server still has some to send."""

IDLE_SECONDS = 5.0
"""How long a connection must have been idle to be closed for others: on one less idle a request may be on its way."""

_FOREVER = math.inf


class Front:
    """What the connections of a worker share. ``closing``: every answer from now on closes its connection."""

    def __init__(self, service: Service, flask: Flask, loop: asyncio.AbstractEventLoop, turns: Turns) -> None:
        settings = service.settings
        self.service = service
        self.flask = flask
        self.loop = loop
        self.connections: set[Connection] = set()
        self.closing = False
        self.turns = turns
        self.scoring = Queue(loop, settings.threads, "scoring", service.metrics.queued)
        # Everything that is no route of a protocol: rare, and never in the way of predictions.
        self.pages = Queue(loop, 1, "pages")
        self.endpoints = {
            (method.encode(), path.encode()): endpoint for (method, path), endpoint in service.endpoints.items()
        }
        self.max_wait = settings.max_wait_ms / 1000
        self.max_body = settings.max_body_bytes
        # A row has a value and a separator for each column at least.
        self.row_bytes = 2 * len(service.served.scorer.contract.inputs)
        self.when_count_changes: Callable[[], None] = lambda: None
        self._heads: dict[tuple[int, str, bool], bytes] = {}
        self._own_headers = "".join(f"{name}: {value}\r\n" for name, value in service.headers.items())
        self.tick()

    @property
    def is_full(self) -> bool:
        return len(self.connections) >= self.service.settings.connections

    def tick(self) -> None:
        """Called every half second: end the connections whose time is over."""
        self.date = f"Date: {formatdate(usegmt=True)}\r\nX-Request-ID: ".encode()
        now = time.monotonic()
        for connection in [found for found in self.connections if found.ends_at <= now]:
            connection.time_is_over()
        if self.is_full:
            for connection in list(self.connections):
                connection.hurry(now)

    def make_room(self) -> None:
        """Close the connections that have been idle for longest, one in a hundred: others wait to be accepted."""
        before = time.monotonic() - IDLE_SECONDS
        idle = sorted((since, id(found), found) for found in self.connections if (since := found.idle_since) < before)
        for _since, _id, connection in idle[: max(1, len(self.connections) // 100)]:
            connection.give_up()

    def warm_up(self) -> None:
        """Ask the model for a golden row, twice, so that how long it takes is known before many wait for it."""
        ask = self.service.golden_ask()
        if ask is None:
            return
        for _time in range(2):
            job = Job(ask, lambda error: self.service.crashed(None, error), lambda outcome: None, None)
            self.scoring.put(job)

    def head(self, status: int, content_type: str, closes: bool) -> bytes:
        """The first lines of an answer, which are the same for every one of its kind."""
        key = (status, content_type, closes)
        found = self._heads.get(key)
        if found is None:
            phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Unknown"
            found = (
                f"HTTP/1.1 {status} {phrase}\r\nServer: model-server\r\n{self._own_headers}"
                f"Content-Type: {content_type}\r\nConnection: {'close' if closes else 'keep-alive'}\r\n"
            ).encode("latin-1")
            # A protocol has a handful of these; one that makes them up must not fill the memory.
            if len(self._heads) < 1000:
                self._heads[key] = found
        return found


class Connection(asyncio.Protocol):
    """``is_private``: it came by the address for metrics alone. ``ends_at`` is when what it waits for is overdue."""

    __slots__ = (
        "_arrived", "_begun", "_body", "_discards", "_endpoint", "_front", "_held", "_is_answered", "_is_new",
        "_is_private", "_is_reading", "_is_stalled", "_job", "_left", "_parser", "_peer_is_done", "_sent_after",
        "_timer", "_transport", "_untaken", "ends_at",
    )  # fmt: skip

    def __init__(self, front: Front, is_private: bool = False) -> None:
        self._front = front
        self._is_private = is_private
        self._parser = Parser(self._on_headers, self._on_body)
        self._body: list[bytes] = []
        # Bytes of the body that may still come.
        self._left = front.max_body
        self._held = b""
        self._job: Job | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._endpoint: Endpoint | None = None
        # No request has come yet.
        self._is_new = True
        # A request has begun to arrive; its answer was sent before all of it came; nothing is read any more.
        self._is_reading = self._is_answered = self._discards = False
        # The client does not read what is sent; it sends nothing more.
        self._is_stalled = self._peer_is_done = False
        # When the first byte of the request came, and when the last did.
        self._begun = self._arrived = time.monotonic()
        # When the answer before was sent, if nothing of this request had come by then.
        self._sent_after = 0.0
        # Bytes that the client had not taken when that was last looked at; infinity since an answer was sent.
        self._untaken = math.inf
        self.ends_at = self._begun + front.service.settings.read_timeout

    # What asyncio tells

    def connection_made(self, transport: Any) -> None:
        self._transport: Transport = transport
        self._front.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._drop_job()
        self._body.clear()
        self._held = b""
        self._parser.close()
        front = self._front
        front.connections.discard(self)
        front.when_count_changes()

    def eof_received(self) -> bool:
        self._peer_is_done = True
        # A client may end its side and wait for the answer to what it sent.
        return self._job is not None

    def pause_writing(self) -> None:
        self._is_stalled = True
        self._transport.pause_reading()
        self._takes_enough()

    def resume_writing(self) -> None:
        self._is_stalled = False
        self.ends_at = time.monotonic() + self._front.service.settings.keep_alive
        self._resume()

    def data_received(self, data: bytes) -> None:
        if self._discards:
            return
        if self._job is not None or self._is_stalled:
            # The next request, sent before this one was answered: let the client wait with more.
            self._held += data
            self._transport.pause_reading()
            return
        now = self._arrived = time.monotonic()
        if not self._is_reading:
            self._is_reading = True
            self._begun = now
        parser = self._parser
        try:
            if data:
                parser.feed(data)
            while parser.message.is_complete:
                self._on_request(now)
                if self._job is not None or self._discards:
                    return
                self._is_reading = parser.next()
                if self._is_stalled:
                    return
                if not self._is_reading:
                    self.ends_at = now + self._front.service.settings.keep_alive
                    return
                self._begun, self._sent_after = now, 0.0
        except ParseError as error:
            self._on_nonsense(error)
            return
        if not self._is_answered and not self._discards:
            self.ends_at = self._begun + self._front.service.settings.read_timeout

    # What the parser tells

    def _on_headers(self) -> None:
        message = self._parser.message
        if message.content_length is not None and message.content_length > self._left:
            self._refuse_body()
        elif message.version == "1.1" and dict(message.fields).get(b"expect", b"").lower() == b"100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _on_body(self, chunk: bytes) -> None:
        self._left -= len(chunk)
        if self._is_answered:
            if self._left < 0:
                self._end_after_answer()
        elif self._left < 0:
            self._refuse_body()
        else:
            self._body.append(chunk)

    def _on_request(self, now: float) -> None:
        """All of a request is there."""
        self._is_new = False
        body = b"".join(self._body)
        self._body.clear()
        self._left = self._front.max_body
        if self._is_answered:
            self._is_answered = False
            return
        front, message = self._front, self._parser.message
        endpoint = front.endpoints.get((message.method, message.target))
        path, query = "", ""
        if endpoint is None:
            path, query = _target(message.target)
            endpoint = front.endpoints.get((message.method, path.encode()))
        self._endpoint = endpoint
        if endpoint is not None and not self._is_private:
            self._on_route(endpoint, body, query, now)
        else:
            self._on_page(path or message.target.decode(), query, body)

    # Requests

    def _on_route(self, endpoint: Endpoint, body: bytes, query: str, now: float) -> None:
        front, service = self._front, self._front.service
        fields = self._parser.message.fields
        headers = dict(fields)
        content_type = headers.get(b"content-type", b"")
        if content_type == b"application/json":
            media = "application/json"
        else:
            media = media_type(content_type.decode("latin-1"))
        refused = service.refused(endpoint, media, headers)
        if refused is not None:
            self._send(service.failed(endpoint, refused), headers)
            return
        ask = Ask(body, media, query, fields)
        if not endpoint.route.predicts:
            self._send(service.answer(endpoint, ask), headers)
            return
        waited = front.turns.wait(now, self._sent_after)
        seconds = _timeout(headers)
        if seconds is not None and seconds <= 0:
            detail = "X-Request-Timeout-Ms: expected a whole number of milliseconds from 1"
            self._send(service.failed(endpoint, failure("request", detail)), headers)
            return
        if service.served.scorer.cheap(len(body) // front.row_bytes + 1):
            if waited > front.max_wait:
                self._send(service.failed(endpoint, _busy(waited)), headers)
            elif seconds is not None and time.monotonic() - now + waited > seconds:
                self._send(service.failed(endpoint, _TOO_LATE), headers)
            else:
                self._send(service.answer(endpoint, ask), headers)
            return
        wait = front.scoring.wait
        if wait > front.max_wait:
            self._send(service.failed(endpoint, _busy(wait)), headers)
            return
        self._wait_for(
            front.scoring,
            lambda: service.answer(endpoint, ask),
            lambda error: service.crashed(endpoint, error),
            headers,
            seconds,
        )

    def _on_page(self, path: str, query: str, body: bytes) -> None:
        """What is no route of a protocol goes to the Flask application, which answers anything."""
        front, service = self._front, self._front.service
        message = self._parser.message
        headers = dict(message.fields)
        method = message.method.decode()
        if path == METRICS and service.settings.metrics_bind and not self._is_private:
            self._send(
                service.failed(None, failure("not_found", "metrics have an address of their own"), path), headers
            )
            return
        if self._is_private:
            if path != METRICS:
                self._send(service.failed(None, failure("not_found", "expected /metrics"), path), headers)
                return
        else:
            shown = front.service.endpoints.get(("GET", path)) if method == "HEAD" else None
            refused = service.refused(shown, "", headers)
            if refused is not None:
                self._send(service.failed(shown, refused, path), headers)
                return
        if path == METRICS:
            # Counted in the event loop alone.
            service.metrics.look()
        run = call_flask(front.flask, method, path, query, headers, body)
        self._wait_for(front.pages, run, lambda error: service.crashed(None, error, path), headers, None)

    def _wait_for(
        self,
        queue: Queue,
        run: Callable[[], Outcome],
        failed: Callable[[BaseException], Outcome],
        headers: Mapping[bytes, bytes],
        seconds: float | None,
    ) -> None:
        front = self._front
        job = Job(run, failed, lambda outcome: self._on_outcome(outcome, headers), None)
        self._job = job
        self.ends_at = _FOREVER
        if seconds is not None:
            job.deadline = self._begun + seconds
            self._timer = front.loop.call_at(job.deadline, self._on_deadline, headers)
        front.service.metrics.in_flight(1)
        queue.put(job)

    def _on_outcome(self, outcome: Outcome, headers: Mapping[bytes, bytes]) -> None:
        self._drop_job()
        self._send(outcome, headers)
        self._go_on()

    def _on_deadline(self, headers: Mapping[bytes, bytes]) -> None:
        self._drop_job()
        self._send(self._front.service.failed(self._endpoint, _TOO_LATE), headers)
        self._go_on()

    def _drop_job(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._job is not None:
            self._job.cancelled = True
            self._job = None
            self._front.service.metrics.in_flight(-1)

    def _go_on(self) -> None:
        """After an answer that was waited for: take what was sent meanwhile."""
        if self._discards or self._transport.is_closing():
            return
        try:
            self._is_reading = self._parser.next()
        except ParseError as error:
            self._on_nonsense(error)
            return
        if self._is_reading or self._held:
            self._sent_after = 0.0
        if not self._is_stalled:
            self.ends_at = time.monotonic() + self._front.service.settings.keep_alive
            self._resume()

    def _resume(self) -> None:
        self._transport.resume_reading()
        if self._held or self._parser.message.is_complete:
            held, self._held = self._held, b""
            self.data_received(held)

    # Answers

    def _send(self, outcome: Outcome, headers: Mapping[bytes, bytes], closes: bool = False) -> None:
        front, message = self._front, self._parser.message
        answer = outcome.answer
        closes = closes or front.closing or not message.keeps_alive
        # Who sends nothing more still gets the answers to all that was sent.
        closes = closes or (self._peer_is_done and not self._parser.follows)
        request_id = front.service.request_id(headers.get(b"x-request-id"))
        self._write(answer, request_id, closes)
        number = self._endpoint.number if self._endpoint else outcome.number
        self._sent_after = time.monotonic()
        seconds = self._sent_after - self._arrived
        front.service.record(number, outcome, seconds, request_id, message.method, message.target, headers)
        if closes:
            self._end_after_answer()

    def _write(self, answer: Answer, request_id: bytes, closes: bool) -> None:
        front = self._front
        body = answer.body
        own = b"".join([f"\r\n{name}: {value}".encode("latin-1") for name, value in answer.headers])
        head = front.head(answer.status, answer.content_type, closes)
        shown = b"" if self._parser.message.method == b"HEAD" else body
        self._untaken = math.inf
        self._transport.write(
            b"%b%b%b%b\r\nContent-Length: %d\r\n\r\n%b" % (head, front.date, request_id, own, len(body), shown)
        )

    def _end_after_answer(self) -> None:
        """Close the connection. A client that is still sending may do so for a while, for it is to read the answer."""
        self._discards = True
        if self._parser.message.is_complete or self._peer_is_done:
            self._transport.close()
            self.ends_at = time.monotonic() + self._front.service.settings.read_timeout
        elif not self._transport.is_closing():
            self._transport.write_eof()
            self.ends_at = time.monotonic() + DISCARD_SECONDS

    def _refuse_body(self) -> None:
        """Answer at once, and read on to the end of the body if it is near: the connection can go on then."""
        message = self._parser.message
        self._body.clear()
        self._left = max(self._front.max_body, 65_536)
        too_far = message.content_length is not None and message.content_length > self._left
        path, _query = _target(message.target)
        self._endpoint = self._front.endpoints.get((message.method, path.encode()))
        outcome = self._front.service.failed(self._endpoint, body_too_large(self._front.max_body), path)
        self._is_answered = True
        self.ends_at = time.monotonic() + DISCARD_SECONDS
        headers = dict(message.fields)
        self._send(outcome, headers, too_far or b"expect" in headers)

    def _on_nonsense(self, error: ParseError) -> None:
        """What arrived is no HTTP/1.1."""
        if self._is_answered:
            self._end_after_answer()
        else:
            detail = f"no request of HTTP/1.1: {error}" if error.kind == "request" else str(error)
            self._end_with(failure(error.kind, detail))

    def _end_with(self, found: Failure) -> None:
        message, path = self._parser.message, ""
        self._endpoint = None
        if message.has_head:
            path, _query = _target(message.target)
            self._endpoint = self._front.endpoints.get((message.method, path.encode()))
        self._send(self._front.service.failed(self._endpoint, found, path), dict(message.fields), closes=True)

    # Time

    def time_is_over(self) -> None:
        """What was waited for did not come."""
        if self._is_reading and not (self._discards or self._is_stalled or self._is_answered):
            seconds = self._front.service.settings.read_timeout
            self._end_with(failure("slow", f"expected the whole request within {seconds} s"))
        elif not (self._transport.get_write_buffer_size() and self._takes_enough()):
            self._transport.abort()

    def _takes_enough(self) -> bool:
        """Whether the client has taken enough of its answers since this was last asked: then it has READ_TIMEOUT anew.

        What the kernel holds counts as not taken. It would ask for more only when a third of its megabytes is gone.
        """
        sock = self._transport.get_extra_info("socket")
        (held,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
        before, self._untaken = self._untaken, self._transport.get_write_buffer_size() + held
        if before - self._untaken < LEAST_TAKEN:
            return False
        self.ends_at = time.monotonic() + self._front.service.settings.read_timeout
        return True

    def hurry(self, now: float) -> None:
        """There are as many connections as there may be: make room if this one only began to send something."""
        is_answered = self._is_stalled or self._discards
        has_begun = (self._is_reading or self._is_new) and self._job is None and not is_answered
        if has_begun and now - self._begun > CROWDED_SECONDS:
            self.time_is_over()

    @property
    def _is_idle(self) -> bool:
        return self._job is None and not self._is_reading and not self._is_stalled and not self._discards

    @property
    def idle_since(self) -> float:
        """When the last answer was sent, if nothing has come since then; infinity of any other connection."""
        return self._sent_after if self._is_idle and not self._is_new else math.inf

    def give_up(self) -> None:
        """Close the connection unless something has arrived that was not read yet."""
        if not is_readable(self._transport.get_extra_info("socket")):
            self._transport.close()

    def close_if_idle(self, opened_before: float) -> None:
        """Close the connection if nothing has arrived, and a first request is not to be expected any more either."""
        if self._is_idle and (not self._is_new or self._begun < opened_before):
            self._transport.close()


def is_readable(sock: Any) -> bool:
    """Whether something waits at a socket: bytes, or a connection at one that listens."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _target(target: bytes) -> tuple[str, str]:
    """Path, decoded, and query of a request's target, which may be a whole URL."""
    text = target.decode("latin-1")
    if not text.startswith("/") and "://" in text:
        _scheme, _colon, rest = text.partition("://")
        _host, slash, rest = rest.partition("/")
        text = slash + rest
    path, _mark, query = text.partition("?")
    return unquote_to_bytes(path.encode("latin-1")).decode("utf-8", "replace"), query


def _timeout(headers: Mapping[bytes, bytes]) -> float | None:
    """The seconds that the client waits for an answer at most, if it says so; 0 for what is no time."""
    text = headers.get(b"x-request-timeout-ms")
    if text is None:
        return None
    return int(text) / 1000 if text.isdigit() and len(text) <= 9 else 0.0


def _busy(wait: float) -> Failure:
    seconds = max(1, math.ceil(wait))
    return failure("busy", f"the server is busy: try again in {seconds} s", retry_after=seconds)


_TOO_LATE = failure("deadline", "there was no answer within X-Request-Timeout-Ms")
