"""TRL as a worker of `vs_trl.py`: `SFTTrainer.train()`, stopped between turns by a callback.

python benchmarks/engine_trl.py JOB.json SETTINGS is started by the coordinator, never by hand.
It needs TRL and torch, not sft.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import torch
import transformers
import trl
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer
from turns import Turns, engine_facts

IGNORE_INDEX = -100


class Counted(SFTTrainer):
    """SFTTrainer that keeps each micro-batch's loss and token counts; nothing else changes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: list[dict[str, Any]] = []

    def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> Any:
        counts = {
            "num_tokens": inputs["attention_mask"].sum(),
            "num_trained_tokens": (inputs["labels"] != IGNORE_INDEX).sum(),
            "num_processed": inputs["input_ids"].numel(),
        }
        loss = super().training_step(model, inputs, *rest, **more)
        self.seen.append({"loss": loss, **counts})
        return loss

    def step_facts(self) -> dict[str, Any]:
        """Sums over the micro-batches since the last call; the losses add up to the step's."""
        seen, self.seen = self.seen, []
        facts = {name: sum(float(part[name]) for part in seen) for name in seen[0]}
        return {
            **{name: value if name == "loss" else int(value) for name, value in facts.items()},
            "micro_batches": len(seen),
        }


class TakeTurns(TrainerCallback):
    """Waits before the first step, and after the last step of each turn.

    What the trainer does between two steps is in the time of the turn that follows.
    """

    def __init__(self, trainer: Counted, turns: Turns) -> None:
        self._trainer = trainer
        self._turns = turns

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = kwargs["model"]
        facts = engine_facts(
            model,
            # accelerate wraps the optimizer
            getattr(kwargs["optimizer"], "optimizer", kwargs["optimizer"]),
            trl=trl.__version__,
            transformers=transformers.__version__,
        )
        self._turns.ready({**facts, "attention": model.config._attn_implementation})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._turns.step(self._trainer.step_facts())


def check_labels(trainer: SFTTrainer, rows: list[dict[str, Any]]) -> None:
    """Collate every row, and compare what TRL's loss will read with what sft trains on."""
    data = trainer.train_dataset
    assert len(data) == len(rows), f"TRL kept {len(data)} of {len(rows)} rows"
    for start in range(0, len(rows), 8):
        part = rows[start : start + 8]
        batch = trainer.data_collator([data[start + i] for i in range(len(part))])
        width = batch["input_ids"].shape[1]
        for i, row in enumerate(part):
            n = len(row["input_ids"])
            padding = [IGNORE_INDEX] * (width - n)
            assert batch["input_ids"][i, :n].tolist() == row["input_ids"], row["id"]
            assert batch["attention_mask"][i].tolist() == [1] * n + [0] * (width - n), row["id"]
            # TRL shifts in its loss, sft in its data.
            predicted = [*batch["labels"][i, 1:].tolist(), IGNORE_INDEX]
            assert predicted == row["labels"] + padding, f"labels of {row['id']} differ"


def build(job: dict[str, Any], settings: dict[str, Any], folder: str) -> Counted:
    optim = job["trl"]
    config = SFTConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        max_steps=job["num_steps"],
        learning_rate=optim["learning_rate"],
        lr_scheduler_type="constant",
        max_length=optim["max_seq_len"],
        # Without it, TRL ignores the masks of rows that are tokenised already.
        completion_only_loss=True,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **settings,
    )
    rows = [{name: row[name] for name in ("input_ids", "completion_mask")} for row in job["rows"]]
    return Counted(model=job["model"], args=config, train_dataset=Dataset.from_list(rows))


def main() -> None:
    turns = Turns()
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    settings = json.loads(sys.argv[2])
    torch.set_num_threads(job["threads"])
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(job, settings, folder)
        check_labels(trainer, job["rows"])
        trainer.add_callback(TakeTurns(trainer, turns))
        trainer.train()


if __name__ == "__main__":
    main()
