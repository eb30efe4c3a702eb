# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors as problem documents (RFC 9457)."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from http import HTTPStatus
from typing import IO, Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from model_server.scoring.errors import BodyError, ContractError, ModelError, ScoringError, shown

SCORING: dict[type[ScoringError], tuple[HTTPStatus, str, str]] = {
    BodyError: (HTTPStatus.BAD_REQUEST, "body", "The body is not what is asked for"),
    ContractError: (HTTPStatus.UNPROCESSABLE_ENTITY, "contract", "The rows do not fit the model's contract"),
    ModelError: (HTTPStatus.INTERNAL_SERVER_ERROR, "model", "The model failed"),
}


SERVER_FAILED = "the server failed; its log has the cause"

DISCARD_SECONDS = 2.0
"""How long the rest of a refused body is read."""


class UnsupportedMediaType(HTTPException):
    code = HTTPStatus.UNSUPPORTED_MEDIA_TYPE

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"content type: expected {expected}, found {shown(found) if found else 'none'}")


def handle_errors(app: Flask, max_body_bytes: int) -> None:
    """Answer every error with a problem document; what the server or the model is to blame for is logged, too."""

    @app.errorhandler(ScoringError)
    def scoring_error(error: ScoringError) -> Response:
        status, kind, title = SCORING[type(error)]
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            app.logger.error("%s", error, exc_info=error.__cause__)
        return problem(status, title, str(error), f"urn:modelfleet:problem:{kind}", error.details)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
        detail = error.description or status.description
        if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            detail = f"the body: expected at most {max_body_bytes} bytes"
            _discard(request.input_stream, max_body_bytes)
        # Not the status's phrase, which differs from one Python to the next.
        answer = problem(status, error.name, detail)
        for name, value in error.get_headers():
            if name == "Allow":
                answer.headers[name] = value
        return answer

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        app.logger.error("%s: %s", type(error).__name__, error, exc_info=error)
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        return problem(status, status.phrase, SERVER_FAILED)


def _discard(body: IO[bytes], limit: int) -> None:
    """Read up to ``limit`` bytes of what is left: a client that is still sending may meet a reset, not the answer."""
    deadline = time.monotonic() + DISCARD_SECONDS
    with suppress(OSError):
        while limit > 0 and time.monotonic() < deadline and (found := body.read(min(limit, 65_536))):
            limit -= len(found)


def problem(
    status: HTTPStatus, title: str, detail: str, kind: str = "about:blank", details: dict[str, Any] | None = None
) -> Response:
    """The answer that says what went wrong."""
    document = {"type": kind, "title": title, "status": int(status), "detail": detail, **(details or {})}
    return Response(json.dumps(document), status=int(status), content_type="application/problem+json")
