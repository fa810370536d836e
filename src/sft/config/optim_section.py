"""The section `optim`, and what its `name`, `schedule` and `loss` may be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from sft.config.section import AT_LEAST_0, Auto, Section, named, or_auto

# Name -> `module:attribute`, which is imported only where it is used. A new one is a function in
# its file and a line here. What each is given: `docs/extending.md`.
LOSSES = {"nll": "sft.model.losses:nll", "dft": "sft.model.losses:dft"}
OPTIMIZERS = {"adamw": "sft.training.optimizers:adamw", "sgd": "sft.training.optimizers:sgd"}
SCHEDULES = {
    "cosine": "sft.training.schedules:cosine",
    "linear": "sft.training.schedules:linear",
    "constant": "sft.training.schedules:constant",
    "wsd": "sft.training.schedules:warmup_stable_decay",
}
# Setting -> the group of entry points that it reads, and its table.
NAMED: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "optim.loss": ("sft.losses", LOSSES),
    "optim.name": ("sft.optimizers", OPTIMIZERS),
    "optim.schedule": ("sft.schedules", SCHEDULES),
}
_RATE = or_auto("above 0", lambda rate: 0 < rate < math.inf)


class OptimConfig(Section):
    """The optimizer, its schedule, and how long to train."""

    name: Annotated[str, named(*NAMED["optim.name"])] = Field(
        "adamw", description="Optimizer: `adamw`, `sgd`, or your own, such as `./mine.py:Lion`."
    )
    learning_rate: Annotated[float | Auto, _RATE] = Field(
        "auto", description="Peak learning rate; `auto`: 2e-5, or 2e-4 for LoRA."
    )
    schedule: Annotated[str, named(*NAMED["optim.schedule"])] = Field(
        "cosine",
        description="How the learning rate falls after warm-up: `cosine`, `linear`, `constant`, "
        "`wsd`, or your own, such as `./mine.py:staircase`.",
    )
    warmup_steps: Annotated[int | Auto, AT_LEAST_0] = Field(
        "auto", description="`auto`: 3 % of all steps."
    )
    decay_fraction: float = Field(
        0.2, gt=0, le=1, description="`wsd`: share of the steps, at the end, in which it decays."
    )
    min_lr_ratio: float = Field(
        0.0, ge=0, le=1, description="Final learning rate as a share of the peak."
    )
    weight_decay: float = Field(0.0, ge=0, description="Decay of matrices; never biases, norms.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the first moment; SGD: momentum.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Decay of the second moment.")
    eps: float = Field(1e-8, gt=0, description="Added to the root of the second moment.")
    max_grad_norm: float = Field(1.0, ge=0, description="Clip the gradient norm; 0: do not clip.")
    epochs: float = Field(2.0, gt=0, description="Passes over the training examples.")
    max_steps: int | None = Field(None, ge=1, description="Stop after so many optimizer steps.")
    loss: Annotated[str, named(*NAMED["optim.loss"])] = Field(
        "nll",
        description="`nll`: cross-entropy. `dft`: weighted by the token's probability. Or your "
        "own, such as `./mine.py:focal`.",
    )
    neftune_alpha: float = Field(
        0.0, ge=0, description="Noise on the input embeddings (arXiv 2310.05914); 0: none."
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Dropout on what each decoder layer adds; 0: none."
    )
    retain_kl: float = Field(
        0.0,
        ge=0,
        description="Weight of the KL divergence from the base model on its own texts, which "
        "keeps it from forgetting (arXiv 2509.23753); 0: none.",
    )
