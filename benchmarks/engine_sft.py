"""sft as a worker of `vs_trl.py`: the same calls, in the same order, as `sft.train.Loop._step`.

python benchmarks/engine_sft.py JOB.json is started by the coordinator, never by hand.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

# As `sft.cli.main` does, before torch is imported.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

from importlib.metadata import version

import numpy as np
import torch
import transformers
from turns import Turns, engine_facts

from sft.config import Config, load_config, with_values
from sft.data.packing import Batch, micro_batches
from sft.data.rows.conversation import Origin
from sft.data.tokenize import IGNORE_INDEX, Example
from sft.model import load
from sft.model.forward import Forward
from sft.model.lora import prepare_method, trained_parameters
from sft.model.self_check import check_layout
from sft.training.optimizers import build_optimizer
from sft.training.step import train_step


def example(row: dict[str, Any]) -> Example:
    labels = np.asarray(row["labels"], dtype=np.int64)
    return Example(
        id=row["id"],
        origin=Origin("", 0),
        source=0,
        input_ids=np.asarray(row["input_ids"], dtype=np.int64),
        labels=labels,
        weights=(labels != IGNORE_INDEX).astype(np.float32),
        num_bytes=0,
    )


def build(config: Config, examples: list[Example]) -> tuple[Forward, torch.optim.Optimizer, dict]:
    tokenizer = load.load_tokenizer(config.model, config.model.name, config.method.kind)
    model = load.load_model(config.model, config.model.name, tokenizer, dtype=torch.float32)
    prepare_method(model, config.method)
    check = check_layout(
        model, examples, torch.device("cpu"), torch.float32, config.model.attention
    )
    parameters = trained_parameters(model)
    optimizer = build_optimizer(parameters, config.optim, float(config.optim.learning_rate))
    forward = Forward(model, layout=check.layout, loss=config.optim.loss, dtype=torch.float32)
    return forward, optimizer, parameters


def num_processed(forward: Forward, batches: list[Batch]) -> int:
    """Tokens computed on, padding included."""
    if forward.layout == "flat":
        return sum(batch.num_tokens for batch in batches)
    return sum(len(batch.lengths) * max(batch.lengths) for batch in batches)


def main() -> None:
    turns = Turns()
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    config = with_values(load_config({"model": {"name": job["model"]}}), job["config"])
    examples = [example(row) for row in job["rows"]]
    forward, optimizer, parameters = build(config, examples)
    facts = engine_facts(
        forward.model, optimizer, sft=version("sft"), transformers=transformers.__version__
    )
    turns.ready({**facts, "layout": forward.layout})
    per_step = config.batch.examples
    for step in range(job["num_steps"]):
        batches = micro_batches(
            examples[step * per_step : (step + 1) * per_step], config.batch.micro_batch_tokens
        )
        result = train_step(
            forward,
            optimizer,
            parameters,
            batches,
            step=step + 1,
            learning_rate=float(config.optim.learning_rate),
            max_grad_norm=config.optim.max_grad_norm,
        )
        turns.step(
            {
                "loss": result.loss,
                "grad_norm": result.grad_norm,
                "num_tokens": result.num_tokens,
                "num_trained_tokens": result.num_trained_tokens,
                "num_processed": num_processed(forward, batches),
                "micro_batches": len(batches),
            }
        )


if __name__ == "__main__":
    main()
