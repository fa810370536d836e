"""How often each row is seen: its own weight, and how much it resembles the usage prompts."""

from __future__ import annotations

from collections.abc import Sequence

from sft.curate.remedies import usage_weights
from sft.curate.texts import Prompted
from sft.data.rows.conversation import Conversation, Origin
from sft.errors import ConfigError


def importance(
    rows: Sequence[Conversation], prompts: Sequence[Prompted], by_usage: bool
) -> dict[Origin, float]:
    """The factor of each row, by its origin; empty where all rows count alike.

    It is `row_weight` of the row, times its likeness to `prompts` where `by_usage` is asked for.

    Raises:
        ConfigError: rows are to be weighted by usage, and there is none.
    """
    if by_usage and not prompts:
        raise ConfigError("data.usage_weighting: needs prompts to resemble; give --usage FILE")
    if not by_usage and all(row.weight == 1 for row in rows):
        return {}
    likeness = usage_weights(rows, prompts).values.tolist() if by_usage else [1.0] * len(rows)
    return {row.origin: row.weight * like for row, like in zip(rows, likeness, strict=True)}
