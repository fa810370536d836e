"""Every `auto` becomes a value and a reason; both are written to `config.yaml`."""

from __future__ import annotations

import math
from typing import Any

from sft.config import Config, with_values
from sft.errors import ConfigError

EVALS_PER_RUN = 6  # at least, besides the one before training
MOST_EVALS = 12
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
            self.config = with_values(self.config, {key: value})
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

    def schedule(self, num_steps: int, eval_cost: float = 0.0) -> None:
        """Warm-up, evaluations and checkpoints, from the length of the run.

        `eval_cost` is the time of one evaluation as a share of the time of all steps. There are six
        evaluations, and up to twelve where they fit into `eval.budget`.
        """
        warmup = min(math.ceil(0.03 * num_steps), num_steps - 1)
        self.fill("optim.warmup_steps", warmup, f"3 % of {num_steps} steps")
        budget = self.config.eval.budget
        fitting = int(budget / eval_cost) - 1 if eval_cost else MOST_EVALS
        evals = min(max(fitting, EVALS_PER_RUN), MOST_EVALS)
        why = f", each of which takes about {eval_cost:.1%} of the training time"
        every = max(1, math.ceil(num_steps / evals))
        self.fill("eval.every", every, f"about {evals} evaluations in {num_steps} steps{why}")
        self.fill("checkpoint.every", self.config.eval.every, "one at each evaluation")


def due(step: int, every: int, last: int) -> bool:
    """Is something that happens every `every` steps due after `step`? The `last` step always is."""
    return step == last or step % every == 0
