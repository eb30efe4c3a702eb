# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that ask two services in turns, over and over, and note when each request began, when its answer was there
and which version gave it, until the file ``stop`` is in ``folder``. Then ``folder/seen.json`` says:

``requests``, ``failed``, ``versions`` (those that answered, by service) and ``mixed``: how many requests began after an
answer of the last version had come, from either service, and were answered by another version all the same.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from pathlib import Path

CLIENTS = 4
SECONDS = 300


def ask(address: str, services: list[str], stop: Path, seen: list[tuple[str, float, float, str]], row: bytes) -> None:
    """One client, on a connection that it keeps."""
    connection = http.client.HTTPConnection(address, timeout=10)
    until = time.monotonic() + SECONDS
    while not stop.exists() and time.monotonic() < until:
        for service in services:
            began = time.monotonic()
            try:
                connection.request("POST", f"/{service}/predict", row, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                version = answer.headers["X-Model-Version"] if answer.status == 200 else f"status {answer.status}"
            except (OSError, http.client.HTTPException) as error:
                version = repr(error)
                connection.close()
            seen.append((service, began, time.monotonic(), str(version)))


def sum_up(seen: list[tuple[str, float, float, str]], services: list[str]) -> dict[str, object]:
    answered = [each for each in seen if each[3].isdigit()]
    last = max((version for *_times, version in answered), key=int, default="")
    came = min((ended for _service, _began, ended, version in answered if version == last), default=0.0)
    mixed = sum(began > came and version != last for _service, began, _ended, version in answered)
    versions = {service: sorted({each[3] for each in answered if each[0] == service}) for service in services}
    failed = [each[3] for each in seen if not each[3].isdigit()]
    return {"requests": len(seen), "failed": len(failed), "why": failed[:3], "versions": versions, "mixed": mixed}


def main() -> None:
    address, folder, row, services = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]).read_bytes(), sys.argv[4:]
    folder.mkdir(parents=True, exist_ok=True)
    stop = folder / "stop"
    seen: list[tuple[str, float, float, str]] = []
    threads = [threading.Thread(target=ask, args=(address, services, stop, seen, row)) for _client in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (folder / "seen.json").write_text(json.dumps(sum_up(seen, services)))


if __name__ == "__main__":
    main()
