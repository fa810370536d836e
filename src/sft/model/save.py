"""Save the chosen model so that plain transformers, and all that reads its folders, loads it."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from sft.data.packing import micro_batches
from sft.data.tokenize import Example
from sft.disk import TMP_PREFIX, disk_errors, remove_path
from sft.model.attention import padded_implementation, use_attention
from sft.model.forward import Forward
from sft.model.lora import merge

LARGEST_VERIFIED = 2_000_000_000  # parameters; a second copy must fit beside the first
NUM_VERIFIED = 4
# Nats per token that rounding explains, by the dtype the weights are saved in.
TOLERANCE = {torch.float32: 2e-3}
ROUNDED_TOLERANCE = 5e-2


def save_model(
    trained: Any,
    tokenizer: Any,
    model_folder: Path,
    adapter_folder: Path,
    *,
    is_lora: bool,
    dtype: torch.dtype,
    card: str | None = None,
) -> PreTrainedModel:
    """Write `model_folder`, and for LoRA `adapter_folder`; each appears whole or not at all.

    `trained` is what `prepare_method` returned; it is merged and rounded in place. Weights are
    saved in `dtype`, the one the base model is stored in. Returns the merged model.
    """
    if is_lora:
        _write(adapter_folder, lambda folder: trained.save_pretrained(str(folder)))
    model: PreTrainedModel = merge(trained) if is_lora else trained
    use_attention(model, padded_implementation(model))
    model.to(dtype)  # not a rounded copy: tied weights stay tied, and config.json names the dtype

    def write(folder: Path) -> None:
        model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
        if card is not None:
            (folder / "README.md").write_text(card, encoding="utf-8")

    _write(model_folder, write)
    return model


def _write(folder: Path, save: Any) -> None:
    temporary = folder.with_name(f"{TMP_PREFIX}{os.getpid()}-{folder.name}")
    with disk_errors(folder):
        try:
            temporary.mkdir()
            save(temporary)
            remove_path(folder) if folder.exists() else None
            os.rename(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def verify_model(
    folder: Path,
    examples: Sequence[Example],
    expected: dict[str, float],
    model_size: int,
    dtype: torch.dtype,
) -> str:
    """Load `folder` with plain transformers and score a few examples; a sentence with the result.

    `expected` is the nll per example id that the chosen checkpoint had in this run.
    """
    chosen = [e for e in sorted(examples, key=lambda e: e.num_tokens) if e.id in expected]
    chosen = chosen[:NUM_VERIFIED]
    if not chosen or model_size > LARGEST_VERIFIED:
        return "not verified (no validation, or the model is too large to load twice)"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    forward = Forward(model, layout="padded")
    differences = []
    for batch in micro_batches(chosen, 1):
        nll, _ = forward.scores(batch)
        differences.append(abs(float(nll.sum()) - expected[batch.ids[0]]) / len(nll))
    del model, forward
    gc.collect()
    worst = float(torch.tensor(differences).max())  # nan where any is; Python's max() skips it
    verdict = "equal" if worst <= TOLERANCE.get(dtype, ROUNDED_TOLERANCE) else "DIFFERENT"
    return (
        f"{verdict}: loaded by plain transformers, the loss of {len(chosen)} validation rows "
        f"differs from training by at most {worst:.1e} nats per token"
    )
