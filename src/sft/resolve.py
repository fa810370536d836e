"""Every `auto` becomes a value and a reason; both are written to `config.yaml`."""

from __future__ import annotations

import math
from typing import Any

from sft.config import Config
from sft.errors import ConfigError

LOOKS_PER_RUN = 6  # at least, besides the one before training
MOST_LOOKS = 12
LONGEST_AUTO = 2048


class Resolver:
    """Fills in the `auto` values of a config, and remembers why each was chosen."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.reasons: dict[str, str] = {}

    def fill(self, key: str, value: Any, reason: str) -> None:
        """Set `key` (such as `optim.learning_rate`) if it is still `auto`."""
        section, name = key.split(".")
        if getattr(getattr(self.config, section), name) == "auto":
            self.config = self.config.with_values({key: value})
            self.reasons[key] = reason

    def lengths(self, model_limit: int | None) -> None:
        """`data.max_seq_len`, from how many positions the model has.

        Raises:
            ConfigError: it is larger than the model's limit.
        """
        limit = model_limit or LONGEST_AUTO
        why = f"the model's limit of {limit}" if limit < LONGEST_AUTO else "enough for most data"
        self.fill("data.max_seq_len", min(limit, LONGEST_AUTO), why)
        if model_limit and int(self.config.data.max_seq_len) > model_limit:
            raise ConfigError(
                f"data.max_seq_len: {self.config.data.max_seq_len} is more than the "
                f"{model_limit} positions of the model"
            )

    def method(self) -> None:
        """`optim.learning_rate`, from what is trained."""
        is_lora = self.config.method.kind == "lora"
        self.fill(
            "optim.learning_rate",
            2e-4 if is_lora else 2e-5,
            "LoRA takes ten times the rate of full training"
            if is_lora
            else "usual for all weights",
        )

    def schedule(self, num_steps: int, look_cost: float = 0.0) -> None:
        """Warm-up, looks and checkpoints, from the length of the run.

        `look_cost` is the time of one look as a share of the time of all steps. There are six
        looks, and up to twelve where they fit into `looks.budget`.
        """
        warmup = min(math.ceil(0.03 * num_steps), num_steps - 1)
        self.fill("optim.warmup_steps", warmup, f"3 % of {num_steps} steps")
        budget = self.config.looks.budget
        fitting = int(budget / look_cost) - 1 if look_cost else MOST_LOOKS
        looks = min(max(fitting, LOOKS_PER_RUN), MOST_LOOKS)
        why = f", each of which takes about {look_cost:.1%} of the training time"
        every = max(1, math.ceil(num_steps / looks))
        self.fill("looks.every", every, f"about {looks} looks in {num_steps} steps{why}")
        self.fill("checkpoint.every", self.config.looks.every, "one at each look")


def due(step: int, every: int, last: int) -> bool:
    """Is something that happens every `every` steps due after `step`? The `last` step always is."""
    return step == last or step % every == 0
