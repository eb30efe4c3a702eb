# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Flask application: every route of a served model, under any WSGI server."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import IO

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from model_server.web.failures import body_too_large, failure, failure_of
from model_server.web.metrics import OTHER
from model_server.web.protocol import Answer, Ask, Failure
from model_server.web.service import METRICS, Endpoint, Outcome, Service, media_type

IN_FRONT = "model_server.in_front"
"""In the WSGI environment: who called has refused, will count and has named the request. ``ROUTE`` tells it of what."""

ROUTE = "model_server.route"

OUTCOME = "model_server.outcome"

DISCARD_SECONDS = 2.0
"""How long the rest of a refused body is read."""

_KINDS_OF_STATUS = {404: "not_found", 405: "method", 413: "too_large"}


def create_app(service: Service) -> Flask:
    """The application of ``service``, which has been started or is about to be."""
    app = Flask(__name__, static_folder=None)
    app.extensions["service"] = service
    lock = Lock()
    limit = service.settings.max_body_bytes
    # One byte more than is allowed, for a chunked body is cut off there and its length is the only sign of it.
    app.config["MAX_CONTENT_LENGTH"] = limit + 1

    def respond(outcome: Outcome) -> Response:
        answer = outcome.answer
        request.environ[OUTCOME] = outcome
        g.outcome = outcome
        response = Response(answer.body, status=answer.status, content_type=answer.content_type)
        response.headers.extend(answer.headers)
        return response

    def fail(found: Failure) -> Response:
        return respond(service.failed(None, found, request.path))

    @app.before_request
    def begin() -> Response | None:
        if IN_FRONT in request.environ:
            return None
        g.begun = time.monotonic()
        with lock:
            service.metrics.in_flight(1)
        found = service.endpoints.get((request.method, request.url_rule.rule if request.url_rule else ""))
        refused = service.refused(found, media_type(request.headers.get("Content-Type", "")), _headers())
        if refused is None:
            return None
        return respond(service.failed(found, refused, request.path))

    def serve(endpoint: Endpoint) -> Callable[[], Response]:
        def view() -> Response:
            headers = _headers()
            ask = Ask(
                request.get_data(cache=False),
                media_type(request.headers.get("Content-Type", "")),
                request.query_string.decode("latin-1"),
                headers.items(),
            )
            if len(ask.body) > limit:
                return too_large()
            return respond(service.answer(endpoint, ask))

        return view

    for (method, path), endpoint in service.endpoints.items():
        app.add_url_rule(path, f"{method} {path}", serve(endpoint), methods=[method])

    @app.get(METRICS)
    def metrics() -> Response:
        with lock:
            service.metrics.look()
        return Response(service.metrics.exposition(), content_type=service.metrics.content_type)

    def too_large() -> Response:
        _discard(request.input_stream, limit)
        return fail(body_too_large(limit))

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        if error.code == 413:
            return too_large()
        kind = _KINDS_OF_STATUS.get(error.code or 500, "request" if (error.code or 500) < 500 else "server")
        response = fail(failure(kind, error.description or kind))
        for name, value in error.get_headers():
            if name == "Allow":
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        return respond(service.failed(None, failure_of(error), request.path)._replace(error=error))

    @app.after_request
    def finish(response: Response) -> Response:
        # The rule, not the path: what clients ask for must not grow the number of series.
        number = service.numbers.get(request.url_rule.rule if request.url_rule else OTHER, service.numbers[OTHER])
        if IN_FRONT in request.environ:
            request.environ[ROUTE] = number
            return response
        headers = _headers()
        request_id = service.request_id(headers.get(b"x-request-id"))
        response.headers.update(service.headers, **{"X-Request-ID": request_id.decode()})
        outcome: Outcome = g.get("outcome") or Outcome(Answer(response.status_code, b""))
        with lock:
            seconds = time.monotonic() - g.begun
            service.record(
                number, outcome, seconds, request_id, request.method.encode(), request.path.encode(), headers
            )
        return response

    @app.teardown_request
    def end(error: BaseException | None) -> None:
        if "begun" in g:
            with lock:
                service.metrics.in_flight(-1)

    return app


def _headers() -> dict[bytes, bytes]:
    return {name.lower().encode("latin-1"): value.encode("latin-1") for name, value in request.headers.items()}


def _discard(body: IO[bytes], limit: int) -> None:
    """Read up to ``limit`` bytes of what is left: a client that is still sending may meet a reset, not the answer."""
    deadline = time.monotonic() + DISCARD_SECONDS
    try:
        while limit > 0 and time.monotonic() < deadline and (found := body.read(min(limit, 65_536))):
            limit -= len(found)
    except OSError:
        # The client has gone, and will not read the answer.
        return
