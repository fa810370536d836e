"""Learning-rate schedules: pure functions from the step to a share of the peak."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

from sft.config.optim_section import NAMED
from sft.config.plugins import load_named
from sft.errors import ConfigError

# A schedule: (progress through the steps after warm-up in [0, 1], decay_fraction) -> [0, 1].
Schedule = Callable[[float, float], float]


def cosine(progress: float, _decay_fraction: float) -> float:
    """Half a period of the cosine."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def linear(progress: float, _decay_fraction: float) -> float:
    """A straight line to 0."""
    return 1 - progress


def constant(_progress: float, _decay_fraction: float) -> float:
    """The peak throughout."""
    return 1.0


def warmup_stable_decay(progress: float, decay_fraction: float) -> float:
    """Warm-up, stable, decay (arXiv 2404.06395): flat, then linear over the last part."""
    return min(1.0, (1 - progress) / decay_fraction)


def schedule_named(spec: str) -> Schedule:
    """The schedule that `optim.schedule` names.

    Raises:
        ConfigError: there is none, or it does not give a number at the start, middle and end.
    """
    schedule: Any = load_named(spec, *NAMED["optim.schedule"])
    try:
        shares = [float(schedule(progress, 0.2)) for progress in (0.0, 0.5, 1.0)]
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"optim.schedule: '{spec}' cannot be called: {error}") from error
    if not all(math.isfinite(share) for share in shares):
        raise ConfigError(f"optim.schedule: '{spec}' gives {shares} at progress 0, 0.5 and 1")
    return cast(Schedule, schedule)


def lr_multiplier(
    step: int,
    num_steps: int,
    *,
    schedule: Schedule,
    warmup_steps: int,
    decay_fraction: float = 0.2,
    min_lr_ratio: float = 0.0,
) -> float:
    """Share of the peak learning rate in the update that completes `step`, 1 to `num_steps`.

    Warm-up rises linearly and reaches 1 in its last step; no update has learning rate 0.
    """
    if step <= warmup_steps:
        return step / warmup_steps
    # The last step still moves: progress reaches 1 one step after the end.
    progress = (step - 1 - warmup_steps) / max(1, num_steps - warmup_steps)
    shape = schedule(min(progress, 1.0), decay_fraction)
    return min_lr_ratio + (1 - min_lr_ratio) * shape
