"""The floor of latencies: a bare loop of epoll that parses nothing. ``echo.py ANSWER LENGTH PORT``.

To every LENGTH bytes of a connection it sends the bytes of the file ANSWER.
"""

from __future__ import annotations

import select
import socket
import sys
from pathlib import Path


def serve(answer: bytes, length: int, port: int) -> None:
    listener = socket.create_server(("127.0.0.1", port))
    clients: dict[int, socket.socket] = {}
    left: dict[int, int] = {}
    events = select.epoll()
    events.register(listener, select.EPOLLIN)
    while True:
        for number, _event in events.poll():
            if number == listener.fileno():
                client, _address = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients[client.fileno()], left[client.fileno()] = client, length
                events.register(client, select.EPOLLIN)
                continue
            data = clients[number].recv(65536)
            left[number] -= len(data)
            if not data:
                events.unregister(number)
                clients.pop(number).close()
            elif left[number] <= 0:
                left[number] += length
                clients[number].sendall(answer)


if __name__ == "__main__":
    serve(Path(sys.argv[1]).read_bytes(), int(sys.argv[2]), int(sys.argv[3]))
