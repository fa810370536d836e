"""`sft blend`: a finished run's model, blended with its base model to forget less."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
import yaml
from rich.table import Table

from sft.data.account import Progress
from sft.data.dataset import load_data
from sft.data.held_out import load_held_out
from sft.data.token_cache import TokenCache
from sft.data.tokenize import Example, fingerprint
from sft.disk import write_json
from sft.errors import ConfigError, DataError
from sft.evaluate.finished_run import FinishedRun, open_run
from sft.model import load
from sft.model.forward import Forward
from sft.model.save import NUM_VERIFIED, save_model, verify_model
from sft.model.starter import cache_folder
from sft.probes.generate import seed_for
from sft.probes.pack import choose as choose_examples
from sft.probes.retention import load_texts, sampled
from sft.probes.val_loss import score_examples
from sft.remedies.blend import (
    ALPHAS,
    Point,
    add_point,
    change_text,
    choose,
    interpolate,
    points_table,
    sweep,
    weights_of,
)
from sft.runs.run_dir import RunDir
from sft.texts.markdown import code, text

# Rows the task is measured on; every alpha scores all of them.
MOST_ROWS = 128


@dataclass(frozen=True, slots=True)
class BlendResult:
    """What `sft blend` measured and saved; also `blend.json` in the run folder.

    `points` led to the choice of `alpha`. `test` are the chosen and the tuned model on examples
    that had no part in it; empty where there are none.
    """

    run: str
    base_model: str
    model_dir: str
    budget: float
    alpha: float
    points: list[Point]
    test: list[Point]
    verified: str = ""


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
    opened = open_run(run)
    config, tokenizer = opened.config, opened.tokenizer.tokenizer
    budget = config.guards.forgetting_budget if budget is None else budget
    target = _target(opened.folder, to)
    _check(budget, alphas)
    task, retain, rows = _probes(opened, on_progress)
    on_progress("loading the models", 0, 0)
    forward, set_alpha = _load(opened)
    measure = partial(
        sweep,
        set_alpha,
        forward,
        micro_batch_tokens=config.batch.micro_batch_tokens,
        on_progress=on_progress,
    )
    points = measure(task, retain, alphas=alphas, budget=budget)
    alpha = choose(points, budget).alpha
    test: list[Point] = []
    if rows:
        set_alpha(0.0)  # new texts, because the old ones had a part in the choice
        seed, num = seed_for(config.run.seed, "blend test"), len(retain)
        new = sampled(forward.model, opened.template, tokenizer, num, seed=seed, name="new")
        test = [p for p in measure(rows, new, alphas=(alpha, 1.0)) if p.alpha in (alpha, 1.0)]
    set_alpha(alpha)
    result = BlendResult(
        str(opened.folder.path), config.model.name, str(target), budget, alpha, points, test
    )
    return _save(opened, result, forward, task, on_progress)


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
    run: FinishedRun, on_progress: Progress
) -> tuple[list[Example], list[Example], list[Example]]:
    """Task, `retain` and `test`, read again from the data of the run and from its folder."""
    config, folder = run.config, run.folder
    retain = load_texts(folder.retain)
    if not retain:
        raise ConfigError(
            f"{folder.path}: this run has no retain probe, so what a blend forgets cannot be "
            "measured; train with guards.enabled=true"
        )
    tokens = cache_folder() / "tokens"
    cache = TokenCache.of(config.data.cache, tokens, run.tokenizer.tokenizer)
    seed, num = config.run.seed, config.num_examples
    data = load_data(config.data, run.template, seed, on_progress, cache=cache, num_examples=num)
    held_out = load_held_out(config.data, run.template)
    task, name = (held_out.usage, "usage") if held_out.usage else (data.val, "val")
    if not task:
        raise ConfigError(
            f"{folder.path}: this run has no validation and no usage rows with answers, so what a "
            "blend gains cannot be measured; train with data.val or data.usage"
        )
    if run.fingerprint.get(name) not in (None, fingerprint(task)):
        raise DataError(
            f"{folder.path}: the {name} rows are not those that the run was measured on; put its "
            f"data files back ({', '.join(data.files | dict(held_out.files))})"
        )
    return choose_examples(task, MOST_ROWS, name), retain, held_out.test


def _load(run: FinishedRun) -> tuple[Forward, Callable[[float], None]]:
    """The tuned model in fp32, and what sets it to a blend.

    Raises:
        ConfigError: the base model is another one by now.
    """
    config = run.config
    folder = load.model_folder(config.model)
    model = load.load_model(config.model, folder, run.tokenizer, dtype=torch.float32)
    fingerprint, base = load.fingerprint(model), weights_of(model)
    model = load.load_model(run.tuned, str(run.folder.model), run.tokenizer, dtype=torch.float32)
    tuned = weights_of(model)
    # The fingerprint is of the weights as they were in training, which for LoRA may be bf16.
    rounded = config.method.kind == "lora" and config.model.dtype == "bfloat16"
    same = rounded or run.fingerprint.get("model") in (None, fingerprint)
    if not same or {n: w.shape for n, w in base.items()} != {n: w.shape for n, w in tuned.items()}:
        raise ConfigError(
            f"model.name: '{config.model.name}' is no longer the model that {run.folder.path} was "
            "trained from; put that one back"
        )
    on_cuda = torch.cuda.is_available()
    model.to(torch.device("cuda" if on_cuda else "cpu"))
    forward = Forward(
        model,
        layout="flat" if config.model.attention == "flat" else "padded",
        dtype=torch.bfloat16 if on_cuda and config.model.dtype == "bfloat16" else torch.float32,
    )
    return forward, partial(interpolate, model, base, tuned)


def _save(
    run: FinishedRun,
    result: BlendResult,
    forward: Forward,
    task: Sequence[Example],
    on_progress: Progress,
) -> BlendResult:
    """Write the model as it is now, load it again as others will, and write `blend.json`."""
    model, target = forward.model, Path(result.model_dir)
    shortest = sorted(task, key=lambda example: example.num_tokens)[:NUM_VERIFIED]
    expected = {e.id: e.nll for e in score_examples(forward, shortest, 1)}
    base = run.config.model
    dtype = load.weights_dtype(base, load.model_folder(base))
    with RunDir.open(run.folder.path) as folder:
        on_progress("saving the model", 0, 0)
        target.parent.mkdir(parents=True, exist_ok=True)
        save_model(
            model,
            run.tokenizer.tokenizer,
            target,
            folder.adapter,
            is_lora=False,
            dtype=dtype,
            card=card(result),
        )
        on_progress("verifying the model", 0, 0)
        model.cpu()
        gc.collect()
        exact = dtype if forward.dtype == torch.float32 else torch.bfloat16
        verified = verify_model(target, shortest, expected, model.num_parameters(), exact)
        result = replace(result, verified=verified)
        write_json(folder.blend, asdict(result))
    return result


def card(result: BlendResult) -> str:
    """`README.md` of the blended model, as Markdown with the YAML header that model hubs read."""
    chosen = next(point for point in result.points if point.alpha == result.alpha)
    rows = [("task", chosen.task), ("retain", chosen.retain)]
    for point in result.test:
        if point.alpha == result.alpha:
            rows += [("task, test rows", point.task), ("retain, new texts", point.retain)]
    table = "\n".join(f"| {name} | {change_text(change)} | {change.n} |" for name, change in rows)
    head = {
        "base_model": result.base_model,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["sft", "merge"],
    }
    return f"""---
{yaml.safe_dump(head, sort_keys=False)}---
# {text(result.base_model)}, fine-tuned and blended

The weights are (1 - alpha) * base + alpha * tuned with alpha = {result.alpha:g}: between
{code(result.base_model)} and the model that was fine-tuned from it with sft. Alpha was chosen as
the one with the largest gain on the task whose loss on what the base model knew (`retain`) rises by
at most {result.budget:g} nats per token.

| change of the loss against the base model, nats per token | mean ± standard error | examples |
|---|---|---|
{table}
"""


def render(result: BlendResult) -> Table:
    """The sweep as a table, the chosen row marked, and the chosen one on held-out examples."""
    title = f"{result.run}: blends of {result.base_model}"
    table = points_table(result.points, result.alpha, result.budget, title)
    if result.test:
        table.add_section()
    for point in result.test:
        add_point(table, point, "chosen, on test" if point.alpha == result.alpha else "on test")
    return table
