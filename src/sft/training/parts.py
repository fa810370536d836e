"""The parts of a run that measure it: the same for `sft train` and for another trainer's callback.

Building them reads the run folder and writes nothing; `write_start` writes it all at once, after
everything that can be refused has been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel

from sft.config import Config
from sft.config.resolve import EVALS_PER_RUN
from sft.curate.preflight import preflight
from sft.data.account import DataSet, account
from sft.data.example_views import example_views
from sft.data.mixing import Share
from sft.data.rows.conversation import Origin
from sft.data.rows.problems import BadRows
from sft.data.template.chat_template import ChatTemplate
from sft.data.tokenize import Example, continuation, tokenize
from sft.disk import write_json
from sft.model.forward import Forward
from sft.model.load import set_stop_ids, stop_ids
from sft.model.losses import loss_named
from sft.probes.evaluator import Evaluator
from sft.probes.generate import generate, seed_for
from sft.probes.pack import SCORING_COST, Probe, choose, choose_sizes, val_probe
from sft.probes.retention import BaseTexts, sampled, user_texts
from sft.runs.run_dir import RunDir
from sft.terminal.console import Console
from sft.training.identity import check_same_run, write_identity
from sft.training.state import Counters
from sft.training.tokens import Tokens

# Tokens of the base model's completion that `usage_drift` is scored on.
DRIFT_TOKENS = 32


@dataclass
class Parts:
    """What evaluations are taken of, and with.

    `objective` names the metric that the best weights have the lowest value of: the loss on
    `usage` where it has answers, else on `val`, else None. `preflight` is what the data are like,
    None where it is written already or guards are off.
    """

    tokens: Tokens
    model: PreTrainedModel
    forward: Forward
    evaluator: Evaluator
    objective: str | None
    stop_ids: list[int]
    num_steps: int
    preflight: dict[str, Any] | None
    counters: Counters = field(default_factory=Counters)

    @property
    def config(self) -> Config:
        """The config with every `auto` decided that has been so far."""
        return self.tokens.config

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, with the chat template."""
        return self.tokens.tokenizer.tokenizer

    @property
    def template(self) -> ChatTemplate:
        """The chat template that the examples are written with."""
        return self.tokens.template

    @property
    def data(self) -> DataSet:
        """Examples to train and to validate on."""
        return self.tokens.data


def build_parts(
    tokens: Tokens,
    model: PreTrainedModel,
    dtype: torch.dtype,
    texts: BaseTexts,
    show: Console,
    *,
    num_steps: int,
    visits: int,
) -> Parts:
    """All of them. `model` is on its device and still the base model, unless `texts` has its texts.

    `visits` are the examples that the run will see; `model.attention` must be decided.
    """
    config, tokenizer = tokens.config, tokens.tokenizer.tokenizer
    stops = stop_ids(model, tokenizer, *tokens.template.facts.stop_ids)
    set_stop_ids(model, tokenizer, stops)
    run = texts.run
    written = run.config.exists() and run.preflight.is_file()
    examined = _examine(tokens, visits, show) if config.guards.enabled and not written else None
    show.progress("building the probes")
    probes = _build_probes(tokens, model, texts, num_steps)
    scored = {probe.name for probe in probes if probe.examples}
    forward = build_forward(config, model, dtype)
    return Parts(
        tokens=tokens,
        model=model,
        forward=forward,
        evaluator=Evaluator(forward, probes, config.batch.micro_batch_tokens),
        objective=next((f"{p}_loss" for p in ("usage", "val") if p in scored), None),
        stop_ids=stops,
        num_steps=num_steps,
        preflight=examined,
    )


def write_start(
    run: RunDir,
    parts: Parts,
    identity: Mapping[str, Any],
    texts: BaseTexts,
    show: Console,
    *,
    shares: Sequence[Share] = (),
    needed_bytes: int = 0,
) -> None:
    """Write what a run folder begins with, or check that it is this run's.

    Raises:
        CheckpointError: it holds another run.
        DiskError: there is no room for `needed_bytes` more.
    """
    check_same_run(run, identity, show)
    run.check_space(needed_bytes)
    texts.write()
    if parts.preflight is not None:
        write_json(run.preflight, parts.preflight)
    data, longest = parts.data, int(parts.config.data.max_seq_len)
    write_json(run.account, account(data, shares))
    write_json(run.examples, example_views(data.train, data.val, parts.tokenizer, longest))
    write_identity(run, identity)  # the last: from now on the folder is this run's


