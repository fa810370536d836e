"""How fast a run of 100,000 steps can be watched: `sft watch`, TensorBoard and Trackio.

    python benchmarks/watching_speed.py --trackio PROGRAM [--repeat 5] [--out FILE]

The same drawn run is given to each tool in its own format, served by its own command, and opened
in a fresh headless Chromium. The tools take turns, repetition by repetition, so that a noisy
machine is noisy for all of them. A tool that is not installed is "not measured". Each server is
opened twice: `curve_seconds` is the first time, `again_seconds` the second, from another profile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import page_timing
import watched_tools
from watched_tools import ROOT, Tool, memory_bytes

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
# name: heading and how a number of it is shown
FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "first_answer_seconds": ("server answers after", "{:.2f} s".format),
    "ready_seconds": ("server has read the run after", "{:.2f} s".format),
    "first_paint_seconds": ("first paint", "{:.2f} s".format),
    "curve_seconds": ("loss curve drawn", "{:.2f} s".format),
    "again_seconds": ("drawn, opened again", "{:.2f} s".format),
    "zoom_seconds": ("zoom: first new picture", "{:.3f} s".format),
    "zoom_settled_seconds": ("zoom: last new picture", "{:.3f} s".format),
    "frame_ms_p50": ("frame while moving, median", "{:.1f} ms".format),
    "frame_ms_p95": ("95th percentile", "{:.1f} ms".format),
    "frame_ms_max": ("longest", "{:.1f} ms".format),
    "heap_bytes": ("JavaScript heap", lambda value: f"{value / 1e6:.1f} MB"),
    "renderer_bytes": ("renderer process", lambda value: f"{value / 1e6:.0f} MB"),
    "server_bytes": ("server processes", lambda value: f"{value / 1e6:.0f} MB"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100_000, help="steps of the run")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions (default 5)")
    parser.add_argument("--tensorboard", default="tensorboard", help="program of TensorBoard")
    parser.add_argument("--trackio", default="trackio", help="program of Trackio")
    parser.add_argument("--only", nargs="*", default=["sft", "tensorboard", "trackio"])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/watching_speed.json")
    options = parser.parse_args()
    browser = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if browser is None:
        sys.exit(f"no browser: none of {', '.join(CHROMIUM)} is on the PATH")
    # TensorBoard is often installed beside this Python, but not on the PATH.
    beside = shutil.which(options.tensorboard, path=str(Path(sys.executable).parent))
    known = watched_tools.tools(beside or options.tensorboard, options.trackio)
    chosen = [tool for tool in known if tool.name in options.only]
    with tempfile.TemporaryDirectory(prefix="watching-speed-") as folder:
        prepare(chosen, Path(folder), options.steps)
        rows = measure(chosen, Path(folder), options, browser)
    result = {
        "date": date.today().isoformat(),
        "machine": machine(browser),
        "steps": options.steps,
        "versions": {tool.name: version_of(tool, options) for tool in chosen},
        "what": {tool.name: tool.what for tool in chosen},
        "not_measured": sorted({"sft", "tensorboard", "trackio"} - {t.name for t in chosen}),
        "medians": {tool.name: summary(rows[tool.name]) for tool in chosen},
        "repetitions": rows,
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print("\n".join(table(result)))


def prepare(tools: Sequence[Tool], folder: Path, num_steps: int) -> None:
    """Write the run in the format of each tool."""
    drawn = watched_tools.long_run.Drawn(num_steps, max(1, num_steps // 50))
    for tool in tools:
        (folder / tool.name).mkdir()
        print(f"writing {num_steps:,} steps for {tool.name}", flush=True)
        tool.write(folder / tool.name, drawn)


def measure(
    tools: Sequence[Tool], folder: Path, options: argparse.Namespace, browser: str
) -> dict[str, list[dict[str, Any]]]:
    """One dictionary of figures a repetition, by tool; each repetition starts with another tool."""
    rows: dict[str, list[dict[str, Any]]] = {tool.name: [] for tool in tools}
    for number in range(options.repeat):
        first = number % len(tools)
        for tool in (*tools[first:], *tools[:first]):
            row = once(tool, folder / tool.name, options.steps, browser)
            rows[tool.name].append(row)
            print(f"{number + 1}/{options.repeat} {tool.name}: curve {row['curve_seconds']:.2f} s")
    return rows


def once(tool: Tool, folder: Path, num_steps: int, program: str) -> dict[str, Any]:
    """Start the tool, open its page twice, and stop it."""
    with watched_tools.serving(tool, folder, num_steps) as server:
        url = tool.page(server.url)
        with page_timing.chromium(program) as (browser, parent):
            found = page_timing.measure(browser, parent, tool, url)
            again = page_timing.curve_seconds(browser, tool, url)
        return {
            "first_answer_seconds": server.first_answer,
            "ready_seconds": server.ready,
            **found,
            "again_seconds": again,
            "server_bytes": memory_bytes(server.pid),
        }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Median, smallest and largest of each figure; None where it was not measured."""
    result: dict[str, Any] = {}
    for name in FIGURES:
        values = [row[name] for row in rows if row[name] is not None]
        result[name] = None
        if values:
            middle = statistics.median(values)
            result[name] = {"median": middle, "low": min(values), "high": max(values)}
    return result


def table(result: dict[str, Any]) -> list[str]:
    """Lines of Markdown: a row for each figure, a column for each tool."""
    names = ["sft", "tensorboard", "trackio"]
    lines = ["| median (range) | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for figure, (heading, show) in FIGURES.items():
        cells = [cell(result["medians"].get(name, {}).get(figure), show) for name in names]
        lines.append(f"| {heading} | " + " | ".join(cells) + " |")
    return lines


def cell(figure: dict[str, float] | None, show: Callable[[float], str]) -> str:
    if figure is None:
        return "not measured"
    return f"{show(figure['median'])} ({show(figure['low'])} to {show(figure['high'])})"


def version_of(tool: Tool, options: argparse.Namespace) -> str:
    """What the tool says of itself."""
    if tool.name == "sft":
        with suppress(PackageNotFoundError):
            return version("sft")
        return "not installed: run from its sources"
    program = tool.command(Path("."), 0)[0]
    told = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    return found[0] if (found := re.findall(r"\d+(?:\.\d+)+", told)) else "unknown"


def machine(browser: str) -> dict[str, Any]:
    told = subprocess.run([browser, "--version"], capture_output=True, text=True).stdout
    return {
        "browser": " ".join(told.split()),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
