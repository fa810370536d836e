"""The user's real prompts: rows that may, but need not, have an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from sft.config import SourceConfig
from sft.data.rows.conversation import Conversation
from sft.data.rows.formats import FORMATS, check_config, detect, map_columns, parse, sharegpt
from sft.data.rows.problems import BadRows, RowError
from sft.data.rows.read import Loaded
from sft.data.rows.sources import Row, read_rows
from sft.errors import DataError

# Columns that hold turns; and in a turn the speaker, the text, and what the model is called.
_TURNS = (
    ("messages", "role", "content", "assistant"),
    *((column, "from", "value", "gpt") for column in sharegpt.COLUMNS),
)
# Stands in for the missing answer while a row is parsed; taken off again before anyone sees it.
_STAND_IN = "?"


def read_prompts(
    sources: Sequence[SourceConfig], on_bad_row: Literal["error", "skip"] = "error"
) -> Loaded:
    """The rows of all sources, in order; what is a prompt only is a conversation without answer.

    Raises:
        DataError: rows that are neither a conversation nor a prompt, all in one message.
    """
    report = BadRows(on_bad_row)
    files: dict[str, str] = {}
    prompts: list[Conversation] = []
    for index, source in enumerate(sources):
        check_config(source)
        for row in read_rows(source, report, files):
            try:
                prompts.append(_prompt(row, source, index))
            except DataError as error:
                report.add(row.origin, str(error).splitlines()[0])
    report.raise_if_any(len(prompts) + report.count)
    return Loaded(prompts, report.rows, report.count, files)


def _prompt(row: Row, source: SourceConfig, index: int) -> Conversation:
    """Raises the reason why the row cannot be used, if adding an answer does not help."""
    try:
        return _parse(row, source, index)
    except DataError as error:
        reason = error
    values = map_columns(row.values, source.columns)
    has_turns = any(column in values for column, *_ in _TURNS)
    unmapped = source.model_copy(update={"columns": {}})  # the columns have our names now
    for answered in _answered(values):
        try:
            parsed = _parse(Row(answered, row.origin), unmapped, index)
        except RowError as error:
            # Of a row in two columns this says what is wrong, and not that one is missing.
            reason = reason if has_turns else error
            continue
        except DataError:
            continue
        return replace(parsed, messages=parsed.messages[:-1])
    raise RowError(str(reason))


def _parse(row: Row, source: SourceConfig, index: int) -> Conversation:
    name = source.format if source.format != "auto" else detect(row.values, source.columns)
    parsed = parse(row, source, name, index)
    if parsed.kind != "chat":
        raise RowError(f"is of the format {name}, which has no prompt that could be answered")
    return parsed


def _answered(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The row with an answer added, in each way that it may lack one."""
    for column, role, text, speaker in _TURNS:
        if isinstance(turns := values.get(column), list):
            yield {**values, column: [*turns, {role: speaker, text: _STAND_IN}]}
    for prompt, answer in (shape.columns for shape in FORMATS.values() if shape.pair):
        given = values.get(answer)
        if prompt in values and (given is None or (isinstance(given, str) and not given.strip())):
            yield {**values, answer: _STAND_IN}
