"""Cross-entropy on supervised positions only, in chunks, without ever holding all logits.

    loss = sum_t w_t * nll_t,    nll_t = logsumexp(logits_t) - logits_t[label_t]

The gradient of the logits, w_t * (softmax(logits_t) - onehot(label_t)), is known as soon as
the logits are, so it is taken chunk by chunk in the forward pass: three matrix products
instead of four, and a chunk of logits instead of `[num_tokens, vocab]`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True, slots=True)
class LossSums:
    """Sums over the supervised tokens of a batch; scalars.

    `objective` is what is minimised and carries the gradient; `nll` is the weighted negative
    log-likelihood in nats (the same number for the `nll` loss); `correct` is the weighted
    count of tokens whose label has the largest logit. `token_nll` `[n]` has the negative
    log-likelihood of each supervised token, without its weight.
    """

    objective: torch.Tensor
    nll: torch.Tensor
    correct: torch.Tensor
    token_nll: torch.Tensor | None = None


def nll_weights(_nll: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Cross-entropy: every token counts with its own weight."""
    return weights


def dft_weights(nll: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Dynamic fine-tuning (arXiv 2508.05629): times the token's probability, not differentiated."""
    return weights * torch.exp(-nll)


# name -> (nll [n], weights [n]) -> weights of the objective [n], constant in the gradient
LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "nll": nll_weights,
    "dft": dft_weights,
}


def chunk_rows(vocab_size: int, device: torch.device) -> int:
    """Positions per chunk: small enough for the cache on CPU, large enough to fill a GPU."""
    elements = 2**28 if device.type == "cuda" else 2**24
    return max(16, elements // vocab_size)


def linear_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    weights: torch.Tensor,
    loss: str = "nll",
) -> LossSums:
    """Loss of `hidden [n, d]` under the head `weight [vocab, d]`, with `labels [n]` all trained."""
    sums = _LinearLoss.apply(hidden, weight, bias, labels, weights, loss)  # type: ignore[no-untyped-call]
    return LossSums(*sums)


class _LinearLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        weights: torch.Tensor,
        loss: str,
    ) -> tuple[torch.Tensor, ...]:
        compute = hidden.dtype
        if torch.is_autocast_enabled(hidden.device.type):
            compute = torch.get_autocast_dtype(hidden.device.type)
        matrix = weight.to(compute)
        sums = torch.zeros(3, dtype=torch.float64, device=hidden.device)
        token_nll = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if need_weight else None
        grad_bias = torch.zeros_like(weight[:, 0], dtype=torch.float32) if need_bias else None
        rows = chunk_rows(len(weight), hidden.device)
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(hidden), rows):
                part = slice(start, start + rows)
                x = hidden[part].to(compute)
                logits = F.linear(x, matrix, None if bias is None else bias.to(compute)).float()
                gradient = _chunk(logits, labels[part], weights[part], loss, sums, token_nll[part])
                if grad_bias is not None:
                    grad_bias += gradient.sum(0)
                gradient = gradient.to(compute)
                if grad_hidden is not None:
                    grad_hidden[part] = gradient @ matrix
                if grad_weight is not None and compute == torch.float32:
                    grad_weight.addmm_(gradient.t(), x)
                elif grad_weight is not None:
                    grad_weight += gradient.t() @ x
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        objective, nll, correct = sums.float()
        ctx.mark_non_differentiable(nll, correct, token_nll)
        return objective, nll, correct, token_nll

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scale = grads[0]
        scaled = [None if g is None else g.mul_(scale) for g in ctx.saved_tensors]
        return (*scaled, None, None, None)


def _chunk(
    logits: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    loss: str,
    sums: torch.Tensor,
    token_nll: torch.Tensor,
) -> torch.Tensor:
    """Add the chunk to `sums` and turn `logits [n, vocab]` into their gradient, in place.

    `token_nll [n]` is filled.
    """
    rows = torch.arange(len(labels), device=labels.device)
    largest, predicted = logits.max(dim=-1)
    of_label = logits[rows, labels] - largest
    probabilities = logits.sub_(largest[:, None]).exp_()
    total = probabilities.sum(-1)
    nll = total.log() - of_label
    token_nll.copy_(nll)
    objective_weights = LOSSES[loss](nll, weights)
    sums += torch.stack(
        [
            (objective_weights * nll).double().sum(),
            (weights * nll).double().sum(),
            (weights * (predicted == labels)).double().sum(),
        ]
    )
    gradient = probabilities.mul_((objective_weights / total)[:, None])
    gradient[rows, labels] -= objective_weights
    return gradient


def module_loss(
    hidden: torch.Tensor,
    head: Callable[[torch.Tensor], torch.Tensor],
    labels: torch.Tensor,
    weights: torch.Tensor,
    loss: str = "nll",
) -> LossSums:
    """The same for any `head` from `hidden [n, d]` to logits, recomputed in backward."""
    sums = [hidden.new_zeros((), dtype=torch.float32) for _ in range(3)]
    token_nll = []
    for start in range(0, len(hidden), 256):
        part = slice(start, start + 256)
        chunk = checkpoint(
            lambda x, y, w: logits_loss(head(x), y, w, loss),
            hidden[part],
            labels[part],
            weights[part],
            use_reentrant=False,
        )
        sums = [a + b for a, b in zip(sums, chunk[:3], strict=True)]
        token_nll.append(chunk[3].detach())
    return LossSums(sums[0], sums[1].detach(), sums[2].detach(), torch.cat(token_nll))


def logits_loss(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, loss: str = "nll"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Objective, weighted nll, weighted correct, and the nll of each token `[n]`.

    Of `logits [n, vocab]`, by plain autograd.
    """
    nll, correct = token_scores(logits, labels)
    objective_weights = LOSSES[loss](nll.detach(), weights)
    objective = (objective_weights * nll).sum()
    return objective, (weights * nll).sum(), (weights * correct).sum(), nll


def token_scores(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`nll [n]` in nats and `correct [n]` (0 or 1) of `logits [n, vocab]`."""
    logits = logits.float()
    nll = F.cross_entropy(logits, labels, reduction="none")
    return nll, (logits.argmax(-1) == labels).float()
