"""Records of runs, written out or drawn with a fixed seed, for the tests of guards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sft.guards.base import Finding, GuardSettings
from sft.guards.history import History, history

TOKENS = 40
EVERY = 10  # steps between evaluations


def scores(
    probe: str, losses: Sequence[Sequence[float]], **columns: Sequence[Sequence[float]]
) -> list[dict[str, Any]]:
    """Lines of `scores.jsonl`; `losses` and further columns are `[num_evals, num_rows]`."""
    lines = []
    for evaluation, row in enumerate(losses):
        for i, loss in enumerate(row):
            line = {
                "step": evaluation * EVERY,
                "probe": probe,
                "id": f"{probe}:{i}",
                "tokens": TOKENS,
            }
            line |= {"nll": None if np.isnan(loss) else float(loss) * TOKENS, "correct": 20}
            line |= {name: float(values[evaluation][i]) for name, values in columns.items()}
            lines.append(line)
    return lines


def metrics(losses: Sequence[float], **values: Any) -> list[dict[str, Any]]:
    """Training records of steps 1, 2, ...; a NaN is stored the way the run's files do it."""
    records = []
    for step, loss in enumerate(losses, start=1):
        record = {"step": step, "loss": float(loss), "epoch": step / 20}
        record |= {"learning_rate": 1e-4, "grad_norm": 1.0} | values
        if np.isnan(loss):
            record |= {"loss": None, "loss_nonfinite": "nan"}
        records.append(record)
    return records


def drawn(
    means: Sequence[float], n: int = 32, *, seed: int = 0, sd: float = 0.04, between: float = 0.46
) -> np.ndarray:
    """Losses `[num_evals, n]` whose means follow `means`.

    Rows differ by `between`; the change of a row from evaluation to evaluation by `sd`, which adds
    up; and all rows of an evaluation share a jitter of .006, as in the simulations the thresholds
    come from.
    """
    rng = np.random.default_rng(seed)
    evals = len(means)
    own = 2 + rng.normal(0, between, n)
    walk = rng.normal(0, sd, (evals, n))
    walk[0] = 0
    jitter = rng.normal(0, 0.006, (evals, 1))
    return np.array(own + np.array(means)[:, None] + walk.cumsum(axis=0) + jitter)


def run(
    val: Any = None,
    train: Any = None,
    *,
    losses: Sequence[float] = (),
    rows: Mapping[str, Any] | None = None,
    **settings: Any,
) -> History:
    """A run's history from losses `[num_evals, num_rows]` of val and train_probe."""
    lines = [] if val is None else scores("val", val)
    lines += [] if train is None else scores("train_probe", train)
    preflight = {"rows": rows} if rows else None
    return history(GuardSettings(**settings), metrics(losses), lines, preflight=preflight)


def by_signal(findings: Sequence[Finding]) -> dict[str, Finding]:
    found = {finding.signal: finding for finding in findings}
    assert len(found) == len(findings)
    return found
