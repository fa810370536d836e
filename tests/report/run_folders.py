"""Run folders made by hand: every file that a run leaves behind, with numbers that can be checked.

12 steps, evaluations at 0, 4, 8 and 12; weights of step 8. On `val` each row falls by 1 nat per
token, a little more or less; on `retain` each text rises.
"""

from __future__ import annotations

import json
from pathlib import Path

from sft.config import Config, dump_yaml, with_values
from sft.disk import write_json, write_text
from sft.runs.run_dir import RunDir
from sft.runs.store import RecordStore

EVALS = (0, 4, 8, 12)
TOKENS = 10
NUM_VAL, NUM_RETAIN = 12, 10
FILE = "tickets/train.jsonl"
# How the loss of each row changes by step 8: nats per token.
FALL = [-1.0 + 0.02 * (i % 5 - 2) for i in range(NUM_VAL)]
RISE = [0.01 + 0.001 * (i % 3) for i in range(NUM_RETAIN)]


def append(path, *records):
    with RecordStore(path) as store:
        for record in records:
            store.append(record)


def scores(probe, n, change, step):
    """One evaluation: loss 2 nats per token at the base, `change[i]` later; a fifth right, then
    half.
    """
    return [
        {
            "step": step,
            "probe": probe,
            "id": f"{FILE}:{i}" if probe != "retain" else f"self:{i}",
            "nll": TOKENS * (2.0 + (change[i] if step else 0.0)),
            "tokens": TOKENS,
            "bytes": 4 * TOKENS,
            "correct": 5 if step else 2,
        }
        for i in range(n)
    ]


def step_record(step):
    return {
        "step": step,
        "loss": 2.0 - 0.08 * step,
        "accuracy": 0.2 + 0.02 * step,
        "perplexity": 7.0 - 0.3 * step,
        "learning_rate": 1e-4 * (1 - step / 13),
        "epoch": step / 12,
        "grad_norm": 3.0 / step,
        "num_tokens": 100 * step,
        "num_trained_tokens": 40 * step,
        "train_flos": 1e9 * step,
        "tokens_per_second": 90.0 + step % 3,
        "seconds": 1.5 * step,
    }


def eval_record(step):
    loss = 2.0 - step / 8 if step <= 8 else 1.1
    return {
        "step": step,
        "epoch": step / 12,
        "train_probe_loss": loss - 0.1,
        "val_loss": loss,
        "val_accuracy": 0.2 if not step else 0.5,
        "val_perplexity": 7.389 if not step else 2.718,
        "retain_loss": 2.0 + 0.001 * step,
        "retain_kl": 0.001 * step,
        "eval_seconds": 0.5,
    }


def finding(guard, step, verdict="pass", **more):
    return {
        "guard": guard,
        "signal": "a_signal",
        "verdict": verdict,
        "step": step,
        "message": f"the {guard} said `so` at {step}",
        "statistic": 0.25,
        "threshold": 0.5,
        "interval": [0.2, 0.3],
        "mde": 0.1,
        "n": NUM_VAL,
        "unit": "nats per token",
        "remedy": "do `this` about it" if verdict != "pass" else "",
        "primary": True,
        "acts": True,
        "explains": [],
        **more,
    }


def findings():
    found = []
    for step in EVALS:
        found += [
            finding("overfitting", step, "watch" if step == 12 else "pass"),
            finding("format_collapse", step),
            finding("distribution_mismatch", step, "not_measured", statistic=None, interval=None),
            finding("forgetting", step, "insufficient"),
            finding("health", step),
        ]
    return found


SAMPLE = {
    "probe": "val",
    "id": f"{FILE}:3",
    "prompt": "<|user|>\nWhere is my parcel?\n<|assistant|>\n",
    "reference": "It is on its way.",
    "tokens": 6,
}
EVENTS = [
    (
        "started",
        "process 7 on desk",
        {"command": "sft train x.yaml", "host": "desk", "folder": "/"},
    ),
    ("evaluation", "evaluating", {"step": 0}),
    ("interrupted", "stopped by Ctrl-C; state saved", {"level": "warning", "step": 4}),
    ("started", "process 8 on desk", {"command": "sft train x.yaml"}),
    ("resumed", "resuming after step 4 of 12", {"step": 4}),
    ("checkpoint", "saved after step 8", {"step": 8}),
    ("watch", "overfitting: watch", {"level": "warning", "step": 12, "guard": "overfitting"}),
    ("note", "only a note", {}),
]


