"""Optimizers, with weight decay on matrices only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from sft.config import OptimConfig


def _adamw(groups: list[dict[str, Any]], config: OptimConfig, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        groups, lr=rate, betas=(config.beta1, config.beta2), eps=config.eps, fused=True
    )


def _sgd(groups: list[dict[str, Any]], config: OptimConfig, rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=rate, momentum=config.beta1)


OPTIMIZERS: dict[
    str, Callable[[list[dict[str, Any]], OptimConfig, float], torch.optim.Optimizer]
] = {"adamw": _adamw, "sgd": _sgd}


def build_optimizer(
    parameters: Mapping[str, torch.nn.Parameter], config: OptimConfig, learning_rate: float
) -> torch.optim.Optimizer:
    """Two groups: matrices, which decay, and vectors (biases, norms), which do not."""
    decay = [p for p in parameters.values() if p.dim() >= 2]
    no_decay = [p for p in parameters.values() if p.dim() < 2]
    groups = [
        {"params": group, "weight_decay": amount}
        for group, amount in ((decay, config.weight_decay), (no_decay, 0.0))
        if group
    ]
    return OPTIMIZERS[config.name](groups, config, learning_rate)
