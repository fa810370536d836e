"""What the base model predicted, kept small: the largest probabilities of a position, and the rest.

    KL(base || now) >= sum_k p_k log(p_k / q_k) + p_tail log(p_tail / q_tail)

with k over the base model's `TOP` likeliest tokens. Equal where the tails have the same shape;
otherwise a lower bound (data processing inequality), never an overstatement.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

TOP = 64
_SMALLEST = 1e-12  # keeps the logarithm of an empty tail finite


class BaseLogits:
    """Token ids and log-probabilities `[n, TOP]`, and the log of the rest `[n]`, per example.

    Positions are the supervised ones of an example, in order, up to the first `limit` asked for.
    """

    def __init__(self, top: int = TOP) -> None:
        self._top = top
        self._rows: dict[str, list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def clear(self) -> None:
        """Forget everything, before the base model is looked at (again)."""
        self._rows.clear()

    def num_positions(self, name: str) -> int:
        """Positions remembered of the example called `name`."""
        return len(self._rows.get(name, ()))

    def remember(self, name: str, log_probs: torch.Tensor) -> None:
        """Add positions of `name`, from their log-probabilities `[n, vocab]`."""
        values, ids = log_probs.topk(min(self._top, log_probs.shape[-1]))
        tail = (1 - values.exp().sum(-1)).clamp_min(_SMALLEST).log()
        rows = zip(ids.int().cpu(), values.cpu(), tail.cpu(), strict=True)
        self._rows.setdefault(name, []).extend(rows)

    def divergence(self, name: str, start: int, log_probs: torch.Tensor) -> torch.Tensor:
        """KL(base || now) in nats, `[n]`, of positions `start...` from `log_probs [n, vocab]`."""
        ids, p, tail = self.rows(name, start, len(log_probs))
        return divergence(ids.to(log_probs.device), p, tail, log_probs)

    def rows(
        self, name: str, start: int, count: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Ids `[count, TOP]`, log-probabilities `[count, TOP]` and log tails `[count]`."""
        rows = self._rows[name][start : start + count]
        ids, p, tail = (torch.stack([row[i] for row in rows]) for i in range(3))
        return ids.long(), p, tail

    def save(self, path: Path) -> None:
        """Write everything to one safetensors file."""
        rows = [row for part in self._rows.values() for row in part]
        if not rows:
            return
        counts = json.dumps({name: len(part) for name, part in self._rows.items()})
        ids, p, tail = (torch.stack([row[i] for row in rows]) for i in range(3))
        save_file({"ids": ids, "log_p": p, "log_tail": tail}, path, metadata={"counts": counts})

    @classmethod
    def load(cls, path: Path) -> BaseLogits:
        """What `save` wrote."""
        base = cls()
        with safe_open(path, framework="pt") as file:
            counts: dict[str, int] = json.loads(file.metadata()["counts"])
            columns = [file.get_tensor(name) for name in ("ids", "log_p", "log_tail")]
        rows = list(zip(*columns, strict=True))
        start = 0
        for name, count in counts.items():
            base._rows[name] = rows[start : start + count]
            start += count
        return base


def runs(names: Sequence[str]) -> Iterator[tuple[str, slice]]:
    """Each name and where it stands in `names`, in which the same ones are neighbours."""
    start = 0
    for name, run in groupby(names):
        end = start + len(list(run))
        yield name, slice(start, end)
        start = end


def divergence(
    ids: torch.Tensor, log_p: torch.Tensor, log_tail: torch.Tensor, log_q: torch.Tensor
) -> torch.Tensor:
    """The bound above, `[n]`.

    Shapes: `ids` and `log_p` `[n, TOP]`, `log_tail [n]`: the base's; `log_q [n, vocab]`: now.
    """
    log_p, log_tail = log_p.to(log_q.device), log_tail.to(log_q.device)
    q = log_q.gather(-1, ids)
    q_tail = (1 - q.exp().sum(-1)).clamp_min(_SMALLEST).log()
    top = (log_p.exp() * (log_p - q)).sum(-1)
    return top + log_tail.exp() * (log_tail - q_tail)
