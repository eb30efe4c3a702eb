# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a request is not answered: the kinds of failures, and what a client is told of each."""

from __future__ import annotations

from http import HTTPStatus

from model_server.scoring.errors import BodyError, ContractError, ModelError, RefusedError, ScoringError, shown
from model_server.web.protocol import Failure, TooManyRowsError

SERVER_FAILED = "the server failed; its log has the cause"

# The word for each kind of error, in metrics and in what a client is told, with its status and title.
KINDS: dict[str, tuple[HTTPStatus, str]] = {
    "request": (HTTPStatus.BAD_REQUEST, "Bad Request"),
    "body": (HTTPStatus.BAD_REQUEST, "The body is not what is asked for"),
    "unauthorized": (HTTPStatus.UNAUTHORIZED, "Unauthorized"),
    "not_found": (HTTPStatus.NOT_FOUND, "Not Found"),
    "method": (HTTPStatus.METHOD_NOT_ALLOWED, "Method Not Allowed"),
    "slow": (HTTPStatus.REQUEST_TIMEOUT, "Request Timeout"),
    "too_large": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Request Entity Too Large"),
    "target": (HTTPStatus.REQUEST_URI_TOO_LONG, "Request URI Too Long"),
    "media_type": (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Unsupported Media Type"),
    "contract": (HTTPStatus.UNPROCESSABLE_ENTITY, "The rows do not fit the model's contract"),
    "refused": (HTTPStatus.UNPROCESSABLE_ENTITY, "The model refuses these values"),
    "busy": (HTTPStatus.TOO_MANY_REQUESTS, "Too Many Requests"),
    "headers": (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "Request Header Fields Too Large"),
    "model": (HTTPStatus.INTERNAL_SERVER_ERROR, "The model failed"),
    "server": (HTTPStatus.INTERNAL_SERVER_ERROR, "Internal Server Error"),
    "deadline": (HTTPStatus.GATEWAY_TIMEOUT, "Gateway Timeout"),
}

_SCORING: dict[type[ScoringError], str] = {
    BodyError: "body",
    ContractError: "contract",
    RefusedError: "refused",
    ModelError: "model",
    TooManyRowsError: "too_large",
}


def failure(kind: str, detail: str, **details: object) -> Failure:
    """A failure of ``kind``, one of KINDS, with its status and title."""
    status, title = KINDS[kind]
    return Failure(int(status), kind, title, detail, details)


def failure_of(error: Exception) -> Failure:
    """What a client is told of ``error``: of one that is no ScoringError, nothing but that there was one."""
    if isinstance(error, ScoringError):
        return failure(_SCORING[type(error)], str(error), **error.details)
    return failure("server", SERVER_FAILED)


def wrong_content_type(expected: tuple[str, ...], found: str) -> Failure:
    expected_text = " or ".join(filter(None, expected))
    return failure("media_type", f"content type: expected {expected_text}, found {shown(found) if found else 'none'}")


def body_too_large(limit: int) -> Failure:
    return failure("too_large", f"the body: expected at most {limit} bytes")
