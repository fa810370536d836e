"""Conversations to examples: token ids, next-token labels, and the overflow policy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sft.data.rows.conversation import Conversation, Origin
from sft.data.rows.problems import BadRows
from sft.data.template.chat_template import ChatTemplate, Rendered
from sft.errors import DataError

IGNORE_INDEX = -100


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One sequence to train on.

    Shapes, all `[seq_len]`: `input_ids` int64; `labels` int64, already shifted, so that
    `labels[t]` is the token to predict after reading `input_ids[: t + 1]`, or
    `IGNORE_INDEX`; `weights` float32, the loss weight of that prediction, 0 where ignored.
    """

    id: str
    origin: Origin
    source: int
    input_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]
    num_bytes: int  # UTF-8 bytes of the trained text, for bits per byte

    @property
    def num_tokens(self) -> int:
        """Length of the sequence."""
        return len(self.input_ids)

    @property
    def num_trained(self) -> int:
        """Number of supervised tokens."""
        return int((self.labels != IGNORE_INDEX).sum())


@dataclass(frozen=True, slots=True)
class RowFate:
    """What became of a row: `status` is used, val, dropped or truncated; `reason` says why."""

    origin: Origin
    status: str
    reason: str = ""


@dataclass(slots=True)
class Tokenized:
    """The examples of a data set, the fate of rows that were changed, and notes."""

    examples: list[Example] = field(default_factory=list)
    fates: list[RowFate] = field(default_factory=list)
    num_text_specials: int = 0
    num_split: int = 0

    def extend(self, part: Tokenized) -> None:
        """Append the examples of the rows that come next."""
        self.examples += part.examples
        self.fates += part.fates
        self.num_text_specials += part.num_text_specials
        self.num_split += part.num_split


def tokenize(
    conversations: Iterable[Conversation],
    template: ChatTemplate,
    bad_rows: BadRows,
    *,
    max_seq_len: int,
    overflow: str = "drop",
    prompt_weight: float = 0.0,
) -> Tokenized:
    """Render, mask and tokenise `conversations`, in order.

    Rows whose mask cannot be proven go to `bad_rows`. Rows longer than `max_seq_len` are
    dropped, truncated, or (`overflow="error"`) go to `bad_rows` too.
    """
    done = Tokenized()
    for conversation in conversations:
        try:
            parts = template.encode(conversation)
        except DataError as error:
            bad_rows.add(conversation.origin, str(error))
            continue
        length = max(len(part.ids) for part in parts)
        reason = f"{length} tokens, max_seq_len is {max_seq_len}"
        if length > max_seq_len and overflow == "error":
            bad_rows.add(conversation.origin, reason)
            continue
        done.num_text_specials += template.has_special_text(conversation)
        done.num_split += len(parts) > 1
        num_used = 0
        for turn, part in enumerate(parts, start=1):
            name = str(conversation.origin) + (f"#{turn}" if len(parts) > 1 else "")
            if len(part.ids) > max_seq_len:
                if overflow == "drop" or not any(part.weights[1:max_seq_len]):
                    continue
                # Cut at the end, and append nothing: a stop token put after a cut answer
                # would teach the model to stop in mid-sentence.
                part = _cut(part, max_seq_len)
            done.examples.append(_example(name, conversation, part, prompt_weight))
            num_used += 1
        if length > max_seq_len:
            fate = _overlong(conversation.origin, reason, overflow, num_used, len(parts))
            done.fates.append(fate)
    return done


def _overlong(origin: Origin, reason: str, overflow: str, num_used: int, num_parts: int) -> RowFate:
    if num_used:
        left_out = "; its longer turns are left out" if num_used < num_parts else ""
        return RowFate(origin, "truncated", reason + left_out)
    filled = "; the prompt alone fills it" if overflow == "truncate" else ""
    return RowFate(origin, "dropped", reason + filled)


def _cut(part: Rendered, length: int) -> Rendered:
    return Rendered(part.text, part.ids[:length], part.offsets[:length], part.weights[:length])


def _example(
    name: str, conversation: Conversation, part: Rendered, prompt_weight: float
) -> Example:
    ids = np.asarray(part.ids, dtype=np.int64)
    weights = np.asarray(part.weights, dtype=np.float32)
    num_bytes = first = seen = 0
    for start, end in (part.offsets[t] for t in np.flatnonzero(weights).tolist()):
        # One character can be several tokens, each of which covers all of it.
        if start > seen:
            num_bytes += len(part.text[first:seen].encode())
            first = start
        seen = max(seen, end)
    num_bytes += len(part.text[first:seen].encode())
    if prompt_weight:
        weights = np.where(weights == 0, np.float32(prompt_weight), weights)
    # Shift: position t predicts token t + 1; the last position predicts nothing.
    next_weights = np.append(weights[1:], np.float32(0))
    labels = np.where(next_weights > 0, np.append(ids[1:], 0), IGNORE_INDEX)
    return Example(
        id=name,
        origin=conversation.origin,
        source=conversation.source,
        input_ids=ids,
        labels=labels,
        weights=next_weights,
        num_bytes=num_bytes,
    )


def last_turn(example: Example) -> tuple[list[int], list[int]]:
    """Ids up to the last trained turn, as they are sent when serving; and of that turn.

    The turn is without its stop token.
    """
    trained = example.labels != IGNORE_INDEX
    end = len(trained) - int(trained[::-1].argmax())  # after the last trained position
    start = end
    while start and trained[start - 1]:
        start -= 1
    ids = example.input_ids.tolist()
    return ids[: start + 1], ids[start + 1 : end]


def continuation(
    name: str, origin: Origin, prompt: Sequence[int], answer: Sequence[int], num_bytes: int
) -> Example:
    """An example whose `answer` tokens are supervised and whose `prompt` tokens are not."""
    ids = np.array([*prompt, *answer], dtype=np.int64)
    labels = np.append(ids[1:], IGNORE_INDEX)
    labels[: len(prompt) - 1] = IGNORE_INDEX
    weights = (labels != IGNORE_INDEX).astype(np.float32)
    return Example(name, origin, 0, ids, labels, weights, num_bytes)


def fingerprint(examples: Sequence[Example]) -> str:
    """sha256 over ids, labels and weights of all examples, in order."""
    digest = hashlib.sha256()
    for example in examples:
        for part in (example.input_ids, example.labels, example.weights):
            digest.update(part.tobytes())
        digest.update(b"|")
    return digest.hexdigest()
