"""Base model and tuned model on the same rows: same template, same prompts, same measures."""

from __future__ import annotations

import gc
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from sft.config import Config, ModelConfig, SourceConfig
from sft.data.account import Progress
from sft.data.rows.conversation import Origin
from sft.data.rows.problems import BadRows
from sft.data.rows.read import read_conversations
from sft.data.tokenize import Example, last_turn, tokenize
from sft.disk import write_json
from sft.errors import DataError
from sft.evaluate.finished_run import FinishedRun, open_run
from sft.evaluate.result import Compared, CompletionText, Evaluation, RowCompletions, render
from sft.evaluate.tasks import TASKS, Measure, choose_task, mean_share
from sft.model.forward import Forward
from sft.model.load import model_folder, stop_ids
from sft.probes.generate import generate, load_for_generation
from sft.probes.val_loss import score_examples, summarize

__all__ = ["Evaluation", "evaluate", "render"]

# Completions may be so many times as long as the longest reference, unless a limit is given.
ROOM_FOR_ANSWERS = 1.5
# What reasoning models write first; servers cut it off, and so does the comparison.
_REASONING = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The examples to score, and of each row the last turn to complete."""

    examples: list[Example]
    ids: list[str]
    prompts: list[list[int]]
    references: list[list[int]]
    files: dict[str, str]
    notes: list[str]


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
    unless given. Completions are greedy, of the last assistant turn of each row.

    Raises:
        ConfigError: no such run, task or model, or the run has no model yet.
        DataError: the data cannot be read, or a row has no assistant message.
    """
    opened = open_run(run)
    config, text = opened.config, partial(_text, opened.tokenizer.tokenizer)
    on_progress("reading", 0, 0)
    rows = _read(opened, data, max_rows)
    references = [text(ids) for ids in rows.references]
    task = choose_task(task, references)
    longest = max(len(ids) for ids in rows.references) + 1  # and the stop token
    limit = max_new_tokens or math.ceil(ROOM_FOR_ANSWERS * longest)
    measures, completions = {}, {}
    for side, model in (("base", config.model), ("tuned", opened.tuned)):
        measures[side], completions[side] = _measure(opened, rows, model, side, limit, on_progress)
        measures[side] |= TASKS[task].score([c.text for c in completions[side]], references)
    prompts = [opened.tokenizer.tokenizer.decode(ids) for ids in rows.prompts]
    columns = (rows.ids, prompts, completions["base"], completions["tuned"], references)
    result = Evaluation(
        run=str(opened.folder.path),
        data=[source.path for source in data],
        files=rows.files,
        base_model=config.model.name,
        tuned_model=opened.tuned.name,
        task=task,
        how=TASKS[task].describe(references),
        notes=rows.notes,
        num_rows=len(rows.ids),
        max_new_tokens=limit,
        measures={n: _compare(m, measures["tuned"][n]) for n, m in measures["base"].items()},
        rows=[RowCompletions(*row) for row in zip(*columns, strict=True)],
    )
    stems = "+".join(Path(source.path).stem for source in data)
    name = re.sub(r"[^\w.+-]+", "-", stems)[:100]
    write_json(opened.folder.evaluation(name), asdict(result))
    return result


# ------------------------------------------------------------------------- rows


def _read(run: FinishedRun, data: Sequence[SourceConfig], max_rows: int | None) -> _Rows:
    settings = run.config.data
    loaded = read_conversations(data, settings.on_bad_row)
    conversations = loaded.conversations
    if max_rows is not None and max_rows < len(conversations):
        # Evenly spaced: the first ones of a sorted file would all be of one kind.
        spread = [i * len(conversations) // max_rows for i in range(max_rows)]
        conversations = [conversations[i] for i in spread]
    bad = BadRows(settings.on_bad_row)
    tokenized = tokenize(
        conversations, run.template, bad, max_seq_len=int(settings.max_seq_len), overflow="drop"
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
        notes=_notes(run.config, data, loaded.num_bad + bad.count, len(tokenized.fates)),
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
    run: FinishedRun,
    rows: _Rows,
    model_config: ModelConfig,
    side: str,
    max_new_tokens: int,
    on_progress: Progress,
) -> tuple[dict[str, Measure], list[CompletionText]]:
    """Load a model, score the references, complete the prompts, and let the model go."""
    on_progress(f"{side}: loading", 0, 0)
    tokenizer, total = run.tokenizer.tokenizer, len(rows.prompts)
    model = load_for_generation(model_config, model_folder(model_config), run.tokenizer)
    scoring = partial(on_progress, f"{side}: scoring")
    measures = _score(run.config, model, rows.examples, scoring)
    completions = generate(
        model,
        rows.prompts,
        max_new_tokens=max_new_tokens,
        stop_ids=stop_ids(model, tokenizer, run.template.facts.stop_id),
        on_progress=lambda done: on_progress(f"{side}: answering", done, total),
    )
    measures["stop_rate"] = mean_share([c.stop_reason == "stop" for c in completions])
    del model
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return measures, [CompletionText(_text(tokenizer, c.ids), c.stop_reason) for c in completions]


def _score(
    config: Config, model: PreTrainedModel, examples: list[Example], on_progress: Any
) -> dict[str, Measure]:
    """Teacher-forced loss, perplexity and accuracy on every assistant turn of the rows."""
    flat = config.model.attention == "flat"
    forward = Forward(model, layout="flat" if flat else "padded", dtype=model.dtype)
    scores = []
    for score in score_examples(forward, examples, config.batch.micro_batch_tokens):
        scores.append(score)
        on_progress(len(scores), len(examples))
    num_tokens = sum(score.tokens for score in scores)
    loss, accuracy, perplexity = (
        value if math.isfinite(value) else None for value in summarize(scores).values()
    )
    return {
        "loss": Measure(loss, "nats", num_tokens),
        "perplexity": Measure(perplexity, "choices", num_tokens),
        # Without an interval: the tokens of a row are not independent.
        "token_accuracy": Measure(accuracy, "share", num_tokens),
    }


def _compare(base: Measure, tuned: Measure) -> Compared:
    if base.value is None or tuned.value is None:
        return Compared(base, tuned, None)
    return Compared(base, tuned, tuned.value - base.value)


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    """What a user would see: without special tokens and without leading reasoning."""
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True)
    return text[match.end() :] if (match := _REASONING.match(text)) else text
