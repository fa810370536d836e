"""Token ids and loss weights of rows that no chat template renders: plain texts, and token ids.

    plain text    <s>  The  fox  jumps  </s>
    weights       0    1    1    1      1

Rows of token ids keep the ids they have, and are trained where they say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sft.data.rows.conversation import Message
from sft.data.template.encoding import Encoded
from sft.errors import DataError

_CHARACTER_BYTES = 4  # a character of UTF-8 at most, and so the tokens of one


def plain_text(body: Encoded, tokenizer: Any) -> tuple[Encoded, list[float]]:
    """`body` as a document: BOS if the tokenizer puts one there, and a trained EOS at the end.

    The weight of the first token is 0, as nothing stands before it that it could be told from.

    Raises:
        DataError: the tokenizer has no EOS, so the model could not learn where a text ends.
    """
    if tokenizer.eos_token_id is None:
        raise DataError("the tokenizer has no EOS token, which must end a plain text")
    before = _put_before(tokenizer)
    head, tail = "".join(tokenizer.convert_ids_to_tokens(before)), str(tokenizer.eos_token)
    size, end = len(head), len(head) + len(body.text)
    offsets = [(0, size)] * len(before) + [(a + size, b + size) for a, b in body.offsets]
    ids = [*before, *body.ids, tokenizer.eos_token_id]
    encoded = Encoded(head + body.text + tail, ids, [*offsets, (end, end + len(tail))])
    num_shown = max(1, len(before))
    return encoded, [0.0] * num_shown + [1.0] * (len(ids) - num_shown)


def _put_before(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before a text by itself: BOS, or nothing."""
    plain: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    usual: list[int] = tokenizer("a")["input_ids"]
    starts = range(len(usual) - len(plain) + 1)
    start = next((i for i in starts if usual[i : i + len(plain)] == plain), 0)
    return usual[:start]


def given_ids(messages: Sequence[Message], tokenizer: Any) -> tuple[Encoded, list[float]]:
    """The ids that `formats.tokens` wrote into `messages`, with their text.

    Raises:
        DataError: an id is not in the vocabulary.
    """
    ids, weights = token_ids(messages)
    size = len(tokenizer)
    for place, token in enumerate(ids):
        if not 0 <= token < size:
            raise DataError(
                f"input_ids[{place}]: [{token}] is not in the vocabulary of this model's "
                f"tokenizer, which has {size:,} tokens; was another tokenizer used?"
            )
    return _with_text(ids, tokenizer), [0.0, *weights[1:]]


def token_ids(messages: Sequence[Message]) -> tuple[list[int], list[float]]:
    """The ids that `formats.tokens` wrote as words, and their loss weights; both `[seq_len]`."""
    ids: list[int] = []
    weights: list[float] = []
    for message in messages:
        run = [int(word) for word in message.content.split()]
        ids += run
        weights += [message.weight] * len(run)
    return ids, weights


def _with_text(ids: list[int], tokenizer: Any) -> Encoded:
    """The text that `ids` spell, and the characters of each."""
    text: str = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    again = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    if again["input_ids"] == ids:
        return Encoded(text, ids, again["offset_mapping"])
    # The usual tokens of this text are others. Then as many ids at a time as make characters.
    text, offsets = "", []
    group: list[int] = []
    for place, token in enumerate(ids):
        group.append(token)
        piece = tokenizer.decode(group, clean_up_tokenization_spaces=False)
        partial = piece.endswith("\ufffd") and len(group) < _CHARACTER_BYTES
        if partial and place < len(ids) - 1:
            continue
        offsets += [(len(text), len(text) + len(piece))] * len(group)
        text += piece
        group = []
    return Encoded(text, ids, offsets)
