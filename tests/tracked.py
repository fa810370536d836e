"""Run folders as training leaves them, written without training; and servers to send them to."""

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sft.config import dump_yaml, load_config
from sft.runs.events import EventLog
from sft.runs.run_dir import RunDir
from sft.runs.store import RecordStore

SIX = ("loss", "accuracy", "perplexity", "learning_rate", "epoch", "train_flos")
ROOT = Path(__file__).parents[1]
EVERY = 4  # steps between evaluations


def step_record(step, stretch=1.0):
    """The record of one step; `stretch` changes the wall clock only."""
    return {
        "step": step,
        "loss": 2.0 + 1 / step,
        "accuracy": 0.5 + step / 1000,
        "perplexity": 7.0 + 1 / step,
        "learning_rate": 1e-4 * step,
        "epoch": step / 7,
        "train_flos": 1.25e9 * step,
        "grad_norm": None if step == 3 else 1.5,
        **({"grad_norm_nonfinite": "nan"} if step == 3 else {}),
        "tokens_per_second": 1000 / stretch,
        "seconds": 0.5 * step * stretch,
        "loss_by_source": {"a": 1.0 + step, "b\u202e#1": 2.0},
    }


def eval_record(step):
    return {"step": step, "epoch": step / 7, "val_loss": 2.5 - step / 100, "eval_seconds": 0.25}


def new_run(folder, settings=None):
    """A run folder that an attempt has just begun in."""
    run = RunDir(folder)
    run.path.mkdir(parents=True)
    config = load_config({}, {"run.dir": str(folder), **(settings or {})})
    run.config.write_text(dump_yaml({"config": config.model_dump(mode="json"), "num_steps": 12}))
    begin(run)
    return run, config


def begin(run):
    EventLog(run.events).add("started", "process 1 on here")


def end(run, kind="finished", text="the model is saved"):
    EventLog(run.events).add(kind, text)
    if kind == "finished":
        guards = [{"guard": "overfitting", "verdict": "pass"}]
        run.summary.write_text(json.dumps({"steps": 12, "best_step": 8, "guards": guards}))


def write_steps(run, first, last, stretch=1.0):
    """Steps `first` to `last`, and an evaluation before the first one and after every fourth."""
    with RecordStore(run.metrics) as store:
        if first == 1:
            store.append(eval_record(0))
        for step in range(first, last + 1):
            store.append(step_record(step, stretch))
            if step % EVERY == 0:
                store.append(eval_record(step))


def cut_back(run, step):
    """What a resumed run does: its records end with the evaluation after `step`."""
    lines = run.metrics.read_bytes().splitlines(keepends=True)
    keep = next(i for i, line in enumerate(lines) if json.loads(line) == eval_record(step))
    with RecordStore(run.metrics) as store:
        store.truncate_to(sum(map(len, lines[: keep + 1])))


def sft(*arguments, **environment):
    """The command line in a process of its own: code, stdout, stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "sft", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


@contextmanager
def hanging_server():
    """A port of this machine that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(json.loads(body))
        codes = self.server.codes
        self.send_response(codes.pop(0) if codes else 200)
        self.send_header("Location", "file:///etc/passwd")
        self.end_headers()

    def do_GET(self):
        self.server.bodies.append("GET")
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def webhook(*codes):
    """A server that keeps what is posted to it; it answers with `codes`, then with 200."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.bodies, server.codes = [], list(codes)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook/secret", server.bodies
        finally:
            server.shutdown()
            thread.join()
