"""Everything a run is made of, built in order from its config: tokenizer, data, model, state."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from sft.config import Config
from sft.config.resolve import Resolver
from sft.curate.choose_rows import choose_rows
from sft.curate.preflight import preflight
from sft.curate.usage_weights import importance
from sft.data.account import DataSet, account
from sft.data.batches import Batches
from sft.data.dataset import load_data
from sft.data.held_out import HeldOut, load_held_out
from sft.data.mixing import Share, source_weights
from sft.data.shown_examples import shown_examples
from sft.data.template.chat_template import ChatTemplate
from sft.data.token_cache import TokenCache
from sft.data.tokenize import Example
from sft.data.tokenize import fingerprint as data_fingerprint
from sft.disk import remove_path, write_json
from sft.errors import DivergedError
from sft.model import load
from sft.model.flops import ModelShape, model_shape
from sft.model.forward import Forward
from sft.model.lora import prepare_method, trained_parameters
from sft.model.losses import loss_named
from sft.model.self_check import check_layout
from sft.model.starter import cache_folder
from sft.probes.build import ProbeSource, build_probes
from sft.probes.evaluator import Evaluator
from sft.probes.pack import SCORING_COST, Probe
from sft.remedies.blend import weights_of
from sft.remedies.dropout import add_dropout
from sft.remedies.own_texts import replay_texts, retain_penalty
from sft.remedies.replay import mixed
from sft.runs.run_dir import RunDir
from sft.terminal.console import Console
from sft.training.identity import own_code, same_run
from sft.training.interrupt import StopFlag
from sft.training.optimizers import build_optimizer
from sft.training.state import Counters, TrainState, seed_everything


@dataclass(frozen=True, slots=True)
class Tokens:
    """What is known before any weight is loaded: the data as the model will see it."""

    resolver: Resolver
    folder: str
    tokenizer: load.TokenizerInfo
    template: ChatTemplate
    data: DataSet
    held_out: HeldOut


@dataclass(frozen=True, slots=True)
class Setup:
    """The parts of one run. `trained` is the peft model for LoRA, else `model`.

    `objective` names the metric that the best weights have the lowest value of: the loss on
    `usage` where it has answers, else on `val`, else None.
    """

    config: Config
    tokenizer: Any
    template: ChatTemplate
    data: DataSet
    model: PreTrainedModel
    trained: Any
    forward: Forward
    shape: ModelShape
    batches: Batches
    state: TrainState
    evaluator: Evaluator
    penalty: Callable[[int], torch.Tensor] | None
    base_weights: Callable[[], dict[str, torch.Tensor]]
    objective: str | None
    stop_ids: list[int]
    num_steps: int
    weights_dtype: torch.dtype
    device: torch.device

    @property
    def counters(self) -> Counters:
        """Where the run stands."""
        return self.state.counters

    @property
    def epoch(self) -> float:
        """Passes over the training examples so far."""
        return self.batches.epoch


def prepare_data(
    config: Config, show: Console, stopped: Callable[[], None] = lambda: None
) -> Tokens:
    """Tokenizer, template and examples; `sft check` needs no more."""
    resolver = Resolver(config)
    folder = load.model_folder(config.model, show.progress)
    model_config = load.load_config(config.model, folder)
    resolver.lengths(getattr(model_config.get_text_config(), "max_position_embeddings", None))
    resolver.method()
    tokenizer = load.load_tokenizer(config.model, folder, config.method.kind)
    template = ChatTemplate(tokenizer.tokenizer, config.data.tools)

    def progress(what: str, done: int, total: int) -> None:
        stopped()
        show.progress(what, done, total)

    rows = resolver.config.data
    notes: list[str] = []
    choose = partial(choose_rows, config=rows, seed=config.run.seed, note=notes.append)
    cache = TokenCache.of(rows.cache, cache_folder() / "tokens", tokenizer.tokenizer)
    seed, num_examples = config.run.seed, config.num_examples
    data = load_data(rows, template, seed, progress, choose, cache=cache, num_examples=num_examples)
    data = replace(data, notes=[*data.notes, *notes])
    held_out = load_held_out(resolver.config.data, template)
    return Tokens(resolver, folder, tokenizer, template, data, held_out)


def prepare(config: Config, run: RunDir, show: Console, stop: StopFlag) -> Setup:
    """Build all parts, write `config.yaml` and `account.json`, or check them when resuming.

    Raises:
        SFTError: something is missing, wrong, or not what the run was started with.
    """
    seed_everything(config.run.seed)
    tokens = prepare_data(config, show, stop.raise_before_training)
    resolver, data = tokens.resolver, tokens.data
    _tell(tokens, show)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = resolve_dtype(resolver, device)
    model, trained, base, stops = load_checked(tokens, device, dtype, show, stop)
    _forget_false_start(run)
    source = ProbeSource(
        resolver.config, data, tokens.held_out, tokens.template, tokens.tokenizer.tokenizer
    )
    replay = replay_texts(source, model, run, show)
    batches = build_batches(resolver.config, data, tokens.held_out, replay)
    num_steps = batches.num_steps(config.optim.epochs, config.optim.max_steps)
    visits = config.batch.examples * num_steps
    if config.guards.enabled and not run.preflight.is_file():
        write_json(run.preflight, examine(source, visits, show))
    show.progress("building the probes")
    probes = build_probes(source, model, run, num_steps)
    resolver.schedule(num_steps, _eval_cost(data, probes, visits))
    resolved = resolver.config
    parameters = trained_parameters(model)
    optimizer = build_optimizer(parameters, resolved.optim, float(resolved.optim.learning_rate))
    same_run(run, identity(resolver, tokens, base, num_steps), show)
    run.check_space(needed_bytes(model, parameters, resolved.checkpoint.keep))
    _write_account(run, tokens, batches.shares(resolved.data.train, visits), show)
    forward = build_forward(resolved, model, dtype)
    return Setup(
        config=resolved,
        tokenizer=tokens.tokenizer.tokenizer,
        template=tokens.template,
        data=data,
        model=model,
        trained=trained,
        forward=forward,
        shape=model_shape(model),
        batches=batches,
        state=TrainState(parameters, optimizer, batches),
        penalty=retain_penalty(source, forward),
        base_weights=partial(_base_weights, tokens),
        evaluator=Evaluator(forward, probes, config.batch.micro_batch_tokens),
        objective=objective_of(probes),
        stop_ids=stops,
        num_steps=num_steps,
        weights_dtype=load.weights_dtype(config.model, tokens.folder),
        device=device,
    )


def _tell(tokens: Tokens, show: Console) -> None:
    """What is worth knowing about the data before training starts."""
    for remark in tokens.data.remarks:
        show.note(remark)
    for note in (*tokens.data.notes, *tokens.held_out.notes):
        show.note(f"note: {note}", level="warning")


def _write_account(run: RunDir, tokens: Tokens, shares: Sequence[Share], show: Console) -> None:
    """`account.json` and `examples.json`, and what each source is of the run."""
    data, longest = tokens.data, int(tokens.resolver.config.data.max_seq_len)
    write_json(run.account, account(data, shares))
    shown = shown_examples(data.train, data.val, tokens.tokenizer.tokenizer, longest)
    write_json(run.examples, shown)
    for share in shares:
        show.note(share.line())


def _eval_cost(data: DataSet, probes: Sequence[Probe], num_examples: int) -> float:
    """The work of an evaluation as a share of that of all steps."""
    tokens = sum(probe.num_tokens for probe in probes if probe.name != "test")
    mean = sum(example.num_tokens for example in data.train) / len(data.train)
    return tokens / (SCORING_COST * mean * num_examples)


def objective_of(probes: Sequence[Probe]) -> str | None:
    """The metric that the best weights have the lowest value of; None when nothing is held out."""
    scored = {probe.name for probe in probes if probe.examples}
    return next((f"{name}_loss" for name in ("usage", "val") if name in scored), None)


def needed_bytes(
    model: PreTrainedModel, parameters: Mapping[str, torch.nn.Parameter], keep: int
) -> int:
    """Weights and two moments in fp32, for the kept, the best and the new; and the model."""
    trained = sum(parameter.numel() for parameter in parameters.values())
    return int(trained * 12 * (keep + 2) + 4 * model.num_parameters())


def build_forward(config: Config, model: PreTrainedModel, dtype: torch.dtype) -> Forward:
    """The way through `model` that `config`, with its layout chosen, asks for."""
    return Forward(
        model,
        layout="flat" if config.model.attention == "flat" else "padded",
        loss=loss_named(config.optim.loss),
        neftune_alpha=config.optim.neftune_alpha,
        dtype=dtype,
    )


def build_batches(
    config: Config, data: DataSet, held_out: HeldOut, replay: Sequence[Example] = ()
) -> Batches:
    """The order of the training examples, with their weights, and `replay` mixed in.

    Raises:
        ConfigError: rows are to be weighted by usage, and there is none.
    """
    weights = source_weights(config.data.train, data.train, config.data.temperature)
    prompts = [prompt.conversation for prompt in held_out.prompts]
    found = importance(data.split.train, prompts, config.data.usage_weighting)
    each = [*(found.get(e.origin, 1.0) for e in data.train), *[1.0] * len(replay)]
    train, weights = mixed(data.train, weights, replay, config.data.replay)
    return Batches(train, config.batch.examples, weights, config.run.seed, each if found else None)


def examine(source: ProbeSource, visits: int, show: Console) -> dict[str, Any]:
    """`preflight.json`: what the data are like; `visits` are the examples the run will see."""
    show.progress("examining the data")
    rows, used = source.data.split, {example.origin for example in source.data.train}
    train = [row for row in rows.train if row.origin in used]
    usage = [prompt.conversation for prompt in source.held_out.prompts]
    return preflight(train, rows.val, usage or None, visits=visits * source.data.sampled)


def _base_weights(tokens: Tokens) -> dict[str, torch.Tensor]:
    """All weights of the base model, loaded anew: the ones in memory have been trained."""
    config = tokens.resolver.config.model
    return weights_of(load.load_model(config, tokens.folder, tokens.tokenizer, dtype=torch.float32))


def _forget_false_start(run: RunDir) -> None:
    """Remove what an attempt left that failed before it began: it may be of other data."""
    if not run.config.exists():
        for path in (run.preflight, run.retain, run.replay, run.drift):
            remove_path(path)


def load_checked(
    tokens: Tokens, device: torch.device, dtype: torch.dtype, show: Console, stop: StopFlag
) -> tuple[PreTrainedModel, Any, str, list[int]]:
    """As `_build_model`, on its device, with its layout chosen and its dropout put in."""
    config, resolver = tokens.resolver.config, tokens.resolver
    show.progress("loading the model")
    model, trained, base, stops = _build_model(tokens, dtype)
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
    return model, trained, base, stops


def _check_finite(model: PreTrainedModel) -> None:
    """A base model that is broken would break whatever is measured on it."""
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise DivergedError(
                f"step 0: {name} of the base model is not finite, so nothing can be trained. "
                "Usual cause: a broken model file."
            )


def _build_model(tokens: Tokens, dtype: torch.dtype) -> tuple[PreTrainedModel, Any, str, list[int]]:
    """The model ready to train, what `prepare_method` made of it, the base's fingerprint, stops."""
    config, tokenizer = tokens.resolver.config, tokens.tokenizer.tokenizer
    # Frozen base weights need no fp32 master copy; trained ones do.
    stored = dtype if config.method.kind == "lora" else torch.float32
    model = load.load_model(config.model, tokens.folder, tokens.tokenizer, dtype=stored)
    base = load.fingerprint(model)
    stops = load.stop_ids(model, tokenizer, *tokens.template.facts.stop_ids)
    new_ids = tokenizer.convert_tokens_to_ids(list(tokens.tokenizer.new_tokens))
    return model, prepare_method(model, config.method, new_ids), base, stops


def resolve_dtype(resolver: Resolver, device: torch.device) -> torch.dtype:
    """The type of the arithmetic: that of `model.dtype`, by default what suits the device."""
    on_cuda = device.type == "cuda"
    resolver.fill(
        "model.dtype",
        "bfloat16" if on_cuda else "float32",
        "bf16 with fp32 master weights on CUDA" if on_cuda else "fp32 on CPU",
    )
    return torch.bfloat16 if resolver.config.model.dtype == "bfloat16" else torch.float32


def identity(
    resolver: Resolver, tokens: Tokens, base_fingerprint: str, num_steps: int
) -> dict[str, Any]:
    """What must not change when a run is continued, and what explains it."""
    return {
        "config": resolver.config.model_dump(mode="json"),
        "reasons": resolver.reasons,
        "sources": dict(resolver.config.sources),
        "num_steps": num_steps,
        "fingerprint": {
            "train": data_fingerprint(tokens.data.train),
            "val": data_fingerprint(tokens.data.val),
            "files": {**tokens.data.files, **tokens.held_out.files, **own_code(resolver.config)},
            "usage": data_fingerprint(tokens.held_out.usage),
            "test": data_fingerprint(tokens.held_out.test),
            "template": tokens.template.facts.sha256,
            "model": base_fingerprint,
        },
        "template": {
            "source": tokens.tokenizer.template_source,
            "stop_token": tokens.template.facts.stop_token,
            "tools_by": tokens.template.facts.tools_by,
        },
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
            "threads": torch.get_num_threads(),
        },
    }