def eval_cost(parts: Parts, num_examples: int) -> float:
    """The work of an evaluation as a share of that of all steps."""
    train = parts.data.train
    tokens = sum(probe.num_tokens for probe in parts.evaluator.probes if probe.name != "test")
    mean = sum(example.num_tokens for example in train) / len(train)
    return tokens / (SCORING_COST * mean * num_examples)


def build_forward(config: Config, model: PreTrainedModel, dtype: torch.dtype) -> Forward:
    """The way through `model` that `config`, with its layout chosen, asks for."""
    return Forward(
        model,
        layout="flat" if config.model.attention == "flat" else "padded",
        loss=loss_named(config.optim.loss),
        neftune_alpha=config.optim.neftune_alpha,
        dtype=dtype,
    )


def _examine(tokens: Tokens, visits: int, show: Console) -> dict[str, Any]:
    """`preflight.json`: what the data are like; `visits` are the examples the run will see."""
    show.progress("examining the data")
    rows, used = tokens.data.split, {example.origin for example in tokens.data.train}
    train = [row for row in rows.train if row.origin in used]
    usage = tokens.held_out.prompts
    return preflight(train, rows.val, usage or None, visits=visits * tokens.data.sampled)


def _build_probes(
    tokens: Tokens, model: PreTrainedModel, texts: BaseTexts, num_steps: int
) -> list[Probe]:
    """All probes. `model` must still be the base model, unless `texts` has its own."""
    config, val = tokens.config, tokens.data.val
    if not config.guards.enabled:
        return [Probe("val", val, openings=False), Probe("test", tokens.held_out.test)]
    held_out, train = tokens.held_out, tokens.data.train
    mean = sum(example.num_tokens for example in train) / len(train)
    sizes = choose_sizes(
        train,
        val,
        held_out.usage,
        [len(ids) + DRIFT_TOKENS for ids in held_out.unanswered.values()],
        trained_tokens=mean * config.batch.examples * num_steps,
        budget=config.eval.budget,
        num_evals=EVALS_PER_RUN,
    )
    drift = texts.get(texts.run.drift, lambda: _drift(tokens, model, sizes.drift))
    retain = texts.get(texts.run.retain, lambda: _retain(tokens, model, sizes.retain))
    train = _completions_only(tokens)
    return [
        Probe("train_probe", choose(train, sizes.train_probe, "train_probe")),
        val_probe(train, val, sizes.val),
        Probe("usage", choose(held_out.usage, sizes.usage, "usage")),
        Probe("usage_drift", drift),
        Probe("retain", retain),
        Probe("test", held_out.test),
    ]


def _completions_only(tokens: Tokens) -> list[Example]:
    """The training rows with their answers supervised and nothing else, as in every other probe."""
    config = tokens.config.data
    if not config.prompt_weight:
        return tokens.data.train
    return tokenize(
        tokens.data.split.train,
        tokens.template,
        BadRows("skip"),
        max_seq_len=int(config.max_seq_len),
        overflow=config.overflow,
    ).examples


def _retain(tokens: Tokens, model: PreTrainedModel, num: int) -> list[Example]:
    """Half of it texts of the user's, if there are any; the rest sampled from the base model."""
    config = tokens.config
    own = user_texts(config.data, tokens.template, tokens.tokenizer.tokenizer, num // 2)
    samples = sampled(
        model,
        tokens.template,
        tokens.tokenizer.tokenizer,
        num - len(own),
        seed=seed_for(config.run.seed, "retain"),
        name="self",
    )
    return [*samples, *own]


def _drift(tokens: Tokens, model: PreTrainedModel, num: int) -> list[Example]:
    """Prompts without an answer, each with the base model's own."""
    unanswered = tokens.held_out.unanswered
    if not unanswered:
        return []
    names = list(unanswered)
    names = [names[i * len(names) // num] for i in range(num)]  # evenly spaced: files are sorted
    tokenizer = tokens.tokenizer.tokenizer
    stops = stop_ids(model, tokenizer, *tokens.template.facts.stop_ids)
    completions = generate(
        model,
        [unanswered[name] for name in names],
        max_new_tokens=DRIFT_TOKENS,
        stop_ids=stops,
    )
    examples = []
    for name, completion in zip(names, completions, strict=True):
        file, _, line = name.rpartition(":")
        ids = [*completion.ids, *(stops[:1] if completion.stop_reason == "stop" else ())]
        if ids:
            size = len(tokenizer.decode(completion.ids).encode())
            origin = Origin(file, int(line))
            examples.append(continuation(name, origin, unanswered[name], ids, size))
    return examples
