"""What the model would write first: how alike its openings are, and how far they moved.

With q_j the distribution of the first answer token on prompt j and qbar their mean over a probe,

    first_mass = q_j(v*), v* the likeliest token of qbar       its mean is the opener's mass
    first_info = KL(q_j || qbar)                               its mean is the mutual information
                                                               H(qbar) - mean_j H(q_j)
    kl_first, kl_next = KL(base || now) at answer position 1, and the mean over positions 2 to 5
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sft.data.tokenize import IGNORE_INDEX, Example
from sft.probes.base_logits import BaseLogits

NUM_SHALLOW = 5
_LEAST = -1e4  # log-probability


class Openings:
    """Observes one probe in one evaluation. `base` is filled by the first evaluation, then
    compared with.
    """

    def __init__(self, base: BaseLogits, probe: str, *, at_base: bool) -> None:
        self._base = base
        self._probe = probe
        self._at_base = at_base
        self._first: dict[str, torch.Tensor] = {}
        self._divergences: dict[str, list[float]] = {}

    def observe(
        self, names: Sequence[str], places: Sequence[int], logits: torch.Tensor, _nll: torch.Tensor
    ) -> None:
        """See `score_examples`."""
        rows = [i for i, place in enumerate(places) if place < NUM_SHALLOW]
        if not rows:
            return
        log_probs = logits[rows].float().log_softmax(-1)
        for i, log_q in zip(rows, log_probs, strict=True):
            name, place = names[i], places[i]
            key = f"{self._probe}/{name}"
            if place == 0:
                self._first[name] = log_q.cpu()
            if self._at_base:
                self._base.remember(key, log_q[None])
            elif place < self._base.num_positions(key):
                kl = self._base.divergence(key, place, log_q[None])
                self._divergences.setdefault(name, []).append(float(kl))

    def measures(self, examples: Sequence[Example]) -> dict[str, dict[str, float]]:
        """The further columns of each example's score, once all were observed."""
        if not self._first:
            return {}
        mean = torch.zeros_like(next(iter(self._first.values())), dtype=torch.float64)
        for log_q in self._first.values():
            mean += log_q.double().exp()
        mean /= len(self._first)
        top, log_mean = int(mean.argmax()), mean.clamp_min(1e-300).log()
        return {
            example.id: self._of(example, top, log_mean)
            for example in examples
            if example.id in self._first
        }

    def _of(self, example: Example, top: int, log_mean: torch.Tensor) -> dict[str, float]:
        log_q = self._first[example.id].double().clamp_min(_LEAST)  # 0 times -inf is no number
        q = log_q.exp()
        label = int(example.labels[example.labels != IGNORE_INDEX][0])
        columns = {
            "first_label": label,
            "first_token": top,
            "first_mass": float(q[top]),
            "first_info": float((q * (log_q - log_mean)).sum()),
            "first_entropy": float(-(q * log_q).sum()),
        }
        if moved := self._divergences.get(example.id):
            columns["kl_first"] = moved[0]
            if moved[1:]:
                columns["kl_next"] = sum(moved[1:]) / len(moved[1:])
        return columns
