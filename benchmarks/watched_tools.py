"""The tools that `watching_speed.py` compares: what each is fed, how it is started, what is drawn.

Every tool gets the same numbers in its own format, is started by its own command, and has a few
lines of JavaScript that find its loss chart and tell whether the curve is in it.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import long_run  # noqa: E402

WAIT_SECONDS = 60  # for a server's first answer, or until it has read everything


@dataclass
class Tool:
    """`chart` is the body of a function that returns the element of the loss chart, or null;
    `view` of one that returns a text which changes when what is drawn changes, and is empty
    before the curve is drawn; both see `chart` as their argument."""

    name: str
    what: str
    chart: str
    view: str
    write: Callable[[Path, long_run.Drawn], None]
    command: Callable[[Path, int], list[str]]
    page: Callable[[str], str]
    ready: Callable[[str, int], bool]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Server:
    """A started tool; `first_answer` seconds after its start it answered, `ready` later it had
    read the last step."""

    url: str
    pid: int
    first_answer: float
    ready: float


def tools(tensorboard: str, trackio: str) -> list[Tool]:
    """Those that can be started here. `tensorboard` and `trackio` are programs."""
    found = [SFT]
    if shutil.which(tensorboard):
        found.append(tensorboard_tool(tensorboard))
    if shutil.which(trackio):
        found.append(trackio_tool(trackio))
    return found


# ------------------------------------------------------------------------------------- sft


def write_sft(folder: Path, drawn: long_run.Drawn) -> None:
    long_run.write_run(folder / "runs" / "long", drawn.num_steps, drawn.every, seed=drawn.seed)


def sft_page(url: str) -> str:
    [run] = get_json(url + "/api/runs")["runs"]
    return f"{url}/#/run/{run['id']}"


# Paths of plotly, and how often the page drew them.
PLOTLY_VIEW = """
const lines = [...chart.querySelectorAll('.scatterlayer path.js-line')];
const drawn = lines.some((e) => (e.getAttribute('d') || '').length > 500);
return drawn ? chart.dataset.drawn : '';
"""

SFT = Tool(
    "sft",
    "sft watch",
    "return document.getElementById('loss-chart');",
    PLOTLY_VIEW,
    write_sft,
    lambda folder, port: [
        *(sys.executable, "-m", "sft", "watch", str(folder / "runs"), "--port", str(port))
    ],
    sft_page,
    lambda url, steps: get_json(url + "/api/runs")["runs"][0]["step"] == steps,
)

# ------------------------------------------------------------------------------- TensorBoard


def write_tensorboard(folder: Path, drawn: long_run.Drawn) -> None:
    """One event a step with all its numbers, as a logger of scalars writes them."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder / "run"), max_queue_size=1000)
    for record in drawn.steps():
        step = record.pop("step")
        values = [Summary.Value(tag=name, simple_value=value) for name, value in record.items()]
        event = Event(wall_time=record["seconds"], step=step, summary=Summary(value=values))
        writer.add_event(event)
    writer.close()


def tensorboard_ready(url: str, steps: int) -> bool:
    tags = get_json(url + "/data/plugin/scalars/tags").get("run", {})
    if "loss" not in tags:
        return False
    return get_json(url + "/data/plugin/scalars/scalars?run=run&tag=loss")[-1][1] == steps


def tensorboard_tool(program: str) -> Tool:
    return Tool(
        "tensorboard",
        "TensorBoard, one chart, its default sample of 1,000 points",
        "return document.querySelector('line-chart');",
        # Its canvas belongs to a worker and cannot be read; the ticks follow the data.
        "const t = [...chart.querySelectorAll('text')].map((e) => e.textContent).join();"
        "return /[2-9]0k|[0-9]{3}/.test(t) ? t : '';",
        write_tensorboard,
        lambda folder, port: [
            *(program, "--logdir", str(folder), "--port", str(port), "--host", "127.0.0.1")
        ],
        lambda url: url + "/?tagFilter=%5Eloss%24#timeseries",
        tensorboard_ready,
    )


# ----------------------------------------------------------------------------------- Trackio


def trackio_tool(program: str) -> Tool:
    python = str(Path(program).with_name("python"))

    def write(folder: Path, drawn: long_run.Drawn) -> None:
        path = folder / "rows.csv"
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, next(drawn.steps(1, 1)).keys())
            writer.writeheader()
            writer.writerows(drawn.steps())
        call = f"import trackio; trackio.import_csv({str(path)!r}, project='bench', name='run')"
        environment = os.environ | {"TRACKIO_DIR": str(folder)}
        subprocess.run([python, "-c", call], env=environment, check=True, capture_output=True)

    return Tool(
        "trackio",
        "Trackio, all charts, its default sample of points",
        "return document.querySelector('[data-metric=\"loss\"] .vega-embed');",
        # Its canvas can be read: a line has more colourful pixels than text or axes have.
        "const canvas = chart.querySelector('canvas'); if (!canvas) return '';"
        "const {width, height} = canvas;"
        "const data = canvas.getContext('2d').getImageData(0, 0, width, height).data;"
        "let colour = 0, hash = 0;"
        "for (let i = 0; i < data.length; i += 4) {"
        "  if (Math.abs(data[i] - data[i + 1]) > 20) { colour += 1; hash = (hash * 31 + i) | 0; }"
        "} return colour > 200 ? String(hash) : '';",
        write,
        lambda folder, port: [program, "show", "--project", "bench"],
        lambda url: url + "/?project=bench",
        lambda url, steps: True,  # reads its database when asked
        {"TRACKIO_DIR": "{folder}", "GRADIO_SERVER_PORT": "{port}", "BROWSER": "true"},
    )


# ----------------------------------------------------------------------------------- servers


@contextmanager
def serving(tool: Tool, folder: Path, num_steps: int) -> Iterator[Server]:
    """The tool's own command, on a free port, until the end of the block."""
    port = free_port()
    more = {key: v.format(folder=folder, port=port) for key, v in tool.environment.items()}
    url = f"http://127.0.0.1:{port}"
    with open(folder / "log", "wb") as log:
        began = time.monotonic()
        process = subprocess.Popen(
            tool.command(folder, port),
            env=os.environ | more,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        first = wait_until(lambda: answers(url), process, folder / "log") - began
        ready = wait_until(lambda: tool.ready(url, num_steps), process, folder / "log") - began
        yield Server(url, process.pid, first, ready)
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the process and what it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(done: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> float:
    """The moment at which `done()` was true for the first time (`time.monotonic`)."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with suppress(OSError, KeyError, IndexError, ValueError):
            if done():
                return time.monotonic()
        time.sleep(0.02)
    raise SystemExit(f"{process.args!r} did not get ready:\n{log.read_text()[-2000:]}")


def answers(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bool(answer.read())


def get_json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.loads(answer.read())


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def memory_bytes(pid: int) -> int | None:
    """Memory of a process and of all that it started, shared pages divided; None off Linux."""
    if not Path("/proc/self/smaps_rollup").is_file():
        return None
    total = 0
    for member in (pid, *descendants(pid)):
        with suppress(OSError, AttributeError):
            text = Path(f"/proc/{member}/smaps_rollup").read_text()
            total += int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1]) * 1024  # type: ignore[index]
    return total


def descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, task.read_text().split()):
                yield child
                yield from descendants(child)
