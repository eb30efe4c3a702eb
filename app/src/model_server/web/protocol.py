# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a protocol is: routes, each a function from a request's bytes to an answer's, and the shape of its errors.

Nothing here knows of Flask or gunicorn: both ways in, the hot path and the Flask application, serve the same routes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from model_server.scoring.errors import ScoringError
from model_server.scoring.scorer import Scored, Scorer
from model_server.scoring.table import Request


class Ask(NamedTuple):
    """A request as a route sees it: ``content_type`` without its parameters, in lower case; ``query`` undecoded.

    ``headers`` are as ASGI has them, names in lower case, for the few requests that say more in them.
    """

    body: bytes = b""
    content_type: str = ""
    query: str = ""
    headers: Iterable[tuple[bytes, bytes]] = ()


class Answer(NamedTuple):
    """What is sent back. ``scored`` is what was predicted, for the metrics and the capture.

    ``headers`` are those that the protocol adds, nearly always none.
    """

    status: int
    body: bytes
    content_type: str = "application/json"
    scored: Scored | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why a request was not answered: ``detail`` is one line for the client, ``details`` its parts (row, column, ...).

    ``kind`` is a word for metrics and for the problem's type: body, contract, refused, model, media_type, too_large,
    busy, deadline, not_found, method, server.
    """

    status: int
    kind: str
    title: str
    detail: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Route:
    """``path`` starts with a slash. ``answer`` raises a ScoringError where the protocol's ``failure`` shall tell why.

    ``content_types`` are those that it takes; one that takes "" takes requests that name none, and no types
    at all is any. ``predicts``: the route runs the model, so limits, the queue and the deadline are for it.
    ``is_open``: it answers whoever has no API key, too, as health does.
    """

    method: str
    path: str
    answer: Callable[[Ask], Answer]
    predicts: bool = False
    content_types: tuple[str, ...] = ()
    is_open: bool = False


class TooManyRowsError(ScoringError):
    """A request has more rows than one may have."""


@dataclass(frozen=True)
class Served:
    """What routes are made for: the scorer, the name it is served under, and whether requests are welcome now.

    ``golden`` is the bundle's ``golden.json``, for examples: ``instances`` and the ``predictions`` the model gave.
    ``workers`` is how many processes answer.
    """

    scorer: Scorer
    service: str
    is_stopping: Callable[[], bool] = lambda: False
    golden: Mapping[str, Any] = field(default_factory=dict)
    max_rows: int = 100_000
    workers: int = 1

    def score(self, request: Request) -> Scored:
        """``request`` with what the model gives for it: what every route that predicts does between its two codings."""
        if request.count > self.max_rows:
            raise TooManyRowsError(
                f"expected at most {self.max_rows} rows, found {request.count}",
                expected=self.max_rows,
                found=request.count,
            )
        return Scored(request, self.scorer.predict(request))


@dataclass(frozen=True)
class Protocol:
    """``routes`` gives those of one served model; ``failure`` says in the protocol's own shape what went wrong.

    ``failure`` is also for paths at and below ``prefix`` that are no route; the first protocol's, for all others.
    """

    name: str
    routes: Callable[[Served], list[Route]]
    failure: Callable[[Failure], Answer]
    prefix: str | None = None
