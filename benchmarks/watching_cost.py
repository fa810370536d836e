"""What it costs a training to be watched: two servers and twenty pages, against nobody.

    python benchmarks/watching_cost.py [CONFIG] [--windows 16] [--window 5] [--out FILE]

One run goes on; whoever watches it is stopped (SIGSTOP) and continued (SIGCONT) every few steps,
in the order off, on, on, off, so that a machine that slows down slows both. Time is counted per
real token, because steps hold different rows; the first step of a window is left out. The interval
is of 10,000 bootstrap samples of whole windows. A second figure is how long after its write a
record arrives: the age of the last change of `metrics.jsonl` when the client gets it, which is
right where steps take longer than that.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import psutil
from watched_tools import ROOT, free_port, memory_bytes, stop

from sft.runs.jsonl import Tail

PATTERN = ("off", "on", "on", "off")
SAMPLES = 10_000
WAIT_SECONDS = 600  # for a step
CATCH_UP_SECONDS = 3
SPARE_STEPS = 5_000  # while the servers start; it is killed after the last window


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    demo = "examples/support_tickets/demo.yaml"
    parser.add_argument("config", nargs="?", default=demo, help=f"what is trained ({demo})")
    parser.add_argument("--windows", type=int, default=16, help="windows, a multiple of 4")
    parser.add_argument("--window", type=int, default=5, help="steps of a window")
    parser.add_argument("--warm-up", type=int, default=3, help="steps before the first window")
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--train-core", type=int, help="the training runs on this core only")
    parser.add_argument("--watch-core", type=int, help="servers and clients run on this core only")
    parser.add_argument("--set", action="append", default=[], help="as for sft train")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/watching_cost.json")
    options = parser.parse_args()
    if options.windows % len(PATTERN) or options.window < 2:
        sys.exit("--windows must be a multiple of 4, and --window 2 or more")
    with tempfile.TemporaryDirectory(prefix="watching-cost-") as folder, ExitStack() as stack:
        run = Path(folder) / "run"
        training = stack.enter_context(train(options, run))
        tail = Tail(run / "metrics.jsonl")
        first = reached(tail, training, [], 1)
        watchers = stack.enter_context(watching(options, run))
        windows = alternate(options, tail, training, watchers, first)
        catch_up(watchers)
        arrivals = heard(Path(folder) / "clients.out")
        memory = [memory_bytes(process.pid) for process in watchers[:-1]]
    result = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "options": {key: str(value) for key, value in vars(options).items()},
        **cost(windows),
        "watchers_share": watchers_share(windows),
        **delays(arrivals, windows),
        "server_bytes": memory,
        "windows": windows,
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print("\n".join(table(result)))


@contextmanager
def train(options: argparse.Namespace, run: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The training, without evaluations, checkpoints and whatever else interrupts its steps."""
    steps = options.warm_up + options.windows * options.window + SPARE_STEPS
    settings = [f"optim.max_steps={steps}", f"eval.every={steps}", f"checkpoint.every={steps}"]
    command = [sys.executable, "-m", "sft", "train", options.config, "--run", str(run)]
    for setting in (*settings, *options.set):
        command += ["--set", setting]
    threads = {"OMP_NUM_THREADS": str(options.threads)}
    with open(run.with_name("train.out"), "wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | threads, stdout=log, stderr=log, process_group=0
        )
    pin(process, options.train_core)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def watching(options: argparse.Namespace, run: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The servers, then the process with all clients; stopped when the block begins."""
    started: list[subprocess.Popen[bytes]] = []
    ports = [free_port() for _ in range(options.servers)]
    watch = [sys.executable, "-m", "sft", "watch", str(run), "--port"]
    clients = [sys.executable, str(Path(__file__).with_name("stream_clients.py")), str(run)]
    clients += [*map(str, ports), "--clients", str(options.clients)]
    heard_in = run.with_name("clients.out")
    try:
        for port in ports:
            started.append(start([*watch, str(port)], run.with_name(f"watch-{port}.out")))
        for port in ports:
            wait_for_port(port, started)
        started.append(start(clients, heard_in))
        while not heard_in.read_bytes():
            if started[-1].poll() is not None:
                raise SystemExit("the clients ended")
            time.sleep(0.05)
        for process in started:
            pin(process, options.watch_core)
            os.killpg(process.pid, signal.SIGSTOP)
        yield started
    finally:
        for process in reversed(started):  # the clients first
            os.killpg(process.pid, signal.SIGCONT)
            stop(process)


def start(command: Sequence[str], output: Path) -> subprocess.Popen[bytes]:
    with open(output, "wb") as file:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, start_new_session=True
        )


def wait_for_port(port: int, started: Sequence[subprocess.Popen[bytes]]) -> None:
    from watched_tools import answers, wait_until

    wait_until(lambda: answers(f"http://127.0.0.1:{port}/api/runs"), started[0], Path(os.devnull))


def pin(process: subprocess.Popen[bytes], core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(process.pid, {core})


def alternate(
    options: argparse.Namespace,
    tail: Tail,
    training: subprocess.Popen[bytes],
    watchers: Sequence[subprocess.Popen[bytes]],
    records: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Steps of each window, with those who watch continued or stopped before it."""
    reached(tail, training, records, options.warm_up)
    windows: list[dict[str, Any]] = []
    for number in range(options.windows):
        state = PATTERN[number % len(PATTERN)]
        for process in watchers:
            os.killpg(process.pid, signal.SIGCONT if state == "on" else signal.SIGSTOP)
        before, used, began = len(records), processor_seconds(watchers), time.monotonic()
        reached(tail, training, records, before + options.window)
        window = {
            "watched": state == "on",
            "steps": durations(records, before),
            "seconds": time.monotonic() - began,
            "watchers_processor_seconds": processor_seconds(watchers) - used,
        }
        windows.append(window)
        print(f"window {number + 1} of {options.windows}: {state}", flush=True)
    return windows


def processor_seconds(watchers: Sequence[subprocess.Popen[bytes]]) -> float:
    """Processor time that servers and clients have used so far."""
    times = [psutil.Process(process.pid).cpu_times() for process in watchers]
    return sum(found.user + found.system for found in times)


def watchers_share(windows: Sequence[dict[str, Any]]) -> float:
    """Part of all cores' time that servers and clients used while they were not stopped.

    Most that they can have taken from a training on all cores; far less noisy than step times.
    """
    watched = [window for window in windows if window["watched"]]
    used = sum(window["watchers_processor_seconds"] for window in watched)
    return used / (sum(window["seconds"] for window in watched) * (os.cpu_count() or 1))


def catch_up(watchers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Let what was written before the end arrive, so that nothing counts as lost too early."""
    for process in watchers:
        os.killpg(process.pid, signal.SIGCONT)
    time.sleep(CATCH_UP_SECONDS)


def reached(
    tail: Tail, training: subprocess.Popen[bytes], records: list[dict[str, Any]], count: int
) -> list[dict[str, Any]]:
    """Wait until there are `count` records of steps."""
    end = time.monotonic() + WAIT_SECONDS
    while len(records) < count:
        new = [record for record in tail.read() if "loss" in record]
        records += new
        if training.poll() is not None or time.monotonic() > end:
            log = tail.path.parent.with_name("train.out")
            raise SystemExit(f"the training ended early:\n{log.read_text()[-3000:]}")
        time.sleep(0.02)
    return records


def durations(records: Sequence[dict[str, Any]], first: int) -> list[dict[str, float]]:
    """Of the steps after the first of a window: step, seconds and seconds per token."""
    return [
        {
            "step": record["step"],
            "seconds": record["seconds"] - before["seconds"],
            "seconds_per_token": 1 / record["tokens_per_second"],
        }
        for before, record in zip(records[first:], records[first + 1 :], strict=False)
    ]


def cost(windows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Median step times, their ratio, and its 95 % interval.

    A bootstrap sample draws pairs of neighbours, one watched and one alone, with replacement.
    """
    pairs = [windows[i : i + 2] for i in range(0, len(windows), 2)]
    rng = random.Random(0)
    drawn = sorted(
        ratio([window for pair in rng.choices(pairs, k=len(pairs)) for window in pair])
        for _ in range(SAMPLES)
    )
    return {
        "step_seconds": {
            name: statistics.median(values(windows, watched, "seconds"))
            for name, watched in (("watched", True), ("alone", False))
        },
        "ratio": ratio(windows),
        "interval": [drawn[int(0.025 * SAMPLES)], drawn[int(0.975 * SAMPLES)]],
    }


def ratio(windows: Sequence[dict[str, Any]]) -> float:
    watched, alone = (
        statistics.median(values(windows, state, "seconds_per_token")) for state in (True, False)
    )
    return watched / alone


def values(windows: Sequence[dict[str, Any]], watched: bool, name: str) -> list[float]:
    return [
        step[name] for window in windows if window["watched"] is watched for step in window["steps"]
    ]


def heard(path: Path) -> list[dict[str, Any]]:
    """What the clients wrote down; a last line that is torn is left out."""
    lines = path.read_text().split("\n")[:-1]
    return [found for line in lines if "steps" in (found := json.loads(line))]


def delays(arrivals: Sequence[dict[str, Any]], windows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Delays of the records of watched windows, and what was lost or came twice."""
    counted = {step["step"] for window in windows if window["watched"] for step in window["steps"]}
    found = sorted(arrival["delay"] for arrival in arrivals if {*arrival["steps"]} <= counted)
    seen: dict[int, Counter[int]] = {}
    for arrival in arrivals:
        seen.setdefault(arrival["client"], Counter()).update(arrival["steps"])
    last = max(counted)
    missing = sum(step not in steps for steps in seen.values() for step in range(1, last))
    twice = sum(count - 1 for steps in seen.values() for count in steps.values())
    figures = {}
    if found:
        figures = {
            "n": len(found),
            "p50": statistics.median(found),
            "p95": found[int(0.95 * len(found))],
            "max": found[-1],
        }
    return {"delay_seconds": figures, "lost": missing, "twice": twice, "clients": len(seen)}


def table(result: dict[str, Any]) -> list[str]:
    low, high = result["interval"]
    steps, delay = result["step_seconds"], result["delay_seconds"]
    lines = ["| | |", "|---|---|"]
    lines += [f"| step, watched | {steps['watched']:.3f} s |"]
    lines += [f"| step, alone | {steps['alone']:.3f} s |"]
    lines += [f"| ratio (95 % interval) | {result['ratio']:.4f} ({low:.4f} to {high:.4f}) |"]
    lines += [f"| servers and clients, of all cores | {result['watchers_share']:.2%} |"]
    if delay:
        told = ", ".join(f"{name} {delay[name] * 1000:.0f} ms" for name in ("p50", "p95", "max"))
        lines += [f"| from write to client | {told} ({delay['n']} arrivals) |"]
    lines += [f"| lost, twice | {result['lost']}, {result['twice']} |"]
    return lines


def machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
