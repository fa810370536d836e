"""The demo for several seeds: is the tuned model better than the base model every time?

    python benchmarks/demo_seeds.py [--seeds 0 1 2] [-- EXTRA FLAGS OF sft train]

Runs `sft train` and `sft eval` as a user would. What is finished is not run again, and an
interrupted run is resumed, so the same command continues where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog="What follows -- is handed to `sft train`, such as: -- --max-steps 1",
    )
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--config", default="examples/support_tickets/demo.yaml")
    add("--data", default="examples/support_tickets/held_out.jsonl", help="rows to evaluate on")
    add("--eval-rows", type=int, help="use only so many of them")
    add("--runs", type=Path, default=Path("runs"), help="folder for the run folders")
    add("--name", default="demo", help="runs are called NAME-seed-S, the results NAME_seeds.json")
    add("--out", type=Path, default=HERE / "results", help="folder for the JSON")
    own, extra = sys.argv[1:], []
    if "--" in own:
        cut = own.index("--")
        own, extra = own[:cut], own[cut + 1 :]
    args = parser.parse_args(own)
    args.extra = extra
    return args


def sft(*words: str) -> None:
    """One `sft` command of this environment; its failure is ours."""
    print(f"$ sft {' '.join(words)}", flush=True)
    code = subprocess.run([sys.executable, "-m", "sft", *words], check=False).returncode
    if code:
        sys.exit(code)


def one_seed(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train and evaluate, or find both done already."""
    run = args.runs / f"{args.name}-seed-{seed}"
    sft("train", args.config, "--seed", str(seed), "--run", str(run), *args.extra)
    found = run / f"eval-{Path(args.data).stem}.json"
    limit = ["--max-rows", str(args.eval_rows)] if args.eval_rows else []
    if not is_current(found, run, args):
        sft("eval", str(run), "--data", args.data, *limit)
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    evaluation = json.loads(found.read_text(encoding="utf-8"))
    return {
        "seed": seed,
        "steps": summary["steps"],
        "best_step": summary["best_step"],
        "stopped": summary["stopped"],
        "training_seconds": summary["last"]["seconds"],
        "task": evaluation["task"],
        "num_rows": evaluation["num_rows"],
        "measures": evaluation["measures"],
    }


def is_current(found: Path, run: Path, args: argparse.Namespace) -> bool:
    """Is there an evaluation of this model, on as many rows as asked for?"""
    if not found.is_file() or found.stat().st_mtime < (run / "summary.json").stat().st_mtime:
        return False
    lines = Path(args.data).read_text(encoding="utf-8").splitlines()
    wanted = args.eval_rows or sum(bool(line.strip()) for line in lines)
    return json.loads(found.read_text(encoding="utf-8"))["num_rows"] == wanted


def spread(seeds: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean, least and most over seeds, of each measure that is finite for every seed."""
    found = {}
    for name, first in seeds[0]["measures"].items():
        sides = {
            side: [value(seed["measures"][name], side) for seed in seeds]
            for side in ("base", "tuned", "change")
        }
        if any(number is None for numbers in sides.values() for number in numbers):
            continue
        found[name] = {"unit": first["base"]["unit"]} | {
            side: {
                "mean": statistics.mean(numbers),
                "min": min(numbers),
                "max": max(numbers),
                "stdev": statistics.stdev(numbers) if len(numbers) > 1 else None,
            }
            for side, numbers in sides.items()
        }
    return found


def value(measure: dict[str, Any], side: str) -> float | None:
    return measure["change"] if side == "change" else measure[side]["value"]


def table(seeds: list[dict[str, Any]], over: dict[str, dict[str, Any]]) -> str:
    names = [f"seed {seed['seed']}" for seed in seeds]
    head = ["metric", "model", *names, "mean", "range"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, sides in over.items():
        for side in ("base", "tuned"):
            numbers = [value(seed["measures"][name], side) for seed in seeds]
            all_of = sides[side]
            cells = [show(x, sides["unit"]) for x in (*numbers, all_of["mean"])]
            least, most = (show(all_of[end], sides["unit"]) for end in ("min", "max"))
            lines.append(f"| {name} | {side} | {' | '.join(cells)} | {least} to {most} |")
    minutes = [seed["training_seconds"] / 60 for seed in seeds]
    lines.append(
        f"\n{seeds[0]['num_rows']} rows, task {seeds[0]['task']}; training took "
        f"{min(minutes):.1f} to {max(minutes):.1f} minutes"
    )
    return "\n".join(lines)


def show(number: float, unit: str) -> str:
    return f"{number:.1%}" if unit == "share" else f"{number:.3f}"


def main() -> None:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    target = args.out / f"{args.name}_seeds.json"
    seeds: list[dict[str, Any]] = []
    for number in args.seeds:
        seeds.append(one_seed(args, number))
        over = spread(seeds)
        results = {
            "date": date.today().isoformat(),
            "versions": {name: version(name) for name in ("sft", "torch", "transformers")},
            "machine": {
                "cores": os.cpu_count(),
                "system": platform.system(),
                "python": platform.python_version(),
            },
            "config": Path(args.config).name,
            "data": Path(args.data).name,
            "extra_flags": args.extra,
            "over_seeds": over,
            "seeds": seeds,
        }
        target.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(seeds, over))


if __name__ == "__main__":
    main()
