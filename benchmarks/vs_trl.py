"""Tokens per second of sft against TRL: full fine-tuning in fp32 on CPU, on the same rows.

    python benchmarks/vs_trl.py --trl-python PYTHON [--data FILE]

Every engine is a process of its own, in its own environment. They take turns of a few optimizer
steps, A B C A B C ..., and wait in between, so that a noisy machine is noisy for all of them.
Rows are tokenised once, by sft; batches, labels, optimizer and threads are proven equal; the
losses of all engines that see the rows in the same order must agree at every step.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).parent
MAX_LOSS_DIFFERENCE = 1e-3


@dataclass
class Engine:
    """One row of the table. `settings` go to SFTConfig; what is not named is TRL's default."""

    name: str
    what: str
    settings: dict[str, Any] | None = None  # None: sft
    same_order: bool = True
    process: subprocess.Popen[str] | None = None
    log: IO[str] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    warm_up: dict[str, Any] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def say(self, message: dict[str, Any]) -> None:
        assert self.process and self.process.stdin
        with suppress(BrokenPipeError):  # `hear` tells why
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process and self.process.stdout and self.log
        if line := self.process.stdout.readline():
            return json.loads(line)
        self.process.wait()
        self.log.seek(0)
        raise SystemExit(f"{self.name} ended:\n{self.log.read()[-3000:]}")

    def turn(self, steps: int) -> dict[str, Any]:
        """Run so many optimizer steps while all other engines wait."""
        self.say({"steps": steps})
        return self.hear()

    def losses(self) -> list[float]:
        return [step["loss"] for turn in (self.warm_up, *self.rounds) for step in turn["steps"]]

    def sum(self, name: str) -> int:
        return sum(step[name] for turn in self.rounds for step in turn["steps"])

    def rates(self) -> list[float]:
        """Real tokens per second, one number a round."""
        return [
            sum(step["num_tokens"] for step in turn["steps"]) / turn["seconds"]
            for turn in self.rounds
        ]


def engines(examples: int) -> list[Engine]:
    off = {"gradient_checkpointing": False}
    whole = {"per_device_train_batch_size": examples, "gradient_accumulation_steps": 1}
    one = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": examples}
    in_order = {"train_sampling_strategy": "sequential"}
    grouped = {"train_sampling_strategy": "group_by_length"}
    return [
        Engine("sft", "sft"),
        Engine("trl-default", "TRL, its defaults in fp32", {**whole, **in_order}),
        Engine("trl-bs1", "TRL, one row at a time, no checkpointing", {**one, **in_order, **off}),
        Engine(
            "trl-grouped",
            "TRL, rows grouped by length, no checkpointing",
            {**whole, **grouped, **off},
            same_order=False,
        ),
    ]


# ------------------------------------------------------------------------- the job


def make_job(args: argparse.Namespace) -> dict[str, Any]:
    """What all engines are given: the model's folder, the rows, and the numbers of the run."""
    from sft.config import load_config
    from sft.data.batches import Batches
    from sft.data.dataset import load_data
    from sft.data.template.chat_template import ChatTemplate
    from sft.model import load

    config = load_config(
        {
            "model": {"name": args.model},
            "data": {
                "train": [{"path": args.data, "max_rows": args.max_rows}],
                "max_seq_len": args.max_seq_len,
                "val_fraction": 0.0,
            },
        }
    )
    folder = load.model_folder(config.model)
    tokenizer = load.load_tokenizer(config.model, folder, "full")
    data = load_data(config.data, ChatTemplate(tokenizer.tokenizer), seed=0)
    batches = Batches(data.train, args.examples, [1.0], seed=0)
    num_steps = args.warm_up + args.rounds * args.steps
    rows = [row(example) for _ in range(num_steps) for example in batches.next()]
    return {
        "model": folder,
        "rows": rows,
        "num_steps": num_steps,
        "threads": args.threads,
        "config": {
            "batch.examples": args.examples,
            "optim.learning_rate": args.learning_rate,
            "optim.schedule": "constant",
        },
        "trl": {"learning_rate": args.learning_rate, "max_seq_len": args.max_seq_len},
        "counts": data.counts(),
    }


