"""Rendered text to token ids, with special-token strings in the data kept as text.

A chat template writes control tokens such as `<|im_end|>`. The same characters inside a
user's message are ordinary text, and must not end a turn. They are wrapped in two
private-use characters before the template is rendered, and encoded as text afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sft.errors import DataError

MARK_START = "\ue0f0"
MARK_END = "\ue0f1"
_MARKS = re.compile(f"[{MARK_START}{MARK_END}]")


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a text.

    `offsets[t]` is the half-open range of characters of `text` that token `t` covers.
    """

    text: str
    ids: list[int]
    offsets: list[tuple[int, int]]


class TextEncoder:
    """Encodes rendered chats with one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        if not tokenizer.is_fast:
            raise DataError(
                f"{type(tokenizer).__name__} gives no character offsets, which masks are proven "
                "with; use a model that has a tokenizer.json"
            )
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self.special_ids = {index: str(token) for index, token in added.items() if token.special}
        self._id_of: dict[str, int] = {text: index for index, text in self.special_ids.items()}
        longest_first = sorted(filter(None, self._id_of), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._marked = re.compile(f"{MARK_START}({self._special.pattern}){MARK_END}")

    def special_spans(self, text: str) -> list[tuple[int, int]]:
        """Where special tokens are spelled in `text`, in order."""
        return [match.span() for match in self._special.finditer(text)]

    def id_of(self, special: str) -> int:
        """The id of a special token."""
        return self._id_of[special]

    def has_special_text(self, value: Any) -> bool:
        """Does a string anywhere in `value` hold the characters of a special token, or a mark?"""
        return any(self._special.search(text) or _MARKS.search(text) for text in _strings(value))

    def mark(self, value: Any) -> Any:
        """A copy of `value` with every special-token string in it wrapped in marks."""
        if isinstance(value, str):
            if _MARKS.search(value):
                raise DataError("holds the private-use characters U+E0F0 or U+E0F1; remove them")
            return self._special.sub(f"{MARK_START}\\g<0>{MARK_END}", value)
        if isinstance(value, Mapping):
            return {self.mark(key): self.mark(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.mark(item) for item in value]
        return value

    def encode(self, rendered: str) -> Encoded:
        """Encode a rendered chat; marked strings become text tokens, the rest as usual."""
        if MARK_START not in rendered and MARK_END not in rendered:
            out = self._tokenizer(
                rendered, add_special_tokens=False, return_offsets_mapping=True, verbose=False
            )
            return Encoded(rendered, out["input_ids"], out["offset_mapping"])
        return self.encode_in_pieces(rendered)

    def encode_in_pieces(self, rendered: str) -> Encoded:
        """Encode piece by piece: control tokens by their id, everything between them as text."""
        text, forced = self._remove_marks(rendered)
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        position = 0
        for match in self._special.finditer(text):
            if any(start < match.end() and match.start() < end for start, end in forced):
                continue
            self._append_text(text, position, match.start(), ids, offsets)
            ids.append(self._id_of[match.group()])
            offsets.append(match.span())
            position = match.end()
        self._append_text(text, position, len(text), ids, offsets)
        return Encoded(text, ids, offsets)

    def _append_text(
        self, text: str, start: int, end: int, ids: list[int], offsets: list[tuple[int, int]]
    ) -> None:
        if start == end:
            return
        piece = text[start:end]
        out = self._tokenizer(
            piece,
            add_special_tokens=False,
            return_offsets_mapping=True,
            split_special_tokens=True,
            verbose=False,
        )
        for index, (a, b) in zip(out["input_ids"], out["offset_mapping"], strict=True):
            if index in self.special_ids and self.special_ids[index] in piece[a:b]:
                raise DataError(
                    f"holds {self.special_ids[index]!r}, which this tokenizer cannot encode as text"
                )
            ids.append(index)
            offsets.append((start + a, start + b))

    def _remove_marks(self, rendered: str) -> tuple[str, list[tuple[int, int]]]:
        """The text without marks, and the ranges in it that were marked.

        A template may cut a marked string in two. The mark left over marks nothing, so that the
        template's own tokens after it stay tokens.
        """
        forced: list[tuple[int, int]] = []
        parts: list[str] = []
        length = 0
        for index, part in enumerate(self._marked.split(rendered)):
            part = _MARKS.sub("", part)
            if index % 2:
                forced.append((length, length + len(part)))
            parts.append(part)
            length += len(part)
        return "".join(parts), forced


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    elif not isinstance(value, list | tuple):
        return []
    return [text for item in value for text in _strings(item)]
