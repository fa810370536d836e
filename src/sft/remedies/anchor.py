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

import torch

from sft.data.packing import pack
from sft.data.tokenize import Example
from sft.model.forward import Forward
from sft.probes.base_logits import TOP, BaseLogits, divergence, runs
from sft.probes.val_loss import score_examples


class Anchor:
    """Built while `forward.model` is still the base model; then `loss` is added to each step.

    The texts must not be those of the `retain` probe, which would then no longer be held out.
    Memory: 8 bytes times `top` per supervised token.
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
        self._examples = list(examples)
        self._weight = weight
        self._per_step = min(per_step, len(examples))
        self._base = BaseLogits(top)

        def remember(names: Sequence[str], _: object, logits: torch.Tensor, __: object) -> None:
            log_probs = logits.float().log_softmax(-1)
            for name, part in runs(names):
                self._base.remember(name, log_probs[part])

        for _ in score_examples(forward, examples, micro_batch_tokens, observe=remember):
            pass

    def texts(self, step: int) -> list[Example]:
        """The texts of step `step` (from 1): all in turn, `per_step` each."""
        start = (step - 1) * self._per_step
        num = len(self._examples)
        return [self._examples[(start + i) % num] for i in range(self._per_step)]

    def loss(self, step: int) -> torch.Tensor:
        """`weight` times the mean KL in nats over the texts of this step; differentiable, scalar.

        In evaluation mode: without dropout it is 0 at first, and draws no random numbers.
        """
        model, texts = self._forward.model, self.texts(step)
        batch = pack(texts).to(next(model.parameters()).device)
        training = model.training
        model.eval()
        try:
            log_q = self._forward.logits(batch).float().log_softmax(-1)
        finally:
            model.train(training)
        columns = zip(*(self._base.rows(e.id, 0, e.num_trained) for e in texts), strict=True)
        ids, log_p, log_rest = (torch.cat(parts).to(log_q.device) for parts in columns)
        return self._weight * divergence(ids, log_p, log_rest, log_q).mean()
