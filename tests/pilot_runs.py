"""Histories of runs: the five pilots of the guards (means and standard errors), and made by hand.

A change with mean m and standard error s becomes 32 paired normal draws, shifted and scaled so that
their mean and standard error are exactly m and s. Values are nats per token.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sft.guards.base import Finding, GuardSettings
from sft.guards.history import History, history

N = 32
TOKENS = 40
Change = tuple[float, float]  # mean, standard error


def draws(mean: float, se: float, n: int = N, seed: int = 0) -> list[float]:
    """`n` values with exactly this mean and standard error."""
    z = np.random.default_rng(seed).standard_normal(n)
    z = (z - z.mean()) / z.std(ddof=1)
    return list(mean + se * math.sqrt(n) * z)


def rows(
    probe: str, step: int, losses: Sequence[float], tokens: int = TOKENS, **columns: Any
) -> list[dict[str, Any]]:
    """The lines of `scores.jsonl` of one evaluation; a column is a number or one for each
    example.
    """
    return [
        {
            "step": step,
            "probe": probe,
            "id": f"{probe}:{i}",
            "nll": loss * tokens,
            "tokens": tokens,
            "bytes": 4 * tokens,
            "correct": tokens // 2,
        }
        | {k: v if isinstance(v, int | float) else v[i] for k, v in columns.items()}
        for i, loss in enumerate(losses)
    ]


def changes(
    probe: str, by_step: Mapping[int, Change | Sequence[float]], n: int = N, **columns: Any
) -> list[dict[str, Any]]:
    """Evaluations at `probe`: the base at step 0, then each change from it; columns for every
    evaluation.

    A change is `(mean, standard error)`, or a list with one value for each example.
    """
    found = rows(probe, 0, draws(2.0, 0.08, n, seed=9), **columns)
    base = [row["nll"] / TOKENS for row in found]
    for step, change in by_step.items():
        change = draws(*change, n) if isinstance(change, tuple) else change
        losses = [a + b for a, b in zip(base, change, strict=True)]
        found += rows(probe, step, losses, **columns)
    return found


def told(
    *scores: list[dict[str, Any]],
    samples: Sequence[Mapping[str, Any]] = (),
    preflight: Mapping[str, Any] | None = None,
    **settings: Any,
) -> History:
    """The history of these scores."""
    flat = [row for part in scores for row in part]
    return history(GuardSettings(**settings), (), flat, samples, preflight)


def with_openings(
    scores: list[dict[str, Any]], evals: Mapping[int, tuple[float, float, float, float]]
) -> list[dict[str, Any]]:
    """`evaluations[step]` is p_top, MI, KL at position 1 and at 2-5. A fifth of references open
    alike.
    """
    labels = [7 if i % 5 == 0 else 100 + i for i in range(len(scores))]
    for row in scores:
        if row["step"] in evals:
            mass, info, first, following = evals[row["step"]]
            i = int(row["id"].partition(":")[2])
            wave = 1 + 0.2 * math.cos(math.pi * i)  # mean 1 over an even number of prompts
            spread = 0.2 * (1 - mass) * math.cos(math.pi * i)
            row |= {
                "first_label": labels[i],
                "first_token": 3 if mass > 0.5 else 7,
                "first_mass": mass + spread,
                "first_info": info * wave,
            }
            if row["step"]:
                row |= {"kl_first": first * wave, "kl_next": following * wave}
    return scores


# val, GSM8K and WikiText after steps 8 and 16; KL on WikiText; openings; training loss.
PILOT: dict[str, dict[str, Any]] = {
    "clean": {
        "alpaca": {8: (-0.050, 0.010), 16: (-0.102, 0.029)},
        "gsm8k": {8: (-0.062, 0.008), 16: (-0.079, 0.012)},
        "wiki": {8: (-0.011, 0.003), 16: (-0.022, 0.005)},
        "kl": {8: 0.002, 16: 0.005},
        "openings": {8: (0.17, 1.18, 0.12, 0.02), 16: (0.18, 1.19, 0.23, 0.07)},
        "train": {8: -0.08, 16: -0.16},
    },
    "overfitting": {
        "alpaca": {8: (0.345, 0.057), 16: (0.726, 0.092)},
        "gsm8k": {8: (0.390, 0.048), 16: (0.744, 0.077)},
        "wiki": {8: (0.091, 0.013), 16: (0.200, 0.024)},
        "kl": {8: 0.048, 16: 0.130},
        "openings": {8: (0.34, 1.32, 2.3, 0.44), 16: (0.32, 1.54, 4.0, 0.93)},
        "train": {8: -1.9, 16: -1.9995},
    },
    "format_collapse": {
        "alpaca": {8: (0.082, 0.021), 16: (0.050, 0.039)},
        "gsm8k": {8: (0.046, 0.014), 16: (0.085, 0.016)},
        "wiki": {8: (-0.008, 0.007), 16: (-0.023, 0.010)},
        "kl": {8: 0.006, 16: 0.017},
        "openings": {8: (0.90, 0.08, 4.1, 0.09), 16: (0.96, 0.06, 5.6, 0.12)},
        "train": {8: -0.3, 16: -0.5},
    },
    "distribution_mismatch": {
        "alpaca": {8: (0.003, 0.012), 16: (0.007, 0.014)},
        "gsm8k": {8: (-0.691, 0.126), 16: (-0.961, 0.130)},
        "wiki": {8: (-0.008, 0.005), 16: (-0.011, 0.007)},
        "kl": {8: 0.003, 16: 0.008},
        "openings": {8: (0.14, 1.13, 0.17, 0.04), 16: (0.15, 1.12, 0.19, 0.06)},
        "train": {8: -0.7, 16: -1.0},
    },
    "forgetting": {
        "alpaca": {8: (1.135, 0.100), 16: (0.979, 0.082)},
        "gsm8k": {8: (-0.499, 0.169), 16: (-0.457, 0.164)},
        "wiki": {8: (0.870, 0.086), 16: (0.959, 0.107)},
        "kl": {8: 1.19, 16: 1.22},
        "openings": {8: (0.28, 0.34, 1.9, 1.5), 16: (0.19, 0.46, 2.4, 1.4)},
        "train": {8: -0.6, 16: -0.7},
    },
}


def uncovered(k: int, n: int = N) -> dict[str, Any]:
    """Preflight of `n` usage prompts, of which `k` have no neighbour in the training data."""
    p_values = {f"usage:{i}": 0.02 if i < k else 0.5 for i in range(n)}
    groups = [{"label": "poem, haiku", "ids": [f"usage:{i}" for i in range(k)]}]
    return {"usage": {"n": n, "p_values": p_values, "uncovered": [], "groups": groups}}


def pilot(name: str) -> History:
    """A pilot run with Alpaca as usage; the task's own held-out rows are `val`."""
    run = PILOT[name]
    on_maths = name in ("distribution_mismatch", "forgetting")
    usage = with_openings(
        changes("usage", run["alpaca"]), {0: (0.18, 1.18, 0, 0), **run["openings"]}
    )
    if on_maths:
        val = changes("val", run["gsm8k"])
    else:
        val = with_openings(
            changes("val", run["alpaca"]), {0: (0.18, 1.18, 0, 0), **run["openings"]}
        )
    retain = changes("retain", run["wiki"], kl=0.0)
    for row in retain:
        row["kl"] = (
            run["kl"].get(row["step"], 0.0) * TOKENS * (1 + 0.1 * (-1) ** int(row["id"][7:]))
        )
    train = changes("train_probe", {step: (fall, 0.02) for step, fall in run["train"].items()})
    return told(val, usage, retain, train, preflight=uncovered(25 if on_maths else 3))


def only(findings: Sequence[Finding], signal: str) -> Finding:
    """The one finding of this signal; it can be written to `findings.jsonl` and read again."""
    (found,) = [finding for finding in findings if finding.signal == signal]
    line = json.dumps(found.record(), allow_nan=False)
    assert Finding.from_record(json.loads(line)) == found
    return found
