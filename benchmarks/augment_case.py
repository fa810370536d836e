"""Do new rows, usage weights and the choice of different rows help where they should?

    python benchmarks/augment_case.py --seeds 0-1 --out runs/augment \
        --results benchmarks/results/augment.json

One short run of the starter model after the other, on one thread. Arms of a case differ in one
thing and take the same number of steps. Every run is written to --out as it ends, and what is there
is not run again, so the same command continues. `--tables` only counts.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import random
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from augment_plants import CASES, SELECT, SYSTEMS_TO_AUGMENT, Arm, Case, Row

Record = dict[str, Any]


def main() -> None:
    args = arguments()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before torch is loaded
        os.environ[name] = str(args.threads)
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    args.out.mkdir(parents=True, exist_ok=True)
    first, _, last = args.seeds.partition("-")
    names = args.cases.split(",") if args.cases else list(CASES)
    for seed in range(int(first), int(last or first) + 1) if not args.tables else ():
        for name in names:
            for arm in CASES[name].arms:
                path = args.out / f"{name}-{arm}-{seed}-{args.steps}.json"
                if not path.exists():
                    run_arm(name, arm, seed, path, args)
    results = summary(read_records(args.out, args.steps))
    if args.results:
        args.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    show(results)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--cases", default="", help=f"of {', '.join(CASES)}; commas between; default: all")
    add("--seeds", default="0", help="such as 0 or 0-2")
    add("--steps", type=int, default=24, help="optimizer steps of each run")
    add("--out", type=Path, required=True, help="folder of the records, one per run")
    add("--model", default="starter", help="what to train (default: the starter model)")
    add("--results", type=Path, help="JSON of what was measured")
    add("--tables", action="store_true", help="run nothing, only count what is there")
    add("--threads", type=int, default=1, help="threads of torch (default 1)")
    return parser.parse_args()


def read_records(folder: Path, steps: int) -> list[Record]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"*-{steps}.json"))]


# ------------------------------------------------------------------------- one run


def run_arm(name: str, arm_name: str, seed: int, path: Path, args: argparse.Namespace) -> None:
    """Train one arm and keep the loss of each row that was measured, before and after."""
    from sft.config import load_config
    from sft.terminal.console import Console
    from sft.train import train

    started = time.time()
    case, shm = CASES[name], Path("/dev/shm")
    place = shm if shm.is_dir() else None
    with tempfile.TemporaryDirectory(prefix=f"augment-{name}-", dir=place) as folder:
        work = Path(folder)
        files = write_data(case, case.arms[arm_name], seed, work)
        values = {**settings(args), **case.config, **case.arms[arm_name].config, **files}
        values |= {"run.dir": str(work / "run"), "run.seed": seed}
        train(load_config({}, values), Console(io.StringIO()))
        record = {
            "case": name,
            "arm": arm_name,
            "seed": seed,
            "steps": args.steps,
            "model": args.model,
            "rows": measured(work / "run", case, seed),
            "account": json.loads((work / "run" / "account.json").read_text())["counts"],
            "seconds": round(time.time() - started, 1),
            "machine": machine(),
        }
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record) + "\n", encoding="utf-8")
    temporary.replace(path)
    means = {p: sum(r["now"]) / len(r["now"]) for p, r in record["rows"].items()}
    told = ", ".join(f"{part} {mean:.4f}" for part, mean in means.items())
    print(f"{path.stem}: {record['seconds']:.0f} s; {told}", flush=True)


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """No guards, no choice of the step: base model and last step, that is all."""
    return {
        "model.name": args.model,
        "model.template": "chatml",  # without SmolLM2's system message: a third fewer tokens
        "optim.schedule": "constant",
        "optim.max_steps": args.steps,
        "eval.every": args.steps,
        "eval.early_stopping": "off",
        "eval.samples": 0,
        "checkpoint.every": 1_000_000,
        "checkpoint.choose": "last",
        "guards.enabled": False,
    }


def write_data(case: Case, arm: Arm, seed: int, work: Path) -> dict[str, Any]:
    """The files of one arm, as settings."""
    data = case.build(seed)
    train = data["train"]
    if arm.take == "first":
        train = train[:SELECT]
    elif arm.take == "random":
        train = random.Random(seed).sample(train, SELECT)
    test = [row for rows in data["test"].values() for row in rows]
    for name, rows in (("train", train), ("val", data["val"]), ("test", test)):
        write_rows(work / f"{name}.jsonl", rows)
    files: dict[str, Any] = {
        f"data.{name}": str(work / f"{name}.jsonl") for name in ("val", "test")
    }
    files["data.train"] = [str(work / "train.jsonl")]
    if "usage" in data:
        write_rows(work / "usage.jsonl", data["usage"])
        files["data.usage"] = str(work / "usage.jsonl")
    if arm.ways:
        files["data.train"].append(str(augmented(work, arm.ways, seed)))
    return files


def write_rows(path: Path, rows: list[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def augmented(work: Path, ways: str, seed: int) -> Path:
    """Two new rows of each training row, as `sft augment` makes them."""
    from sft.augment.make import AugmentSettings, parse_ways
    from sft.augment.run import augment
    from sft.config import SourceConfig
    from sft.terminal.console import Console

    source = SourceConfig.model_validate(str(work / "train.jsonl"))
    wanted = AugmentSettings(parse_ways(ways), per_row=2, seed=seed, systems=SYSTEMS_TO_AUGMENT)
    show = Console(io.StringIO())
    return augment([source], work / "augmented.jsonl", wanted, show).out


def measured(run: Path, case: Case, seed: int) -> dict[str, dict[str, list[float]]]:
    """By part: the loss per token of each row on the base model and at the end, in file order."""
    from sft.runs.store import read_records as lines

    parts = {"val": case.build(seed)["val"], **case.build(seed)["test"]}
    names = [part for part in parts if part != "val"]
    places = [name for name in names for _ in parts[name]]
    found: dict[str, dict[str, dict[int, float]]] = {p: {"base": {}, "now": {}} for p in parts}
    for line in lines(run / "scores.jsonl"):
        number = int(str(line["id"]).partition("#")[0].rpartition(":")[2])
        part = "val" if line["probe"] == "val" else places[number - 1]
        when = "now" if line["step"] else "base"
        found[part][when][number] = line["nll"] / line["tokens"]
    return {
        part: {when: [values[n] for n in sorted(values)] for when, values in sides.items()}
        for part, sides in found.items()
    }


def machine() -> dict[str, Any]:
    import torch

    return {
        "threads": torch.get_num_threads(),
        "processor": platform.machine(),
        "versions": {name: version(name) for name in ("sft", "torch", "transformers")},
    }


# ------------------------------------------------------------------------- tables


def summary(records: list[Record]) -> Record:
    """By case, arm and part: the paired difference from the first arm, seeds taken together."""
    found: Record = {"runs": len(records), "comparisons": []}
    by_run = {(r["case"], r["arm"], r["seed"]): r for r in records}
    for name, case in CASES.items():
        first, *others = case.arms
        for arm in others:
            pairs = [
                (by_run[name, first, seed], record)
                for (n, a, seed), record in sorted(by_run.items())
                if (n, a) == (name, arm) and (name, first, seed) in by_run
            ]
            for part in pairs[0][1]["rows"] if pairs else ():
                found["comparisons"].append(compared(case, name, arm, first, part, pairs))
    return found


def compared(
    case: Case, name: str, arm: str, first: str, part: str, pairs: list[tuple[Record, Record]]
) -> Record:
    """A row of one place is measured in each seed, so its differences are averaged first."""
    from sft.guards.statistics import paired

    deltas = [
        [b - a for a, b in zip(before["rows"][part]["now"], r["rows"][part]["now"], strict=True)]
        for before, r in pairs
    ]
    mean = [sum(values) / len(values) for values in zip(*deltas, strict=True)]
    worse, better = paired(mean), paired([-value for value in mean])
    return {
        "case": name,
        "what": case.what,
        "arm": arm,
        "against": first,
        "part": part,
        "seeds": [r["seed"] for _, r in pairs],
        "rows": worse.n,
        "base": _mean([r["rows"][part]["base"] for _, r in pairs]),
        first: _mean([before["rows"][part]["now"] for before, _ in pairs]),
        arm: _mean([r["rows"][part]["now"] for _, r in pairs]),
        "difference": worse.mean,
        "interval": list(worse.interval),
        "p_better": better.p,
        "p_worse": worse.p,
        "least_seen": worse.mde,
        "by_seed": [sum(values) / len(values) for values in deltas],
    }


def _mean(lists: list[list[float]]) -> float:
    values = [value for one in lists for value in one]
    return sum(values) / len(values)


def show(results: Record) -> None:
    for found in results["comparisons"]:
        low, high = found["interval"]
        print(
            f"{found['case']:<16}{found['part']:<10}{found['arm']} - {found['against']}: "
            f"{found['difference']:+.4f} ({low:+.4f} to {high:+.4f}), p better "
            f"{found['p_better']:.3g}, worse {found['p_worse']:.3g}; {found['rows']} rows, "
            f"seeds {found['seeds']}"
        )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
