"""Answers that say nothing, say the prompt or themselves again, or refuse."""

from __future__ import annotations

import re

from sft.curate.corpus import Corpus, Turn
from sft.curate.finding import (
    DataFinding,
    Severity,
    count,
    example_finding,
    finding,
    place,
    quoted_end,
    verb,
)
from sft.texts.near_duplicates import words

MIN_ECHO = 5  # words of a prompt that is looked for in its answer
# What a table or an export writes where there was nothing.
_NOTHING = re.compile(
    r"[\W_]*(?:n/?a|nan|null|undefined|tbd|todo|none given|no ?input|no ?output|no ?answer"
    r"|empty|blank|placeholder|lorem ipsum|insert (?:text|answer|response|name)(?: here)?"
    r"|your (?:answer|response|text)(?: here)?)?[\W_]*",
    re.IGNORECASE,
)
# Left in a prompt by a template that was not filled.
_UNFILLED = re.compile(
    r"<\s*no\s?input\s*>|\[\s*insert [a-z ]{2,30}\]"
    r"|\{\s*(?:instruction|input|question|prompt|context|query)\s*\}"
    r"|\{\{\s*[a-z_]{2,30}\s*\}\}",
    re.IGNORECASE,
)
# Lines, tables and rulers are drawn with marks.
_SAME_CHARACTER = re.compile(r"(\w)\1{99}")
MIN_LOOP, MAX_PERIOD = 16, 20  # words
_SELF = re.compile(
    r"\bas an? (?:[\w-]+ ){0,3}(?:ai|artificial intelligence|language model|chatbot"
    r"|(?:ai|virtual|digital) assistant)\b"
    r"|\bi(?:['\u2019]m| am) (?:just |only |merely )?an? (?:[\w-]+ ){0,2}"
    r"(?:ai|artificial intelligence|language model)\b",
    re.IGNORECASE,
)
_NOT_ABLE = (
    r"(?:can(?:no|['\u2019])t|can not|am (?:unable|not able)|['\u2019]m (?:unable|not able)"
    r"|(?:do not|don['\u2019]t|currently don['\u2019]t) have (?:the |any )?"
    r"(?:ability|abilities|capability|capabilities|access|functionality|function|real-time))"
)
_SERVE = (
    r"(?:assist|help|provid|fulfil|perform|complet|access|brows|generat|answer|comply|respond"
    r"|creat|execut|offer|engag|participat|order|book|schedul|search|predict|real-time|capab"
    r"|abilit|functionalit|request|retriev|estimat|determin|calculat)"
)
_REFUSES = re.compile(
    rf"\bi(?:['\u2019]m| am)? (?:so |very |really )?(?:sorry|afraid|apologi[sz]e)\b[^\n]{{0,60}}?"
    rf"\bi ?{_NOT_ABLE}[^.!?\n]{{0,80}}?{_SERVE}"
    rf"|^(?:unfortunately, )?(?:but )?i ?{_NOT_ABLE} (?:to )?[^.!?\n]{{0,40}}?{_SERVE}"
    r"|\b(?:i|and) (?:do not|don['\u2019]t|cannot|can['\u2019]t) (?:have|possess|experience) "
    r"(?:the |any )?(?:personal|feelings|emotions|a physical|physical|opinions|ability|data|access)"
    r"|\bas an ai\b[^.!?]{0,60}\b(?:not (?:able|capable)|unable|cannot|can['\u2019]t)\b",
    re.IGNORECASE,
)
REFUSAL_HEAD = 300  # characters of an answer in which it refuses, if it does
MANY = 0.01


def empty(corpus: Corpus) -> list[DataFinding]:
    """Prompts and answers that are blank, or hold what stands for nothing, such as `NaN`."""
    blank: list[tuple[int, str]] = []
    nothing: list[tuple[int, str]] = []
    unfilled: list[tuple[int, str]] = []
    for turn in corpus.turns:
        texts = [turn.prompt] if turn.role == "user" else []
        if turn.answer.strip() or not turn.calls:
            texts.append(turn.answer)
        blank += [(turn.row, text) for text in texts if not text.strip()]
        nothing += [(turn.row, text) for text in texts if _is_nothing(text)]
        match = _UNFILLED.search(turn.prompt) if turn.role == "user" else None
        if match and "```" not in turn.prompt:
            unfilled.append((turn.row, turn.prompt[max(0, match.start() - 50) :]))
    drop = "sft curate DATA --drop empty --out FILE"
    fill = f"fill or remove the placeholder, or leave the rows out: {drop}"
    kinds: tuple[tuple[Severity, list[tuple[int, str]], str, str, str], ...] = (
        ("error", blank, "prompt or answer", "without any text", drop),
        ("warning", nothing, "prompt or answer", "that only stands for nothing", drop),
        ("warning", unfilled, "prompt", "with a place that was never filled", fill),
    )
    return [
        one
        for severity, examples, noun, what, fix in kinds
        for one in example_finding(
            corpus, "empty", severity, examples, what, fix, noun=noun, limit=80
        )
    ]


