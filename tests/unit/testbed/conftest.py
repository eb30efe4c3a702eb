"""A real HTTP server that answers, or fails, as a test asks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """A server on a free port of the loopback interface, in a thread of its own."""

    def __init__(self) -> None:
        self.handler: Handler = right
        self.port = 0
        self.requests = 0
        self.connections: set[object] = set()
        self._stopping = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/tumour/predict"

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        self.connections.add(request.transport.get_extra_info("peername"))
        return await self.handler(request)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stopping.wait()
        await runner.cleanup()


async def right(_request: web.Request) -> web.StreamResponse:
    return web.json_response({"predictions": [0.25]}, headers={"X-Model-Version": "1"})


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    running.start()
    yield running
    running.stop()
