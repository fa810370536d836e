"""Pages that follow a run, without the page: plain sockets that read its stream of records.

    python stream_clients.py RUN PORT [PORT ...] --clients 20

One process holds them all. It prints a JSON line for each message with steps: which client, which
steps, and how many seconds ago the file of metrics was last written.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from watched_tools import get_json


class Client:
    """One connection; it comes back after the last message it saw when the server goes away."""

    def __init__(self, number: int, port: int, run_id: str) -> None:
        self.number = number
        self._address = ("127.0.0.1", port)
        self._path = f"/api/runs/{run_id}/stream?from=0-0-0-0"
        self._last = ""
        self._buffer = b""
        self.socket = self._connected()

    def _connected(self) -> socket.socket:
        made = socket.create_connection(self._address, timeout=10)
        # HTTP/1.0: the answer comes without sizes of chunks in between.
        lines = [f"GET {self._path} HTTP/1.0", f"Host: 127.0.0.1:{self._address[1]}"]
        lines += [f"Last-Event-ID: {self._last}"] if self._last else []
        made.sendall(("\r\n".join([*lines, "Accept: text/event-stream"]) + "\r\n\r\n").encode())
        return made

    def read(self) -> Iterator[dict[str, Any]]:
        """The messages that have arrived whole."""
        data = self.socket.recv(1 << 20)
        if not data:
            raise SystemExit(f"client {self.number}: the server closed its stream")
        self._buffer += data
        *whole, self._buffer = self._buffer.split(b"\n\n")
        for message in whole:
            fields = dict(
                line.split(b": ", 1) for line in message.splitlines() if line.find(b": ") > 0
            )
            self._last = fields.get(b"id", self._last.encode()).decode()
            if fields.get(b"event") == b"records":
                yield json.loads(fields[b"data"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("ports", type=int, nargs="+")
    parser.add_argument("--clients", type=int, default=20)
    options = parser.parse_args()
    metrics = options.run / "metrics.jsonl"
    chosen = selectors.DefaultSelector()
    for number in range(options.clients):
        port = options.ports[number % len(options.ports)]
        [row] = get_json(f"http://127.0.0.1:{port}/api/runs")["runs"]
        client = Client(number, port, row["id"])
        chosen.register(client.socket, selectors.EVENT_READ, client)
    print(json.dumps({"connected": options.clients}), flush=True)
    while os.getppid() != 1:  # whoever started us is gone
        for key, _ in chosen.select(timeout=1):
            for message in key.data.read():
                steps = [record["step"] for record in message["steps"]]
                if steps:
                    delay = time.time() - metrics.stat().st_mtime
                    line = {"client": key.data.number, "steps": steps, "delay": delay}
                    sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