def row(example: Any) -> dict[str, Any]:
    """Ids, labels as sft has them (already shifted), and the mask of TRL (not shifted)."""
    labels = example.labels.tolist()
    assert set(example.weights.tolist()) <= {0.0, 1.0}, f"{example.id}: TRL knows no weights"
    return {
        "id": example.id,
        "input_ids": example.input_ids.tolist(),
        "labels": labels,
        "completion_mask": [0, *(int(label >= 0) for label in labels[:-1])],
    }


@contextmanager
def running(chosen: Sequence[Engine], job: dict[str, Any], trl_python: str) -> Iterator[None]:
    """All engines started, loaded, checked and waiting for their first turn."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(job["threads"]),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_DATASETS_CACHE": str(Path(folder) / "datasets"),
        }
        try:
            for engine in chosen:
                words = [sys.executable, str(HERE / "engine_sft.py"), str(path)]
                if engine.settings is not None:
                    settings = json.dumps(engine.settings)
                    words = [trl_python, str(HERE / "engine_trl.py"), str(path), settings]
                engine.log = (Path(folder) / f"{engine.name}.log").open("w+", encoding="utf-8")
                engine.process = subprocess.Popen(
                    words,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=engine.log,
                    text=True,
                    env=environment,
                )
                engine.facts = engine.hear()
                print(f"{engine.name}: ready", file=sys.stderr)
            yield
        finally:
            for engine in chosen:
                if engine.process:
                    engine.process.kill()
                    engine.process.wait()
                if engine.log:
                    engine.log.close()


# ------------------------------------------------------------------------- results


def check_equal(chosen: Sequence[Engine]) -> None:
    """Optimizer, threads, dtypes, dropout and number of trained weights."""
    first, *others = chosen
    for engine in others:
        for name, value in engine.facts["equal"].items():
            mine = first.facts["equal"][name]
            if mine != value:
                raise SystemExit(f"{name}: {first.name} has {mine}, {engine.name} has {value}")


def loss_differences(chosen: Sequence[Engine]) -> dict[str, float]:
    """Largest difference to the first engine over all steps; same rows in the same order only."""
    first = chosen[0]
    return {
        engine.name: max(abs(a - b) for a, b in zip(first.losses(), engine.losses(), strict=True))
        for engine in chosen[1:]
        if engine.same_order
    }


def summarize(engine: Engine, first: Engine) -> dict[str, Any]:
    rates = engine.rates()
    ratios = [a / b for a, b in zip(first.rates(), rates, strict=True)]
    low, _, high = quartiles(rates)

    def spent(name: str) -> float:
        return sum(turn[name] for turn in engine.rounds)

    return {
        "what": engine.what,
        "settings": engine.settings,
        "tokens_per_second": statistics.median(rates),
        "tokens_per_second_quartiles": [low, high],
        "speed_up_of_first": statistics.median(ratios),
        "speed_up_of_first_range": [min(ratios), max(ratios)],
        "padding_share": 1 - engine.sum("num_tokens") / engine.sum("num_processed"),
        "trained_share": engine.sum("num_trained_tokens") / engine.sum("num_tokens"),
        "peak_rss_bytes": engine.rounds[-1]["peak_rss_bytes"],
        "busy_cores": spent("cpu_seconds") / spent("seconds"),
        "stolen_cores": spent("steal_seconds") / spent("seconds"),
        "system_share": spent("system_seconds") / spent("cpu_seconds"),
        "facts": engine.facts,
        "warm_up": engine.warm_up,
        "rounds": engine.rounds,
    }


def quartiles(values: Sequence[float]) -> list[float]:
    if len(values) == 1:
        return [values[0]] * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def machine() -> dict[str, Any]:
    flags: set[str] = set()
    info, memory = Path("/proc/cpuinfo"), 0
    if info.is_file():
        lines = [line for line in info.read_text().splitlines() if line.startswith("flags")]
        flags = set(lines[0].split(":", 1)[1].split()) if lines else set()
    with suppress(ValueError, OSError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": os.cpu_count(),
        "avx2": "avx2" in flags,
        "avx512": "avx512f" in flags,
        "memory_gib": round(memory / 2**30, 1),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def results(args: argparse.Namespace, job: dict[str, Any], chosen: list[Engine]) -> dict[str, Any]:
    lengths = [len(row["input_ids"]) for row in job["rows"]]
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "data": Path(args.data).name,
        "data_sha256": hashlib.sha256(Path(args.data).read_bytes()).hexdigest(),
        "model": Path(args.model).name,
        "row_counts": job["counts"],
        "mean_tokens_per_row": statistics.mean(lengths),
        "longest_row_tokens": max(lengths),
        "settings": {
            name: getattr(args, name)
            for name in ("examples", "warm_up", "rounds", "steps", "threads", "learning_rate")
        }
        | {"max_seq_len": args.max_seq_len},
        "rounds_done": len(chosen[0].rounds),
        "largest_loss_difference": loss_differences(chosen),
        "engines": {engine.name: summarize(engine, chosen[0]) for engine in chosen},
    }


def table(found: dict[str, Any]) -> str:
    lines = [
        f"{found['data']}: {found['mean_tokens_per_row']:.0f} tokens a row, "
        f"{next(iter(found['engines'].values()))['trained_share']:.0%} of them trained; "
        f"{found['settings']['examples']} rows a step, {found['rounds_done']} rounds of "
        f"{found['settings']['steps']} steps, {found['settings']['threads']} threads",
        "",
        "| engine | tokens/s | quartiles | sft is faster by | range | padding | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in found["engines"].items():
        low, high = row["tokens_per_second_quartiles"]
        least, most = row["speed_up_of_first_range"]
        faster = ["", ""]
        if name != "sft":
            faster = [f"{row['speed_up_of_first']:.2f} x", f"{least:.2f} to {most:.2f}"]
        cells = [
            row["what"],
            f"{row['tokens_per_second']:.1f}",
            f"{low:.1f} to {high:.1f}",
            *faster,
            f"{row['padding_share']:.0%}",
            f"{row['peak_rss_bytes'] / 2**30:.1f} GiB",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


# ------------------------------------------------------------------------- command line


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--data", default="examples/support_tickets/train.jsonl", help="JSON or JSON lines")
    add("--model", default="starter", help="`starter` or a folder")
    add("--trl-python", default=os.environ.get("TRL_PYTHON"), help="default: $TRL_PYTHON")
    add("--engines", nargs="+", default=[engine.name for engine in engines(8)])
    add("--rounds", type=int, default=5)
    add("--steps", type=int, default=4, help="optimizer steps in a turn")
    add("--warm-up", type=int, default=2, help="steps before the first round, not timed")
    add("--examples", type=int, default=8, help="rows in an optimizer step")
    add("--threads", type=int, default=os.cpu_count())
    add("--learning-rate", type=float, default=2e-5)
    add("--max-seq-len", type=int, default=1024, help="longer rows are left out for everyone")
    add("--max-rows", type=int, default=2000, help="read so many rows of the data at most")
    add("--out", type=Path, default=HERE / "results", help="folder for the JSON")
    add("--name", help="the JSON is called vs_trl-NAME.json; default: the data file's name")
    args = parser.parse_args()
    known = {engine.name: engine for engine in engines(args.examples)}
    if args.engines[0] != "sft" or not set(args.engines) <= set(known):
        parser.error(f"--engines: sft first, then some of {', '.join(known)}")
    if len(args.engines) > 1 and not args.trl_python:
        parser.error("give the Python of an environment with TRL: --trl-python, or $TRL_PYTHON")
    args.engines = [known[name] for name in args.engines]
    return args


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that workers end too
    args = arguments()
    chosen: list[Engine] = args.engines
    job = make_job(args)
    args.out.mkdir(parents=True, exist_ok=True)
    target = args.out / f"vs_trl-{args.name or Path(args.data).stem}.json"
    with running(chosen, job, args.trl_python):
        check_equal(chosen)
        for engine in chosen:
            engine.warm_up = engine.turn(args.warm_up)
        for number in range(1, args.rounds + 1):
            for engine in chosen:
                engine.rounds.append(engine.turn(args.steps))
            found = results(args, job, chosen)
            target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            rates = ", ".join(f"{engine.name} {engine.rates()[-1]:.1f}" for engine in chosen)
            print(f"round {number}: {rates} tokens/s", file=sys.stderr)
    print(table(found))
    differences = found["largest_loss_difference"]
    print(f"\nlargest difference of a step's loss to sft: {differences}\n{target.name} is written")
    if any(not difference < MAX_LOSS_DIFFERENCE for difference in differences.values()):
        sys.exit(f"the losses differ by more than {MAX_LOSS_DIFFERENCE}: these are not equal runs")


if __name__ == "__main__":
    main()
