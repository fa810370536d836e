"""A server that speaks as /v1/chat/completions does, and misbehaves as real ones do."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sft.data.rows.conversation import Conversation, Message, Origin


@pytest.fixture(scope="session")
def row():
    """`row(prompt, answer)`: a conversation; `system` and `line` too."""

    def make(prompt, answer="An answer.", line=1, system=None, parent=""):
        first = [Message("system", system)] if system is not None else []
        last = Message("assistant", answer, weight=1.0)
        messages = (*first, Message("user", prompt), last)
        return Conversation(messages, Origin("rows.jsonl", line), parent=parent)

    return make


class FakeServer:
    """`plan` says what to do with the next requests; after it every answer is `reply(text)`.

    An entry of the plan is a status, `(status, headers)`, bytes to send with status 200, seconds
    to sleep, or None for a normal answer. `seen` has what was asked, `times` when.
    """

    def __init__(self):
        self.plan, self.seen, self.times, self.headers = [], [], [], []
        self.reply = lambda text: f"In other words: {text}"
        self.usage = {"prompt_tokens": 100, "completion_tokens": 10}
        self.finish = "stop"
        self._lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                fake.handle(self)

            def log_message(self, *_args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def handle(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.seen.append(body)
            self.times.append(time.monotonic())
            self.headers.append(dict(handler.headers))
            step = self.plan.pop(0) if self.plan else None
        status, extra, data = 200, {}, None
        if isinstance(step, bytes):
            data = step
        elif isinstance(step, float):
            time.sleep(step)
        elif isinstance(step, tuple):
            status, extra = step
        elif step is not None:
            status = step
        if data is None:
            data = self._answer(body) if status == 200 else self._error(handler)
        try:
            handler.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **extra}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(data)
        except OSError:  # the client did not wait
            pass

    def _answer(self, body):
        message = {"role": "assistant", "content": self.reply(body["messages"][-1]["content"])}
        choice = {"index": 0, "message": message, "finish_reason": self.finish}
        answer = {"choices": [choice]} | ({"usage": self.usage} if self.usage else {})
        return json.dumps(answer).encode()

    def _error(self, handler):
        key = handler.headers.get("Authorization", "no key")
        return json.dumps({"error": {"message": f"bad key {key}"}}).encode()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server():
    fake = FakeServer()
    yield fake
    fake.close()
