"""Rules that others stop or warn by, on the same records. None of them names a pitfall."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sft.guards.history import History

Rule = Callable[[History], bool]


def patience(evals: int) -> Rule:
    """transformers' EarlyStoppingCallback: so many evaluations in a row without a new lowest val
    loss.
    """

    def fires(records: History) -> bool:
        losses = _val_losses(records)
        best, waited = losses[0], 0
        for loss in losses[1:]:
            waited = 0 if loss < best else waited + 1
            best = min(best, loss)
            if waited >= evals:
                return True
        return False

    return fires


def ratio(limit: float) -> Rule:
    """The val loss of an evaluation is more than `limit` times the lowest before it."""

    def fires(records: History) -> bool:
        losses = _val_losses(records)
        return any(loss > limit * min(losses[:i]) for i, loss in enumerate(losses) if i)

    return fires


def drop(share: float) -> Rule:
    """The mean log-likelihood of any held-out probe falls by `share` from the base model's."""

    def fires(records: History) -> bool:
        for name in ("val", "usage", "retain"):
            table = records.table(name)
            if table is not None:
                means = np.nanmean(table.loss, axis=1)
                if (means[1:] > (1 + share) * means[0]).any():
                    return True
        return False

    return fires


def _val_losses(records: History) -> list[float]:
    """Token-weighted, as trainers report it."""
    val = records.table("val")
    if val is None:
        return [0.0]
    sums = np.nansum(val.column("nll"), axis=1), np.nansum(val.column("tokens"), axis=1)
    return [float(nll / tokens) for nll, tokens in zip(*sums, strict=True)]


RULES: dict[str, Rule] = {
    "patience 1": patience(1),
    "patience 3": patience(3),
    "val loss above 1.2 x best": ratio(1.2),
    "10 % drop": drop(0.1),
}
