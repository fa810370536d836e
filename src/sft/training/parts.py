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
from sft.curate.preflight import preflight
from sft.data.account import DataSet, account
from sft.data.example_views import example_views
from sft.data.mixing import Share
from sft.data.template.chat_template import ChatTemplate
from sft.disk import write_json
from sft.model.forward import Forward
from sft.model.load import set_stop_ids, stop_ids
from sft.model.losses import loss_named
from sft.probes.build import ProbeSource, build_probes
from sft.probes.evaluator import Evaluator
from sft.probes.pack import SCORING_COST, Probe
from sft.probes.retention import BaseTexts
from sft.runs.run_dir import RunDir
from sft.terminal.console import Console
from sft.training.identity import check_same_run, write_identity
from sft.training.state import Counters
from sft.training.tokens import Tokens


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
        return self.tokens.resolver.config

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
    source, config = tokens.probe_source(), tokens.resolver.config
    stops = stop_ids(model, source.tokenizer, *tokens.template.facts.stop_ids)
    set_stop_ids(model, source.tokenizer, stops)
    run = texts.run
    written = run.config.exists() and run.preflight.is_file()
    examined = examine(source, visits, show) if config.guards.enabled and not written else None
    show.progress("building the probes")
    probes = build_probes(source, model, texts, num_steps)
    forward = build_forward(config, model, dtype)
    return Parts(
        tokens=tokens,
        model=model,
        forward=forward,
        evaluator=Evaluator(forward, probes, config.batch.micro_batch_tokens),
        objective=objective_of(probes),
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


def objective_of(probes: Sequence[Probe]) -> str | None:
    """The metric that the best weights have the lowest value of; None when nothing is held out."""
    scored = {probe.name for probe in probes if probe.examples}
    return next((f"{name}_loss" for name in ("usage", "val") if name in scored), None)


def examine(source: ProbeSource, visits: int, show: Console) -> dict[str, Any]:
    """`preflight.json`: what the data are like; `visits` are the examples the run will see."""
    show.progress("examining the data")
    rows, used = source.data.split, {example.origin for example in source.data.train}
    train = [row for row in rows.train if row.origin in used]
    usage = [prompt.conversation for prompt in source.held_out.prompts]
    return preflight(train, rows.val, usage or None, visits=visits * source.data.sampled)
