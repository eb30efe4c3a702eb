# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``/openapi.json`` for programs, and ``/docs``, a page from which a person asks for predictions, with no internet."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

import msgspec

from model_server.web.openapi import openapi
from model_server.web.protocol import Answer, Protocol, Route, Served
from model_server.web.protocols.predict import problem


def routes(served: Served) -> list[Route]:
    document = Answer(200, msgspec.json.encode(openapi(served)))
    # The page says nothing of the model; what it reads does.
    page = _page()
    return [
        Route("GET", "/openapi.json", lambda ask: document),
        Route("GET", "/docs", lambda ask: page, is_open=True),
    ]


def _page() -> Answer:
    """The page, which may run its own script and ask its own server, and nothing else."""
    page = files("model_server.web").joinpath("docs.html").read_bytes()
    script, style = (_hash_of(rb"<%b>(.*?)</%b>" % (tag, tag), page) for tag in (b"script", b"style"))
    policy = (
        f"default-src 'none'; script-src {script}; style-src {style}; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Answer(200, page, "text/html; charset=utf-8", headers=(("Content-Security-Policy", policy),))


def _hash_of(pattern: bytes, page: bytes) -> str:
    (content,) = re.findall(pattern, page, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"


DOCUMENTATION = Protocol("documentation", routes, problem)
