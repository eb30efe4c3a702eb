"""Ask a slot over kept connections while a row takes all memory of one of its workers: who lost what, as JSON.

``out_of_memory.py PORT GOLDEN`` on the slot's host. GOLDEN is its bundle's file of golden rows.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import threading
import time

MAGIC = 1e12
CLIENTS = 8
SECONDS = 60
ATTEMPTS = 3


class Client:
    """A kept connection, which knows the worker at its other end, and what it lost there."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        self.connection.connect()
        self.worker = 0
        self.answered = 0
        self.lost = ""

    def ask_worker(self) -> None:
        self.connection.request("GET", "/v2/health/ready")
        self.worker = json.loads(self.connection.getresponse().read())["worker"]

    def predict(self, row: list[float]) -> None:
        body = json.dumps({"instances": [row]})
        self.connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        if answer.status != 200 or not json.loads(answer.read()).get("predictions"):
            raise OSError(f"status {answer.status}")
        self.answered += 1

    def predict_until(self, stopping: threading.Event, row: list[float]) -> None:
        try:
            while not stopping.is_set():
                self.predict(row)
                time.sleep(0.01)
        except (OSError, http.client.HTTPException) as error:
            self.lost = repr(error)


def connect(port: int, count: int) -> list[Client]:
    """Several at a time: an idle worker takes a single connection before another wakes up."""
    clients = [Client(port) for _client in range(count)]
    for client in clients:
        client.ask_worker()
    return clients


def workers_of(port: int, clients: list[Client]) -> set[int]:
    """The workers that answer, of those that ``clients`` met and of new ones."""
    new = connect(port, CLIENTS)
    for client in new:
        client.connection.close()
    return {client.worker for client in (*clients, *new)}


def main(port: int, golden: str) -> None:
    with open(golden) as file:
        row = json.load(file)["instances"][0]
    for _attempt in range(ATTEMPTS):
        found, others = take_all_memory(port, row)
        # The kernel may kill a second worker before it has the memory of the first one back, which no server can help.
        if all(os.path.exists(f"/proc/{worker}") for worker in others):
            break
    print(json.dumps(found))


def take_all_memory(port: int, row: list[float]) -> tuple[dict[str, object], set[int]]:
    """What happened when a row took all memory of a worker, and the workers that it was not sent to."""
    deadline = time.monotonic() + SECONDS
    clients = connect(port, CLIENTS)
    while len({client.worker for client in clients}) < 2 and time.monotonic() < deadline:
        clients += connect(port, CLIENTS)
    stopping = threading.Event()
    threads = [threading.Thread(target=client.predict_until, args=(stopping, row)) for client in clients[1:]]
    for thread in threads:
        thread.start()
    time.sleep(1)
    clients[0].predict_until(threading.Event(), [MAGIC, *row[1:]])
    killed = clients[0].worker
    others = [client for client in clients if client.worker != killed]
    after = workers_of(port, others)
    while len(after) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
        after = workers_of(port, others)
    time.sleep(1)
    stopping.set()
    for thread in threads:
        thread.join()
    found = {
        "killed": killed,
        "after": sorted(after),
        "lost_by_its_clients": [client.lost for client in clients if client.worker == killed],
        "lost_by_others": [client.lost for client in others if client.lost],
        "others": len(others),
        "answered_by_others": min((client.answered for client in others), default=0),
    }
    return found, {client.worker for client in others}


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
