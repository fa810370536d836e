"""The user's real prompts: rows that may, but need not, have an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sft.config import SourceConfig
from sft.data.conversation import Conversation
from sft.data.formats import FORMATS, check_config, detect, map_columns, parse
from sft.data.problems import BadRows, RowError
from sft.data.sources import Row, read_rows
from sft.errors import DataError

# Stands in for the missing answer while a row is parsed; taken off again before anyone sees it.
_STAND_IN = "?"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt. Without an answer, `conversation` ends with what the user said."""

    conversation: Conversation
    has_answer: bool


def read_prompts(sources: Sequence[SourceConfig]) -> tuple[list[Prompt], dict[str, str]]:
    """The rows of all sources, in order, and the SHA-256 of each file.

    Raises:
        DataError: rows that are neither a conversation nor a prompt, all in one message.
    """
    report = BadRows("error")
    files: dict[str, str] = {}
    prompts: list[Prompt] = []
    for index, source in enumerate(sources):
        check_config(source)
        for row in read_rows(source, report, files):
            try:
                prompts.append(_prompt(row, source, index))
            except DataError as error:
                report.add(row.origin, str(error).splitlines()[0])
    report.raise_if_any(len(prompts) + report.count)
    return prompts, files


def _prompt(row: Row, source: SourceConfig, index: int) -> Prompt:
    """Raises the reason why the row as it is cannot be used, if adding an answer does not help."""
    try:
        return Prompt(_parse(row, source, index), has_answer=True)
    except DataError as error:
        reason = error
    values = map_columns(row.values, source.columns)
    unmapped = source.model_copy(update={"columns": {}})  # the columns have our names now
    for answered in _answered(values):
        try:
            parsed = _parse(Row(answered, row.origin), unmapped, index)
        except DataError:
            continue
        return Prompt(replace(parsed, messages=parsed.messages[:-1]), has_answer=False)
    raise RowError(str(reason))


def _parse(row: Row, source: SourceConfig, index: int) -> Conversation:
    name = source.format if source.format != "auto" else detect(row.values, source.columns)
    return parse(row, source, name, index)


def _answered(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The row with an answer added, in each way that it may lack one."""
    for column, role, text, speaker in (
        ("messages", "role", "content", "assistant"),
        ("conversations", "from", "value", "gpt"),
    ):
        if isinstance(turns := values.get(column), list):
            yield {**values, column: [*turns, {role: speaker, text: _STAND_IN}]}
    for shape in FORMATS.values():
        if len(shape.columns) == 2 and shape.columns[0] in values:
            yield {**values, shape.columns[1]: _STAND_IN}
