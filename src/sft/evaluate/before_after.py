"""Base model and tuned model on the same rows: same template, same prompts, same measures."""

from __future__ import annotations

import gc
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from sft.config import Config, ModelConfig, SourceConfig, load_config, read_config
from sft.data.account import Progress
from sft.data.rows.conversation import Origin
from sft.data.rows.problems import BadRows
from sft.data.rows.read import read_conversations
from sft.data.template.chat_template import ChatTemplate
from sft.data.tokenize import Example, last_turn, tokenize
from sft.disk import write_json
from sft.errors import ConfigError, DataError
from sft.evaluate.result import Answer, Compared, Evaluation, RowAnswers, render
from sft.evaluate.tasks import TASKS, Measure, choose_task, mean_share
from sft.model.forward import Forward, Layout
from sft.model.load import TokenizerInfo, load_tokenizer, model_folder, stop_ids
from sft.probes.generate import generate, load_for_answers
from sft.probes.val_loss import score_examples, summarize
from sft.runs.run_dir import RunDir

__all__ = ["Evaluation", "evaluate", "render"]

# Answers may be so many times as long as the longest reference, when nothing else is asked for.
ROOM_FOR_ANSWERS = 1.5
# What reasoning models write first; servers cut it off, and so does the comparison.
_REASONING = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The examples to score, and of each row the last turn to answer."""

    examples: list[Example]
    ids: list[str]
    prompts: list[list[int]]
    references: list[list[int]]
    files: dict[str, str]
    notes: list[str]


@dataclass(frozen=True, slots=True)
class _Job:
    """What both models are to do."""

    config: Config
    tokenizer: TokenizerInfo
    stop_id: int
    rows: _Rows
    max_new_tokens: int
    on_progress: Progress


def evaluate(
    run: str | Path,
    data: Sequence[SourceConfig],
    *,
    task: str = "auto",
    max_rows: int | None = None,
    max_new_tokens: int | None = None,
    on_progress: Progress = lambda _what, _done, _total: None,
) -> Evaluation:
    """Measure the run's base model and its tuned model on `data`, and write the result to the run.

    `max_rows` are taken evenly spaced. `max_new_tokens` is 1.5 times the longest reference
    unless given. Answers are greedy, to the last assistant turn of each row.

    Raises:
        ConfigError: no such run, task or model, or the run has no model yet.
        DataError: the data cannot be read, or a row has no assistant message.
    """
    folder = RunDir.find(run)
    config = run_config(folder)
    tuned = tuned_model(folder, config)
    tokenizer = load_tokenizer(tuned, str(folder.model), config.method.kind)
    template = ChatTemplate(tokenizer.tokenizer, config.data.tools)
    on_progress("reading", 0, 0)
    rows = _read(config, data, template, max_rows)
    references = [_text(tokenizer.tokenizer, ids) for ids in rows.references]
    task = choose_task(task, references)
    longest = max(len(ids) for ids in rows.references) + 1  # and the stop token
    limit = max_new_tokens or math.ceil(ROOM_FOR_ANSWERS * longest)
    job = _Job(config, tokenizer, template.facts.stop_id, rows, limit, on_progress)
    measures, answers = {}, {}
    for side, model in (("base", config.model), ("tuned", tuned)):
        measures[side], answers[side] = _measure(job, side, model)
        measures[side] |= TASKS[task].score([a.text for a in answers[side]], references)
    result = Evaluation(
        run=str(folder.path),
        data=[source.path for source in data],
        files=rows.files,
        base_model=config.model.name,
        tuned_model=tuned.name,
        task=task,
        how=TASKS[task].describe(references),
        notes=rows.notes,
        num_rows=len(rows.ids),
        max_new_tokens=limit,
        measures={n: _compare(m, measures["tuned"][n]) for n, m in measures["base"].items()},
        rows=_side_by_side(job, answers["base"], answers["tuned"], references),
    )
    write_json(folder.evaluation(_name(data)), asdict(result))
    return result


def run_config(run: RunDir) -> Config:
    """The resolved config of a run.

    Raises:
        ConfigError: `config.yaml` is not one that training wrote.
    """
    saved = read_config(run.config).get("config")
    if not isinstance(saved, dict):
        raise ConfigError(f"{run.config}: has no `config:`; it was not written by a run")
    return load_config(saved)


def tuned_model(run: RunDir, config: Config) -> ModelConfig:
    """The model that a run has made, with the template it was trained with.

    Raises:
        ConfigError: there is none yet.
    """
    if not (run.model / "config.json").is_file():
        raise ConfigError(
            f"{run.path}: this run has no model yet (expected {run.model}); let it finish first"
        )
    changes = {"name": str(run.model), "revision": None, "template": "auto"}
    return config.model.model_copy(update=changes)


def _name(data: Sequence[SourceConfig]) -> str:
    stems = "+".join(Path(source.path).stem for source in data)
    return re.sub(r"[^\w.+-]+", "-", stems)[:100]


# ------------------------------------------------------------------------- rows


def _read(
    config: Config, data: Sequence[SourceConfig], template: ChatTemplate, max_rows: int | None
) -> _Rows:
    policy = config.data.on_bad_row
    loaded = read_conversations(data, policy)
    conversations = loaded.conversations
    if max_rows is not None and max_rows < len(conversations):
        # Evenly spaced: the first ones of a sorted file would all be of one kind.
        spread = [i * len(conversations) // max_rows for i in range(max_rows)]
        conversations = [conversations[i] for i in spread]
    bad = BadRows(policy)
    tokenized = tokenize(
        conversations, template, bad, max_seq_len=int(config.data.max_seq_len), overflow="drop"
    )
    bad.raise_if_any(len(conversations))
    if not tokenized.examples:
        reason = tokenized.fates[0].reason if tokenized.fates else bad.table()
        raise DataError(f"no row of {len(conversations):,} can be used: {reason}")
    last: dict[Origin, Example] = {example.origin: example for example in tokenized.examples}
    turns = [last_turn(example) for example in last.values()]
    return _Rows(
        examples=tokenized.examples,
        ids=[str(origin) for origin in last],
        prompts=[prompt for prompt, _ in turns],
        references=[reference for _, reference in turns],
        files=loaded.files,
        notes=_notes(config, data, loaded.num_bad + bad.count, len(tokenized.fates)),
    )


def _notes(
    config: Config, data: Sequence[SourceConfig], num_bad: int, num_dropped: int
) -> list[str]:
    notes = []
    trained = {Path(source.path).resolve() for source in config.data.train}
    if any(Path(source.path).resolve() in trained for source in data):
        notes.append("this data was trained on: it shows what was memorised, not what was learned")
    if num_bad:
        notes.append(f"{num_bad:,} rows cannot be used and were left out")
    if num_dropped:
        notes.append(
            f"{num_dropped:,} rows are longer than data.max_seq_len ({config.data.max_seq_len} "
            "tokens) and were left out"
        )
    return notes


# ------------------------------------------------------------------------- one model


def _measure(
    job: _Job, side: str, model_config: ModelConfig
) -> tuple[dict[str, Measure], list[Answer]]:
    """Load a model, score the references, answer the prompts, and let the model go."""
    job.on_progress(f"{side}: loading", 0, 0)
    tokenizer, total = job.tokenizer.tokenizer, len(job.rows.prompts)
    model = load_for_answers(model_config, model_folder(model_config), job.tokenizer)
    measures = _score(job, side, model)
    completions = generate(
        model,
        job.rows.prompts,
        max_new_tokens=job.max_new_tokens,
        stop_ids=stop_ids(model, tokenizer, job.stop_id),
        pad_id=int(model.generation_config.pad_token_id),
        on_progress=lambda done: job.on_progress(f"{side}: answering", done, total),
    )
    measures["stop_rate"] = mean_share([c.stop_reason == "stop" for c in completions])
    del model
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return measures, [Answer(_text(tokenizer, c.ids), c.stop_reason) for c in completions]


def _score(job: _Job, side: str, model: PreTrainedModel) -> dict[str, Measure]:
    """Teacher-forced loss, perplexity and accuracy on every assistant turn of the rows."""
    layout: Layout = "flat" if job.config.model.attention == "flat" else "padded"
    forward = Forward(model, layout=layout, dtype=model.dtype)
    examples = job.rows.examples
    scores = []
    for score in score_examples(forward, examples, job.config.batch.micro_batch_tokens):
        scores.append(score)
        job.on_progress(f"{side}: scoring", len(scores), len(examples))
    found = summarize(scores)
    num_tokens = sum(score.tokens for score in scores)
    return {
        "loss": _number(found["val_loss"], "nats", num_tokens),
        "perplexity": _number(found["val_perplexity"], "choices", num_tokens),
        # Without an interval: the tokens of a row are not independent.
        "token_accuracy": _number(found["val_accuracy"], "share", num_tokens),
    }


def _number(value: float, unit: str, n: int) -> Measure:
    return Measure(value if math.isfinite(value) else None, unit, n)


def _compare(base: Measure, tuned: Measure) -> Compared:
    known = base.value is not None and tuned.value is not None
    change = tuned.value - base.value if known else None  # type: ignore[operator]
    return Compared(base, tuned, change)


def _side_by_side(
    job: _Job, base: list[Answer], tuned: list[Answer], references: list[str]
) -> list[RowAnswers]:
    prompts = [job.tokenizer.tokenizer.decode(ids) for ids in job.rows.prompts]
    columns = zip(job.rows.ids, prompts, base, tuned, references, strict=True)
    return [RowAnswers(*row) for row in columns]


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    """What a user would see: without special tokens and without leading reasoning."""
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True)
    return text[match.end() :] if (match := _REASONING.match(text)) else text
