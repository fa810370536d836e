"""Learning-rate schedules: pure functions from the step to a share of the peak."""

from __future__ import annotations

import math
from collections.abc import Callable

# (progress through the steps after warm-up in [0, 1], decay_fraction) -> [0, 1]
SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "cosine": lambda progress, _: 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda progress, _: 1 - progress,
    "constant": lambda _progress, _: 1.0,
    # Warm-up, stable, decay (arXiv 2404.06395): flat, then linear over the last part.
    "wsd": lambda progress, decay: min(1.0, (1 - progress) / decay),
}


def lr_multiplier(
    step: int,
    num_steps: int,
    *,
    schedule: str,
    warmup_steps: int,
    decay_fraction: float = 0.2,
    min_lr_ratio: float = 0.0,
) -> float:
    """Share of the peak rate in the update that completes step `step`, from 1 to `num_steps`.

    Warm-up rises linearly and reaches 1 in its last step; no update has rate 0.
    """
    if step <= warmup_steps:
        return step / warmup_steps
    # The last step still moves: progress reaches 1 one step after the end.
    progress = (step - 1 - warmup_steps) / max(1, num_steps - warmup_steps)
    shape = SCHEDULES[schedule](min(progress, 1.0), decay_fraction)
    return min_lr_ratio + (1 - min_lr_ratio) * shape
