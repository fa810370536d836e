"""What a transformers Trainer says about itself: its model, its plan, and its rows."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from sft.config import Config, load_config
from sft.data.tokenize import Example
from sft.errors import ConfigError
from sft.guards.judge import GUARDS

# Names of the Trainer's schedules that are ours too; of others config.yaml says nothing.
_SCHEDULES = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant",
    "constant_with_warmup": "constant",
}
_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
# Rows of the trainer's that are compared with ours, and tokens of each.
_NUM_ROWS, _NUM_TOKENS = 8, 32


def bare_model(model: Any) -> tuple[PreTrainedModel, bool]:
    """The model inside all wrappers, with LoRA layers in it; and whether there are any.

    Raises:
        ConfigError: parts of it are elsewhere, or it is no causal language model.
    """
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif hasattr(model, "_orig_mod"):  # torch.compile
            model = model._orig_mod
        else:
            break
    refuse_sharded(model)
    is_peft = hasattr(model, "peft_config")
    if is_peft and hasattr(model, "get_base_model"):
        if model.active_peft_config.is_prompt_learning:
            raise ConfigError(
                f"{model.active_peft_config.peft_type}: the guards score models with LoRA layers "
                "or trained weights; prompt tuning is neither"
            )
        model = model.get_base_model()
    if not isinstance(model, PreTrainedModel) or model.get_output_embeddings() is None:
        raise ConfigError(
            f"{type(model).__name__}: the guards score causal language models of transformers"
        )
    return model, is_peft


def refuse_sharded(model: nn.Module) -> None:
    """Raise `ConfigError` unless all weights are whole and on one device."""
    devices = {parameter.device for parameter in model.parameters()}
    sharded = any(isinstance(module, FullyShardedDataParallel) for module in model.modules())
    sharded |= any(isinstance(p, DTensor) or hasattr(p, "ds_id") for p in model.parameters())
    if sharded or len(devices) > 1 or any(device.type == "meta" for device in devices):
        what = "is sharded" if sharded else "lies on " + ", ".join(sorted(map(str, devices)))
        raise ConfigError(
            f"the model {what}: the guards look from one process at weights that are whole on one "
            "device; train without FSDP, ZeRO-3, tensor parallelism and device_map, or without "
            "the callback"
        )


def tokenizer_of(processing_class: Any, chat_template: str | None) -> Any:
    """The trainer's tokenizer, which is left as it is when it is given `chat_template` here.

    Raises:
        ConfigError: there is none, or it has no template.
    """
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    if tokenizer is None:
        raise ConfigError("the trainer has no tokenizer; give it one: processing_class=tokenizer")
    tokenizer = copy.deepcopy(tokenizer)
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    if not tokenizer.chat_template:
        raise ConfigError(
            "the tokenizer has no chat template; give the callback the one that the rows are "
            "written with: GuardCallback(..., chat_template=TEXT). Where the trainer joins plain "
            "prompts and completions, that is sft.integrations.transformers.JOINED"
        )
    return tokenizer


def compute_dtype(args: Any, model: PreTrainedModel) -> torch.dtype:
    """What the trainer computes in: that of its mixed precision, else that of the weights."""
    if args.bf16:
        return torch.bfloat16
    if args.fp16:
        return torch.float16
    dtype = next(model.parameters()).dtype
    return dtype if dtype in (torch.bfloat16, torch.float16) else torch.float32


def plan(args: Any, max_steps: int, optimizer: Any, is_peft: bool, model: Any) -> dict[str, Any]:
    """The trainer's arguments as sections of a config; what they do not say is left out."""
    optim: dict[str, Any] = {
        "max_steps": max_steps,
        "warmup_steps": args.get_warmup_steps(max_steps),
        "max_grad_norm": float(args.max_grad_norm or 0.0),
    }
    rate = _peak_rate(args, optimizer)
    if rate > 0:
        optim["learning_rate"] = rate
    kind = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
    if kind in _SCHEDULES:
        optim["schedule"] = _SCHEDULES[kind]
    dtype = compute_dtype(args, model)
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or math.inf
    longest = getattr(args, "max_length", None)  # TRL's, which cuts longer rows
    length = "auto" if longest is None else int(min(longest, limit))
    return {
        "model": {
            "name": model.config._name_or_path or type(model).__name__,
            "dtype": _DTYPES.get(dtype, "auto"),
            "attention": "auto" if dtype in _DTYPES else "padded",
        },
        "method": _method(model, is_peft),
        "data": {"max_seq_len": length, "overflow": "truncate", "on_bad_row": "skip"},
        "optim": optim,
        "run": {"seed": args.seed},
    }


def _peak_rate(args: Any, optimizer: Any) -> float:
    """Where a schedule has begun with warm-up, the optimizer's own rate is that of step 0."""
    groups = getattr(optimizer, "param_groups", None) or [{}]
    return float(groups[0].get("initial_lr", args.learning_rate))


def _method(model: PreTrainedModel, is_peft: bool) -> dict[str, Any]:
    if is_peft:
        return {"kind": "lora"}
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    if len(trained) == sum(1 for _ in model.parameters()):
        return {"kind": "full"}
    return {"kind": "frozen", "trainable": [f"^{re.escape(name)}$" for name in trained]}


def config_of(
    sections: Mapping[str, Any],
    data: Mapping[str, Sequence[str]],
    action: str | Mapping[str, str],
    settings: Mapping[str, Any],
) -> Config:
    """The config of a watched run: all that the user chose, and that no weights are saved.

    Raises:
        ConfigError: an unknown guard, action or setting.
    """
    actions = dict.fromkeys(GUARDS, action) if isinstance(action, str) else action
    if unknown := [guard for guard in actions if guard not in GUARDS]:
        raise ConfigError(f"action: unknown guard {unknown[0]!r}. Known: {', '.join(GUARDS)}")
    fixed = {
        "data": {**sections["data"], **data, "val_fraction": 0.0},
        "eval": {"early_stopping": "off"},
        "guards": {**dict.fromkeys(GUARDS, "warn"), **actions},
        "checkpoint": {"choose": "last"},
    }
    return load_config({**sections, **fixed}, settings)


def num_visits(args: Any, max_steps: int, dataloader: Any, num_rows: int) -> int:
    """Examples that the trainer will have seen; with packing, several are in one of its rows."""
    with suppress(TypeError):  # a stream of unknown length
        updates = max(1, math.ceil(len(dataloader) / args.gradient_accumulation_steps))
        return max(1, round(num_rows * max_steps / int(updates)))
    per_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return max_steps * int(per_step)


def tokenised_alike(dataset: Any, examples: Sequence[Example]) -> bool | None:
    """Does any of a few rows that the trainer reads begin like one of `examples`?

    None when its rows cannot be read by number, or have no token ids.
    """
    try:
        picks = range(0, len(dataset), max(1, len(dataset) // _NUM_ROWS))[:_NUM_ROWS]
        rows = [list(dataset[i]["input_ids"])[:_NUM_TOKENS] for i in picks]
    except (TypeError, KeyError, IndexError, NotImplementedError):
        return None
    # A trainer may leave out or add a token at the end of a row, such as a line break.
    starts = [tuple(int(token) for token in row[: max(1, len(row) - 2)]) for row in rows if row]
    lengths = {len(start) for start in starts}
    known = {tuple(e.input_ids[:k].tolist()) for k in lengths for e in examples}
    return any(start in known for start in starts) if starts else None
