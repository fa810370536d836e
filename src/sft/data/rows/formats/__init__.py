"""From the columns of a row to a `Conversation`: `FORMATS`, recognising them, and parsing.

To add a format: write `parse` in a file of its own, and add a line to `FORMATS`. A user's own,
`path.py:function`, is given the whole row.
Every chat may have the columns `system` or `system_prompt` (a text), and `tools` or `functions`
(a list, or its JSON text).
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sft.config import SourceConfig
from sft.config.plugins import check_named
from sft.data.rows.conversation import Conversation, Kind, Message
from sft.data.rows.formats import alpaca, messages, pairs, preference, sharegpt, text, tokens
from sft.data.rows.formats.content import refuse_media
from sft.data.rows.formats.messages import optional_text
from sft.data.rows.formats.own import GROUP, own_parser
from sft.data.rows.json_rows import loads
from sft.data.rows.problems import RowError, expect, listing
from sft.data.rows.sources import Row
from sft.data.rows.validation import validate
from sft.errors import ConfigError, DataError, did_you_mean


@dataclass(frozen=True, slots=True)
class Format:
    """One shape of rows. `optional` columns are read where a row has them.

    A `pair` is of a prompt and its answer, in this order. What is not `recognised` is used only
    where a source names it. One that `reads_all` may read any column.
    """

    columns: tuple[str, ...]
    parse: Callable[[Mapping[str, Any]], list[Message]]
    optional: tuple[str, ...] = ()
    kind: Kind = "chat"
    recognised: bool = True
    pair: bool = False
    reads_all: bool = False
    has_turns: Callable[[Mapping[str, Any]], bool] | None = None

    def matches(self, values: Mapping[str, Any]) -> bool:
        """Whether the row has all `columns`, or what `has_turns` looks for instead."""
        if self.has_turns:
            return self.has_turns(values)
        return all(column in values for column in self.columns)

    def reads(self) -> set[str]:
        """All columns that it may read."""
        shared = (*SYSTEMS, *TOOLS) if self.kind == "chat" else ()
        # The last two say where an augmented row is from; nothing needs them, and none is missed.
        return {*self.columns, *self.optional, *shared, "parent", "parent_row", "augmentation"}


# Two names for the same, of which a row has one.
SYSTEMS = ("system", "system_prompt")
ROW_WEIGHT = "row_weight"  # how often a row is seen
TOOLS = ("tools", "functions")


# In this order: a row with the columns of two formats has the first.
FORMATS: dict[str, Format] = {
    "messages": Format(messages.COLUMNS, messages.parse),
    "sharegpt": Format(
        sharegpt.COLUMNS[:1], sharegpt.parse, sharegpt.COLUMNS[1:], has_turns=sharegpt.has_turns
    ),
    "alpaca": Format(alpaca.COLUMNS, alpaca.parse, ("input", "history"), pair=True),
    **{
        name: Format((pair.prompt, pair.answer), pair.parse, pair.context, pair=True)
        for name, pair in pairs.PAIRS.items()
    },
    "preference": Format(preference.COLUMNS, preference.parse, (*preference.PROMPTS, "input")),
    "tokens": Format(tokens.COLUMNS, tokens.parse, tokens.OPTIONAL, "tokens"),
    "text": Format(text.COLUMNS, text.parse, kind="text", recognised=False),
}

_PROMPT_KEY = re.compile("[0-9a-f]{64}")
COLUMNS = tuple(
    dict.fromkeys(
        [column for shape in FORMATS.values() for column in shape.columns]
        + [*SYSTEMS, *TOOLS, ROW_WEIGHT]
        + [column for shape in FORMATS.values() for column in shape.optional]
    )
)


def check_config(source: SourceConfig) -> None:
    """Raise `ConfigError` when `source.format` or a name in `source.columns` is not known."""
    try:
        check_named(source.format, GROUP, {"auto": None, **FORMATS})
    except ConfigError as error:
        raise ConfigError(f"{source.path}: format: {error}") from None
    if source.format != "auto":
        format_named.cache_clear()  # the file may have changed since
        format_named(source.format)
    for column in source.columns:
        if column not in COLUMNS:
            raise ConfigError(
                f"{source.path}: columns: {column!r} is not a column of ours."
                f"{did_you_mean(column, COLUMNS)} "
                f"A column map goes from our name to the file's: one of {', '.join(COLUMNS)}."
            )


@lru_cache
def format_named(name: str) -> Format:
    """The format of `FORMATS`, or the user's own that `name` stands for.

    Raises:
        ConfigError: the user's own cannot be loaded.
    """
    return FORMATS.get(name) or Format((), own_parser(name), reads_all=True)


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
    name = _recognised(mapped)
    if name is None:
        raise DataError(_unknown_shape(mapped))
    return name


def _recognised(values: Mapping[str, Any]) -> str | None:
    """The first format that is recognised by its columns and has those of the row."""
    shapes = FORMATS.items()
    return next((name for name, s in shapes if s.recognised and s.matches(values)), None)


def _unknown_shape(values: Mapping[str, Any]) -> str:
    shapes = "; ".join(f"{name}: {', '.join(f.columns)}" for name, f in FORMATS.items())
    return (
        f"the rows have no known shape. Columns found: {listing(values)}.\n"
        f"{_advice(values)}\n"
        f"Known shapes: {shapes}."
    )


def _advice(values: Mapping[str, Any]) -> str:
    """What to do about a row of no known shape."""
    near = _near_columns(values)
    if _recognised(map_columns(values, near)):
        column_map = ", ".join(f"{ours}: {theirs}" for ours, theirs in near.items())
        return f"Did you mean {', '.join(near)}? Then map: `columns: {{{column_map}}}`."
    if "text" in values:
        return (
            "The column 'text' is plain text, without a prompt and an answer to it. To train on "
            "all of each text, without a chat template, say `format: text`. To train on answers "
            "only, give prompt and answer in two columns or as messages."
        )
    return (
        "If the columns have other names, map them from ours to yours: "
        "`columns: {prompt: my_prompt, completion: my_answer}`."
    )


def _near_columns(values: Mapping[str, Any]) -> dict[str, str]:
    """A column map for the columns that are nearly spelled like ours."""
    near: dict[str, str] = {}
    for column in list(values)[:50]:
        for ours in difflib.get_close_matches(column[:40].lower(), COLUMNS, n=1):
            if ours not in values:
                near.setdefault(ours, column)
    return near


def parse(row: Row, source: SourceConfig, name: str, index: int = 0) -> Conversation:
    """The conversation in `row`, which has the format `name`; raises `RowError`.

    `index` is the position of `source` in the configuration.
    """
    values = map_columns(row.values, source.columns)
    shape = format_named(name)
    if not shape.matches(values):
        raise RowError(
            f"not of the format {name}, which has {', '.join(shape.columns)}; "
            f"found {listing(values)}"
        )
    refuse_media(values)
    parsed = shape.parse(values)
    parent, weight = _parent(values.get("parent")), _row_weight(values.get(ROW_WEIGHT))
    if shape.kind != "chat":
        return Conversation(tuple(parsed), row.origin, (), index, parent, shape.kind, weight)
    # The columns that are lists of turns; in others the messages have no places of their own.
    turns = {"messages": name, "sharegpt": sharegpt.column(values)}.get(name)
    reason = validate(parsed, turns or "messages", has_places=turns is not None)
    if reason:
        raise RowError(reason)
    column = _only_one(values, SYSTEMS)
    system = optional_text(values, column)
    if system.strip():
        if parsed[0].role == "system":
            raise RowError(f"{column}: given as a column and as the first message")
        parsed.insert(0, Message("system", system))
    tools = _tools(values, _only_one(values, TOOLS))
    return Conversation(tuple(parsed), row.origin, tools, index, parent, weight=weight)


def _only_one(values: Mapping[str, Any], columns: Sequence[str]) -> str:
    """The one of `columns` that the row has a value in; the first when there is none."""
    given = [column for column in columns if values.get(column)]
    if len(given) > 1:
        raise RowError(f"{given[1]}: given beside {given[0]}; one of them is enough")
    return given[0] if given else columns[0]


def _parent(value: Any) -> str:
    """The `prompt_key` that `sft augment` wrote; a `parent` of any other kind is not ours."""
    return value if isinstance(value, str) and _PROMPT_KEY.fullmatch(value) else ""


def _row_weight(value: Any) -> float:
    """What `sft curate --toward` wrote; 1 where there is none. A CSV file has it as text."""
    if value is None or value == "":
        return 1.0
    try:
        weight = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        weight = math.nan
    if not 0 < weight <= messages.MAX_WEIGHT:
        raise RowError(
            f"{ROW_WEIGHT}: expected a number above 0, up to {messages.MAX_WEIGHT}, "
            f"found {value!r:.40}"
        )
    return weight


def _tools(values: Mapping[str, Any], column: str) -> Sequence[Mapping[str, Any]]:
    """The tools of a row, in OpenAI's shape; one without its wrapper is put into it."""
    value = values.get(column)
    if isinstance(value, str):
        value = _decode_tools(value, column)
    if value is None:
        return ()
    expect(value, list, column)
    return tuple(_tool(tool, f"{column}[{index}]") for index, tool in enumerate(value))


def _tool(tool: Any, field: str) -> Mapping[str, Any]:
    expect(tool, dict, field)
    if "name" not in tool or "function" in tool:
        return dict(tool)
    # Anthropic's name for what OpenAI calls parameters.
    names = {"input_schema": "parameters"} if "parameters" not in tool else {}
    function = {names.get(key, key): value for key, value in tool.items()}
    return {"type": "function", "function": function}


def _decode_tools(text: str, column: str) -> Any:
    if not text.strip():
        return None
    try:
        return loads(text)
    except RowError as error:
        raise RowError(f"{column}: {error}") from None