def events(*more):
    return [
        {
            "time": f"2026-03-01T12:00:{i:02d}.500+00:00",
            "kind": kind,
            "level": "info",
            "step": None,
            "text": text,
            **rest,
        }
        for i, (kind, text, rest) in enumerate([*EVENTS, *more])
    ]


ACCOUNT = {
    "num_rows": 64,
    "counts": {"used": 48, "val": 12, "changed": 0, "truncated": 1, "dropped": 2, "bad": 1},
    "files": {FILE: "ab" * 32},
    "notes": ["2 rows are preferences"],
    "rows": [{"row": f"{FILE}:{i}", "status": "used"} for i in range(48)]
    + [{"row": f"{FILE}:{i}", "status": "val"} for i in range(48, 60)]
    + [{"row": f"{FILE}:60", "status": "truncated", "reason": "longer than 256 tokens"}]
    + [{"row": f"{FILE}:{i}", "status": "dropped", "reason": "a copy"} for i in (61, 62)]
    + [{"row": f"{FILE}:63", "status": "bad", "reason": "no answer"}],
}
PREFLIGHT = {
    "rows": {"train": 49, "val": 12, "effective": 47.2, "repeats": 1.0, "num_leaks": 0},
    "usage": {
        "n": 20,
        "uncovered": [
            {"id": "usage.jsonl:1", "p": 0.01, "text": "Wo ist mein Paket?", "group": "german"},
            {"id": "usage.jsonl:2", "p": 0.02, "text": "Paket kaputt", "group": "german"},
        ],
        "groups": [{"label": "german", "ids": ["usage.jsonl:1", "usage.jsonl:2"]}],
        "classifier": {"auc": 0.75, "p": 0.01, "words": ["paket"]},
        "facts": [
            {"name": "language", "differs": True, "message": "English here, German there"},
            {"name": "length", "differs": False, "message": "alike"},
        ],
    },
}
EXAMPLES = {
    "lengths": {
        "edges": [0.0, 10.0, 20.0, 30.0],
        "all_counts": [4, 30, 15],
        "trained_counts": [30, 15, 4],
        "all_quantiles": [5, 15, 28, 30],
        "trained_quantiles": [2, 8, 22, 24],
        "num_tokens": 800,
        "num_trained": 300,
        "max_seq_len": 256,
    },
    "views": [
        {
            "id": f"{FILE}:{i}",
            "part": "train",
            "tokens": 10 + i,
            "trained": 4,
            "cut": False,
            "pieces": [
                ["<|user|>", "masked", 1],
                [f"Where is parcel {i}?\n", "masked", 0],
                ["On its way.", "trained", 0],
                ["<|end|>", "partly", 1],
            ],
        }
        for i in range(5)
    ],
}
EVALUATION = {
    "run": "runs/mine",
    "data": ["held_out.jsonl"],
    "task": "json",
    "notes": ["1 rows cannot be used and were left out"],
    "num_rows": 60,
    "measures": {
        "loss": {
            "base": {"value": 2.5, "unit": "nats", "n": 600, "interval": None},
            "tuned": {"value": 1.5, "unit": "nats", "n": 600, "interval": None},
            "change": -1.0,
        },
        "field_accuracy": {
            "base": {"value": 0.1, "unit": "share", "n": 60, "interval": [0.05, 0.2]},
            "tuned": {"value": 0.7, "unit": "share", "n": 60, "interval": [0.57, 0.8]},
            "change": 0.6,
        },
        "field_accuracy.colour": {
            "base": {"value": 0.5, "unit": "share", "n": 60, "interval": [0.38, 0.62]},
            "tuned": {"value": 0.55, "unit": "share", "n": 60, "interval": [0.43, 0.67]},
            "change": 0.05,
        },
    },
    "rows": [
        {
            "id": "held_out.jsonl:1",
            "prompt": "<|user|>Hi<|assistant|>",
            "base": {"text": "Hello hello", "stop_reason": "length"},
            "tuned": {"text": "{}", "stop_reason": "stop"},
            "reference": "{}",
        }
    ],
}


