"""One real update on the longest micro-batch, to tell time and memory before the run does."""

from __future__ import annotations

import os
import time

import torch

from sft.data.packing import Batch, micro_batches
from sft.data.tokenize import Example
from sft.disk import format_bytes, free_bytes, peak_memory_bytes
from sft.errors import OutOfMemoryError
from sft.model.lora import trained_parameters
from sft.terminal.console import Console, duration
from sft.training.finish import run_folder
from sft.training.interrupt import StopFlag
from sft.training.optimizers import build_optimizer
from sft.training.parts import build_forward
from sft.training.setup import load_checked, needed_bytes, resolve_dtype
from sft.training.step import train_step
from sft.training.tokens import Tokens


def rehearse(tokens: Tokens, num_steps: int, console: Console) -> dict[str, str]:
    """Load the model, run the longest micro-batch forward, backward and through the optimizer.

    The weights in memory are thrown away afterwards; nothing is written. The time of the run is
    extrapolated from this one micro-batch by tokens, without evaluations and checkpoints.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = resolve_dtype(tokens.resolver, device)
    model, *_ = load_checked(tokens, device, dtype, console, StopFlag())
    config = tokens.resolver.config
    parameters = trained_parameters(model)
    forward = build_forward(config, model, dtype)
    batch = longest_batch(tokens)
    console.progress(f"rehearsing one micro-batch of {batch.num_tokens:,} tokens")
    started = time.perf_counter()
    try:
        train_step(
            forward,
            build_optimizer(parameters, config.optim, float(config.optim.learning_rate)),
            parameters,
            [batch.to(device)],
            step=1,
            learning_rate=0.0,
            max_grad_norm=config.optim.max_grad_norm,
        )
    except OutOfMemoryError as error:
        return {"memory": f"does not fit: {error}"}
    seconds = time.perf_counter() - started
    data = tokens.data.train
    per_step = config.batch.examples * sum(e.num_tokens for e in data) / len(data)
    step_seconds = seconds * per_step / batch.num_tokens
    disk = needed_bytes(model, parameters, config.checkpoint.keep)
    if device.type == "cuda":
        where, peak = "GPU", int(torch.cuda.max_memory_allocated(device))
        total = int(torch.cuda.get_device_properties(device).total_memory)
    else:
        where, peak = "the process", peak_memory_bytes()
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "rehearsal": f"{batch.num_tokens:,} tokens forward, backward and updated in "
        f"{seconds:.1f} s, loading apart",
        "time": f"about {duration(step_seconds * num_steps)} for {num_steps:,} steps of "
        f"{per_step:,.0f} tokens; evaluations take up to {config.eval.budget:.0%} more",
        "memory": f"{format_bytes(peak)} at most in {where}, of {format_bytes(total)}",
        "disk": f"{format_bytes(disk)} for checkpoints and the model; "
        f"{format_bytes(free_bytes(run_folder(config).absolute()))} are free",
    }


def longest_batch(tokens: Tokens) -> Batch:
    """The micro-batch with the most tokens that the longest examples can make up."""
    limit = tokens.resolver.config.batch.micro_batch_tokens
    chosen: list[Example] = []
    total = 0
    for example in sorted(tokens.data.train, key=lambda e: -e.num_tokens):
        if chosen and total + example.num_tokens > limit:
            continue
        chosen.append(example)
        total += example.num_tokens
        if total >= limit:
            break
    return max(micro_batches(chosen, limit), key=lambda batch: batch.num_tokens)
