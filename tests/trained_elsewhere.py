"""A transformers Trainer on a tiny Llama, with and without the guards."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

import tiny
from trained import WORDS, encode


def rows(num: int, start: int = 0) -> list[dict[str, Any]]:
    """Questions of four words, and answers that name the first of them."""
    made = []
    for i in range(start, start + num):
        words = [WORDS[(i * k + i // 3) % len(WORDS)] for k in (1, 3, 5, 7)]
        pair = [("user", f"{' '.join(words)} {i}?"), ("assistant", f"It is {words[0]} {i % 7}.")]
        made.append({"messages": [{"role": role, "content": text} for role, text in pair]})
    return made


def tokenised(given: list[dict[str, Any]], tokenizer: Any) -> Dataset:
    """Token ids and labels as a trainer wants them, made without sft."""
    made = []
    for row in given:
        ids, start, end = encode(tokenizer, row["messages"])
        labels = [token if start <= t <= end else -100 for t, token in enumerate(ids)]
        made.append({"input_ids": ids, "labels": labels})
    return Dataset.from_list(made)


def trainer(folder: Any, given: Any, callbacks: Any = (), **options: Any) -> Trainer:
    """A trainer that has not begun; `options` go to its arguments, but for `model`."""
    tokenizer = tiny.tokenizer()
    model = options.pop("model", None)
    arguments = {
        "max_steps": 6,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 3e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 3,
        **options,
    }
    torch.manual_seed(arguments["seed"])
    return Trainer(
        model=model or tiny.model(),
        args=TrainingArguments(str(folder / "out"), **arguments),
        train_dataset=tokenised(given, tokenizer),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )
