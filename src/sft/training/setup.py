"""Everything a run is made of, built in order from its config: tokenizer, data, model, state."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel

from sft.config import Config
from sft.config.resolve import Resolver
from sft.curate.usage_weights import importance
from sft.data.account import DataSet
from sft.data.batches import Batches
from sft.data.held_out import HeldOut
from sft.data.mixing import source_weights
from sft.data.tokenize import Example
from sft.errors import DivergedError
from sft.model import load
from sft.model.flops import ModelShape, model_shape
from sft.model.forward import Forward
from sft.model.lora import prepare_method, trained_parameters
from sft.model.losses import loss_named
from sft.model.self_check import check_layout
from sft.probes.generate import seed_for
from sft.probes.retention import BaseTexts, sampled
from sft.remedies.anchor import Anchor
from sft.remedies.blend import weights_of
from sft.remedies.dropout import add_dropout
from sft.remedies.replay import mixed, replay_examples
from sft.runs.run_dir import RunDir
from sft.terminal.console import Console
from sft.training.identity import identity, own_code
from sft.training.interrupt import StopFlag
from sft.training.optimizers import build_checked_optimizer
from sft.training.parts import Parts, build_parts, eval_cost, write_start
from sft.training.schedules import Schedule, schedule_named
from sft.training.state import TrainState, seed_everything
from sft.training.tokens import Tokens, prepare_data

# At most so many texts for `data.replay`, of so many tokens; and texts for `optim.retain_kl`.
MOST_REPLAY, REPLAY_TOKENS = 512, 96
NUM_ANCHORS = 32


@dataclass
class Setup(Parts):
    """All parts of a run that sft trains. `trained` is the peft model for LoRA, else `model`."""

    trained: Any = None
    shape: ModelShape = field(kw_only=True)
    batches: Batches = field(kw_only=True)
    state: TrainState = field(kw_only=True)
    schedule: Schedule = field(kw_only=True)
    penalty: Callable[[int], torch.Tensor] | None = None
    weights_dtype: torch.dtype = torch.float32

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def base_weights(self) -> dict[str, torch.Tensor]:
        """All weights of the base model, loaded anew: the ones in memory have been trained."""
        tokens, config = self.tokens, self.config.model
        model = load.load_model(config, tokens.folder, tokens.tokenizer, dtype=torch.float32)
        return weights_of(model)


def prepare(config: Config, run: RunDir, show: Console, stop: StopFlag) -> Setup:
    """Build all parts, then write what the run folder begins with, or check it when resuming.

    Raises:
        SFTError: something is missing, wrong, or not what the run was started with.
    """
    seed_everything(config.run.seed)
    own_code(config)  # what the user names is refused before the data is read
    loss_named(config.optim.loss)
    schedule = schedule_named(config.optim.schedule)
    tokens = prepare_data(config, show, stop.raise_before_training)
    resolver, texts = tokens.resolver, BaseTexts(run)
    _show_notes(tokens, show)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = resolve_dtype(resolver, device)
    model, trained, base = load_checked(tokens, device, dtype, show, stop)
    replay = replay_texts(tokens, model, texts, show)
    batches = build_batches(resolver.config, tokens.data, tokens.held_out, replay)
    num_steps = batches.num_steps(config.optim.epochs, config.optim.max_steps)
    visits = config.batch.examples * num_steps
    parts = build_parts(tokens, model, dtype, texts, show, num_steps=num_steps, visits=visits)
    resolver.schedule(num_steps, eval_cost(parts, visits))
    parameters = trained_parameters(model)
    optimizer = build_checked_optimizer(parameters, resolver.config.optim)
    shares = batches.shares(resolver.config.data.train, visits)
    write_start(
        run,
        parts,
        identity(tokens, base, num_steps),
        texts,
        show,
        shares=shares,
        needed_bytes=needed_bytes(model, parameters, resolver.config.checkpoint.keep),
    )
    for share in shares:
        show.note(share.line())
    return Setup(
        **vars(parts),
        trained=trained,
        shape=model_shape(model),
        batches=batches,
        state=TrainState(parameters, optimizer, batches, parts.counters),
        schedule=schedule,
        penalty=retain_penalty(tokens, parts.forward),
        weights_dtype=load.weights_dtype(config.model, tokens.folder),
    )


def _show_notes(tokens: Tokens, show: Console) -> None:
    """What is worth knowing about the data before training starts."""
    for remark in tokens.data.remarks:
        show.note(remark)
    for note in (*tokens.data.notes, *tokens.held_out.notes):
        show.note(f"note: {note}", level="warning")


def needed_bytes(
    model: PreTrainedModel, parameters: Mapping[str, torch.nn.Parameter], keep: int
) -> int:
    """Weights and two moments in fp32, for the kept, the best and the new; and the model."""
    trained = sum(parameter.numel() for parameter in parameters.values())
    return int(trained * 12 * (keep + 2) + 4 * model.num_parameters())


def build_batches(
    config: Config, data: DataSet, held_out: HeldOut, replay: Sequence[Example] = ()
) -> Batches:
    """The order of the training examples, with their weights, and `replay` mixed in.

    Raises:
        ConfigError: rows are to be weighted by usage, and there is none.
    """
    weights = source_weights(config.data.train, data.train, config.data.temperature)
    prompts = held_out.prompts
    by_row = importance(data.split.train, prompts, config.data.usage_weighting)
    each = [*(by_row.get(e.origin, 1.0) for e in data.train), *[1.0] * len(replay)]
    train, weights = mixed(data.train, weights, replay, config.data.replay)
    return Batches(train, config.batch.examples, weights, config.run.seed, each if by_row else None)


def replay_texts(
    tokens: Tokens, model: PreTrainedModel, texts: BaseTexts, show: Console
) -> list[Example]:
    """Texts for `data.replay`; `model` must be the base model still, unless `texts` has them."""
    config = tokens.config
    if not config.data.replay:
        return []

    def generate() -> list[Example]:
        show.progress("writing texts for replay")
        return replay_examples(
            model,
            tokens.template,
            tokens.tokenizer.tokenizer,
            min(MOST_REPLAY, math.ceil(len(tokens.data.train) * config.data.replay)),
            max_tokens=REPLAY_TOKENS,
            seed=config.run.seed,
            source=len(config.data.train),
        )

    return texts.get(texts.run.replay, generate)


def retain_penalty(tokens: Tokens, forward: Forward) -> Callable[[int], torch.Tensor] | None:
    """What `optim.retain_kl` adds to the objective; `forward` still holds the base model."""
    weight, tokenizer = tokens.config.optim.retain_kl, tokens.tokenizer.tokenizer
    if not weight:
        return None
    seed = seed_for(tokens.config.run.seed, "anchor")
    texts = sampled(
        forward.model, tokens.template, tokenizer, NUM_ANCHORS, seed=seed, name="anchor"
    )
    return Anchor(forward, texts, weight).loss


def load_checked(
    tokens: Tokens, device: torch.device, dtype: torch.dtype, show: Console, stop: StopFlag
) -> tuple[PreTrainedModel, Any, str]:
    """As `_build_model`, on its device, with its layout chosen and its dropout put in."""
    config, resolver = tokens.resolver.config, tokens.resolver
    show.progress("loading the model")
    model, trained, base = _build_model(tokens, dtype)
    _check_finite(model)
    model.to(device)
    stop.raise_before_training()
    show.progress("checking that flat equals padded")
    check = check_layout(model, tokens.data.train, device, dtype, config.model.attention)
    resolver.fill("model.attention", check.layout, check.reason)
    show.note(
        f"{check.layout} batches: {check.reason}",
        level="info" if check.layout == "flat" else "warning",
    )
    stop.raise_before_training()
    add_dropout(model, config.optim.dropout)
    return model, trained, base


def _check_finite(model: PreTrainedModel) -> None:
    """A base model that is broken would break whatever is measured on it."""
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise DivergedError(
                f"step 0: {name} of the base model is not finite, so nothing can be trained. "
                "Usual cause: a broken model file."
            )


def _build_model(tokens: Tokens, dtype: torch.dtype) -> tuple[PreTrainedModel, Any, str]:
    """The model ready to train, what `prepare_method` made of it, and the base's fingerprint."""
    config, tokenizer = tokens.resolver.config, tokens.tokenizer.tokenizer
    # Frozen base weights need no fp32 master copy; trained ones do.
    stored = dtype if config.method.kind == "lora" else torch.float32
    model = load.load_model(config.model, tokens.folder, tokens.tokenizer, dtype=stored)
    base = load.fingerprint(model)
    stops = load.stop_ids(model, tokenizer, *tokens.template.facts.stop_ids)
    load.set_stop_ids(model, tokenizer, stops)  # before it writes any text
    new_ids = tokenizer.convert_tokens_to_ids(list(tokens.tokenizer.new_tokens))
    return model, prepare_method(model, config.method, new_ids), base


def resolve_dtype(resolver: Resolver, device: torch.device) -> torch.dtype:
    """The type of the arithmetic: that of `model.dtype`, by default what suits the device."""
    on_cuda = device.type == "cuda"
    resolver.fill(
        "model.dtype",
        "bfloat16" if on_cuda else "float32",
        "bf16 with fp32 master weights on CUDA" if on_cuda else "fp32 on CPU",
    )
    return torch.bfloat16 if resolver.config.model.dtype == "bfloat16" else torch.float32
