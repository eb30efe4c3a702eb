"""Takes what is POSTed to a port of this machine and writes it down; the first is refused, to see it again."""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    """Answers 503 once, then 204."""

    refused = False

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if Handler.refused:
            with open(sys.argv[2], "ab") as stream:
                stream.write(self.headers["X-Secret"].encode() + b" " + body + b"\n")
        self.send_response(204 if Handler.refused else 503)
        self.end_headers()
        Handler.refused = True


if __name__ == "__main__":
    Path(sys.argv[2]).unlink(missing_ok=True)
    server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    server.timeout = 300
    for _each in range(2):
        server.handle_request()
