"""Planted text: prompts about a topic, with the common words that all topics share."""

import json
import random
from pathlib import Path

import pytest

from sft.data.rows.conversation import Conversation, Message, Origin

SHARED = Path(__file__).parents[3] / "shared" / "data"


COMMON = ("the", "of", "a", "to", "in", "is", "and", "what", "how", "for", "please", "with", "on")


class Topic:
    """Sentences of common words and of the topic's own, some frequent and many rare."""

    def __init__(self, name, seed):
        self._name = name
        self._rng = random.Random(seed)
        self.own = [name + "".join(self._rng.sample("abcdefghij", 4)) for _ in range(60)]

    def prompt(self, length=14):
        topical = self._rng.choices(self.own, [1 / (i + 1) for i in range(60)], k=length)
        return " ".join(self._rng.choice((word, self._rng.choice(COMMON))) for word in topical)

    def prompts(self, count):
        return [self.prompt(self._rng.randint(8, 20)) for _ in range(count)]


@pytest.fixture
def topic():
    return Topic


@pytest.fixture
def row():
    """`row(prompt, answer, line)`; no answer makes a prompt to be used as usage."""

    def make(prompt, answer="An answer.", line=1, source="rows.jsonl", system=None):
        messages = [Message("system", system)] if system else []
        messages.append(Message("user", prompt))
        if answer is not None:
            messages.append(Message("assistant", answer, weight=1.0))
        return Conversation(tuple(messages), Origin(source, line))

    return make


@pytest.fixture
def rows(row):
    """`rows(prompts, answers)`, on lines from 1."""

    def make(prompts, answers=None, source="rows.jsonl"):
        answers = answers or [f"An answer to {prompt}" for prompt in prompts]
        pairs = enumerate(zip(prompts, answers, strict=True), start=1)
        return [row(prompt, answer, line, source) for line, (prompt, answer) in pairs]

    return make


@pytest.fixture(scope="session")
def real():
    """`real("alpaca" or "gsm8k")`: pairs of prompt and answer; skips without the shared data."""

    def load(name):
        if not SHARED.exists():
            pytest.skip("needs the shared data sets")
        if name == "gsm8k":
            lines = (SHARED / "gsm8k_train.jsonl").read_text(encoding="utf-8").splitlines()
            return [(r["question"], r["answer"]) for r in map(json.loads, lines[:3000])]
        found = json.loads((SHARED / "alpaca_en_demo.json").read_text(encoding="utf-8"))
        return [(f"{r['instruction']}\n{r['input']}".strip(), r["output"]) for r in found]

    return load
