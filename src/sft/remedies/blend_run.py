"""`sft blend`: a finished run's model, blended with its base model to forget less."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from sft.config import Config, ModelConfig, read_config
from sft.data.account import Progress
from sft.data.dataset import load_data
from sft.data.held_out import load_held_out
from sft.data.template.chat_template import ChatTemplate
from sft.data.token_cache import TokenCache
from sft.data.tokenize import Example, fingerprint
from sft.disk import write_json
from sft.errors import ConfigError, DataError
from sft.evaluate.before_after import run_config, tuned_model
from sft.model import load
from sft.model.forward import Forward, Layout
from sft.model.save import NUM_VERIFIED, save_model, verify_model
from sft.model.starter import cache_folder
from sft.probes.pack import choose as choose_examples
from sft.probes.retention import load_texts, sampled
from sft.probes.self_samples import seed_for
from sft.probes.val_loss import score_examples
from sft.remedies.blend import (
    ALPHAS,
    BlendResult,
    Point,
    card,
    choose,
    interpolate,
    render,
    sweep,
    weights_of,
)
from sft.runs.run_dir import RunDir

__all__ = ["BlendResult", "blend", "render"]

# Rows the task is measured on; every alpha scores all of them.
MOST_ROWS = 128


@dataclass(frozen=True, slots=True)
class _Probes:
    """What a blend is chosen by, and what it is measured on once it is chosen."""

    task: list[Example]
    retain: list[Example]
    test: list[Example]


@dataclass(frozen=True, slots=True)
class _Model:
    """The model that is set to one blend after the other."""

    model: PreTrainedModel
    forward: Forward
    set_alpha: Callable[[float], None]
    saved_dtype: torch.dtype
    computed_dtype: torch.dtype


def blend(
    run: str | Path,
    *,
    budget: float | None = None,
    alphas: Sequence[float] = ALPHAS,
    to: str | Path | None = None,
    on_progress: Progress = lambda _what, _done, _total: None,
) -> BlendResult:
    """Blend the run's model with its base model, save the best blend, and say what it is worth.

    The task is measured on the run's usage rows with answers, else on its validation rows, and
    forgetting on its `retain` probe. `budget` is the largest mean rise of the loss on the latter,
    in nats per token; the run's own unless given. The model goes to `model-blend` in the run
    folder, or to the folder `to`, which must not exist yet.

    Raises:
        ConfigError: no such run, the run has no model or no probes, or `to` exists.
        DataError: the run's data is not what it was.
    """
    folder = RunDir.find(run)
    config = run_config(folder)
    tuned = tuned_model(folder, config)
    budget = config.guards.forgetting_budget if budget is None else budget
    target = _target(folder, to)
    _check(budget, alphas)
    tokenizer = load.load_tokenizer(tuned, str(folder.model), config.method.kind)
    template = ChatTemplate(tokenizer.tokenizer, config.data.tools)
    probes = _probes(folder, config, template, tokenizer.tokenizer, on_progress)
    on_progress("loading the models", 0, 0)
    blended = _load(folder, config, tuned, tokenizer)
    measure = partial(
        sweep,
        blended.set_alpha,
        blended.forward,
        micro_batch_tokens=config.batch.micro_batch_tokens,
        on_progress=on_progress,
    )
    points = measure(probes.task, probes.retain, alphas=alphas, budget=budget)
    chosen = choose(points, budget)
    test: list[Point] = []
    if probes.test:
        blended.set_alpha(0.0)  # new texts, because the old ones had a part in the choice
        seed = seed_for(config.run.seed, "blend test")
        new = partial(sampled, blended.model, template, tokenizer.tokenizer, len(probes.retain))
        ends = (chosen.alpha, 1.0)
        test = measure(probes.test, new(seed=seed, name="new"), alphas=ends)
        test = [point for point in test if point.alpha in ends]
    blended.set_alpha(chosen.alpha)
    result = BlendResult(
        run=str(folder.path),
        base_model=config.model.name,
        model_dir=str(target),
        budget=budget,
        alpha=chosen.alpha,
        points=points,
        test=test,
        verified="",
    )
    return _save(folder, result, blended, tokenizer.tokenizer, probes, on_progress)


def _target(folder: RunDir, to: str | Path | None) -> Path:
    """Where the blended model goes; only what an earlier blend left there is replaced."""
    if to is None:
        return folder.blended
    path = Path(to).expanduser()
    if path.exists():
        raise ConfigError(f"--to: {path} exists; nothing was changed; choose a new folder")
    return path


def _check(budget: float, alphas: Sequence[float]) -> None:
    if not budget >= 0:
        raise ConfigError(f"--budget: must be at least 0 nats per token, found {budget}")
    outside = [alpha for alpha in alphas if not 0 <= alpha <= 1]
    if outside or not alphas:
        raise ConfigError(f"alphas: expected numbers from 0 to 1, found {outside or 'none'}")


def _probes(
    folder: RunDir,
    config: Config,
    template: ChatTemplate,
    tokenizer: Any,
    on_progress: Progress,
) -> _Probes:
    """The probes of the run, read again from its data and its folder."""
    retain = load_texts(folder.retain)
    if not retain:
        raise ConfigError(
            f"{folder.path}: this run has no retain probe, so what a blend forgets cannot be "
            "measured; train with guards.enabled=true"
        )
    cache = TokenCache.of(config.data.cache, cache_folder() / "tokens", tokenizer)
    seed, num = config.run.seed, config.num_examples
    data = load_data(config.data, template, seed, on_progress, cache=cache, num_examples=num)
    held_out = load_held_out(config.data, template)
    task, name = (held_out.usage, "usage") if held_out.usage else (data.val, "val")
    if not task:
        raise ConfigError(
            f"{folder.path}: this run has no validation and no usage rows with answers, so what a "
            "blend gains cannot be measured; train with data.val or data.usage"
        )
    saved = _saved(folder, "fingerprint").get(name)
    if saved is not None and saved != fingerprint(task):
        raise DataError(
            f"{folder.path}: the {name} rows are not those that the run was measured on; put its "
            f"data files back ({', '.join(data.files | dict(held_out.files))})"
        )
    return _Probes(choose_examples(task, MOST_ROWS, name), retain, held_out.test)


def _saved(folder: RunDir, section: str) -> Mapping[str, Any]:
    part = read_config(folder.config).get(section)
    return part if isinstance(part, Mapping) else {}


def _load(
    folder: RunDir, config: Config, tuned: ModelConfig, tokenizer: load.TokenizerInfo
) -> _Model:
    """Both models in fp32, of which one is set to the blends.

    Raises:
        ConfigError: the base model is another one by now.
    """
    base_folder = load.model_folder(config.model)
    model = load.load_model(config.model, base_folder, tokenizer, dtype=torch.float32)
    found, base = load.fingerprint(model), weights_of(model)
    model = load.load_model(tuned, str(folder.model), tokenizer, dtype=torch.float32)
    ends = weights_of(model)
    # The fingerprint is of the weights as training held them, which for LoRA may be bf16.
    rounded = config.method.kind == "lora" and config.model.dtype == "bfloat16"
    same = rounded or _saved(folder, "fingerprint").get("model") in (None, found)
    if not same or {n: w.shape for n, w in base.items()} != {n: w.shape for n, w in ends.items()}:
        raise ConfigError(
            f"model.name: '{config.model.name}' is no longer the model that {folder.path} was "
            "trained from; put that one back"
        )
    on_cuda = torch.cuda.is_available()
    reduced = on_cuda and config.model.dtype == "bfloat16"
    computed = torch.bfloat16 if reduced else torch.float32
    model.to(torch.device("cuda" if on_cuda else "cpu"))
    layout: Layout = "flat" if config.model.attention == "flat" else "padded"
    return _Model(
        model=model,
        forward=Forward(model, layout=layout, dtype=computed),
        set_alpha=partial(interpolate, model, base, ends),
        saved_dtype=load.weights_dtype(config.model, base_folder),
        computed_dtype=computed,
    )


def _save(
    folder: RunDir,
    result: BlendResult,
    blended: _Model,
    tokenizer: Any,
    probes: _Probes,
    on_progress: Progress,
) -> BlendResult:
    """Write the model as it is now, load it again as others will, and write `blend.json`."""
    shortest = sorted(probes.task, key=lambda example: example.num_tokens)[:NUM_VERIFIED]
    expected = {e.id: e.nll for e in score_examples(blended.forward, shortest, 1)}
    target = Path(result.model_dir)
    size = blended.model.num_parameters()
    with RunDir.open(folder.path):
        on_progress("saving the model", 0, 0)
        target.parent.mkdir(parents=True, exist_ok=True)
        save_model(
            blended.model,
            tokenizer,
            target,
            folder.adapter,
            is_lora=False,
            dtype=blended.saved_dtype,
            card=card(result),
        )
        on_progress("verifying the model", 0, 0)
        blended.model.cpu()
        gc.collect()
        exact = blended.computed_dtype == torch.float32
        dtype = blended.saved_dtype if exact else torch.bfloat16
        verified = verify_model(target, shortest, expected, size, dtype)
        result = replace(result, verified=verified)
        write_json(folder.blend, asdict(result))
    return result
