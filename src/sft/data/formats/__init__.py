"""From the columns of a row to a `Conversation`: `FORMATS`, recognising them, and parsing.

To add a format: write `matches` and `parse` in a file of its own, and add a line to `FORMATS`.
Every format may have the columns `system` (a text) and `tools` (a list, or its JSON text).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sft.config import SourceConfig
from sft.data.conversation import Conversation, Message
from sft.data.formats import alpaca, messages, pairs, sharegpt
from sft.data.formats.messages import optional_text
from sft.data.json_rows import loads
from sft.data.problems import RowError, describe, listing
from sft.data.sources import Row
from sft.data.validation import validate
from sft.errors import ConfigError, DataError, did_you_mean


@dataclass(frozen=True, slots=True)
class Format:
    """One shape of rows."""

    columns: tuple[str, ...]
    matches: Callable[[Mapping[str, Any]], bool]
    parse: Callable[[Mapping[str, Any]], list[Message]]


def _pair(pair: pairs.Pair) -> Format:
    return Format((pair.prompt, pair.answer), pair.matches, pair.parse)


# In this order: a row with the columns of two formats has the first.
FORMATS: dict[str, Format] = {
    "messages": Format(messages.COLUMNS, messages.matches, messages.parse),
    "sharegpt": Format(sharegpt.COLUMNS[:1], sharegpt.matches, sharegpt.parse),
    "alpaca": Format(alpaca.COLUMNS, alpaca.matches, alpaca.parse),
    "prompt_completion": _pair(pairs.PROMPT_COMPLETION),
    "prompt_response": _pair(pairs.PROMPT_RESPONSE),
    "instruction_response": _pair(pairs.INSTRUCTION_RESPONSE),
    "question_answer": _pair(pairs.QUESTION_ANSWER),
    "query_response": _pair(pairs.QUERY_RESPONSE),
    "input_output": _pair(pairs.INPUT_OUTPUT),
}

_OPTIONAL_COLUMNS = ("system", "tools", "conversation", "history", "input", "context")
COLUMNS = tuple(
    dict.fromkeys(
        [column for shape in FORMATS.values() for column in shape.columns] + [*_OPTIONAL_COLUMNS]
    )
)


def check_config(source: SourceConfig) -> None:
    """Raise `ConfigError` when `source.format` or a name in `source.columns` is not known."""
    if source.format != "auto" and source.format not in FORMATS:
        raise ConfigError(
            f"{source.path}: format: unknown format {source.format!r}."
            f"{did_you_mean(source.format, FORMATS)} Known: auto, {', '.join(FORMATS)}."
        )
    for column in source.columns:
        if column not in COLUMNS:
            raise ConfigError(
                f"{source.path}: columns: {column!r} is not a column of ours."
                f"{did_you_mean(column, COLUMNS)} "
                f"A column map goes from our name to the file's: one of {', '.join(COLUMNS)}."
            )


def map_columns(values: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The row with its columns under our names; `columns` goes from ours to the file's."""
    if not columns:
        return dict(values)
    moved = {*columns, *columns.values()}
    mapped = {name: value for name, value in values.items() if name not in moved}
    return mapped | {ours: values[theirs] for ours, theirs in columns.items() if theirs in values}


def detect(values: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    """The name of the format of a row; raises `DataError` that says what would be one."""
    mapped = map_columns(values, columns)
    for name, shape in FORMATS.items():
        if shape.matches(mapped):
            return name
    raise DataError(_unknown_shape(mapped))


def _unknown_shape(values: Mapping[str, Any]) -> str:
    shapes = "; ".join(f"{name}: {', '.join(f.columns)}" for name, f in FORMATS.items())
    return (
        f"the rows have no known shape. Columns found: {listing(values)}.\n"
        f"{_advice(values)}\n"
        f"Known shapes: {shapes}."
    )


def _advice(values: Mapping[str, Any]) -> str:
    """What to do about a row of no known shape."""
    if "chosen" in values and "rejected" in values:
        return (
            "These are preferences, and fine-tuning needs one answer. To train on the chosen "
            "ones, map their columns: `columns: {prompt: prompt, completion: chosen}`, or "
            "`columns: {messages: chosen}` when `chosen` holds whole conversations."
        )
    near = _near_columns(values)
    if any(shape.matches(map_columns(values, near)) for shape in FORMATS.values()):
        shown = ", ".join(f"{ours}: {theirs}" for ours, theirs in near.items())
        return f"Did you mean {', '.join(near)}? Then map: `columns: {{{shown}}}`."
    if "text" in values:
        return (
            "The column 'text' is plain text, without a prompt and an answer to it. Fine-tuning "
            "needs both, in two columns or as messages."
        )
    return (
        "If the columns have other names, map them from ours to yours: "
        "`columns: {prompt: my_prompt, completion: my_answer}`."
    )


def _near_columns(values: Mapping[str, Any]) -> dict[str, str]:
    """A column map for the columns that are nearly spelled like ours."""
    near: dict[str, str] = {}
    for column in list(values)[:50]:
        found = difflib.get_close_matches(column[:40].lower(), COLUMNS, n=1)
        if found and found[0] not in values:
            near.setdefault(found[0], column)
    return near


def parse(row: Row, source: SourceConfig, name: str, index: int = 0) -> Conversation:
    """The conversation in `row`, which has the format `name`; raises `RowError`.

    `index` is the position of `source` in the configuration.
    """
    values = map_columns(row.values, source.columns)
    shape = FORMATS[name]
    if not shape.matches(values):
        raise RowError(
            f"not of the format {name}, which has {', '.join(shape.columns)}; "
            f"found {listing(values)}"
        )
    parsed = shape.parse(values)
    turns = next((column for column in sharegpt.COLUMNS if column in values), "messages")
    reason = validate(parsed, turns if name == "sharegpt" else "messages")
    if reason:
        raise RowError(reason)
    system = optional_text(values, "system")
    if system.strip():
        if parsed[0].role == "system":
            raise RowError("system: given as a column and as the first message")
        parsed.insert(0, Message("system", system))
    return Conversation(tuple(parsed), row.origin, _tools(values.get("tools")), index)


def _tools(value: Any) -> Sequence[Mapping[str, Any]]:
    """The tools of a row, in OpenAI's shape; one without its wrapper is put into it."""
    if isinstance(value, str):
        value = _decode_tools(value)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RowError(f"tools: expected a list, found {describe(value)}")
    tools = []
    for index, tool in enumerate(value):
        if not isinstance(tool, dict):
            raise RowError(f"tools[{index}]: expected an object, found {describe(tool)}")
        bare = "name" in tool and "function" not in tool
        tools.append({"type": "function", "function": tool} if bare else tool)
    return tuple(tools)


def _decode_tools(text: str) -> Any:
    if not text.strip():
        return None
    try:
        return loads(text)
    except RowError as error:
        raise RowError(f"tools: {error}") from None
