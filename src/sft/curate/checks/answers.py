"""Answers that say nothing, say the prompt or themselves again, or refuse."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sft.curate.checks.wording import count, finding, place, quoted, quoted_end, share, verb
from sft.curate.corpus import Corpus, Turn
from sft.curate.finding import DataFinding, Severity
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
    faults: dict[str, list[tuple[Turn, str]]] = {"blank": [], "nothing": [], "unfilled": []}
    for turn in corpus.turns:
        if not (turn.calls and not turn.answer.strip()):
            _judge(turn, turn.answer, faults)
        if turn.role == "user":
            _judge(turn, turn.prompt, faults)
            if "```" not in turn.prompt and (match := _UNFILLED.search(turn.prompt)):
                quote = turn.prompt[max(0, match.start() - 50) :]
                faults["unfilled"].append((turn, quote))
    drop = "sft curate DATA --drop empty --out FILE"
    kinds: dict[str, tuple[Severity, str, str, str]] = {
        "blank": ("error", "prompt or answer", "without any text", drop),
        "nothing": ("warning", "prompt or answer", "that only stands for nothing", drop),
        "unfilled": (
            "warning",
            "prompt",
            "with a place that was never filled",
            f"fill or remove the placeholder, or leave the rows out: {drop}",
        ),
    }
    return [
        finding(
            corpus,
            "empty",
            severity,
            (turn.row for turn, _ in faults[kind]),
            f"{count(len(faults[kind]), noun)} {what}; "
            f"{place(corpus, faults[kind][0][0].row)}: {quoted(faults[kind][0][1], 80)}",
            fix,
        )
        for kind, (severity, noun, what, fix) in kinds.items()
        if faults[kind]
    ]


def _judge(turn: Turn, text: str, faults: dict[str, list[tuple[Turn, str]]]) -> None:
    if not text.strip():
        faults["blank"].append((turn, text))
    elif _is_nothing(text):
        faults["nothing"].append((turn, text))


def _is_nothing(text: str) -> bool:
    """Whether a text stands for nothing; marks alone may be the answer to "which operator"."""
    text = text.strip()
    if len(text) > 60 or not _NOTHING.fullmatch(text):
        return False
    return any(letter.isalpha() for letter in text) or text in ("...", "\u2026", "-", "--", "?")


def echo(corpus: Corpus) -> list[DataFinding]:
    """Answers that begin with their whole prompt, or consist of it."""
    found = [turn for turn in corpus.turns if turn.role == "user" and _echoes(turn)]
    if not found:
        return []
    turn = found[0]
    whole = sum(words(turn.answer) == words(turn.prompt) for turn in found)
    only = f" ({whole:,} of them say nothing else)" if whole else ""
    return [
        finding(
            corpus,
            "echo",
            "warning",
            _rows(found),
            f"{count(len(found), 'answer')} {verb(len(found), 'begin')} with the whole "
            f"prompt{only}; "
            f"{place(corpus, turn.row)}: {quoted(turn.answer, 80)}",
            "sft curate DATA --drop echo --out FILE; if a template put the prompt there, give "
            "prompt and answer in two columns",
        )
    ]


def _echoes(turn: Turn) -> bool:
    prompt = words(turn.prompt)
    return (
        len(prompt) >= MIN_ECHO
        and words(turn.answer[: 2 * len(turn.prompt) + 20])[: len(prompt)] == prompt
    )


def repetition(corpus: Corpus) -> list[DataFinding]:
    """Answers that got into a loop: one character, line or phrase over and over."""
    found = [turn for turn in corpus.turns if loops(turn.answer)]
    if not found:
        return []
    turn = found[0]
    return [
        finding(
            corpus,
            "repetition",
            "warning",
            _rows(found),
            f"{count(len(found), 'answer')} that {verb(len(found), 'repeat')} one thing "
            "over and over; "
            f"{place(corpus, turn.row)} ends: {quoted_end(turn.answer, 60)}",
            "sft curate DATA --drop repetition --out FILE",
        )
    ]


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
    refused, spoken = [], []
    for turn in corpus.turns:
        if refuses(turn.answer):
            refused.append(turn)
        elif _SELF.search(turn.answer) and not _SELF.search(turn.prompt):
            spoken.append(turn)
    found = []
    for turns, does, how, fix in (
        (
            refused,
            "refuse",
            "",
            "if they are not meant, sft curate DATA --drop refusals --out FILE",
        ),
        (
            spoken,
            "speak",
            " as an AI without refusing",
            "edit them if the model must not say this, or leave them out: "
            "sft curate DATA --drop refusals --out FILE",
        ),
    ):
        if not turns:
            continue
        total = len(corpus.turns)
        few = len(turns) < MANY * total
        match = _REFUSES.search(turns[0].answer) or _SELF.search(turns[0].answer)
        quote = turns[0].answer[match.start() if match else 0 :]
        found.append(
            finding(
                corpus,
                "refusals",
                "info" if few else "warning",
                _rows(turns),
                f"{count(len(turns), 'answer')} ({share(len(turns), total)}) "
                f"{verb(len(turns), does)}{how}; "
                f"{place(corpus, turns[0].row)}: {quoted(quote, 80)}",
                fix,
            )
        )
    return found


def refuses(answer: str) -> bool:
    """Whether an answer begins by refusing the task."""
    return bool(_REFUSES.search(answer.strip()[:REFUSAL_HEAD]))


def _rows(turns: Sequence[Turn]) -> list[int]:
    return [turn.row for turn in turns]
