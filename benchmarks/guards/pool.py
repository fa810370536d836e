"""Rows to plant pitfalls in: short real rows where they lie beside the project, else made up.

Two domains of questions with answers, `general` (Alpaca) and `maths` (GSM8K), and pieces of
plain `text` (WikiText-2). Answers end where a sentence or a line ends, so that the stop token
after them is honest. A fixed part of each domain is kept for the oracle and never drawn.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable
from functools import cache
from itertools import groupby
from pathlib import Path

import made_up

DATA = Path(__file__).parents[3] / "shared" / "data"
NUM_ORACLE = 144  # rows of each domain kept for the oracle; pieces of text: NUM_ORACLE_TEXTS
NUM_ORACLE_TEXTS = 56

Row = dict[str, str]  # prompt and completion, or text


def real_data() -> bool:
    """Whether the public data sets are here; else rows are made up."""
    names = ("alpaca_en_demo.json", "gsm8k_train.jsonl", "wikitext2_valid.txt")
    return all((DATA / name).is_file() for name in names)


class Draw:
    """Rows of one seed. No row is handed out twice, and none that the oracle uses."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._left: dict[str, list[Row]] = {}

    def general(self, number: int) -> list[Row]:
        """Instructions on all sorts of things."""
        return self._take("general", number)

    def maths(self, number: int) -> list[Row]:
        """Grade-school maths problems."""
        return self._take("maths", number)

    def texts(self, number: int) -> list[Row]:
        """Pieces of plain text."""
        return self._take("text", number)

    def long_general(self, number: int) -> list[Row]:
        """Instructions whose answers have at least 16 words."""
        rows = self._rest("general")
        chosen = [row for row in rows if len(row["completion"].split()) >= 16][:number]
        self._left["general"] = [row for row in rows if row not in chosen]
        return chosen

    def _rest(self, domain: str) -> list[Row]:
        if domain not in self._left:
            rows = list(drawable(domain))
            self.random.shuffle(rows)
            self._left[domain] = rows
        return self._left[domain]

    def _take(self, domain: str, number: int) -> list[Row]:
        rows = self._rest(domain)
        if number > len(rows):
            raise SystemExit(f"{domain}: {number} rows are wanted and {len(rows)} are left")
        self._left[domain] = rows[number:]
        return [dict(row) for row in rows[:number]]


def oracle(domain: str) -> list[Row]:
    """The rows of a domain that only the oracle sees, the same for every seed."""
    number = NUM_ORACLE_TEXTS if domain == "text" else NUM_ORACLE
    return [dict(row) for row in _all(domain)[:number]]


def drawable(domain: str) -> list[Row]:
    """The rows of a domain that are not the oracle's."""
    return _all(domain)[NUM_ORACLE_TEXTS if domain == "text" else NUM_ORACLE :]


@cache
def _all(domain: str) -> list[Row]:
    """All short rows of a domain, each prompt once, in an order that depends on nothing."""
    sources: dict[str, tuple[Callable[[], list[Row]], Callable[[], list[Row]]]] = {
        "general": (_alpaca, made_up.general),
        "maths": (_gsm8k, made_up.maths),
        "text": (_wikitext, made_up.texts),
    }
    rows = sources[domain][0 if real_data() else 1]()
    once = {next(iter(row.values())).lower(): row for row in rows}
    return sorted(once.values(), key=_digest)


def _digest(row: Row) -> str:
    return hashlib.sha256(json.dumps(row).encode()).hexdigest()


def _alpaca() -> list[Row]:
    rows = json.loads((DATA / "alpaca_en_demo.json").read_text(encoding="utf-8"))
    short = [
        {"prompt": row["instruction"], "completion": cut(row["output"], 36)}
        for row in rows
        if not row["input"] and num_pieces(row["instruction"]) <= 26
    ]
    return [row for row in short if num_pieces(row["completion"]) >= 6]


def _gsm8k() -> list[Row]:
    lines = (DATA / "gsm8k_train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    short = [
        {"prompt": row["question"], "completion": cut(row["answer"], 40)}
        for row in rows
        if num_pieces(row["question"]) <= 36
    ]
    return [row for row in short if num_pieces(row["completion"]) >= 6]


def _wikitext() -> list[Row]:
    """Sentences that follow each other in a paragraph, none with an unknown word."""
    texts = []
    for line in (DATA / "wikitext2_valid.txt").read_text(encoding="utf-8").splitlines():
        line = re.sub(r" @(.)@ ", r"\1", line.strip())
        line = re.sub(r" ([.,;:!?)])", r"\1", line.replace("( ", "("))
        if line.startswith("="):
            continue
        sentences = re.split(r"(?<=[a-z]\.) (?=[A-Z])", line)
        for unknown, run in groupby(sentences, key=lambda sentence: "<unk>" in sentence):
            if not unknown:
                texts.append({"text": cut(" ".join(run), 60)})
    return [row for row in texts if num_pieces(row["text"]) >= 30]


def num_pieces(text: str) -> int:
    """About the number of tokens of `text`: words, digits and punctuation marks."""
    return len(re.findall(r"[^\W\d]+|\d|[^\w\s]", text))


def cut(text: str, limit: int) -> str:
    """The sentences and lines that `text` begins with, at most `limit` pieces in all."""
    kept = ""
    for end in re.finditer(r"(?<!\d)[.!?](?=\s|$)|(?=\n)|$", text.strip()):
        part = text.strip()[: end.end()]
        if num_pieces(part) > limit:
            break
        kept = part.rstrip()
    return kept


def write_rows(path: Path, rows: list[Row]) -> Path:
    """Rows as JSON lines; the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_texts(path: Path, rows: list[Row]) -> Path:
    """Pieces of text, one per line; the path."""
    lines = (" ".join(row["text"].split()) for row in rows)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path
