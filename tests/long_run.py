"""A run folder as training leaves it, of any length, written from drawn numbers in seconds.

For what reads run folders: pages, reports and their benchmarks. Losses follow the curve and the
noise of a real run; nothing in it was trained.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sft.config import dump_yaml, load_config
from sft.disk import write_json, write_text
from sft.guards.base import Finding
from sft.runs.events import EventLog
from sft.runs.run_dir import RunDir
from sft.runs.store import RecordStore

PROBES = {"val": 24, "train_probe": 12, "retain": 12}  # rows
NUM_PROMPTS = 4
# guard, signal, unit, threshold, decides, 95 % half width
SIGNALS = (
    ("overfitting", "paired_rise", "nats per token", 0.02, True, 0.008),
    ("overfitting", "gap", "nats per token", 0.02, False, 0.03),
    ("format_collapse", "opener", "probability", 1.0, True, 0.01),
    ("distribution_mismatch", "coverage", "", None, True, None),
    ("forgetting", "retention", "nats/token", 0.05, True, 0.02),
    ("health", "finite", "", 0.0, True, None),
    ("health", "spikes", "robust sd", 8.0, True, None),
)


@dataclass(frozen=True)
class Drawn:
    """The numbers of a run of `num_steps` steps; every array is `[num_steps]`."""

    num_steps: int
    every: int
    seed: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        n = self.num_steps
        share = np.arange(1, n + 1) / n
        fall = 0.9 + 1.7 * np.exp(-6 * share)
        columns = {
            "loss": fall + rng.gamma(4, 0.05, n) - 0.2,
            "accuracy": np.clip(1 - fall / 5 + rng.normal(0, 0.02, n), 0, 1),
            "learning_rate": 2e-4 * np.minimum(share * 33, 0.5 * (1 + np.cos(np.pi * share))),
            "grad_norm": rng.lognormal(0, 0.3, n),
            "num_tokens": rng.integers(600, 1100, n).cumsum(),
            "seconds": rng.normal(0.35, 0.02, n).cumsum(),
        }
        object.__setattr__(self, "columns", columns)

    def steps(self, first: int = 1, last: int | None = None) -> Iterator[dict[str, Any]]:
        """The training records of the steps from `first` to `last`, both included."""
        names = list(self.columns)
        for i in range(first - 1, last or self.num_steps):
            record: dict[str, Any] = {"step": i + 1}
            record |= {name: self.columns[name][i].item() for name in names}
            before = self.columns["num_tokens"][i - 1].item() if i else 0
            yield record | {
                "perplexity": math.exp(record["loss"]),
                "epoch": 3 * (i + 1) / self.num_steps,
                "train_flos": 8.1e8 * record["num_tokens"],
                "num_trained_tokens": record["num_tokens"] // 3,
                "tokens_per_second": (record["num_tokens"] - before) / 0.35,
            }

    def eval_steps(self) -> range:
        return range(0, self.num_steps + 1, self.every)

    def evaluate(self, step: int) -> dict[str, Any]:
        share = step / self.num_steps
        val = 0.95 + 1.6 * math.exp(-6 * share) + 0.02 * math.sin(40 * share)
        return {
            "step": step,
            "epoch": 3 * share,
            "train_probe_loss": val - 0.1 * share,
            "val_loss": val,
            "val_accuracy": 1 - val / 5,
            "val_perplexity": math.exp(val),
            "retain_loss": 2.4 + 0.03 * share,
            "retain_kl": 0.03 * share,
            "eval_seconds": 3.2,
        }

    def scores(self, step: int) -> Iterator[dict[str, Any]]:
        evaluation = self.evaluate(step)
        for probe, num_rows in PROBES.items():
            rng = np.random.default_rng((self.seed, len(probe)))
            for row, shift in enumerate(rng.normal(0, 0.3, num_rows)):
                nll = max((evaluation[f"{probe}_loss"] + shift) * 40, 1.0)
                line = {"step": step, "probe": probe, "id": f"rows.jsonl:{row + 1}", "nll": nll}
                yield line | {"tokens": 40, "bytes": 160, "correct": 25}

    def samples(self, step: int) -> Iterator[dict[str, Any]]:
        for number in range(NUM_PROMPTS):
            yield {
                "step": step,
                "probe": "val",
                "id": f"rows.jsonl:{number + 1}",
                "prompt": f"<|im_start|>user\nNumber {number}?<|im_end|>\n<|im_start|>assistant\n",
                "answer": f"At step {step} the answer to question {number} is forty-two.",
                "reference": "Forty-two.",
                "stop_reason": "stop",
                "tokens": 14,
            }

    def findings(self, step: int) -> Iterator[dict[str, Any]]:
        share = step / self.num_steps
        for guard, signal, unit, threshold, primary, width in SIGNALS:
            if threshold is None:
                said = "Not measured: give prompts as they come in real use: `--usage FILE`."
                yield Finding(guard, signal, "not_measured", step, said, unit=unit).record()
                continue
            value = threshold * (0.4 + 0.5 * share * math.sin(20 * share) ** 2)
            interval = (value - width, value + width) if width else None
            said = f"{signal} is {value:.3f} {unit}, below {threshold}"
            numbers = {"statistic": value, "threshold": threshold, "interval": interval, "n": 24}
            yield Finding(
                guard, signal, "pass", step, said, unit=unit, mde=width, primary=primary, **numbers
            ).record()


def write_run(
    folder: Path, num_steps: int = 100_000, every: int = 2000, *, seed: int = 0, finish: bool = True
) -> Path:
    """Write the folder of a run of `num_steps` steps with an evaluation every `every` of them.

    Without `finish` it is a run that goes on: its last records and its summary are missing.
    """
    run, drawn = RunDir(folder), Drawn(num_steps, every, seed)
    folder.mkdir(parents=True)
    write_beginning(run, drawn)
    end = num_steps if finish else num_steps // 2
    events = EventLog(run.events)
    events.add("started", "Training of 135M parameters", command="sft train", num_steps=num_steps)
    with (
        RecordStore(run.metrics) as metrics,
        RecordStore(run.scores) as scores,
        RecordStore(run.samples) as samples,
        RecordStore(run.findings) as findings,
    ):
        for step in drawn.eval_steps():
            if step > end:
                break
            metrics.append(drawn.evaluate(step))
            events.add(
                "evaluation", f"val loss {drawn.evaluation(step)['val_loss']:.3f}", step=step
            )
            for store, lines in (
                (scores, drawn.scores(step)),
                (samples, drawn.samples(step)),
                (findings, drawn.findings(step)),
            ):
                for line in lines:
                    store.append(line)
            if step:
                events.add("checkpoint", "saved", step=step)
            for record in drawn.steps(step + 1, min(step + every, end)):
                metrics.append(record)
    if finish:
        write_end(run, drawn)
        events.add("finished", "The model is saved and verified.", step=num_steps)
    return folder


def write_beginning(run: RunDir, drawn: Drawn) -> None:
    """What a run writes before its first step: config, account, preflight, examples."""
    values = {"model.name": "starter", "data.train": ["rows.jsonl"], "run.dir": str(run.path)}
    values |= {"optim.max_steps": drawn.num_steps, "eval.every": drawn.every}
    config = load_config({}, values).model_dump(mode="json")
    identity = {
        "config": config,
        "reasons": {"model.dtype": "fp32 on CPU"},
        "sources": dict.fromkeys(values, "flag"),
        "num_steps": drawn.num_steps,
        "fingerprint": {"train": "0" * 64, "files": {"rows.jsonl": "1" * 64}},
        "template": {"source": "the model's tokenizer", "stop_token": "<|im_end|>"},
        "versions": {"python": "3.11", "threads": 1},
    }
    write_text(run.config, dump_yaml(identity))
    rows = [{"row": f"rows.jsonl:{i + 1}", "status": "used"} for i in range(200)]
    counts = {"used": 200, "val": 0, "changed": 0, "truncated": 0, "dropped": 0, "bad": 0}
    account = {"num_rows": 200, "counts": counts, "files": {"rows.jsonl": "1" * 64}, "notes": []}
    write_json(run.account, {**account, "rows": rows})
    facts = {"train": 200, "val": 24, "effective": 198.0, "clusters": 199, "visits": 600.0}
    write_json(run.preflight, {"rows": {**facts, "duplicates": [], "leaks": []}, "usage": None})
    pieces = [["<|im_start|>user\nWhy?\n", "masked", 1], ["Because.", "trained", 0]]
    view = {"part": "train", "tokens": 9, "trained": 3, "pieces": pieces}
    views = [{"id": f"rows.jsonl:{i + 1}", **view} for i in range(40)]
    lengths = {"edges": [0, 5, 10, 15], "all_counts": [20, 120, 60], "num_tokens": 1800}
    lengths |= {"trained_counts": [190, 10, 0], "num_trained": 600, "max_seq_len": 2048}
    lengths |= {"all_quantiles": [4, 9, 12, 14], "trained_quantiles": [2, 3, 5, 6]}
    write_json(run.examples, {"lengths": lengths, "views": views})


def write_end(run: RunDir, drawn: Drawn) -> None:
    """`summary.json` and an empty lock."""
    run.lock.write_text("")
    *_, last = drawn.steps(drawn.num_steps)
    evals = [drawn.evaluate(step) for step in drawn.eval_steps()]
    best = min(evals, key=lambda evaluation: evaluation["val_loss"])
    [first] = drawn.steps(1, 1)
    summary = {
        "run_dir": str(run.path),
        "model_dir": str(run.model),
        "steps": drawn.num_steps,
        "best_step": best["step"],
        "stopped": None,
        "verified": "not verified: drawn numbers",
        "first": first,
        "last": last,
        "base": evals[0],
        "best": best,
        "test": {},
        "guards": list(drawn.findings(evals[-1]["step"])),
    }
    run.summary.write_text(json.dumps(summary, indent=2), encoding="utf-8")
