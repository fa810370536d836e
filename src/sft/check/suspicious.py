"""Rows that the base model finds too easy, too hard, or as easy without their prompt."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from sft.data.tokenize import IGNORE_INDEX, Example
from sft.guards.statistics import robust_z
from sft.probes.val_loss import Score, score_examples
from sft.terminal.console import Console
from sft.training.interrupt import StopFlag
from sft.training.parts import build_forward
from sft.training.setup import load_checked, resolve_dtype
from sft.training.tokens import Tokens

# Mean nats per token below which nothing is left to learn from a row.
EASY = 0.1
# Robust z (median and MAD) above which a row is not like the others.
HARD = 3.5
# Score a few rows before all: it tells the user how far along it is.
CHUNK = 16


@dataclass(frozen=True, slots=True)
class Suspicious:
    """One row. `loss` and `alone` are mean nats per token of its last answer, with and without
    what comes before it; `ifd` is exp(loss) / exp(alone).
    """

    row: str
    reason: str
    loss: float
    alone: float
    ifd: float
    tokens: int


def find_suspicious(tokens: Tokens, num_rows: int, console: Console) -> list[Suspicious] | None:
    """Score at most `num_rows` training rows with the base model, and rank what stands out.

    None when no row has an answer after a prompt, so that nothing can be scored.

    Instruction-following difficulty: IFD = PPL(answer | prompt) / PPL(answer). At 1 or above the
    prompt does not help to predict the answer, so the answer may not belong to it (Li et al. 2023,
    arXiv 2308.12032).
    """
    prompt_weight = tokens.resolver.config.data.prompt_weight
    answers = [last_answer(example, prompt_weight) for example in tokens.data.train]
    chosen = pick(list(filter(None, answers)), num_rows, tokens.resolver.config.run.seed)
    if not chosen:
        return None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = resolve_dtype(tokens.resolver, device)
    model, *_ = load_checked(tokens, device, dtype, console, StopFlag())
    config = tokens.resolver.config
    forward = build_forward(config, model, dtype)
    prefix = tokens.tokenizer.tokenizer.encode(
        tokens.template.facts.generation_prompt, add_special_tokens=False
    )
    with_prompt: dict[str, Score] = {}
    alone: dict[str, Score] = {}
    limit = config.batch.micro_batch_tokens
    for start in range(0, len(chosen), CHUNK):
        console.progress("scoring rows", min(start + CHUNK, len(chosen)), len(chosen))
        part = chosen[start : start + CHUNK]
        bare = [without_prompt(example, prefix) for example in part]
        with_prompt |= {score.id: score for score in score_examples(forward, part, limit)}
        alone |= {score.id: score for score in score_examples(forward, bare, limit)}
    return rank([(with_prompt[e.id], alone[e.id]) for e in chosen])


def pick(examples: Sequence[Example], num_rows: int, seed: int) -> list[Example]:
    """At most `num_rows` of `examples`, by chance, in their order."""
    if len(examples) <= num_rows:
        return list(examples)
    indices = sorted(random.Random(seed).sample(range(len(examples)), num_rows))
    return [examples[i] for i in indices]


def last_answer(example: Example, prompt_weight: float) -> Example | None:
    """The example with only its last answer supervised; None when nothing comes before that.

    Tokens of a weight above `prompt_weight` are answers.
    """
    trained = example.weights > prompt_weight
    if not trained.any():
        return None
    end = int(np.flatnonzero(trained)[-1]) + 1
    gaps = np.flatnonzero(~trained[:end])
    start = int(gaps[-1]) + 1 if len(gaps) else 0
    if not start:
        return None
    keep = np.zeros(len(trained), dtype=bool)
    keep[start:end] = True
    labels = np.where(keep, example.labels, IGNORE_INDEX)
    return replace(example, labels=labels, weights=keep.astype(np.float32))


def without_prompt(example: Example, prefix: Sequence[int]) -> Example:
    """The supervised answer of `example` after `prefix` alone, such as `<|im_start|>assistant`.

    Without a prefix, the token before the answer takes its place: something must be read for
    the first token to be predicted.
    """
    places = np.flatnonzero(example.labels != IGNORE_INDEX)
    start, end = int(places[0]) + 1, int(places[-1]) + 2  # of the answer within input_ids
    before = list(prefix) or [int(example.input_ids[start - 1])]
    answer = example.labels[places]
    ids = np.concatenate([np.asarray(before, dtype=np.int64), example.input_ids[start:end]])
    labels = np.full(len(ids), IGNORE_INDEX, dtype=np.int64)
    first = len(before) - 1
    labels[first : first + len(answer)] = answer
    weights = (labels != IGNORE_INDEX).astype(np.float32)
    return replace(example, input_ids=ids, labels=labels, weights=weights)


def rank(scores: Sequence[tuple[Score, Score]]) -> list[Suspicious]:
    """What stands out among pairs of scores (with the prompt, without it); the oddest first."""
    losses = np.array([given.nll / given.tokens for given, _ in scores])
    odd = robust_z(losses) if len(losses) else losses
    ranked: list[tuple[float, Suspicious]] = []
    for (given, bare), loss, z in zip(scores, losses.tolist(), odd.tolist(), strict=True):
        alone = bare.nll / bare.tokens
        ifd = float(np.exp(min(loss - alone, 50.0)))
        reason, weight = _reason(loss, ifd, z)
        if reason:
            row = Suspicious(given.id, reason, loss, alone, ifd, given.tokens)
            ranked.append((weight, row))
    return [row for _, row in sorted(ranked, key=lambda pair: -pair[0])]


def _reason(loss: float, ifd: float, z: float) -> tuple[str, float]:
    """Why a row stands out, and how much; empty when it does not."""
    if z > HARD:
        return "far harder than the others: is the answer wrong, cut or garbled?", z / HARD + 1
    if ifd >= 1:
        return "the prompt does not help to predict the answer: do they belong together?", ifd
    if loss < EASY:
        return "the model knows it already: nothing to learn, or it was trained on it", EASY - loss
    return "", 0.0
