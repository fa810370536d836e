"""A real `sft watch` in a process of its own, and clients that say to it whatever they like."""

import json
import re
import select
import signal
import socket
import subprocess
import sys
import time

CONFIG = {
    "config": {
        "model": {"name": "tiny"},
        "data": {"train": [{"path": "rows.jsonl"}]},
        "optim": {"max_steps": 100},
    },
    "num_steps": 100,
}


def step_record(step, **more):
    return {"step": step, "loss": 2.0 - step / 1000, "epoch": step / 100, "seconds": step, **more}


def write_run(folder, num_steps=3):
    """A run as it evaluations after its first steps."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(json.dumps(CONFIG))
    (folder / "run.lock").touch()
    add(folder / "metrics.jsonl", *(step_record(step) for step in range(1, num_steps + 1)))
    add(folder / "events.jsonl", {"time": "2026-01-01T00:00:00+00:00", "kind": "started"})
    return folder


def add(path, *records):
    with open(path, "a", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")
            file.flush()


class Server:
    """`sft watch ARGUMENTS`; `before` is Python that runs first in its process."""

    def __init__(self, *arguments, before="", cwd=None, port=0):
        code = f"{before}\nfrom sft.cli import main\nmain({['watch', *map(str, arguments)]!r})"
        if port is not None:
            code = code.replace("'watch',", f"'watch', '--port', '{port}',")
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            # A shell in the background starts its programs with Ctrl-C ignored, which is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.line = self.process.stdout.readline()
        found = re.match(r"http://(\S+):(\d+)/(?:#token=(\S+))?", self.line)
        if not found:
            raise AssertionError(f"no address: {self.line!r} {self.process.stderr.read()}")
        self.port, self.token = int(found[2]), found[3]

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def end(self, number=signal.SIGINT):
        """Seconds from the signal to the end of the process."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(timeout=20)
        return time.monotonic() - began

    def raw(self, data, timeout=20):
        """All that the server says to these bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            parts = []
            while part := connection.recv(1 << 16):
                parts.append(part)
            return b"".join(parts)

    def ask(self, path, method="GET", **headers):
        """Status, headers and body; `host` may be another one."""
        lines = {"host": f"127.0.0.1:{self.port}", "connection": "close", **headers}
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
        request = f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "surrogateescape")
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(request)
            with connection.makefile("rb") as file:
                status = int(file.readline().split()[1])
                found = [line.decode().strip() for line in iter(file.readline, b"\r\n")]
                pairs = [line.partition(": ")[::2] for line in found]
                return status, {name.lower(): value for name, value in pairs}, file.read()

    def json(self, path, **headers):
        status, _, body = self.ask(path, **headers)
        assert status == 200, (status, body[:500])
        return json.loads(body)

    def ids(self):
        """Name of each run -> its id."""
        return {row["name"]: row["id"] for row in self.json("/api/runs")["runs"]}

    def stream(self, path, **headers):
        return Stream(self.port, path, **headers)


class Stream:
    """A page that listens: `read` gives the next message, `(event, id, data)`."""

    def __init__(self, port, path, **headers):
        self.last_id = None
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        lines = {"host": f"127.0.0.1:{port}", **headers}
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
        self.connection.sendall(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        self._waiting = b""
        self._text = b""
        self.status = int(self._until(b"\r\n\r\n").split()[1])

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    def close(self):
        self.connection.close()

    def read(self, timeout=20, skip=("state", None)):
        """The next message that is none of `skip`; None when nothing came in time."""
        end = time.monotonic() + timeout
        while True:
            while b"\n\n" not in self._text:
                left = end - time.monotonic()
                ready = b"\r\n" in self._waiting or (
                    left > 0 and select.select([self.connection], [], [], left)[0]
                )
                if not ready:
                    return None
                size = int(self._until(b"\r\n"), 16)
                if size == 0:
                    raise ConnectionError("the stream has ended")
                while len(self._waiting) < size + 2:
                    self._more()
                self._text += self._waiting[:size]
                self._waiting = self._waiting[size + 2 :]
            text, _, self._text = self._text.partition(b"\n\n")
            fields = dict(line.split(": ", 1) for line in text.decode().split("\n"))
            self.last_id = fields.get("id", self.last_id)
            if fields.get("event") not in skip:
                return fields["event"], fields.get("id"), json.loads(fields["data"])

    def _until(self, mark):
        while mark not in self._waiting:
            self._more()
        found, _, self._waiting = self._waiting.partition(mark)
        return found

    def _more(self):
        data = self.connection.recv(1 << 16)
        if not data:
            raise ConnectionError("closed")
        self._waiting += data
