"""Before step 1: is this model, run flat, the model that transformers runs padded?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from sft.data.packing import pack
from sft.data.tokenize import Example
from sft.errors import ConfigError
from sft.model.forward import Forward, Layout

NUM_EXAMPLES, MAX_TOKENS = 3, 512
# Largest difference of one token's nll that rounding explains, in nats.
TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 0.25}


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """The layout to train with, and the sentence that says why."""

    layout: Layout
    reason: str


def check_layout(
    model: PreTrainedModel,
    examples: Sequence[Example],
    device: torch.device,
    dtype: torch.dtype,
    wanted: str,
) -> SelfCheck:
    """Score a few examples flat and padded; flat is used only when both agree.

    `wanted` is `auto` (fall back to padded), `flat` (refuse instead) or `padded`.

    Raises:
        ConfigError: `flat` was asked for and is not equal.
    """
    if wanted == "padded":
        return SelfCheck("padded", "model.attention: padded was asked for")
    batch = pack(_some(examples)).to(device)
    padded, _ = Forward(model, layout="padded", dtype=dtype).scores(batch)
    try:
        flat, _ = Forward(model, layout="flat", dtype=dtype).scores(batch)
        difference = float((flat - padded).abs().max())
    except (NotImplementedError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        # Whatever an unknown architecture does not accept; padded is always right.
        return _fall_back(wanted, f"{type(model).__name__} cannot run flat ({error})")
    if difference <= TOLERANCE[dtype]:
        return SelfCheck("flat", f"flat equals padded (largest difference {difference:.1e} nats)")
    return _fall_back(
        wanted,
        f"{type(model).__name__} gives other losses flat than padded (by {difference:.2g} nats)",
    )


def _fall_back(wanted: str, why: str) -> SelfCheck:
    if wanted == "flat":
        raise ConfigError(f"model.attention: flat was asked for, but {why}")
    return SelfCheck("padded", f"{why}; training with padding, which is slower")


def _some(examples: Sequence[Example]) -> list[Example]:
    """Up to three short examples of different length, so that padding and isolation are seen."""
    short = [e for e in examples if e.num_tokens <= MAX_TOKENS // NUM_EXAMPLES]
    chosen: dict[int, Example] = {}
    for example in short or sorted(examples, key=lambda e: e.num_tokens):
        chosen.setdefault(example.num_tokens, example)
        if len(chosen) == NUM_EXAMPLES:
            break
    if len(chosen) == 1:  # isolation needs two sequences
        chosen[-1] = next(iter(chosen.values()))
    return list(chosen.values())