def summary(**changes):
    return {
        "run_dir": "runs/mine",
        "model_dir": "runs/mine/model",
        "steps": 12,
        "best_step": 8,
        "stopped": None,
        "verified": "equal: loaded by plain transformers",
        "first": step_record(1),
        "last": step_record(12),
        "base": eval_record(0),
        "best": eval_record(8),
        "test": {},
        "guards": [f for f in findings() if f["step"] == 12],
        "indicators": [
            {
                "name": "val_perplexity",
                "status": "good",
                "message": "val_perplexity has dropped",
                "evidence": "-63 % on val",
            },
            {
                "name": "val_loss",
                "status": "warning",
                "message": "val_loss rises",
                "evidence": "by 0.1",
            },
            {
                "name": "learning rate",
                "status": "unknown",
                "message": "The learning rate was not recorded",
                "evidence": "",
            },
        ],
        "headline": "",
        "eval_share": 0.08,
        **changes,
    }


def identity(**settings):
    config = with_values(
        Config(),
        {
            "model.name": "starter",
            "data.train": [{"path": FILE, "weight": 2.0}],
            "optim.learning_rate": 1e-4,
            "eval.every": 4,
            **{key.replace("__", "."): value for key, value in settings.items()},
        },
    )
    return {
        "config": config.model_dump(mode="json"),
        "reasons": {"eval.every": "about 3 evaluations in 12 steps"},
        "sources": {"data.train": "file", "optim.learning_rate": "flag"},
        "num_steps": 12,
        "fingerprint": {"train": "cd" * 32, "files": {FILE: "ab" * 32}, "template": "ef" * 32},
        "template": {"source": "the model's tokenizer", "stop_token": "<|end|>"},
        "versions": {"python": "3.11.7", "torch": "2.13.0", "threads": 2},
    }


def unfinished_run(folder: Path, steps: int = 12, fall=None, rise=None, **settings) -> RunDir:
    """What a run has written when it has made `steps` steps."""
    run = RunDir(folder)
    run.checkpoints.mkdir(parents=True)
    run.lock.touch()
    write_text(run.config, dump_yaml(identity(**settings)))
    write_json(run.account, ACCOUNT)
    write_json(run.preflight, PREFLIGHT)
    write_json(run.examples, EXAMPLES)
    for at in (evaluation for evaluation in EVALS if evaluation <= steps):
        append(run.metrics, eval_record(at))
        append(run.scores, *scores("val", NUM_VAL, fall or FALL, at))
        append(run.scores, *scores("retain", NUM_RETAIN, rise or RISE, at))
        append(run.findings, *(f for f in findings() if f["step"] == at))
        append(run.metrics, *(step_record(s) for s in range(at + 1, min(at + 4, steps) + 1)))
        if at in (0, 8, 12):
            answer = {"answer": f"answer of step {at}", "stop_reason": "stop" if at else "length"}
            append(run.samples, {"step": at, **SAMPLE, **answer})
        if at:
            (run.checkpoints / f"step-{at:06d}").mkdir()
    append(run.events, *events())
    return run


def finished_run(folder: Path, *, evaluated: bool = False, best=None, **how) -> RunDir:
    """A finished run; `best` are changes of its summary, the rest as for `unfinished_run`."""
    run = unfinished_run(folder, **how)
    run.model.mkdir()
    (run.model / "config.json").write_text("{}")
    append(run.events, *events(("finished", "the model is saved", {}))[len(EVENTS) :])
    if evaluated:
        write_json(run.evaluation("held_out"), EVALUATION)
    write_json(run.summary, summary(**(best or {})))
    return run


def edit(path: Path, change) -> None:
    """Replace the JSON in a file, or each of its lines, by what `change` makes of it."""
    if path.suffix == ".jsonl":
        lines = path.read_text().splitlines()
        path.write_text("".join(json.dumps(change(json.loads(x))) + "\n" for x in lines))
    else:
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
