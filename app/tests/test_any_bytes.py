# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever bytes a client sends before it ends its side: it is answered or not, and the connection ends soon."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

BODY = b'{"instances":[[0.0]]}'
PIECES = st.one_of(
    st.sampled_from(
        [
            b"POST /predict HTTP/1.1\r\n",
            b"POST /v2/models/slow/infer HTTP/1.1\r\n",
            b"GET /docs HTTP/1.0\r\n",
            b"GET /nowhere HTTP/1.1\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"Host: x\r\n",
            b"Content-Type: application/json\r\n",
            b"Content-Length: %d\r\n" % len(BODY),
            b"Content-Length: -1\r\n",
            b"Content-Length: 99999999999999999999\r\n",
            b"Inference-Header-Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: close\r\n",
            b"Connection: upgrade\r\nUpgrade: websocket\r\n",
            b"Expect: 100-continue\r\n",
            b"X-Request-Timeout-Ms: 5000\r\n",
            b"\r\n",
            b"\n",
            b"0\r\n\r\n",
            b"%x\r\n%b\r\n" % (len(BODY), BODY),
            b"ffffffffffffffff\r\n",
            BODY,
        ]
    ),
    st.binary(max_size=12),
)
WHOLE = b"POST /predict HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
STREAMS = st.builds(
    lambda first, pieces: first + b"".join(pieces), st.sampled_from([b"", WHOLE]), st.lists(PIECES, max_size=8)
)


def test_any_bytes_are_answered_and_the_connection_ends(start: Callable[..., Any], slow_bundle: Path) -> None:
    server = start(slow_bundle, WORKERS="1")

    @settings(max_examples=300, deadline=None)
    @given(STREAMS)
    def ask(sent: bytes) -> None:
        received = b""
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            try:
                while data := connection.recv(65536):
                    received += data
            except ConnectionResetError:
                # It was told to go while it was still sending.
                pass
        statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]
        # A coding that nobody asked for is not implemented, by RFC 9112.
        assert all(status < 500 for status in statuses), (sent, received)
        if sent.startswith(WHOLE):
            assert statuses[:1] == [200]

    ask()
    assert server.ready() == 200
    assert "Traceback" not in server.log.read_text()
