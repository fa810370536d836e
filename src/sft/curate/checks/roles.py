"""Text in the wrong role: swapped prompt and answer, speaker names, system text said by users."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sft.curate.corpus import Corpus
from sft.curate.finding import (
    DataFinding,
    Severity,
    count,
    example_finding,
    finding,
    place,
    quoted,
    share,
    verb,
)
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
    kinds: tuple[tuple[Severity, NDArray[np.bool_], str, str], ...] = (
        ("error", odds >= CERTAIN, "have", ""),
        ("warning", (odds >= SWAPPED) & (odds < CERTAIN), "seem", " to have"),
    )
    findings = []
    for severity, swapped, does, more in kinds:
        rows = np.flatnonzero(swapped).tolist()
        if rows:
            message = (
                f"{count(len(rows))} ({share(len(rows), len(odds))}) {verb(len(rows), does)}{more} "
                f"prompt and answer swapped; the answer of {place(corpus, rows[0])} is "
                f"{quoted(corpus.answers[rows[0]], 60)}"
            )
            fix = "swap them, or sft curate DATA --drop wrong_roles --out FILE"
            findings.append(finding(corpus, "wrong_roles", severity, rows, message, fix))
    return findings


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
    vectorizer = HashingVectorizer(analyzer=_features, n_features=2**16, alternate_sign=False)
    asked = vectorizer.transform(prompts).tocsr()
    answered = vectorizer.transform(answers).tocsr()
    order = np.random.default_rng(SEED).permutation(num_rows)
    sides = np.zeros((2, num_rows))
    for fold in range(FOLDS):
        judged = order[fold::FOLDS]
        learn = np.setdiff1d(order, judged, assume_unique=True)
        if len(learn) > MAX_LEARN:
            learn = np.random.default_rng(fold).choice(learn, MAX_LEARN, replace=False)
        model = LogisticRegression(C=10.0, solver="liblinear", tol=1e-3)
        model.fit(vstack([asked[learn], answered[learn]]), np.repeat([0, 1], len(learn)))
        sides[0, judged] = model.decision_function(asked[judged])
        sides[1, judged] = -model.decision_function(answered[judged])
    if np.mean(sides < 0) < CAN_TELL:
        return np.zeros(num_rows)
    odds: NDArray[np.float64] = np.where(sides.min(axis=0) > LEAST, sides.sum(axis=0), 0.0)
    return odds


def _features(text: str) -> list[str]:
    """What tells a prompt from an answer: words, pairs, how the text begins and ends, its size."""
    text = text.strip()
    ends = text if len(text) <= HEAD + TAIL else f"{text[:HEAD]} {text[-TAIL:]}"
    single = words(ends)
    first = single[:2]
    size = f"size={len(text).bit_length()}"
    marks = [f"mark={mark}" for mark in ("?", "\n", "```", ":", "!") if mark in ends]
    form = [f"begin={' '.join(first[:1])}", f"begin2={' '.join(first)}", f"end={text[-1:]}", size]
    return [*single, *map(" ".join, pairwise(single)), *form * 2, *marks]


def _speakers(corpus: Corpus) -> list[DataFinding]:
    """Speaker names at the start of a message, and the user's next turn inside an answer."""
    examples: list[tuple[int, str]] = []
    for turn in corpus.turns:
        begins = _SPEAKER.match(turn.answer)
        match = begins or _NEXT_SPEAKER.search(turn.answer)
        if match and not _DIALOGUE.search(turn.prompt):
            examples.append((turn.row, turn.answer[match.start() :]))
        elif not begins and turn.role == "user" and _SPEAKER.match(turn.prompt):
            examples.append((turn.row, turn.prompt))
    return example_finding(
        corpus,
        "wrong_roles",
        "warning",
        examples,
        "with the name of a speaker or of a template's section inside a message",
        "remove the names: the chat template adds its own",
        limit=70,
    )


def _system_as_user(corpus: Corpus) -> list[DataFinding]:
    """Rows without a system message whose user says what a system message says."""
    first = [row.messages[0] for row in corpus.train]
    examples = [
        (i, message.content)
        for i, message in enumerate(first)
        if message.role == "user" and _SYSTEM.match(message.content)
    ]
    return example_finding(
        corpus,
        "wrong_roles",
        "info",
        examples,
        f"{verb(len(examples), 'begin')} as a system message does",
        "move that text to the role system, if it is sent there when serving",
        noun="user message",
        limit=70,
    )
