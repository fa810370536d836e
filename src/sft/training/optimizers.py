"""Optimizers, with weight decay on matrices only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sft.config import OptimConfig
from sft.config.optim_section import NAMED
from sft.config.plugins import load_named
from sft.errors import ConfigError
from sft.training.optimizer_state import check_optimizer

Groups = list[dict[str, Any]]


def adamw(groups: Groups, config: OptimConfig, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW (arXiv 1711.05101)."""
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=config.eps, fused=True)


def sgd(groups: Groups, config: OptimConfig, learning_rate: float) -> torch.optim.Optimizer:
    """SGD with `beta1` as momentum."""
    return torch.optim.SGD(groups, lr=learning_rate, momentum=config.beta1)


def build_optimizer(
    parameters: Mapping[str, torch.nn.Parameter], config: OptimConfig, learning_rate: float
) -> torch.optim.Optimizer:
    """Two groups: matrices, which decay, and vectors (biases, norms), which do not.

    A class that `optim.name` names is given the groups and `lr`, and keeps its own defaults for
    the rest; a function is given what `adamw` here is given.

    Raises:
        ConfigError: there is none of this name, or it cannot be made.
    """
    decay = [p for p in parameters.values() if p.dim() >= 2]
    no_decay = [p for p in parameters.values() if p.dim() < 2]
    groups = [
        {"params": group, "weight_decay": amount}
        for group, amount in ((decay, config.weight_decay), (no_decay, 0.0))
        if group
    ]
    make: Any = load_named(config.name, *NAMED["optim.name"])
    try:
        if isinstance(make, type):
            optimizer = make(groups, lr=learning_rate)
        else:
            optimizer = make(groups, config, learning_rate)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optim.name: '{config.name}' cannot be made: {error}") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(
            f"optim.name: '{config.name}' made a {type(optimizer).__name__}, which is no "
            "torch.optim.Optimizer"
        )
    return optimizer


def build_checked_optimizer(
    parameters: Mapping[str, torch.nn.Parameter], config: OptimConfig
) -> torch.optim.Optimizer:
    """The optimizer of a run, once it is known that all its state can be saved.

    Raises:
        ConfigError: it cannot.
    """
    rate = float(config.learning_rate)
    check_optimizer(lambda some: build_optimizer(some, config, rate), parameters, config.name)
    return build_optimizer(parameters, config, rate)
