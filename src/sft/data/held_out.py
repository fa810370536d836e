"""Rows that are measured and never trained on: `data.usage` and `data.test`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sft.config import DataConfig
from sft.data.rows.conversation import Conversation
from sft.data.rows.problems import BadRows
from sft.data.rows.prompts import read_prompts
from sft.data.rows.read import read_conversations
from sft.data.template.chat_template import ChatTemplate
from sft.data.tokenize import Example, tokenize
from sft.errors import DataError


@dataclass(frozen=True, slots=True)
class HeldOut:
    """`usage` are the prompts with answers as examples; `unanswered` the ids of the others.

    `prompts` holds both kinds, and `test_rows` those of `test`. `notes` tell of
    rows that are left out.
    """

    prompts: Sequence[Conversation] = ()
    usage: list[Example] = field(default_factory=list)
    unanswered: Mapping[str, list[int]] = field(default_factory=dict)
    test: list[Example] = field(default_factory=list)
    test_rows: Sequence[Conversation] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def load_held_out(config: DataConfig, template: ChatTemplate) -> HeldOut:
    """Read and tokenise what `config` names. A row that is too long is left out, with a note.

    Raises:
        ConfigError, DataError, TemplateError: with file, line and reason.
    """
    read = read_prompts(config.usage, config.on_bad_row)
    prompts, files = read.conversations, dict(read.files)
    limit, bad = int(config.max_seq_len), BadRows(config.on_bad_row)
    answered = [row for row in prompts if row.has_answer]
    usage = tokenize(answered, template, bad, max_seq_len=limit)
    unanswered, num_long = {}, len(usage.fates)
    for row in (row for row in prompts if not row.has_answer):
        try:
            ids = template.prompt_ids(row.as_dicts(), row.tools)
        except DataError as error:
            bad.add(row.origin, str(error))
            continue
        num_long += len(ids) >= limit  # an answer needs a token at least
        if len(ids) < limit:
            unanswered[str(row.origin)] = ids
    bad.raise_if_any(len(prompts))
    if prompts and not usage.examples and not unanswered:
        raise DataError(_nothing_left(bad, limit))
    test = _load_test(config, template)
    notes = [*_notes("data.usage", read.num_bad + bad.count, num_long), *test.notes]
    files |= test.files
    return replace(
        test, prompts=prompts, usage=usage.examples, unanswered=unanswered, files=files, notes=notes
    )


def _load_test(config: DataConfig, template: ChatTemplate) -> HeldOut:
    """The part of `data.test`."""
    if not config.test:
        return HeldOut()
    loaded, bad = read_conversations(config.test, config.on_bad_row), BadRows(config.on_bad_row)
    limit = int(config.max_seq_len)
    tokenized = tokenize(loaded.conversations, template, bad, max_seq_len=limit)
    bad.raise_if_any(len(loaded.conversations))
    notes = _notes("data.test", loaded.num_bad + bad.count, len(tokenized.fates))
    rows = loaded.conversations
    return HeldOut(test=tokenized.examples, test_rows=rows, files=loaded.files, notes=notes)


def _nothing_left(bad: BadRows, limit: int) -> str:
    others = f"; and {bad.count:,} cannot be used:\n{bad.table()}" if bad.count else ""
    return f"data.usage: every prompt is longer than data.max_seq_len = {limit}{others}"


def _notes(name: str, num_bad: int, num_long: int) -> list[str]:
    notes = [f"{name}: {num_bad:,} unusable rows were skipped (data.on_bad_row: skip)"]
    notes += [f"{name}: {num_long:,} rows longer than data.max_seq_len are left out"]
    return [note for note, num in zip(notes, (num_bad, num_long), strict=True) if num]
