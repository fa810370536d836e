"""Teacher-forced scores of held-out examples, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sft.data.packing import micro_batches
from sft.data.tokenize import Example
from sft.model.forward import Forward
from sft.records.record import perplexity


@dataclass(frozen=True, slots=True)
class Score:
    """One example: summed nll in nats over its `tokens` supervised tokens.

    `correct` of them were ranked first; they spell `bytes` bytes of UTF-8.
    """

    id: str
    nll: float
    tokens: int
    bytes: int
    correct: int

    def record(self, step: int, probe: str) -> dict[str, Any]:
        """The line of `scores.jsonl`."""
        return {"step": step, "probe": probe, **asdict(self)}


def score_examples(
    forward: Forward,
    examples: Sequence[Example],
    micro_batch_tokens: int,
    *,
    stop_requested: Callable[[], bool] = lambda: False,
) -> Iterator[Score]:
    """Score `examples`, in the order of the micro-batches; ends early when asked to stop."""
    sizes = {example.id: example.num_bytes for example in examples}
    device = next(forward.model.parameters()).device
    for batch in micro_batches(examples, micro_batch_tokens):
        if stop_requested():
            return
        nll, correct = (x.double().cpu() for x in forward.scores(batch.to(device)))
        counts = [int((labels >= 0).sum()) for labels in batch.labels.split(batch.lengths)]
        for name, n, c in zip(batch.ids, nll.split(counts), correct.split(counts), strict=True):
            yield Score(name, float(n.sum()), len(n), sizes[name], int(c.sum()))


def summarize(scores: Sequence[Score]) -> dict[str, float]:
    """Token-weighted over the whole set: `val_loss`, `val_accuracy`, `val_perplexity`."""
    tokens = sum(score.tokens for score in scores)
    loss = sum(score.nll for score in scores) / tokens
    return {
        "val_loss": loss,
        "val_accuracy": sum(score.correct for score in scores) / tokens,
        "val_perplexity": perplexity(loss),
    }
