"""An anchor against forgetting: stay close to the base model on texts that it wrote itself.

    loss = sum_t w_t nll_t / sum_t w_t  +  weight * mean_t KL(base || now)

the second mean over the tokens of a few self-samples, another few at each step (a light KL to the
base model: ASFT, arXiv 2509.23753). Of the base model only the largest probabilities of each
position and the sum of the rest are kept, so it is not needed a second time:

    KL(base || now) >= sum_k p_k log(p_k / q_k) + p_rest log(p_rest / q_rest)

The gradient of the right-hand side is 0 where now = base, as that of KL itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sft.data.packing import Batch, micro_batches, pack
from sft.data.tokenize import Example
from sft.model.forward import Forward
from sft.probes.base_logits import TOP, divergence


@dataclass(frozen=True, slots=True)
class _Row:
    """A text and what the base model predicted in it.

    `ids`, `log_p`: `[num_trained, top]`; `log_rest`: `[num_trained]`; all on the CPU.
    """

    example: Example
    ids: torch.Tensor
    log_p: torch.Tensor
    log_rest: torch.Tensor


class Anchor:
    """Built while `forward.model` is still the base model; then `loss` is added to each step.

    The rows must not be those of the `retain` probe, which would then no longer be held out.
    Memory: 12 bytes times `top` per supervised token.
    """

    def __init__(
        self,
        forward: Forward,
        examples: Sequence[Example],
        weight: float,
        per_step: int = 2,
        *,
        top: int = TOP,
        micro_batch_tokens: int = 2048,
    ) -> None:
        if not examples:
            raise ValueError("an anchor needs at least one text of the base model")
        self._forward = forward
        self._weight = weight
        self._per_step = min(per_step, len(examples))
        order = {example.id: i for i, example in enumerate(examples)}
        by_id = {example.id: example for example in examples}
        self._device = next(forward.model.parameters()).device
        rows = [
            _Row(by_id[name], *parts)
            for batch in micro_batches(examples, micro_batch_tokens)
            for name, parts in self._remember(batch, top)
        ]
        self._rows = sorted(rows, key=lambda row: order[row.example.id])

    def _remember(
        self, batch: Batch, top: int
    ) -> list[tuple[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]]:
        """What the model predicts in each example of `batch`."""
        kept: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

        def visit(logits: torch.Tensor, _labels: torch.Tensor) -> None:
            log_p, ids = logits.float().log_softmax(-1).topk(min(top, logits.shape[-1]))
            # As `divergence` takes it of the model now, so that both are equal at first.
            rest = (1 - log_p.exp().sum(-1)).clamp_min(1e-12).log()
            kept.append((ids.cpu(), log_p.cpu(), rest.cpu()))

        self._forward.read(batch.to(self._device), visit)
        counts = [int((labels >= 0).sum()) for labels in batch.labels.split(batch.lengths)]
        columns = [torch.cat(parts).split(counts) for parts in zip(*kept, strict=True)]
        return [(name, (i, p, r)) for name, i, p, r in zip(batch.ids, *columns, strict=True)]

    def rows(self, step: int) -> list[str]:
        """Ids of the texts that step `step` (from 1) is held to: all in turn, `per_step` each."""
        return [row.example.id for row in self._chosen(step)]

    def _chosen(self, step: int) -> list[_Row]:
        start = (step - 1) * self._per_step
        return [self._rows[(start + i) % len(self._rows)] for i in range(self._per_step)]

    def loss(self, step: int) -> torch.Tensor:
        """`weight` times the mean KL in nats over the texts of this step; differentiable, scalar.

        In evaluation mode: without dropout it is 0 at first, and draws no random numbers.
        """
        chosen = self._chosen(step)
        batch = pack([row.example for row in chosen]).to(self._device)
        model = self._forward.model
        training = model.training
        model.eval()
        try:
            log_q = self._forward.logits(batch).float().log_softmax(-1)
        finally:
            model.train(training)
        ids, log_p, log_rest = (
            torch.cat([getattr(row, name) for row in chosen]).to(self._device)
            for name in ("ids", "log_p", "log_rest")
        )
        return self._weight * divergence(ids, log_p, log_rest, log_q).mean()
