"""Run planted pitfalls, clean controls and traps, and keep a trace of each.

    python benchmarks/guards/run.py --cases P1,P2,C1 --seeds 0-1 --out runs/guards

Development seeds are 0 to 4, test seeds 100 and up. The training is sft's own loop; the guards
only watch. A trace is written when its run is done, and what exists is skipped, so the same
command continues; several workers can share one --out.
"""

from __future__ import annotations

import argparse
import fcntl
import gc
import io
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cases import BY_ID, CASES, NUM_TEXTS, Case
from plants import Rows
from pool import Draw, real_data, write_rows, write_texts

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Job:
    """One run of a case."""

    case: Case
    seed: int

    @property
    def name(self) -> str:
        """The stem of its trace."""
        return f"{self.case.id}-{self.seed}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--cases", default="all", help="ids, or core, more, dose, clean, trap, all; commas between")
    add("--seeds", default="0", help="such as 0-4 or 100,103")
    add("--out", type=Path, required=True, help="folder of the traces")
    add("--threads", type=int, default=1, help="threads of torch (default 1)")
    add("--worker", default="0/1", help="i/n: this is worker i of n; it begins with every n-th job")
    add("--work", type=Path, help="where run folders live while they are needed")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before torch is loaded
        os.environ[name] = str(args.threads)
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    args.out.mkdir(parents=True, exist_ok=True)
    shm = Path("/dev/shm")
    place = args.work or (shm if shm.is_dir() else None)
    failed = 0
    for job in jobs(args.cases, args.seeds, args.worker):
        with claim(args.out, job) as mine:
            if mine:
                with tempfile.TemporaryDirectory(prefix=f"guards-{job.name}-", dir=place) as work:
                    failed += not run_job(job, args.out, Path(work))
    raise SystemExit(bool(failed))


def jobs(cases: str, seeds: str, worker: str) -> list[Job]:
    """All jobs, seed by seed; those of this worker first, then the others'."""
    words = cases.split(",")
    known = {*BY_ID, *(case.kind for case in CASES), "all"}
    if unknown := [word for word in words if word not in known]:
        raise SystemExit(f"--cases: {', '.join(unknown)}: unknown; there are {', '.join(known)}")
    chosen = [case for case in CASES if {case.id, case.kind, "all"} & set(words)]
    every = [Job(case, seed) for seed in numbers(seeds) for case in chosen]
    mine, count = (int(part) for part in worker.split("/"))
    return every[mine::count] + [job for i, job in enumerate(every) if i % count != mine]


def numbers(text: str) -> list[int]:
    """`0-2,7` is 0, 1, 2, 7."""
    found = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


@contextmanager
def claim(out: Path, job: Job) -> Iterator[bool]:
    """True when the job is still to be done and nobody else is doing it; ends with the process."""
    from trace_file import SUFFIX

    locks = out / ".locks"
    locks.mkdir(exist_ok=True)
    with open(locks / job.name, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield not (out / f"{job.name}{SUFFIX}").exists()


def run_job(job: Job, out: Path, work: Path) -> bool:
    """One run from data to trace; False when the trace does not give the run's own verdicts."""
    import trace_file

    started = time.monotonic()
    rows = job.case.build(Draw(job.seed))
    config = job.case.settings() | write_data(rows, job.seed, work) | {"run.seed": job.seed}
    trace = {
        "case": job.case.id,
        "kind": job.case.kind,
        "seed": job.seed,
        "data": "public" if real_data() else "made up",
        **run_one(
            config,
            rows,
            work,
            out / ".base",
            rescore=job.case.rescore,
            # A fifth of a run: only where rates or intervals are counted against it.
            ask_oracle=job.case.kind in ("core", "more"),
        ),
        "machine": machine(),
    }
    trace["seconds"]["all"] = round(time.monotonic() - started, 1)
    print(line(job, trace), flush=True)
    gc.collect()
    try:
        trace_file.write(out / f"{job.name}{trace_file.SUFFIX}", trace)
    except trace_file.Differs as problem:
        print(f"{job.name:<14}NOT KEPT  {problem}", flush=True)
        return False
    return True


def write_data(rows: Rows, seed: int, work: Path) -> dict[str, Any]:
    """The files of a run, and the settings that name them."""
    parts = {"train": rows.train, "val": rows.val, "usage": rows.usage}
    files: dict[str, Any] = {
        f"data.{name}": [str(write_rows(work / f"{name}.jsonl", part))]
        for name, part in parts.items()
        if part
    }
    texts = write_texts(work / "retain.txt", Draw(seed).texts(NUM_TEXTS))
    return files | {"data.retain": [str(texts)]}


def run_one(
    values: dict[str, Any],
    rows: Rows,
    work: Path,
    kept: Path,
    *,
    rescore: bool = False,
    ask_oracle: bool = True,
) -> dict[str, Any]:
    """Train with sft's own loop; what it recorded and what the oracle says, as part of a trace."""
    import oracle
    import trace_file

    from sft.config import load_config
    from sft.errors import SFTError
    from sft.guards import thresholds
    from sft.runs.history import history_of, read_findings
    from sft.runs.run_dir import RunDir
    from sft.terminal.console import Console
    from sft.train import Loop, open_stores
    from sft.training.identity import saved_identity
    from sft.training.interrupt import StopFlag
    from sft.training.setup import prepare

    clock = Clock()
    error = ""
    config = load_config({}, values)
    with RunDir.open(work / "run") as run, Console(io.StringIO()) as show:
        setup = prepare(config, run, show, StopFlag())
        clock.lap("prepare")
        probes = oracle.make_probes(rows, setup, work) if ask_oracle else []
        model = saved_identity(run)["fingerprint"]["model"]
        base = oracle.base_scores(setup, probes, model, kept)
        clock.lap("oracle on the base model")
        try:
            with open_stores(run) as stores:
                Loop(setup, run, stores, show, StopFlag()).run()
        except SFTError as failure:
            error = f"{type(failure).__name__}: {failure}".replace(str(work), "")
        clock.lap("training and evaluations")
        effect = oracle.effects(base, oracle.scores(setup, probes)) if ask_oracle else {}
        clock.lap("oracle")
        records = history_of(run)
        found = {
            "thresholds": thresholds.VERSION,
            "error": error,
            **trace_file.from_history(records, read_findings(run)),
            "oracle": effect,
            "happened": oracle.happened(effect) if ask_oracle else {},
        }
        if rescore:
            table = records.tables["val"]
            last = dict(zip(table.ids, table.loss[-1].tolist(), strict=True))
            found["rescored"] = oracle.rescored(setup, last)
    return {**found, "seconds": clock.laps}


class Clock:
    """Seconds of the stages of a run."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 1)
        self._last = now


def machine() -> dict[str, Any]:
    """What a number may depend on."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "sft")},
        "threads": int(os.environ["OMP_NUM_THREADS"]),
    }


def line(job: Job, trace: dict[str, Any]) -> str:
    import oracle

    last = max((step for step, *_ in trace["verdicts"]), default=0)
    said = [
        f"{guard}.{signal}:{verdict}"
        for step, guard, signal, verdict in trace["verdicts"]
        if step == last and verdict in ("alarm", "watch")
    ]
    real = [guard for guard, was in trace["happened"].items() if was]
    parts = [
        f"{job.name:<14}{trace['seconds']['all']:>6.0f} s",
        f"oracle: {oracle.describe(trace['oracle'])} ({', '.join(real) or 'nothing'})"
        if trace["oracle"]
        else "",
        f"guards: {', '.join(said) or 'silent'}",
        trace["error"],
    ]
    return "  ".join(part for part in parts if part)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    main()
