# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import gc
import weakref
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_server.web.parser import LARGEST_HEAD, LONGEST_FIELD, LONGEST_TARGET, MOST_FIELDS, ParseError, Parser

POST = b"POST /predict?a=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"
CHUNKED = (
    b"POST /b HTTP/1.1\r\nhost: h\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b"3\r\none\r\n4;why=not\r\n-two\r\n0\r\nTrailer: late\r\n\r\n"
)
GET = b"GET /c HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
ANSWERED = [
    (b"POST", b"/predict?a=1", b"body", True, [b"host", b"content-length"]),
    (b"POST", b"/b", b"one-two", True, [b"host", b"transfer-encoding"]),
    (b"GET", b"/c", b"", False, [b"host", b"connection"]),
]


class Reader:
    """Takes each request as a connection does: the first that is complete, then those behind it."""

    def __init__(self) -> None:
        self.parser = Parser(self._on_head, self._on_body)
        self.heads = 0
        self.body = b""
        self.found: list[tuple[bytes, bytes, bytes, bool, list[bytes]]] = []

    def feed(self, data: bytes) -> None:
        self.parser.feed(data)
        while self.parser.message.is_complete:
            message = self.parser.message
            names = [name for name, _value in message.fields]
            self.found.append((message.method, message.target, self.body, message.keeps_alive, names))
            self.body = b""
            self.parser.next()

    def feed_in_parts(self, data: bytes, size: int) -> None:
        for begin in range(0, len(data), size):
            self.feed(data[begin : begin + size])

    def _on_head(self) -> None:
        self.heads += 1

    def _on_body(self, chunk: bytes) -> None:
        self.body += chunk


@given(cuts=st.lists(st.integers(0, len(POST + CHUNKED + GET)), max_size=12).map(sorted))
def test_requests_are_the_same_however_their_bytes_arrive(cuts: list[int]) -> None:
    sent, reader = POST + CHUNKED + GET, Reader()
    for begin, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        if sent[begin:end]:
            reader.feed(sent[begin:end])
    assert (reader.found, reader.heads) == (ANSWERED, 3)


def test_a_request_behind_another_waits_until_it_is_asked_for() -> None:
    reader = Reader()
    reader.parser.feed(POST + CHUNKED[:-20])
    assert (reader.parser.message.target, reader.body, reader.heads) == (b"/predict?a=1", b"body", 1)
    assert reader.parser.next()
    assert (reader.parser.message.target, reader.body[4:], reader.heads) == (b"/b", b"one-two", 2)
    assert not reader.parser.message.is_complete
    reader.parser.feed(CHUNKED[-20:])
    assert reader.parser.message.is_complete
    assert not reader.parser.next()


def test_what_is_wrong_behind_a_request_is_said_after_its_answer() -> None:
    reader = Reader()
    reader.parser.feed(POST + b"nonsense\r\n\r\n")
    assert reader.parser.message.is_complete
    with pytest.raises(ParseError) as caught:
        reader.parser.next()
    assert caught.value.kind == "request"


def test_an_upgrade_is_answered_as_a_plain_request_that_ends_the_connection() -> None:
    reader = Reader()
    reader.parser.feed(b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05hello")
    message = reader.parser.message
    assert (message.is_complete, message.keeps_alive, message.target) == (True, False, b"/ws")
    with pytest.raises(ParseError, match="expected no other protocol"):
        reader.parser.next()


@pytest.mark.parametrize(
    ("sent", "keeps_alive"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: CLOSE\r\n\r\n", False),
    ],
)
def test_the_client_says_whether_its_connection_stays(sent: bytes, keeps_alive: bool) -> None:
    reader = Reader()
    reader.feed(sent)
    assert [found[3] for found in reader.found] == [keeps_alive]


def _get(*fields: bytes, target: bytes = b"/") -> bytes:
    return b"\r\n".join([b"GET " + target + b" HTTP/1.1", *fields, b"", b""])


_BOTH = b"POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
_TWICE = b"POST / HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody!"


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (_get(target=b"/" + b"a" * LONGEST_TARGET), "target"),
        (_get(*[b"a: b"] * (MOST_FIELDS + 1)), "headers"),
        (_get(b"a: " + b"b" * LONGEST_FIELD), "headers"),
        (_get(b"a : b"), "request"),
        (_get(b"a: b\x00c"), "request"),
        (b"GET / HTTP/2.0\r\n\r\n", "request"),
        (b"GET /\r\n\r\n", "request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "request"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "request"),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "request"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1_0\r\n\r\n", "request"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "request"),
        # A balancer that reads the other of the two would see another request behind it.
        (_BOTH, "request"),
        (_TWICE, "request"),
    ],
)
def test_what_cannot_be_answered_is_refused_and_says_what_kind_it_is(sent: bytes, kind: str) -> None:
    for size in (len(sent), 1):
        reader = Reader()
        with pytest.raises(ParseError) as caught:
            reader.feed_in_parts(sent, size)
        assert (caught.value.kind, reader.found) == (kind, [])


def test_what_is_at_a_limit_is_taken() -> None:
    reader = Reader()
    reader.feed(_get(target=b"/" + b"a" * (LONGEST_TARGET - 1)))
    reader.feed(_get(*[b"a: b"] * MOST_FIELDS))
    reader.feed(_get(b"a: " + b"b" * (LONGEST_FIELD - 1)))
    assert len(reader.found) == 3


def test_a_head_that_never_ends_is_refused_before_it_fills_the_memory() -> None:
    reader = Reader()
    reader.feed(b"GET / HTTP/1.1\r\na: ")
    with pytest.raises(ParseError, match="headers"):
        reader.feed_in_parts(b"b" * LARGEST_HEAD, 1000)


@pytest.mark.parametrize("sent", [b"", POST[:-2], POST + CHUNKED, b"nonsense\r\n\r\n"])
def test_a_parser_that_is_closed_is_no_part_of_a_circle(sent: bytes) -> None:
    reader = Reader()
    with suppress(ParseError):
        reader.parser.feed(sent)
    gone = weakref.ref(reader), weakref.ref(reader.parser)
    gc.disable()
    try:
        reader.parser.close()
        del reader
        assert (gone[0](), gone[1]()) == (None, None)
    finally:
        gc.enable()
