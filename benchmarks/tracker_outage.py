"""What a tracker service that hangs costs a training: step times against those without trackers.

    python benchmarks/tracker_outage.py [CONFIG] [--pairs 6] [--steps 40] [--out FILE]

Whole runs in turn, in the order off, on, on, off: `off` has no tracker, `on` has TensorBoard, a
webhook, and wandb and MLflow where they are installed, all at a port of this machine that takes
connections and never answers. Without CONFIG a tiny random Llama is trained. Both runs of a pair
train on the same rows in the same order, so each step is compared with itself. Reported are, over
pairs: the ratio of the seconds spent in all steps, and that of the steps after the first
`--warm-up` ones (while trackers connect); and the ratio of single steps at its 50th and 99th
percentile. An `on` run also tells what its end took longer, which is 5 s at most by design.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

PATTERN = ("off", "on", "on", "off")
LIBRARIES = ("wandb", "mlflow")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("config", nargs="?", help="what is trained; default: a tiny model")
    parser.add_argument("--pairs", type=int, default=6, help="pairs of runs, an even number")
    parser.add_argument("--steps", type=int, default=40, help="steps of each run")
    parser.add_argument("--warm-up", type=int, default=5, help="first steps told apart")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--set", action="append", default=[], help="as for sft train")
    parser.add_argument("--out", type=Path, help="where the JSON goes, too")
    options = parser.parse_args()
    if options.pairs < 2 or options.pairs % 2 or options.steps <= options.warm_up + 1:
        sys.exit("--pairs must be even, and --steps larger than --warm-up + 1")
    with (
        tempfile.TemporaryDirectory(prefix="tracker-outage-") as folder,
        socket.create_server(("127.0.0.1", 0), backlog=1000) as server,
    ):
        work, port = Path(folder), server.getsockname()[1]
        config = options.config or str(tiny_config(work))
        runs = [
            one_run(options, config, work / f"{number}-{state}", state, port)
            for number, state in enumerate(PATTERN * (options.pairs // 2))
        ]
    result = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}",
        "options": {key: str(value) for key, value in vars(options).items()},
        "trackers": settings_of("on", port),
        **compare(runs, options.warm_up),
        "runs": runs,
    }
    text = json.dumps(result, indent=1)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in result.items() if k != "runs"}, indent=1))


def tiny_config(work: Path) -> Path:
    """A tiny model, and rows for it."""
    import trained

    trained.make_world(work)
    path = work / "tiny.yaml"
    path.write_text(
        f"model: {{name: {work / 'llama'}}}\ndata: {{train: {work / 'rows.jsonl'}}}\n"
        "optim: {learning_rate: 1e-3}\n"
    )
    return path


def settings_of(state: str, port: int) -> list[str]:
    if state == "off":
        return ["trackers.tensorboard=false"]
    from sft.trackers.installed import missing

    found = [name for name in LIBRARIES if missing(name) is None]
    url = f"http://127.0.0.1:{port}"
    kinds = (
        "[started, note, evaluation, checkpoint, finished]"  # so that there is something to send
    )
    return [
        *(f"trackers.{name}=true" for name in found),
        f"alerts.webhook={url}",
        f"alerts.on={kinds}",
    ]


def one_run(
    options: argparse.Namespace, config: str, folder: Path, state: str, port: int
) -> dict[str, Any]:
    """Train once; the seconds of each step, and what came between the last step and the exit."""
    every = options.steps
    settings = [f"optim.max_steps={every}", f"eval.every={every}", f"checkpoint.every={every}"]
    command = [sys.executable, "-m", "sft", "train", config, "--run", str(folder)]
    for setting in (*settings, *options.set, *settings_of(state, port)):
        command += ["--set", setting]
    url = f"http://127.0.0.1:{port}"
    environment = {
        "OMP_NUM_THREADS": str(options.threads),
        "WANDB_BASE_URL": url,
        "WANDB_API_KEY": "0" * 40,
        "MLFLOW_TRACKING_URI": url,
    }
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    ended = time.time()
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    sums = [0.0, *(record["seconds"] for record in records if "loss" in record)]
    print(f"{folder.name}: {sums[-1]:.1f} s in {len(sums) - 1} steps", file=sys.stderr)
    return {
        "state": state,
        "steps": [after - before for before, after in pairwise(sums)],
        "end_seconds": ended - (folder / "summary.json").stat().st_mtime,
        "told": [line for line in done.stderr.splitlines() if "not sent" in line],
    }


def compare(runs: list[dict[str, Any]], warm_up: int) -> dict[str, Any]:
    """Ratios of on to off over pairs of neighbours."""
    pairs = [
        sorted(runs[start : start + 2], key=lambda run: str(run["state"]))  # off, on
        for start in range(0, len(runs), 2)
    ]
    single = sorted(
        on / off
        for first, second in pairs
        for off, on in list(zip(first["steps"], second["steps"], strict=True))[warm_up:]
    )
    return {
        "all_steps": spread([sum(b["steps"]) / sum(a["steps"]) for a, b in pairs]),
        "after_warm_up": spread(
            [sum(b["steps"][warm_up:]) / sum(a["steps"][warm_up:]) for a, b in pairs]
        ),
        "single_steps": {
            "count": len(single),
            "p50": round(statistics.median(single), 4),
            "p99": round(single[min(len(single) - 1, int(0.99 * len(single)))], 4),
        },
        "p99_of_steps": spread(
            [p99(b["steps"][warm_up:]) / p99(a["steps"][warm_up:]) for a, b in pairs]
        ),
        "end_seconds": {
            state: round(
                statistics.median(r["end_seconds"] for r in runs if r["state"] == state), 2
            )
            for state in ("off", "on")
        },
    }


def p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]


def spread(ratios: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(ratios), 4),
        "lowest": round(min(ratios), 4),
        "highest": round(max(ratios), 4),
    }


if __name__ == "__main__":
    main()
