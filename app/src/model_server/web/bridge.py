# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the Flask application from a connection: a call of WSGI with everything in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from typing import Any

from flask import Flask

from model_server.web.app import IN_FRONT, OUTCOME, ROUTE
from model_server.web.protocol import Answer
from model_server.web.service import Outcome

_OWN = ("content-type", "content-length")


def call_flask(
    app: Flask, method: str, path: str, query: str, headers: Mapping[bytes, bytes], body: bytes
) -> Callable[[], Outcome]:
    """A function that calls ``app``, in any thread. HEAD is asked as GET: who sends the answer omits its body."""

    def call() -> Outcome:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "GET" if method == "HEAD" else method,
            "SCRIPT_NAME": "",
            # PEP 3333: bytes as latin-1.
            "PATH_INFO": path.encode().decode("latin-1"),
            "QUERY_STRING": query,
            "CONTENT_TYPE": headers.get(b"content-type", b"").decode("latin-1"),
            "CONTENT_LENGTH": str(len(body)),
            "SERVER_NAME": "model-server",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(body),
            "wsgi.errors": BytesIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            IN_FRONT: True,
        }
        for name, value in headers.items():
            # A name with an underscore would be taken for the one with a hyphen.
            if b"_" not in name and name.decode("latin-1") not in _OWN:
                environ["HTTP_" + name.decode("latin-1").upper().replace("-", "_")] = value.decode("latin-1")
        status = 500
        found: list[tuple[str, str]] = []

        def start_response(line: str, fields: Iterable[tuple[str, str]], _exc_info: Any = None) -> Callable[..., Any]:
            nonlocal status
            status = int(line.split()[0])
            found[:] = fields
            return lambda data: None

        chunks = app.wsgi_app(environ, start_response)
        try:
            content = b"".join(chunks)
        finally:
            getattr(chunks, "close", lambda: None)()
        content_type = next((value for name, value in found if name.lower() == "content-type"), "text/plain")
        own = tuple((name, value) for name, value in found if name.lower() not in _OWN)
        answer = Answer(status, content, content_type, headers=own)
        outcome: Outcome = environ.get(OUTCOME) or Outcome(answer)
        return outcome._replace(answer=answer, number=environ.get(ROUTE, -1))

    return call
