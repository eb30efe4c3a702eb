# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests out of a connection's bytes, one at a time, with limits of their heads, as httptools parses them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

LONGEST_TARGET = 4094
MOST_FIELDS = 100
LONGEST_FIELD = 8190
LARGEST_HEAD = 65_536


class ParseError(ValueError):
    """What arrived is no request that can be answered. ``kind`` is a failure's: request, target, headers."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class Message:
    """A request as far as it has arrived. ``fields`` have names in lower case; ``body`` is in chunks."""

    __slots__ = (
        "body",
        "content_length",
        "fields",
        "has_head",
        "is_complete",
        "keeps_alive",
        "method",
        "target",
        "version",
    )

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.version = ""
        self.fields: list[tuple[bytes, bytes]] = []
        self.content_length: int | None = None
        self.has_head = self.is_complete = self.keeps_alive = False
        self.body: list[bytes] = []


class Parser:
    """``on_head`` and ``on_body`` are called for ``message``, the request that is to be answered next, alone.

    Those that a client sends behind it, without waiting, are kept until ``next`` is called.
    """

    def __init__(self, on_head: Callable[[], None], on_body: Callable[[bytes], None]) -> None:
        self._parser: Any = HttpRequestParser(self)
        self._on_head: Any = on_head
        self._on_chunk: Any = on_body
        self.message = self._arriving = Message()
        self._behind: deque[Message] = deque()
        self._head_bytes = 0
        self._error: ParseError | None = None

    def feed(self, data: bytes) -> None:
        """Take what arrived. ParseError if ``message`` can never be complete after it."""
        if self._error is None:
            try:
                self._parser.feed_data(data)
                if not self._arriving.has_head:
                    self._head_bytes += len(data)
                    if self._head_bytes > LARGEST_HEAD:
                        self._error = ParseError("headers", f"expected at most {LARGEST_HEAD} bytes of headers")
            except HttpParserUpgrade:
                # Not upgraded, and what follows may be another protocol: answered, and ended.
                self._arriving.keeps_alive = False
                self._arriving.is_complete = True
                self._error = ParseError("request", "expected no other protocol")
            except HttpParserError as error:
                cause = error.__context__
                self._error = cause if isinstance(cause, ParseError) else ParseError("request", _reason(error))
        self._check()

    def next(self) -> bool:
        """Go on to the request behind ``message``; False if nothing of it has arrived. ParseError as from ``feed``."""
        if not self._behind:
            # What arrives next begins it.
            self.message = self._arriving = Message()
            self._check()
            return False
        self.message = self._behind.popleft()
        if self.message.has_head:
            self._on_head()
        for chunk in self.message.body:
            self._on_chunk(chunk)
        self.message.body.clear()
        self._check()
        return True

    @property
    def follows(self) -> bool:
        """Whether all of the request behind ``message`` has arrived."""
        return bool(self._behind) and self._behind[0].is_complete

    def close(self) -> None:
        """Nothing is fed any more: let go of what the parser is in a circle with, and of what it holds.

        The collector of garbage comes by seldom, and what a client sent in vain may be megabytes.
        """
        # An error has the frames that it came through, and these have the parser.
        self._error = None
        self._behind.clear()
        self._parser = self._on_head = self._on_chunk = None

    def _check(self) -> None:
        if self._error is not None and not self.message.is_complete:
            raise self._error

    # What httptools calls

    def on_message_begin(self) -> None:
        if self._arriving.is_complete:
            self._arriving = Message()
            self._behind.append(self._arriving)
        self._head_bytes = 0

    def on_url(self, part: bytes) -> None:
        arriving = self._arriving
        arriving.target += part
        if len(arriving.target) > LONGEST_TARGET:
            raise ParseError("target", f"expected a target of at most {LONGEST_TARGET} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        arriving = self._arriving
        if arriving.has_head:
            # A trailer, behind a body in chunks.
            return
        arriving.fields.append((name.lower(), value))
        if len(arriving.fields) > MOST_FIELDS:
            raise ParseError("headers", f"expected at most {MOST_FIELDS} headers")
        if len(name) + len(value) > LONGEST_FIELD:
            raise ParseError("headers", f"expected a header of at most {LONGEST_FIELD} bytes")

    def on_headers_complete(self) -> None:
        arriving, parser = self._arriving, self._parser
        arriving.method = parser.get_method()
        arriving.version = parser.get_http_version()
        if arriving.version not in ("1.0", "1.1"):
            raise ParseError("request", "expected HTTP/1.1")
        arriving.keeps_alive = parser.should_keep_alive()
        for name, value in arriving.fields:
            if name == b"content-length":
                arriving.content_length = int(value)
            elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
                raise ParseError("request", "expected the transfer coding chunked alone")
        arriving.has_head = True
        if arriving is self.message:
            self._on_head()

    def on_body(self, chunk: bytes) -> None:
        if self._arriving is self.message:
            self._on_chunk(chunk)
        else:
            self._arriving.body.append(chunk)

    def on_message_complete(self) -> None:
        self._arriving.is_complete = True


def _reason(error: HttpParserError) -> str:
    """What llhttp found wrong, without what was sent."""
    return str(error).partition(":")[0][:100] or "it cannot be parsed"
