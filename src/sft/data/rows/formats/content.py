"""The content of a message: text, parts of text, and Anthropic's blocks.

Anthropic puts tool calls (`tool_use`) and reasoning (`thinking`) into the content of the
assistant, and tool results (`tool_result`) into that of the user. They become what OpenAI's
format has: `tool_calls`, `reasoning_content`, and messages of the role `tool`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from sft.data.rows.json_rows import loads
from sft.data.rows.problems import RowError, expect, listing

TEXT_TYPES = ("text", "input_text", "output_text")
MEDIA_TYPES = (
    *("image", "image_url", "input_image", "video", "video_url", "input_video"),
    *("audio", "audio_url", "input_audio", "file", "input_file", "document"),
)
MEDIA_COLUMNS = ("images", "image", "videos", "video", "audios", "audio", "pixel_values")
TEXT_ONLY = "sft trains on text only; leave such rows out with on_bad_row: skip"
_BLOCKS = ("tool_use", "tool_result", "thinking")


def refuse_media(values: Mapping[str, Any]) -> None:
    """Raise `RowError` when a row has a picture, a video or a recording beside its text."""
    for column in MEDIA_COLUMNS:
        if values.get(column):
            raise RowError(f"{column}: the column is not empty; {TEXT_ONLY}")


def required(item: Mapping[str, Any], key: str, field: str) -> Any:
    """The value of `key`, which must be there."""
    if key not in item:
        raise RowError(f"{field}.{key}: missing; found {listing(item)}")
    return item[key]


def required_text(item: Mapping[str, Any], key: str, field: str) -> str:
    """The text of `key`, which must be there."""
    text: str = required(item, key, field)
    expect(text, str, f"{field}.{key}")
    return text


def filled_text(value: Any, field: str) -> str:
    """`value`, which must be a text that is not empty."""
    expect(value, str, field)
    if not value.strip():
        raise RowError(f"{field}: empty")
    return str(value)


def decoded_list(value: Any, field: str) -> Any:
    """`value`, decoded where it is the JSON text of a list, as cells of a CSV file are."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        return loads(value)
    except RowError as error:
        python = value.lstrip().startswith("[{'")
        hint = "; this looks like Python's notation: write it with json.dumps" if python else ""
        raise RowError(f"{field}: {error}{hint}") from None


def text_of(value: Any, field: str) -> str:
    """The text of a content: itself, or its parts one after the other."""
    if isinstance(value, str):
        return value
    expect(value, list, field, "text")
    return "".join(_part(part, f"{field}[{index}]") for index, part in enumerate(value))


def _part(part: Any, field: str) -> str:
    expect(part, dict, field, "an object with type and text")
    kind = part.get("type")
    if kind in MEDIA_TYPES:
        raise RowError(f"{field}: a part of type '{kind}'; {TEXT_ONLY}")
    if kind not in TEXT_TYPES:
        raise RowError(f"{field}.type: only parts of type 'text' can be used, found {kind!r:.40}")
    return required_text(part, "text", field)


def expanded(item: Any, field: str) -> Iterator[tuple[str, Any]]:
    """The message `item`, or those that its blocks amount to, each with its place in the file."""
    content = item.get("content") if isinstance(item, dict) else None
    kinds = [_kind(part) for part in content] if isinstance(content, list) else []
    if not isinstance(content, list) or not any(kind in _BLOCKS for kind in kinds):
        yield field, item
    elif item.get("role") == "user":
        yield from _results(item, content, f"{field}.content")
    else:
        yield field, _calls(item, content, f"{field}.content")


def _kind(part: Any) -> Any:
    return part.get("type") if isinstance(part, dict) else None


def _results(
    item: Mapping[str, Any], parts: list[Any], field: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """A message of the role `tool` for each result, and of the user for the text between them."""
    numbered = [(f"{field}[{index}]", part) for index, part in enumerate(parts)]
    for is_result, group in groupby(numbered, lambda pair: _kind(pair[1]) == "tool_result"):
        if not is_result:
            places = list(group)
            text = "".join(_part(part, place) for place, part in places)
            yield field.removesuffix(".content"), {**item, "content": text}
            continue
        for place, part in group:
            # A result may have no content, as that of a call that returns nothing.
            content = part.get("content")
            result = {"role": "tool", "content": "" if content is None else content}
            if part.get("tool_use_id") is not None:
                result["tool_call_id"] = part["tool_use_id"]
            yield place, result


def _calls(item: Mapping[str, Any], parts: list[Any], field: str) -> dict[str, Any]:
    """The message with text as its content, its reasoning and its tool calls beside it."""
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for index, part in enumerate(parts):
        place = f"{field}[{index}]"
        if _kind(part) == "thinking":
            thoughts.append(required_text(part, "thinking", place))
        elif _kind(part) == "tool_use":
            function = {"name": required(part, "name", place), "arguments": part.get("input")}
            call = {"id": part["id"]} if "id" in part else {}
            calls.append({**call, "type": "function", "function": function})
        elif calls:
            raise RowError(f"{place}: comes after a tool call, which must end the message")
        else:
            texts.append(_part(part, place))
    beside = {"tool_calls": calls, "reasoning_content": "\n\n".join(thoughts)}
    beside = {key: value for key, value in beside.items() if value}
    for key in (key for key in beside if item.get(key)):
        raise RowError(f"{field.removesuffix('.content')}: has {key} beside the content, and in it")
    return {**item, "content": "".join(texts), **beside}
