"""Between the base model and the tuned one: less forgetting, often without losing the task.

    weights(alpha) = (1 - alpha) * base + alpha * tuned

(WiSE-FT, arXiv 2109.01903; LM-Cocktail, arXiv 2311.13534). No training: for each of a few alphas
the task and the `retain` probe are scored, and the largest gain on the task is taken among those
that forget no more than the budget allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from rich.table import Table
from rich.text import Text
from torch import nn

from sft.data.account import Progress
from sft.data.tokenize import Example
from sft.model.forward import Forward
from sft.probes.val_loss import score_examples
from sft.texts.safe import printable

ALPHAS = (0.1, 0.25, 0.5, 0.75, 1.0)
REFINEMENTS = 2

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Change:
    """Loss after minus loss before, in nats per token: mean over `n` examples, standard error.

    Each example is compared with itself. `mean` is None where a loss was not finite; `se` is None
    then too, and for a single example.
    """

    mean: float | None
    se: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Point:
    """The model at `alpha`, against the base model (alpha 0)."""

    alpha: float
    task: Change
    retain: Change


# ------------------------------------------------------------------------- weights


def interpolate(model: nn.Module, base: Weights, tuned: Weights, alpha: float) -> None:
    """Set the parameters of `model` named in `tuned` to (1 - alpha) * base + alpha * tuned.

    In place, computed in fp32; exactly `base` at 0 and exactly `tuned` at 1.
    """
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, end in tuned.items():
            target = parameters[name]
            start = base[name].to(target.device, torch.float32)
            target.copy_(torch.lerp(start, end.to(target.device, torch.float32), alpha))


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all parameters, by name; tied ones once."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def adapter_ends(model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The two ends for a model with LoRA matrices: those of the base model, and those it has.

    The update of a layer is B A, so scaling B scales the update, and merging that is the same as
    blending the merged weights. Rows of new tokens go back to what they were.

    Raises:
        ValueError: the update is not a multiple of one matrix (DoRA); blend the merged weights.
    """
    base, tuned = {}, {}
    originals = {
        name: layer
        for name, layer in model.named_modules()
        if hasattr(layer, "trainable_tokens_original")
    }
    for name, parameter in model.named_parameters():
        if "lora_magnitude" in name:
            raise ValueError("DoRA updates cannot be scaled; blend the merged weights")
        where, _, key = name.rpartition(".")
        if "lora_B" in name or "lora_embedding_B" in name:
            base[name] = torch.zeros_like(parameter)
        elif where.endswith("trainable_tokens_delta"):
            layer = originals[where.removesuffix(".trainable_tokens_delta")]
            base[name] = layer.trainable_tokens_original[key].detach().clone()
        else:
            continue
        tuned[name] = parameter.detach().clone()
    return base, tuned


# ------------------------------------------------------------------------- sweep


def sweep(
    set_alpha: Callable[[float], None],
    forward: Forward,
    task: Sequence[Example],
    retain: Sequence[Example],
    *,
    micro_batch_tokens: int,
    alphas: Sequence[float] = ALPHAS,
    budget: float | None = None,
    on_progress: Progress = lambda _what, _done, _total: None,
) -> list[Point]:
    """A point for alpha 0 and for each of `alphas`, in rising order.

    With a `budget`, `REFINEMENTS` more where the points cross it. `set_alpha` puts the weights of
    an alpha into the model of `forward`, such as `interpolate` with the two ends filled in. The
    model keeps those of the last alpha that was tried.
    """
    todo = sorted({0.0, *alphas})
    total = len(todo) + (0 if budget is None else REFINEMENTS)
    before: list[dict[str, float]] = []
    points: list[Point] = []
    while todo:
        set_alpha(alpha := todo.pop(0))
        losses = [_losses(forward, examples, micro_batch_tokens) for examples in (task, retain)]
        before = before or losses
        points.append(Point(alpha, *map(_change, before, losses)))
        on_progress("measuring blends", len(points), total)
        if not todo and budget is not None and len(points) < total:
            between = crossing(points, budget)
            todo = [] if between is None else [between]
    return sorted(points, key=lambda point: point.alpha)


def crossing(points: Sequence[Point], budget: float) -> float | None:
    """The alpha halfway between the smallest that forgets too much and the next one below it.

    None where all forget too little to matter.
    """
    alphas = sorted(point.alpha for point in points)
    beyond = [p.alpha for p in points if p.alpha and not _at_most(p.retain, budget)]
    if not beyond:
        return None
    below = max(alpha for alpha in alphas if alpha < min(beyond))
    return round((below + min(beyond)) / 2, 4)


def _losses(
    forward: Forward, examples: Sequence[Example], micro_batch_tokens: int
) -> dict[str, float]:
    """Nats per token of each example, by id."""
    scores = score_examples(forward, examples, micro_batch_tokens)
    return {score.id: score.nll / score.tokens for score in scores}


def _change(before: Mapping[str, float], after: Mapping[str, float]) -> Change:
    deltas = [after[name] - loss for name, loss in before.items()]
    n = len(deltas)
    if not n or not all(map(math.isfinite, deltas)):
        return Change(None, None, n)
    mean = sum(deltas) / n
    if n == 1:
        return Change(mean, None, n)
    variance = sum((delta - mean) ** 2 for delta in deltas) / (n - 1)
    return Change(mean, math.sqrt(variance / n), n)


def choose(points: Sequence[Point], budget: float) -> Point:
    """The largest gain on the task among the points that forget at most `budget`.

    `budget` is the mean rise of the retain loss in nats per token. Alpha 0, the base model, always
    qualifies, and is chosen where nothing else gains anything; of equal gains, the smallest alpha.
    """
    allowed = [
        point
        for point in points
        if point.alpha == 0 or (_at_most(point.retain, budget) and point.task.mean is not None)
    ]
    return min(allowed, key=lambda point: (_gain(point), point.alpha))


def _at_most(change: Change, budget: float) -> bool:
    return change.mean is not None and change.mean <= budget


def _gain(point: Point) -> float:
    """The change of the task loss; 0 for the base model, whatever it scored."""
    return point.task.mean if point.alpha and point.task.mean is not None else 0.0


# ------------------------------------------------------------------------- display


def points_table(
    points: Sequence[Point], alpha: float, budget: float, title: str = "blends"
) -> Table:
    """A sweep as a table, with the row of `alpha` marked as chosen."""
    table = Table(
        title=Text(printable(title)),
        title_justify="left",
        caption="change of the loss against the base model, in nats per token, ± standard error; "
        f"forgetting budget {budget:g}" + ("" if alpha else "; no blend gains anything within it"),
        caption_justify="left",
    )
    table.add_column("alpha", justify="right")
    table.add_column("task", justify="right")
    table.add_column("retain", justify="right")
    table.add_column("")
    for point in points:
        add_point(table, point, "chosen" if point.alpha == alpha else "")
    return table


def add_point(table: Table, point: Point, note: str) -> None:
    """A row of `points_table`."""
    name = {0.0: "0 (base)", 1.0: "1 (tuned)"}.get(point.alpha, f"{point.alpha:g}")
    style = "bold" if note.startswith("chosen") else ""
    table.add_row(name, change_text(point.task), change_text(point.retain), note, style=style)


def change_text(change: Change) -> str:
    """`-0.123 ± 0.045`."""
    if not change.n:
        return "not measured"
    if change.mean is None:
        return "not finite"
    return f"{change.mean:+.3f}" + (f" ± {change.se:.3f}" if change.se is not None else "")
