# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The log: one JSON object a line, on standard output."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from gunicorn.glogging import Logger

from model_server.scoring.errors import ScoringError

LOG = logging.getLogger("model_server")
"""What the server logs itself. ``extra={"fields": {...}}`` adds members to the line."""


def log_failure(error: BaseException, fields: Mapping[str, Any], event: str = "a request failed") -> None:
    """Log what failed at the request that ``fields`` name: types of exceptions and where they were raised.

    A text of others' code can quote the value that a model or a library could not take, which is the client's, and is
    not logged. Types and lines find the fault in the code; the same request, the client's or a captured one, shows the
    text to who may read it.
    """
    what = str(error) if isinstance(error, ScoringError) else type(error).__name__
    LOG.error("%s: %s", event, what, extra={"fields": {**fields, "error": "\n".join(_stacks(error))}})


def _stacks(error: BaseException) -> list[str]:
    """As a traceback has them, the cause first."""
    chain: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in chain:
        chain.insert(0, found)
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    return ["".join(traceback.format_tb(each.__traceback__)) + type(each).__qualname__ for each in chain]


class JsonFormatter(logging.Formatter):
    """``time`` (UTC), ``level``, ``event``, ``pid``; ``error`` is the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "pid": record.process,
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0]:
            line["error"] = "".join(traceback.format_exception(*record.exc_info))
        return msgspec.json.encode(line).decode()


def log_as_json() -> logging.Handler:
    """Send what the server logs to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    LOG.handlers, LOG.propagate = [handler], False
    LOG.setLevel(logging.INFO)
    return handler


class GunicornLogger(Logger):
    """Gunicorn's own messages, as lines of the same log."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers = [log_as_json()]
