"""One prompt, several answers: whether they contradict each other, differ, or are nearly equal."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from sft.curate.corpus import Corpus
from sft.curate.finding import DataFinding, count, finding, place, quoted
from sft.data.rows.conversation import Conversation, Message
from sft.texts.near_duplicates import alike, words

NEARLY_EQUAL = 0.3  # Jaccard similarity of the words of two answers
ALL_BUT_NUMBERS = 0.6  # similarity of answers of which the numbers are compared
SHORT = 34  # characters of each answer that are quoted
LABEL = 4  # words; an answer this short is a label or a value
_OTHER = re.compile(r"[\W_]+")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_Answer = tuple[int, str]  # row and text
_SIDES = {
    **dict.fromkeys(("yes", "true", "correct", "ja", "oui", "sí", "sì", "sim"), True),
    **dict.fromkeys(("no", "false", "incorrect", "nein", "non", "não"), False),
}


def conflicts(corpus: Corpus) -> list[DataFinding]:
    """Equal prompts, system message, tools and earlier turns included, with unequal answers.

    Contradictions (another number, yes and no, another label) and answers that share few words
    are warnings; answers that differ little are only mentioned.
    """
    kinds: dict[str, list[list[_Answer]]] = {"contradict": [], "differ": [], "nearly": []}
    for answers in _by_prompt(corpus.train):
        distinct = {" ".join(words(text)) or text: text for _, text in reversed(answers)}
        if len(distinct) > 1:
            kinds[_kind(list(distinct.values())[::-1])].append(answers)
    return [_finding(corpus, kind, groups) for kind, groups in kinds.items() if groups]


def _finding(corpus: Corpus, kind: str, groups: Sequence[Sequence[_Answer]]) -> DataFinding:
    rows = [row for answers in groups for row, _ in answers]
    (at, text), *others = groups[0]
    other_at, other = next((i, t) for i, t in others if words(t) != words(text) or t != text)
    number = count(len(groups), "prompt")
    what = {
        "contradict": "contradict each other",
        "differ": "share few words",
        "nearly": "differ a little",
    }[kind]
    message = (
        f"{number} with answers that {what}; {place(corpus, at)} and "
        f"{place(corpus, other_at)}: {quoted(text, SHORT)} / {quoted(other, SHORT)}"
    )
    fix = "keep one answer for each prompt"
    if kind == "nearly":
        return finding(corpus, "conflicts", "info", rows, message, fix)
    fix += ", or leave them out: sft curate DATA --drop conflicts --out FILE"
    return finding(corpus, "conflicts", "warning", rows, message, fix)


def _by_prompt(rows: Sequence[Conversation]) -> Iterator[list[_Answer]]:
    """The trained answers to each prompt that more than one row has; an answer once a row."""
    begins = [_first(row) for row in rows]
    often = Counter(begins)
    groups: dict[bytes, list[_Answer]] = {}
    for index, row in enumerate(rows):
        if often[begins[index]] < 2:
            continue
        history = hashlib.sha256(_tools(row))
        asked = ""
        for message in row.messages:
            if message.role == "assistant" and message.weight > 0 and asked.strip():
                groups.setdefault(history.digest(), []).append((index, _text(message)))
            history.update(_normal(message))
            asked = message.content
    for answers in groups.values():
        if len({row for row, _ in answers}) > 1:
            yield answers


def _first(row: Conversation) -> str:
    """Letters and digits of the first user message: different for rows that share no prompt."""
    prompt = next((m.content for m in row.messages if m.role == "user"), "")
    return _OTHER.sub("", prompt.lower())


def _tools(row: Conversation) -> bytes:
    return json.dumps(list(row.tools), sort_keys=True, default=str).encode() if row.tools else b""


def _text(message: Message) -> str:
    calls = [json.dumps(dict(c), sort_keys=True, default=str) for c in message.tool_calls]
    return "\n".join(filter(None, [message.content, *calls]))


def _normal(message: Message) -> bytes:
    text = " ".join(words(_text(message)))
    return f"{message.role}\0{text}\1".encode("utf-8", "surrogatepass")


def _kind(texts: Sequence[str]) -> str:
    """The worst of what the first answer and each other are to each other."""
    kinds = {_compared(texts[0], other) for other in texts[1:]}
    return next(kind for kind in ("contradict", "differ", "nearly") if kind in kinds)


def _compared(a: str, b: str) -> str:
    first, second = words(a), words(b)
    if _sides(first, second):
        return "contradict"
    likeness = alike(first, second)
    if likeness >= ALL_BUT_NUMBERS and _numbers(a) != _numbers(b):
        return "contradict"
    values = _value(a), _value(b)
    if all(values) and values[0] != values[1]:
        return "contradict"
    if max(len(first), len(second)) <= LABEL and likeness < 1:
        return "contradict"
    # Two ways to one result are no conflict.
    if likeness >= NEARLY_EQUAL or (all(values) and values[0] == values[1]):
        return "nearly"
    return "differ"


def _sides(first: Sequence[str], second: Sequence[str]) -> bool:
    sides = [_SIDES.get(answer[0]) if answer else None for answer in (first, second)]
    return None not in sides and sides[0] != sides[1]


def _numbers(text: str) -> list[str]:
    return sorted(number.replace(",", "") for number in _NUMBER.findall(text))


def _value(text: str) -> str:
    """The number an answer comes to: after `####`, in its last line when little else is there."""
    last = text.strip().rsplit("\n", 1)[-1]
    numbers = _NUMBER.findall(last)
    if not numbers or (len(words(last)) > 2 * LABEL and "####" not in last):
        return ""
    return str(numbers[-1]).replace(",", "").rstrip(".")
