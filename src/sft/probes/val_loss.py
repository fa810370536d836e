"""Teacher-forced scores of held-out examples, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from sft.data.packing import Batch, micro_batches
from sft.data.tokenize import Example
from sft.model.forward import Forward
from sft.model.losses import token_scores
from sft.runs.metrics import perplexity

# (example ids [n], place in the answer [n], logits [n, vocab], nll [n])
Observer = Callable[[Sequence[str], Sequence[int], torch.Tensor, torch.Tensor], None]


@dataclass(frozen=True, slots=True)
class Score:
    """One example: summed nll in nats over its `tokens` supervised tokens.

    `correct` of them were ranked first; they spell `bytes` bytes of UTF-8. `more` holds what
    else was measured on this probe (docs/metrics.md).
    """

    id: str
    nll: float
    tokens: int
    bytes: int
    correct: int
    more: Mapping[str, float] = field(default_factory=dict)

    def record(self, step: int, probe: str) -> dict[str, Any]:
        """The line of `scores.jsonl`."""
        fields = asdict(self)
        more = fields.pop("more")
        return {"step": step, "probe": probe, **fields, **more}


def score_examples(
    forward: Forward,
    examples: Sequence[Example],
    micro_batch_tokens: int,
    *,
    stop_requested: Callable[[], bool] = lambda: False,
    observe: Observer | None = None,
) -> Iterator[Score]:
    """Score `examples`, in the order of the micro-batches; ends early when asked to stop.

    `observe` sees every supervised position once: the ids of the examples, the place of the
    token in its answer from 0, the logits `[n, vocab]` and the nll `[n]`.
    """
    sizes = {example.id: example.num_bytes for example in examples}
    device = next(forward.model.parameters()).device
    for batch in micro_batches(examples, micro_batch_tokens):
        if stop_requested():
            return
        nll, correct = _read(forward, batch.to(device), observe)
        counts = [int((labels >= 0).sum()) for labels in batch.labels.split(batch.lengths)]
        for name, n, c in zip(batch.ids, nll.split(counts), correct.split(counts), strict=True):
            yield Score(name, float(n.sum()), len(n), sizes[name], int(c.sum()))


def _read(
    forward: Forward, batch: Batch, observe: Observer | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """`nll` and `correct` of each supervised token, fp64 on the CPU."""
    owners = [
        (name, place)
        for name, labels in zip(batch.ids, batch.labels.split(batch.lengths), strict=True)
        for place in range(int((labels >= 0).sum()))
    ]
    parts: list[tuple[torch.Tensor, torch.Tensor]] = []
    seen = 0

    def visit(logits: torch.Tensor, labels: torch.Tensor) -> None:
        nonlocal seen
        nll, correct = token_scores(logits, labels)
        parts.append((nll.double().cpu(), correct.double().cpu()))
        if observe:
            names, places = zip(*owners[seen : seen + len(labels)], strict=True)
            observe(names, places, logits, nll)
        seen += len(labels)

    forward.read(batch, visit)
    return torch.cat([nll for nll, _ in parts]), torch.cat([ok for _, ok in parts])


def sums_by_source(
    scores: Sequence[Score], examples: Sequence[Example]
) -> dict[int, tuple[float, float]]:
    """Summed nll and supervised tokens of each source; `scores` are of some of `examples`."""
    source = {example.id: example.source for example in examples}
    sums: dict[int, tuple[float, float]] = {}
    for score in scores:
        nll, tokens = sums.get(source[score.id], (0.0, 0.0))
        sums[source[score.id]] = (nll + score.nll, tokens + score.tokens)
    return sums


def summarize(scores: Sequence[Score], probe: str = "val") -> dict[str, float]:
    """Token-weighted over the whole set: `val_loss`, `val_accuracy`, `val_perplexity`."""
    tokens = sum(score.tokens for score in scores)
    loss = sum(score.nll for score in scores) / tokens
    return {
        f"{probe}_loss": loss,
        f"{probe}_accuracy": sum(score.correct for score in scores) / tokens,
        f"{probe}_perplexity": perplexity(loss),
    }
