"""Texts of the base model that training needs: to replay, and to stay near it on."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from sft.data.tokenize import Example
from sft.model.forward import Forward
from sft.probes.build import ProbeSource
from sft.probes.retention import BaseTexts, sampled
from sft.probes.self_samples import seed_for
from sft.remedies.anchor import Anchor
from sft.remedies.replay import replay_examples
from sft.terminal.console import Console

# At most so many for replay, of so many tokens; and for `retain_kl`.
MOST_REPLAY, REPLAY_TOKENS = 512, 96
NUM_ANCHORS = 32


def replay_texts(
    source: ProbeSource, model: PreTrainedModel, texts: BaseTexts, show: Console
) -> list[Example]:
    """Texts for `data.replay`; `model` must be the base model still, unless `texts` has them."""
    share = source.config.data.replay
    if not share:
        return []

    def generate() -> list[Example]:
        show.progress("writing texts for replay")
        return replay_examples(
            model,
            source.template,
            source.tokenizer,
            min(MOST_REPLAY, math.ceil(len(source.data.train) * share)),
            max_tokens=REPLAY_TOKENS,
            seed=source.config.run.seed,
            source=len(source.config.data.train),
        )

    return texts.get(texts.run.replay, generate)


def retain_penalty(source: ProbeSource, forward: Forward) -> Callable[[int], torch.Tensor] | None:
    """What `optim.retain_kl` adds to the objective; `forward` still holds the base model."""
    weight = source.config.optim.retain_kl
    if not weight:
        return None
    seed = seed_for(source.config.run.seed, "anchor")
    texts = sampled(
        forward.model, source.template, source.tokenizer, NUM_ANCHORS, seed=seed, name="anchor"
    )
    return Anchor(forward, texts, weight).loss
