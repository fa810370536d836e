"""Kill a run with -9 at random moments, resume it, and compare it byte for byte.

    python benchmarks/kill_resume.py --kills 30 --out benchmarks/results/kill_resume.json

Each trial starts `sft train` on a tiny random Llama, kills the process at a random moment between
the creation of its run folder and its end, and gives the same command again, which may be killed
again, until the run is finished. What it leaves must be what an uninterrupted run leaves: all
files of `model/`, weights, optimizer and random state of the last checkpoint, every metric but
the clock readings, every validation score. A trial is written to --out when it is done, and
skipped the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import tiny  # noqa: E402
import trained  # noqa: E402

WORDS = ["fox", "dog", "Paris", "France", "quick", "brown", "lazy", "one", "two", "three", "four"]
SETTINGS = [
    "optim.learning_rate=3e-3",
    "optim.neftune_alpha=5",  # draws random numbers in every step
    "eval.every=15",
    "eval.early_stopping=off",
    "checkpoint.every=3",
]
COMMAND = ["train", "--model", "../llama", "--data", "../rows.jsonl", "--run", "run"]
COMMAND += ["--max-steps", "150", *(word for text in SETTINGS for word in ("--set", text))]
KILLED_AGAIN = 1 / 3  # of the resumed runs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=30, help="number of trials (default 30)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/kill_resume.json")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory(prefix="kill-resume-") as folder:
        work = Path(folder)
        make_inputs(work)
        reference, seconds = uninterrupted(work, "first")
        again, faster = uninterrupted(work, "second")
        if again != reference:
            raise SystemExit("two uninterrupted runs differ; there is nothing to compare with")
        seconds = min(seconds, faster)
        result = begin(options, reference, seconds)
        print(f"uninterrupted: {seconds:.1f} s from its run folder to its end")
        for number in range(options.kills):
            if number < len(result["trials"]):
                continue
            done = trial(
                work, number, random.Random(f"{options.seed}-{number}"), seconds, reference
            )
            result["trials"].append(done)
            result["verdict"] = verdict(result["trials"])
            write(options.out, result)
            print(line(done), flush=True)
    report(result)
    sys.exit(any(done["different"] for done in result["trials"]))


def make_inputs(work: Path) -> None:
    tiny.save(work / "llama")
    rng = random.Random(0)
    with open(work / "rows.jsonl", "w", encoding="utf-8") as file:
        for index in range(60):
            words = rng.choices(WORDS, k=rng.randint(2, 6))
            row = {"prompt": f"{' '.join(words)} {index}?", "completion": f"It is {words[0]}."}
            file.write(json.dumps(row) + "\n")


def start(folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "sft", *COMMAND], cwd=folder, stdout=log, stderr=log
        )


def wait_for_folder(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Until this process holds the run folder: its pid is in the lock."""
    lock, mine = folder / "run" / "run.lock", f'"pid": {process.pid},'
    while process.poll() is None and not (lock.is_file() and mine in lock.read_text()):
        time.sleep(0.002)


def uninterrupted(work: Path, name: str) -> tuple[dict[str, str], float]:
    """What a run leaves, and how long it takes from its run folder to its end."""
    folder = work / name
    process = start(folder)
    wait_for_folder(process, folder)
    began = time.monotonic()
    if process.wait() != 0:
        raise SystemExit((folder / "log").read_text())
    return trained.left_behind(folder / "run"), time.monotonic() - began


def trial(
    work: Path, number: int, rng: random.Random, seconds: float, reference: dict[str, str]
) -> dict[str, Any]:
    """Kill, resume, maybe kill again, until the run is finished; then compare."""
    folder = work / f"trial-{number}"
    kills: list[dict[str, Any]] = []
    while True:
        process = start(folder)
        wait_for_folder(process, folder)
        if not kills or rng.random() < KILLED_AGAIN:
            moment = rng.uniform(0, seconds)
            killed = kill_after(process, moment)
            if killed:
                kills.append({"after_seconds": round(moment, 3), "phase": phase(folder / "run")})
                continue
        if process.wait() != 0 or kills:
            break
        remove(folder)  # it was faster than the moment chosen: not a trial
    found = trained.left_behind(folder / "run") if process.returncode == 0 else {}
    return {
        "trial": number,
        "kills": kills,
        "resumed_after_steps": resumed(folder / "log"),
        "exit_code": process.returncode,
        "compared": len(reference),
        "different": sorted(
            name for name in {*reference, *found} if reference.get(name) != found.get(name)
        ),
    }


def kill_after(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """True when the process was still there to be killed."""
    try:
        process.wait(timeout=seconds)
        return False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL


def remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def phase(run: Path) -> str:
    """What the killed process was doing, by what lies on the disk."""
    if (run / "summary.json").exists():
        return "ending"
    if any(run.glob(".tmp-*model*")):
        return "exporting the model"
    if (run / "model").exists():
        return "verifying the model"
    if any(run.glob("checkpoints/.tmp-*")):
        return "saving a checkpoint"
    metrics = run / "metrics.jsonl"
    if metrics.exists() and metrics.stat().st_size:
        return "training"
    return "preparing"


def resumed(log: Path) -> list[int]:
    """The steps after which the run was taken up again, in order."""
    words = log.read_text(encoding="utf-8").split()
    return [int(words[i + 3]) for i, word in enumerate(words) if word == "resuming"]


def begin(options: argparse.Namespace, reference: dict[str, str], seconds: float) -> dict[str, Any]:
    """What --out holds, if it was made with the same code, machine and seed; else a new result."""
    fresh = {
        "machine": {
            "cores": os.cpu_count(),
            "threads": options.threads,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "sft")},
        },
        "command": ["sft", *COMMAND],
        "seed": options.seed,
        "reference": reference,
    }
    if options.out.exists():
        found = json.loads(options.out.read_text())
        if all(found.get(key) == value for key, value in fresh.items()):
            return found
        print(f"{options.out}: made with something else; starting again")
    return {**fresh, "uninterrupted_seconds": round(seconds, 1), "verdict": "", "trials": []}


def write(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def verdict(trials: list[dict[str, Any]]) -> str:
    equal = sum(not done["different"] for done in trials)
    return f"{equal}/{len(trials)} identical"


def line(done: dict[str, Any]) -> str:
    kills = "; ".join(f"{k['phase']} ({k['after_seconds']:.1f} s)" for k in done["kills"])
    outcome = f"DIFFERENT: {', '.join(done['different'])}" if done["different"] else "identical"
    ended = done["kills"][-1]["phase"] == "ending"
    steps = ", ".join(map(str, done["resumed_after_steps"])) or ("its end" if ended else "0")
    return f"{done['trial'] + 1:>3}  killed while {kills}; resumed from step {steps}: {outcome}"


def report(result: dict[str, Any]) -> None:
    trials = result["trials"]
    phases = Counter(kill["phase"] for done in trials for kill in done["kills"])
    print("\n| killed while | kills |\n|---|---:|")
    for name, count in phases.most_common():
        print(f"| {name} | {count} |")
    print(f"| all | {phases.total()} |")
    print(f"\n{verdict(trials)} ({phases.total()} kills)")


if __name__ == "__main__":
    main()
