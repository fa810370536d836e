"""Text in the wrong role: swapped prompt and answer, speaker names, system text said by users."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sft.curate.checks.wording import count, finding, place, quoted, share, verb
from sft.curate.corpus import Corpus
from sft.curate.finding import DataFinding
from sft.curate.vectors import SEED
from sft.texts.near_duplicates import words

MIN_ROWS = 40  # that a classifier can learn from
MAX_LEARN = 4_000  # rows that each fold learns from: more rows tell it little
FOLDS = 5
HEAD, TAIL = 160, 40  # characters of a text that tell what it is
# Log odds of both sides together, and that of the less sure side. On Alpaca rows swapped on
# purpose have 1.2 and more but for one in fifty, and all others 0.3 at most.
SWAPPED, CERTAIN, LEAST = 1.0, 4.0, -1.0
CAN_TELL = 0.9  # share of rows of which both sides must look like what they are
_SPEAKER = re.compile(
    r"^\s*(?:#{1,4}\s*(?:Instruction|Response|Input|Human|Assistant|User|System)\s*(?::|\n|$)"
    r"|(?:Assistant|ASSISTANT|AI|Bot|GPT|ChatGPT|Human|HUMAN|User|USER)\s*:)",
)
_NEXT_SPEAKER = re.compile(
    r"\n\s*(?:#{1,4}\s*(?:Instruction|Human|User)\s*(?::|\n|$)|(?:Human|User|USER)\s*:)"
)
_DIALOGUE = re.compile(
    r"dialog|conversation|chat|script|transcript|interview|role|user|human", re.I
)
_SYSTEM = re.compile(
    r"\s*you are (?:a|an|the) (?:[\w-]+ ){0,4}(?:assistant|chatbot|ai|language model)\b", re.I
)


def wrong_roles(corpus: Corpus) -> list[DataFinding]:
    """Rows whose prompt reads like an answer and whose answer reads like a prompt, and the like.

    What prompts and answers read like is learned from the corpus itself, by models that have not
    seen the row. Where they cannot tell the two apart, as with small talk, nothing is reported.
    """
    return [*_swapped(corpus), *_speakers(corpus), *_system_as_user(corpus)]


def _swapped(corpus: Corpus) -> list[DataFinding]:
    odds = swap_odds(corpus.prompts, corpus.answers)
    found = []
    certain = odds >= CERTAIN
    for rows, severity in (
        (np.flatnonzero(certain), "error"),
        (np.flatnonzero((odds >= SWAPPED) & ~certain), "warning"),
    ):
        if not len(rows):
            continue
        first = int(rows[0])
        seem = (
            verb(len(rows), "have") if severity == "error" else f"{verb(len(rows), 'seem')} to have"
        )
        found.append(
            finding(
                corpus,
                "wrong_roles",
                "error" if severity == "error" else "warning",
                rows.tolist(),
                f"{count(len(rows))} ({share(len(rows), len(odds))}) {seem} prompt and answer "
                f"swapped; the answer of {place(corpus, first)} is "
                f"{quoted(corpus.answers[first], 60)}",
                "swap them, or sft curate DATA --drop wrong_roles --out FILE",
            )
        )
    return found


def swap_odds(prompts: Sequence[str], answers: Sequence[str]) -> NDArray[np.float64]:
    """`[num_rows]`: log odds that the prompt is an answer plus those that the answer is a prompt.

    A logistic regression on words, word pairs and marks tells prompts from answers; each row is
    judged by a model that learned from other rows. 0 where one side alone says so, for fewer
    than `MIN_ROWS` rows, and where the models cannot tell prompts from answers.
    """
    from scipy.sparse import vstack
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression

    num_rows = len(prompts)
    if num_rows < MIN_ROWS:
        return np.zeros(num_rows)
    vectorizer = HashingVectorizer(analyzer=_signs, n_features=2**16, alternate_sign=False)
    asked = vectorizer.transform(prompts).tocsr()
    answered = vectorizer.transform(answers).tocsr()
    order = np.random.default_rng(SEED).permutation(num_rows)
    sides = np.zeros((2, num_rows))
    for fold in range(FOLDS):
        held = order[fold::FOLDS]
        learn = np.setdiff1d(order, held, assume_unique=True)
        if len(learn) > MAX_LEARN:
            learn = np.random.default_rng(fold).choice(learn, MAX_LEARN, replace=False)
        model = LogisticRegression(C=10.0, solver="liblinear", tol=1e-3)
        model.fit(vstack([asked[learn], answered[learn]]), np.repeat([0, 1], len(learn)))
        sides[0, held] = model.decision_function(asked[held])
        sides[1, held] = -model.decision_function(answered[held])
    if np.mean(sides < 0) < CAN_TELL:
        return np.zeros(num_rows)
    odds: NDArray[np.float64] = np.where(sides.min(axis=0) > LEAST, sides.sum(axis=0), 0.0)
    return odds


def _signs(text: str) -> list[str]:
    """What tells a prompt from an answer: words, pairs, how the text begins and ends, its size."""
    text = text.strip()
    shown = text if len(text) <= HEAD + TAIL else f"{text[:HEAD]} {text[-TAIL:]}"
    found = words(shown)
    first = found[:2]
    size = f"size={len(text).bit_length()}"
    marks = [f"mark={mark}" for mark in ("?", "\n", "```", ":", "!") if mark in shown]
    signs = [f"begin={' '.join(first[:1])}", f"begin2={' '.join(first)}", f"end={text[-1:]}", size]
    return [*found, *map(" ".join, pairwise(found)), *signs * 2, *marks]


def _speakers(corpus: Corpus) -> list[DataFinding]:
    """Speaker names at the start of a message, and the user's next turn inside an answer."""
    hits: list[tuple[int, str]] = []
    for turn in corpus.turns:
        asked = bool(_DIALOGUE.search(turn.prompt))
        if match := _SPEAKER.match(turn.answer):
            if not asked:
                hits.append((turn.row, turn.answer[match.start() :]))
        elif (match := _NEXT_SPEAKER.search(turn.answer)) and not asked:
            hits.append((turn.row, turn.answer[match.start() :]))
        elif turn.role == "user" and (match := _SPEAKER.match(turn.prompt)):
            hits.append((turn.row, turn.prompt))
    if not hits:
        return []
    row, text = hits[0]
    return [
        finding(
            corpus,
            "wrong_roles",
            "warning",
            (row for row, _ in hits),
            f"{count(len({row for row, _ in hits}))} with the name of a speaker or of a template's "
            f"section inside a message; {place(corpus, row)}: {quoted(text, 70)}",
            "remove the names: the chat template adds its own",
        )
    ]


def _system_as_user(corpus: Corpus) -> list[DataFinding]:
    """Rows without a system message whose user says what a system message says."""
    rows = [
        i
        for i, row in enumerate(corpus.train)
        if row.messages[0].role == "user" and _SYSTEM.match(row.messages[0].content)
    ]
    if not rows:
        return []
    text = corpus.train[rows[0]].messages[0].content
    return [
        finding(
            corpus,
            "wrong_roles",
            "info",
            rows,
            f"{count(len(rows), 'user message')} {verb(len(rows), 'begin')} as a system "
            "message does; "
            f"{place(corpus, rows[0])}: {quoted(text, 70)}",
            "move that text to the role system, if it is sent there when serving",
        )
    ]
