"""Which parameters are trained: all, LoRA matrices (through peft), or those that match."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from sft.config import MethodConfig
from sft.errors import ConfigError, did_you_mean


def prepare_method(
    model: PreTrainedModel, method: MethodConfig, new_tokens: Sequence[int] = ()
) -> Any:
    """Insert LoRA layers or freeze parameters, in place.

    Returns the peft model that wraps `model` for LoRA, else `model` itself. The rows of
    `new_tokens` in the embedding and the head are trained under every method, because nobody
    else has trained them (`frozen` trains both matrices whole for that).

    Raises:
        ConfigError: a target module or pattern matches nothing.
    """
    if method.activation_checkpointing:
        # Its name since transformers 5.2x, and the one before.
        enable = getattr(model, "activation_checkpointing_enable", None)
        (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
        if method.kind == "lora":
            model.enable_input_require_grads()
    if method.kind == "lora":
        return _insert_lora(model, method, new_tokens)
    if method.kind == "frozen":
        _freeze(model, method.trainable, new_tokens)
    return model


def _insert_lora(model: PreTrainedModel, method: MethodConfig, new_tokens: Sequence[int]) -> Any:
    from peft import LoraConfig, get_peft_model

    targets = method.target_modules
    if targets != "all-linear":
        targets = [targets] if isinstance(targets, str) else targets
        _check_targets(model, targets, new_tokens)
    config = LoraConfig(
        r=method.lora_rank,
        lora_alpha=method.lora_alpha,
        lora_dropout=method.lora_dropout,
        target_modules=targets,
        use_dora=method.dora,
        use_rslora=method.rslora,
        task_type="CAUSAL_LM",
        trainable_token_indices=_token_rows(model, new_tokens) if new_tokens else None,
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise ConfigError(f"method.target_modules: {error}") from None


def _check_targets(
    model: PreTrainedModel, targets: Sequence[str], new_tokens: Sequence[int]
) -> None:
    """Every target is the name of a module with a weight, or the end of such a name."""
    modules = {
        name: m
        for name, m in model.named_modules()
        if name and isinstance(getattr(m, "weight", None), torch.nn.Parameter)
    }
    known = {name.rsplit(".", 1)[-1] for name in modules}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head.weight is embedding.weight
    for target in targets:
        matching = [m for name, m in modules.items() if f".{name}".endswith(f".{target}")]
        if not matching:
            raise ConfigError(
                f"method.target_modules: this model has no module '{target}'."
                f"{did_you_mean(target, known)} It has {', '.join(sorted(known))}."
            )
        if (tied or new_tokens) and any(m is embedding or m is head for m in matching):
            why = "its weight is that of embedding and head in one, so merging would change both"
            raise ConfigError(
                f"method.target_modules: '{target}' cannot have LoRA matrices: "
                + (why if tied else "its rows for the new tokens of model.template are trained")
            )


def _token_rows(
    model: PreTrainedModel, new_tokens: Sequence[int]
) -> list[int] | dict[str, list[int]]:
    """The rows peft trains: of the embedding, and of the head where it is a matrix of its own.

    Without its row in the head, a new token that ends answers could be read, but not written.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if getattr(head, "bias", None) is not None:
        raise ConfigError(
            "method.kind: lora cannot train the tokens that model.template adds, because this "
            "model's head has a bias, which peft would leave out; use model.template=plain or "
            "method.kind=full"
        )
    if head.weight is embedding.weight:
        return list(new_tokens)
    return {
        name: list(new_tokens)
        for name, module in model.named_modules()
        if module is embedding or module is head
    }


def _freeze(model: PreTrainedModel, patterns: Sequence[str], new_tokens: Sequence[int]) -> None:
    names = [name for name, _ in model.named_parameters()]
    chosen: set[str] = set()
    for pattern in patterns:
        try:
            matching = {name for name in names if re.search(pattern, name)}
        except re.error as error:
            raise ConfigError(f"method.trainable: '{pattern}' is not a pattern: {error}") from None
        if not matching:
            raise ConfigError(
                f"method.trainable: '{pattern}' matches no parameter.{did_you_mean(pattern, names)}"
                f" The names look like {names[0]} and {names[-1]}."
            )
        chosen |= matching
    ends = (model.get_input_embeddings().weight, model.get_output_embeddings().weight)
    for name, parameter in model.named_parameters():
        is_new = bool(new_tokens) and any(parameter is weight for weight in ends)
        parameter.requires_grad_(name in chosen or is_new)


def trained_parameters(model: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """Name to parameter, of those that are trained; tied parameters once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def merge(peft_model: Any) -> PreTrainedModel:
    """The plain model with the LoRA update added to its weights."""
    merged: PreTrainedModel = peft_model.merge_and_unload(safe_merge=True)
    return merged
