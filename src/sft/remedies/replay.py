"""Replay without anyone's data: texts of the base model, mixed into training against forgetting.

The base model writes an instruction from where a user's message starts, and then answers it
(Magpie, arXiv 2406.08464); where a template's user turn has no end that a model could write, it
just goes on writing. Training on such texts together with the task keeps what the model knew
(arXiv 2605.26097).

    ids         <|im_start|> user \\n  Name two <|im_end|>  \\n <|im_start|> assistant \\n  Red ...
    supervised  -            -    -   x    x   x           -  -            -         -   x
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from sft.data.rows.conversation import Origin
from sft.data.template.chat_template import ChatTemplate
from sft.data.tokenize import IGNORE_INDEX, Example
from sft.errors import DataError
from sft.probes.generate import continuations, seed_for
from sft.probes.retention import opening_ids

NAME = "replay"
_SENTINEL = "\ue0f5"  # a character of the private use area: no template writes it


def replay_examples(
    model: PreTrainedModel,
    template: ChatTemplate,
    tokenizer: Any,
    num: int,
    *,
    max_tokens: int,
    seed: int,
    source: int,
    batch: int = 16,
) -> list[Example]:
    """`num` texts of `model`, which is still the base model, as examples of source `source`.

    Sampled at temperature 1, at most `max_tokens` tokens each beside those of the template. Every
    token that the model itself wrote is supervised, and no other. The same seed gives the same
    texts; the global random state is left as it was.
    """
    opening, closing = opening_ids(template, tokenizer), _closing_ids(template, tokenizer)
    first = continuations(
        model,
        [opening] * num,
        max_tokens // 2 if closing else max_tokens,
        seed_for(seed, "replay instructions"),
        stop_ids=closing[:1],
        batch=batch,
    )
    # Ended by the model: the rest of what the template puts there is given, and it answers.
    asked = [i for i, ids in enumerate(first) if closing and ids[-1:] == closing[:1]]
    prompts = [[*opening, *first[i], *closing[1:]] for i in asked]
    answers = continuations(
        model,
        prompts,
        max_tokens - max_tokens // 2,
        seed_for(seed, "replay answers"),
        stop_ids=[template.facts.stop_id],
        batch=batch,
    )
    answer_of = dict(zip(asked, answers, strict=True))
    examples = []
    for i, written in enumerate(first):
        parts = [(opening, False), (written, True)]
        if i in answer_of:
            parts += [(closing[1:], False), (answer_of[i], True)]
        if written:
            examples.append(_example(i + 1, parts, tokenizer, source))
    return examples


def replay_weight(
    examples: Sequence[Example], weights: Sequence[float], num_replay: int, share: float
) -> float:
    """The weight of the replay source with which replay is `share` of the rows of an epoch.

    `examples` are the training rows without replay, `weights` those of their sources. With 0.1 one
    row in ten is replay, and an epoch has 1 / 0.9 times as many rows as before.
    """
    rows = sum(weights[example.source] for example in examples)
    return rows * share / (1 - share) / num_replay


def mixed(
    train: Sequence[Example], weights: Sequence[float], replay: Sequence[Example], share: float
) -> tuple[list[Example], list[float]]:
    """Training rows and source weights with `replay` as a further source, `share` of all rows."""
    if not replay or not share:
        return list(train), list(weights)
    replay = [replace(example, source=len(weights)) for example in replay]
    return [*train, *replay], [*weights, replay_weight(train, weights, len(replay), share)]


def _closing_ids(template: ChatTemplate, tokenizer: Any) -> list[int]:
    """From the token that ends a user's message to where the answer starts.

    Empty where no special token ends it: then it cannot be seen that the model has ended it.
    """
    messages = [{"role": "user", "content": _SENTINEL}]
    try:
        text = template.render(messages, generation_prompt=True).partition(_SENTINEL)[2]
    except DataError:
        return []
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return ids if ids and ids[0] in special else []


def _example(
    number: int, parts: Sequence[tuple[Sequence[int], bool]], tokenizer: Any, source: int
) -> Example:
    """An example of `parts`: token ids, and whether the model wrote them."""
    ids = np.array([token for part, _ in parts for token in part], dtype=np.int64)
    own = np.array([mine for part, mine in parts for _ in part])
    labels = np.where(np.append(own[1:], False), np.append(ids[1:], 0), IGNORE_INDEX)
    return Example(
        id=f"{NAME}:{number}",
        origin=Origin(NAME, number),
        source=source,
        input_ids=ids,
        labels=labels,
        weights=(labels != IGNORE_INDEX).astype(np.float32),
        num_bytes=len(tokenizer.decode(ids[own].tolist()).encode()),
    )
