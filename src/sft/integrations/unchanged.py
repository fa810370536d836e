"""An evaluation at a model that is being trained must leave no trace in it."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel


@contextmanager
def unchanged(model: PreTrainedModel) -> Iterator[None]:
    """Whatever the block does, the training behind it goes on as if there had been none.

    Put back: the random states of torch (CPU and CUDA), NumPy and Python; the training mode of
    every module; the attention implementation of every config; the generation config.
    """
    modes = [(module, module.training) for module in model.modules()]
    attention = [(config, config._attn_implementation_internal) for config in _configs(model)]
    generation = model.generation_config
    model.generation_config = copy.deepcopy(generation)
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
            model.generation_config = generation
            for config, name in attention:
                config._attn_implementation_internal = name
            for module, mode in modes:
                module.training = mode


def _configs(model: PreTrainedModel) -> list[Any]:
    """The configs of the model and of the models in it, and the configs in those; each once."""
    found = {id(m.config): m.config for m in model.modules() if isinstance(m, PreTrainedModel)}
    todo = list(found.values())
    while todo:
        config = todo.pop()
        parts = [getattr(config, name, None) for name in config.sub_configs]
        fresh = {id(part): part for part in parts if part is not None and id(part) not in found}
        found |= fresh
        todo += fresh.values()
    return list(found.values())
