"""Residual dropout for any decoder, also for those that were built without any.

Of each decoder layer, out = x + f(x), the part that the layer adds is dropped element by element:

    out' = x + dropout(out - x)

GPT-2 drops what attention and MLP add one by one (`resid_pdrop`); modern models have no dropout
at all, and this is the one place where it can be put into all of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from sft.errors import ConfigError


def add_dropout(model: PreTrainedModel, probability: float) -> list[RemovableHandle]:
    """Drop with `probability` what each decoder layer of `model` adds, while it is training.

    In evaluation nothing changes, bit for bit. The masks come from torch's global random state.
    With `probability` 0 nothing is added at all. Returns the handles that take it off again.

    Raises:
        ConfigError: the decoder layers of this architecture cannot be found.
    """
    if not probability:
        return []

    def drop(layer: nn.Module, args: Any, kwargs: dict[str, Any], out: Any) -> Any:
        if not layer.training:
            return None
        before = args[0] if args else kwargs["hidden_states"]
        first = out[0] if isinstance(out, tuple) else out
        added = torch.nn.functional.dropout(first - before, probability)
        return (before + added, *out[1:]) if isinstance(out, tuple) else before + added

    # Inside activation checkpointing too: it recomputes with the random numbers of the first time.
    return [layer.register_forward_hook(drop, with_kwargs=True) for layer in decoder_layers(model)]


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The layers of `model` in order.

    Raises:
        ConfigError: there is no list of as many modules as the configuration has layers.
    """
    num_layers = model.config.get_text_config().num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == num_layers:
            return list(module)
    raise ConfigError(
        f"optim.dropout: {type(model).__name__} has no list of {num_layers} decoder layers to put "
        "dropout into; set optim.dropout=0"
    )
