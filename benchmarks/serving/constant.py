"""A constant answer under gunicorn's own asgi worker and its parser in C. ``constant.py ANSWER PORT``.

ANSWER is a file with an answer of our server, as a JSON list of its headers and its body: the constant is of its size.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Constant(BaseApplication):
    """The gunicorn of one answer."""

    def __init__(self, headers: list[tuple[bytes, bytes]], body: bytes, port: str) -> None:
        self.started = {"type": "http.response.start", "status": 200, "headers": headers}
        self.rest = {"type": "http.response.body", "body": body}
        self.port = port
        super().__init__()

    def load_config(self) -> None:
        options = {
            "bind": f"127.0.0.1:{self.port}",
            "workers": 1,
            "worker_class": "asgi",
            "http_parser": "fast",
            "asgi_lifespan": "off",
            "keepalive": 75,
            "control_socket_disable": True,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Callable[[dict[str, Any], Receive, Send], Awaitable[None]]:
        started, rest = self.started, self.rest

        async def answer(_scope: dict[str, Any], receive: Receive, send: Send) -> None:
            while (await receive()).get("more_body"):
                pass
            await send(started)
            await send(rest)

        return answer


if __name__ == "__main__":
    headers, body = json.loads(Path(sys.argv[1]).read_text())
    Constant([(name.encode(), value.encode()) for name, value in headers], body.encode(), sys.argv[2]).run()
