"""Do the guards find planted pitfalls when TRL trains, through the callback?

    TRL_PYTHON benchmarks/guards_with_trl.py [--cases P4,P1,C1] [--seed 0]

Three cases of `benchmarks/guards/`: the same rows, learning rate and evaluations, but the steps are
those of TRL's `SFTTrainer`. Needs TRL, and sft (installed, or PYTHONPATH=src). The result of each
case is kept in `results/guards_with_trl.json`; what is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "guards"))
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

from cases import BY_ID, NUM_TEXTS, Case  # noqa: E402
from plants import Rows  # noqa: E402
from pool import Draw, Row, real_data, write_texts  # noqa: E402

RESULTS = HERE / "results" / "guards_with_trl.json"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cases", default="P4,P1,C1", help="ids of cases, commas between")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    kept = json.loads(args.out.read_text(encoding="utf-8")) if args.out.is_file() else {}
    cases = kept.get("cases", {})
    for name in args.cases.split(","):
        key = f"{name}-{args.seed}"
        if key not in cases:
            with tempfile.TemporaryDirectory(prefix=f"guards-trl-{name}-") as work:
                cases[key] = run_case(BY_ID[name], args.seed, Path(work))
            text = json.dumps({"machine": machine(), "cases": cases}, indent=2)
            args.out.write_text(text + "\n", encoding="utf-8")
        print(line(key, cases[key]), flush=True)
    return int(any(case["missed"] or case["false"] for case in cases.values()))


def run_case(case: Case, seed: int, work: Path) -> dict[str, Any]:
    """Train with TRL under the callback; what the guards said after every evaluation."""
    started = time.monotonic()
    rows, settings = case.build(Draw(seed)), case.settings()
    trainer = make_trainer(rows, settings, seed, work)
    trainer.train()
    return {
        "what": case.what,
        "data": "public" if real_data() else "made up",
        "evaluations": [record for record in records(work / "run") if "eval_seconds" in record],
        "losses": [record["loss"] for record in records(work / "run") if "loss" in record],
        **judged(case, work / "run"),
        "seconds": round(time.monotonic() - started),
    }


def make_trainer(rows: Rows, settings: dict[str, Any], seed: int, work: Path) -> Any:
    """TRL's trainer with the case's rows, in conversational form, and the callback."""
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from sft.config import ModelConfig
    from sft.integrations.transformers import GuardCallback
    from sft.model import load

    config = ModelConfig(name=settings["model.name"], template=settings["model.template"])
    folder = load.model_folder(config)
    tokenizer = load.load_tokenizer(config, folder, "full")
    model = load.load_model(config, folder, tokenizer, dtype=torch.float32)
    train, val, usage = (
        Dataset.from_list([talk(row) for row in part])
        for part in (rows.train, rows.val, rows.usage)
    )
    watched = ("eval.budget", "eval.samples", "guards.")
    guards = GuardCallback(
        work / "run",
        train=train,
        val=val,
        usage=usage,
        retain=write_texts(work / "retain.txt", Draw(seed).texts(NUM_TEXTS)),
        every=settings["eval.every"],
        settings={key: value for key, value in settings.items() if key.startswith(watched)},
    )
    arguments = SFTConfig(
        output_dir=str(work / "out"),
        max_steps=settings["optim.max_steps"],
        learning_rate=settings["optim.learning_rate"],
        lr_scheduler_type=settings["optim.schedule"],
        per_device_train_batch_size=settings["batch.examples"],
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        seed=seed,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    return SFTTrainer(
        model,
        args=arguments,
        train_dataset=train,
        processing_class=tokenizer.tokenizer,
        callbacks=[guards],
    )


def talk(row: Row) -> dict[str, Any]:
    """A row as a prompt and a completion made of messages."""
    return {
        "prompt": [{"role": "user", "content": row["prompt"]}],
        "completion": [{"role": "assistant", "content": row["completion"]}],
    }


def records(run: Path) -> list[dict[str, Any]]:
    from sft.runs.store import read_records

    return read_records(run / "metrics.jsonl")


def judged(case: Case, run: Path) -> dict[str, Any]:
    """Verdicts by step, the guards that alarmed after any evaluation, and which were wrong."""
    from sft.guards.base import verdicts
    from sft.runs.history import history_of, read_findings, replay
    from sft.runs.run_dir import RunDir

    found = read_findings(RunDir.find(run))
    by_step = {
        step: verdicts([finding for finding in found if finding.step == step])
        for step in sorted({finding.step for finding in found})
    }
    alarms = {
        guard
        for said in by_step.values()
        for guard, finding in said.items()
        if finding.verdict == "alarm"
    }
    return {
        "expected": list(case.expected),
        "alarms": sorted(alarms),
        "missed": sorted({*case.expected} - alarms),
        "false": sorted(alarms & {*case.forbidden}),
        "verdicts": {
            step: {guard: finding.verdict for guard, finding in said.items()}
            for step, said in by_step.items()
        },
        "messages": [f.message for f in by_step[max(by_step)].values() if f.verdict == "alarm"],
        "replayed_alike": replay(history_of(RunDir(run))) == found,
    }


def machine() -> dict[str, Any]:
    names = ("torch", "transformers", "trl")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "threads": int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count(),
    }


def line(key: str, case: dict[str, Any]) -> str:
    wanted, said = (", ".join(case[part]) or "none" for part in ("expected", "alarms"))
    return f"{key:<8}{case['seconds']:>5} s  expected: {wanted}; alarms: {said}"


if __name__ == "__main__":
    raise SystemExit(main())
