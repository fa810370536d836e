"""Cross-entropy on supervised positions only, in chunks, without ever holding all logits.

    loss = sum_t w_t * nll_t,    nll_t = logsumexp(logits_t) - logits_t[label_t]

The gradient of the logits, w_t * (softmax(logits_t) - onehot(label_t)), is known as soon as
the logits are, so it is taken chunk by chunk in the forward pass: three matrix products
instead of four, and a chunk of logits instead of `[num_tokens, vocab]`. Of a loss of the user's
own that reads logits, autograd takes it, chunk by chunk too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from sft.config.optim_section import NAMED
from sft.config.plugins import load_named
from sft.errors import ConfigError


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


@dataclass(frozen=True, slots=True)
class Loss:
    """What is minimised: by default cross-entropy.

    `function` is one of two kinds, told apart by how many arguments it takes:

    (nll [n], weights [n]) -> weights of the objective [n], constant in the gradient
    (logits [n, vocab], labels [n], weights [n]) -> objective per token [n], or its sum

    The second is differentiated by autograd, a chunk of positions at a time; `logits` are fp32.
    In both the objective of a step is divided by the sum of its `weights`.
    """

    name: str
    function: Callable[..., torch.Tensor]
    of_logits: bool = False

    def objective(
        self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """The summed objective of a loss of logits.

        Raises:
            ConfigError: the user's function fails, or returns something else.
        """
        try:
            value: Any = self.function(logits, labels, weights)
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
                raise
            raise self._error(f"raises {type(error).__name__}: {error}") from error
        if not isinstance(value, torch.Tensor) or value.shape not in ((), labels.shape):
            shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise self._error(f"returns {shape}; expected {tuple(labels.shape)}, one per token")
        if torch.is_grad_enabled() and not value.requires_grad:
            raise self._error("returns a value that does not depend on the logits")
        return value.float().sum()

    def token_weights(self, nll: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Weights of the objective `[n]`, from the `nll` and the weights of each token."""
        return self.function(nll, weights)

    def _error(self, problem: str) -> ConfigError:
        return ConfigError(f"optim.loss: '{self.name}' {problem}")


def nll(_nll: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Cross-entropy: every token counts with its own weight."""
    return weights


def dft(nll: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Dynamic fine-tuning (arXiv 2508.05629): times the token's probability, not differentiated."""
    return weights * torch.exp(-nll)


NLL = Loss("nll", nll)


def loss_named(spec: str) -> Loss:
    """The loss that `optim.loss` names.

    Raises:
        ConfigError: there is none of this name, or it takes other arguments.
    """
    function: Any = load_named(spec, *NAMED["optim.loss"])
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise ConfigError(f"optim.loss: '{spec}' is no function, but {function!r:.60}") from None
    taken = [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    if len(taken) not in (2, 3):
        raise ConfigError(
            f"optim.loss: '{spec}' takes {len(taken)} arguments; expected (nll, weights) or "
            "(logits, labels, weights)"
        )
    return Loss(spec, function, of_logits=len(taken) == 3)


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
    loss: Loss = NLL,
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
        loss: Loss,
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
    loss: Loss,
    sums: torch.Tensor,
    token_nll: torch.Tensor,
) -> torch.Tensor:
    """Add the chunk to `sums` and return the gradient of `logits [n, vocab]`, made in their place.

    `token_nll [n]` is filled.
    """
    if loss.of_logits:
        return _chunk_of_logits(logits, labels, weights, loss, sums, token_nll)
    rows = torch.arange(len(labels), device=labels.device)
    largest, predicted = logits.max(dim=-1)
    of_label = logits[rows, labels] - largest
    probabilities = logits.sub_(largest[:, None]).exp_()
    total = probabilities.sum(-1)
    nll = total.log() - of_label
    token_nll.copy_(nll)
    objective_weights = loss.token_weights(nll, weights)
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


def _chunk_of_logits(
    logits: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    loss: Loss,
    sums: torch.Tensor,
    token_nll: torch.Tensor,
) -> torch.Tensor:
    """As `_chunk`, for a loss that autograd differentiates: two further chunks in memory."""
    nll, correct = token_scores(logits, labels)
    token_nll.copy_(nll)
    with torch.enable_grad():
        leaf = logits.requires_grad_()
        objective = loss.objective(leaf, labels, weights)
    (gradient,) = torch.autograd.grad(objective, leaf)
    parts = [objective.detach(), (weights * nll).sum(), (weights * correct).sum()]
    sums += torch.stack([part.double() for part in parts])
    return gradient


def module_loss(
    hidden: torch.Tensor,
    head: Callable[[torch.Tensor], torch.Tensor],
    labels: torch.Tensor,
    weights: torch.Tensor,
    loss: Loss = NLL,
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
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, loss: Loss = NLL
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Objective, weighted nll, weighted correct, and the nll of each token `[n]`.

    Of `logits [n, vocab]`, by plain autograd.
    """
    nll, correct = token_scores(logits, labels)
    if loss.of_logits:
        objective = loss.objective(logits.float(), labels, weights)
    else:
        objective = (loss.token_weights(nll.detach(), weights) * nll).sum()
    return objective, (weights * nll).sum(), (weights * correct).sum(), nll


def token_scores(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`nll [n]` in nats and `correct [n]` (0 or 1) of `logits [n, vocab]`."""
    logits = logits.float()
    nll = F.cross_entropy(logits, labels, reduction="none")
    return nll, (logits.argmax(-1) == labels).float()
