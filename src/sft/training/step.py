"""One optimizer step: micro-batches, sums, clip, finite?, update.

    loss      = sum_t w_t nll_t     / sum_t w_t     over all micro-batches of the step
    accuracy  = sum_t w_t correct_t / sum_t w_t
    gradient  = d loss

so the result depends on which examples are in the step, not on how they are grouped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from sft.data.packing import Batch, trained_positions
from sft.errors import DivergedError, OutOfMemoryError
from sft.model.forward import Forward
from sft.model.losses import LossSums

SourceSums = dict[int, tuple[float, float]]  # source -> (summed weighted nll, summed weights)


class StopRequested(Exception):
    """Raised between micro-batches; the weights are as they were before the step."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """Token-weighted means over one step, and what it cost.

    `by_source` has the summed weighted nll and the summed weights of each source, where asked for.
    """

    loss: float
    accuracy: float
    grad_norm: float
    num_tokens: int
    num_trained_tokens: int
    by_source: SourceSums = field(default_factory=dict)


def train_step(
    forward: Forward,
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, torch.nn.Parameter],
    batches: Sequence[Batch],
    *,
    step: int,
    learning_rate: float,
    max_grad_norm: float,
    penalty: Callable[[int], torch.Tensor] | None = None,
    stop_requested: Callable[[], bool] = lambda: False,
    by_source: bool = False,  # also report the loss of each source
) -> StepResult:
    """Update the weights once, on all of `batches` together. `step` is named in errors.

    `penalty` gives a further term of the objective, which is no part of the reported loss.

    Raises:
        DivergedError: loss or gradient is not finite; nothing was updated.
        OutOfMemoryError: a micro-batch, or the optimizer's moments, did not fit.
        StopRequested: `stop_requested` became true before the update.
    """
    total = sum(float(batch.weights.sum(dtype=torch.float64)) for batch in batches)
    nll, correct, sources = 0.0, 0.0, SourceSums()
    optimizer.zero_grad(set_to_none=True)
    for batch in batches:
        if stop_requested():
            raise StopRequested
        try:
            sums = forward.loss(batch)
            (sums.objective / total).backward()
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            raise _out_of_memory(step, batch) from error
        nll += float(sums.nll)
        correct += float(sums.correct)
        if by_source:
            _add_by_source(sources, batch, sums)
        if not math.isfinite(nll):
            raise _diverged("loss", nll, step, [batch], parameters)
    if penalty:
        penalty(step).backward()
    gradients = [p.grad for p in parameters.values() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
    grad_norm = float(norm)
    if not math.isfinite(grad_norm):  # before clipping, which would spread it to all gradients
        raise _diverged("gradient norm", grad_norm, step, batches, parameters)
    if 0 < max_grad_norm < grad_norm:  # else clipping would rewrite every gradient unchanged
        torch.nn.utils.clip_grads_with_norm_(parameters.values(), max_grad_norm, norm, foreach=True)
    _update(optimizer, learning_rate, step)
    return StepResult(
        loss=nll / total,
        accuracy=correct / total,
        grad_norm=grad_norm,
        num_tokens=sum(batch.num_tokens for batch in batches),
        num_trained_tokens=sum(int((batch.weights > 0).sum()) for batch in batches),
        by_source=sources,
    )


def _add_by_source(totals: SourceSums, batch: Batch, sums: LossSums) -> None:
    """Add the weighted nll and the weights of the batch, each to those of its source."""
    if sums.token_nll is None:
        return
    positions = trained_positions(batch)
    weights = batch.weights[positions].double()
    bounds = torch.searchsorted(positions, batch.cu_seq_lens.long()).tolist()
    nll = (weights * sums.token_nll.double()).cpu()
    weights = weights.cpu()
    for source, start, end in zip(batch.sources, bounds, bounds[1:], strict=False):
        so_far, weight = totals.get(source, (0.0, 0.0))
        part = slice(start, end)
        totals[source] = (so_far + float(nll[part].sum()), weight + float(weights[part].sum()))


def _update(optimizer: torch.optim.Optimizer, learning_rate: float, step: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    try:
        optimizer.step()
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"step {step}: out of memory in the update, where AdamW keeps two more numbers per "
            "trained weight. Try one of: --method lora, --set optim.name=sgd"
        ) from error


def _diverged(
    what: str,
    value: float,
    step: int,
    batches: Sequence[Batch],
    parameters: Mapping[str, torch.nn.Parameter],
) -> DivergedError:
    rows = [name for batch in batches for name in batch.ids]
    first = ", ".join(rows[:8]) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")
    broken = [
        name
        for name, p in parameters.items()
        if p.grad is not None and not bool(p.grad.isfinite().all())
    ]
    where = f" Not finite first in the gradient of {', '.join(broken[:5])}." if broken else ""
    return DivergedError(
        f"step {step}: the {what} is {value}; stopped before the update, so the weights are those "
        f"of step {step - 1}. Rows: {first}.{where} Usual causes: a learning rate that is too "
        "high, or a broken row."
    )


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def _out_of_memory(step: int, batch: Batch) -> OutOfMemoryError:
    longest = max(range(len(batch.lengths)), key=batch.lengths.__getitem__)
    return OutOfMemoryError(
        f"step {step}: out of memory on a micro-batch of {batch.num_tokens} tokens, the longest "
        f"example being {batch.ids[longest]} with {batch.lengths[longest]}. Try one of: "
        "--set batch.micro_batch_tokens=" + str(max(256, batch.num_tokens // 2)) + ", "
        "--set method.activation_checkpointing=true, "
        "--set data.max_seq_len=" + str(max(256, batch.lengths[longest] // 2)) + ", --method lora"
    )
