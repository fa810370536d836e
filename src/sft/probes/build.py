"""The probe pack of a run, built before the first step, from its data and its base model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from sft.config import Config
from sft.config.resolve import EVALS_PER_RUN
from sft.data.account import DataSet
from sft.data.held_out import HeldOut
from sft.data.rows.conversation import Origin
from sft.data.rows.problems import BadRows
from sft.data.template.chat_template import ChatTemplate
from sft.data.tokenize import Example, continuation, tokenize
from sft.model.load import stop_ids
from sft.probes.generate import generate
from sft.probes.pack import Probe, Sizes, choose, choose_sizes, val_probe
from sft.probes.retention import BaseTexts, sampled, user_texts
from sft.probes.self_samples import seed_for

# Tokens of the base model's answer that `usage_drift` is scored on.
DRIFT_TOKENS = 32


@dataclass(frozen=True, slots=True)
class ProbeSource:
    """What probes are made of."""

    config: Config
    data: DataSet
    held_out: HeldOut
    template: ChatTemplate
    tokenizer: Any


def build_probes(
    source: ProbeSource, model: PreTrainedModel, texts: BaseTexts, num_steps: int
) -> list[Probe]:
    """All probes. `model` must still be the base model, unless `texts` has its own."""
    config, val = source.config, source.data.val
    if not config.guards.enabled:
        return [Probe("val", val, openings=False), Probe("test", source.held_out.test)]
    sizes = probe_sizes(config, source.data, source.held_out, num_steps)
    train = _answers(source)
    files = texts.run
    drift = texts.get(files.drift, lambda: _drift(source, model, sizes.drift))
    retain = texts.get(files.retain, lambda: _retain(source, model, sizes.retain))
    return [
        Probe("train_probe", choose(train, sizes.train_probe, "train_probe")),
        val_probe(train, val, sizes.val),
        Probe("usage", choose(source.held_out.usage, sizes.usage, "usage")),
        Probe("usage_drift", drift),
        Probe("retain", retain),
        Probe("test", source.held_out.test),
    ]


def _answers(source: ProbeSource) -> list[Example]:
    """The training rows with their answers supervised and nothing else, as in every other probe."""
    config = source.config.data
    if not config.prompt_weight:
        return source.data.train
    return tokenize(
        source.data.split.train,
        source.template,
        BadRows("skip"),
        max_seq_len=int(config.max_seq_len),
        overflow=config.overflow,
    ).examples


def probe_sizes(config: Config, data: DataSet, held_out: HeldOut, num_steps: int) -> Sizes:
    """Rows per probe, from the budget for evaluations."""
    mean = sum(example.num_tokens for example in data.train) / len(data.train)
    return choose_sizes(
        data.train,
        data.val,
        held_out.usage,
        [len(ids) + DRIFT_TOKENS for ids in held_out.unanswered.values()],
        trained_tokens=mean * config.batch.examples * num_steps,
        budget=config.eval.budget,
        num_evals=EVALS_PER_RUN,
    )


def _retain(source: ProbeSource, model: PreTrainedModel, num: int) -> list[Example]:
    """Half of it texts of the user's, if there are any; the rest sampled from the base model."""
    config = source.config
    own = user_texts(config.data, source.template, source.tokenizer, num // 2)
    samples = sampled(
        model,
        source.template,
        source.tokenizer,
        num - len(own),
        seed=seed_for(config.run.seed, "retain"),
        name="self",
    )
    return [*samples, *own]


def _drift(source: ProbeSource, model: PreTrainedModel, num: int) -> list[Example]:
    """Prompts without an answer, each with the base model's own."""
    unanswered = source.held_out.unanswered
    if not unanswered:
        return []
    names = list(unanswered)
    names = [names[i * len(names) // num] for i in range(num)]  # evenly spaced: files are sorted
    stops = stop_ids(model, source.tokenizer, *source.template.facts.stop_ids)
    answers = generate(
        model,
        [unanswered[name] for name in names],
        max_new_tokens=DRIFT_TOKENS,
        stop_ids=stops,
        pad_id=stops[0],
    )
    examples = []
    for name, answer in zip(names, answers, strict=True):
        file, _, line = name.rpartition(":")
        ids = [*answer.ids, *(stops[:1] if answer.stop_reason == "stop" else ())]
        if ids:
            size = len(source.tokenizer.decode(answer.ids).encode())
            origin = Origin(file, int(line))
            examples.append(continuation(name, origin, unanswered[name], ids, size))
    return examples