def _is_nothing(text: str) -> bool:
    """Whether a text stands for nothing; marks alone may be the answer to "which operator"."""
    text = text.strip()
    if not text or len(text) > 60 or not _NOTHING.fullmatch(text):
        return False
    return any(letter.isalpha() for letter in text) or text in ("...", "\u2026", "-", "--", "?")


def echo(corpus: Corpus) -> list[DataFinding]:
    """Answers that begin with their whole prompt, or consist of it."""
    turns = [turn for turn in corpus.turns if turn.role == "user" and _echoes(turn)]
    num_same = sum(words(turn.answer) == words(turn.prompt) for turn in turns)
    only = f" ({num_same:,} of them say nothing else)" if num_same else ""
    return example_finding(
        corpus,
        "echo",
        "warning",
        [(turn.row, turn.answer) for turn in turns],
        f"{verb(len(turns), 'begin')} with the whole prompt{only}",
        "sft curate DATA --drop echo --out FILE; if a template put the prompt there, give "
        "prompt and answer in two columns",
        noun="answer",
        limit=80,
    )


def _echoes(turn: Turn) -> bool:
    prompt = words(turn.prompt)
    return (
        len(prompt) >= MIN_ECHO
        and words(turn.answer[: 2 * len(turn.prompt) + 20])[: len(prompt)] == prompt
    )


def repetition(corpus: Corpus) -> list[DataFinding]:
    """Answers that got into a loop: one character, line or phrase over and over."""
    turns = [turn for turn in corpus.turns if loops(turn.answer)]
    if not turns:
        return []
    message = (
        f"{count(len(turns), 'answer')} that {verb(len(turns), 'repeat')} one thing over and over; "
        f"{place(corpus, turns[0].row)} ends: {quoted_end(turns[0].answer, 60)}"
    )
    fix = "sft curate DATA --drop repetition --out FILE"
    rows = (turn.row for turn in turns)
    return [finding(corpus, "repetition", "warning", rows, message, fix)]


def loops(text: str) -> bool:
    """Whether a text repeats a character 100 times, or ends in the same words four times or more.

    The words repeated are 20 at most, and 16 at least with their repeats: "bla bla bla" is none.
    """
    if _SAME_CHARACTER.search(text):
        return True
    tail = text[-2_000:].split()[-4 * MAX_PERIOD :]
    # Numbers and marks repeat in tables.
    if sum(word.isalpha() for word in tail) < 0.5 * len(tail):
        return False
    for period in range(1, MAX_PERIOD + 1):
        size = max(4 * period, MIN_LOOP)
        end = tail[-size:]
        if len(end) == size and all(a == b for a, b in zip(end, end[period:], strict=False)):
            return True
    return False


def refusals(corpus: Corpus) -> list[DataFinding]:
    """Answers that refuse, and answers that speak of their author as an AI."""
    refusing: list[tuple[int, str]] = []
    speaking: list[tuple[int, str]] = []
    for turn in corpus.turns:
        if refuses(turn.answer):
            match = _REFUSES.search(turn.answer)
            refusing.append((turn.row, turn.answer[match.start() if match else 0 :]))
        elif (match := _SELF.search(turn.answer)) and not _SELF.search(turn.prompt):
            speaking.append((turn.row, turn.answer[match.start() :]))
    drop = "sft curate DATA --drop refusals --out FILE"
    edit = f"edit them if the model must not say this, or leave them out: {drop}"
    total = len(corpus.turns)
    return [
        one
        for examples, does, how, fix in (
            (refusing, "refuse", "", f"if they are not meant, {drop}"),
            (speaking, "speak", " as an AI without refusing", edit),
        )
        for one in example_finding(
            corpus,
            "refusals",
            "info" if len(examples) < MANY * total else "warning",
            examples,
            f"{verb(len(examples), does)}{how}",
            fix,
            noun="answer",
            limit=80,
            total=total,
        )
    ]


def refuses(answer: str) -> bool:
    """Whether an answer begins by refusing the task."""
    return bool(_REFUSES.search(answer.strip()[:REFUSAL_HEAD]))
