"""Texts that are far longer or shorter than the others."""

from sft.curate.checks.text_lengths import lengths_text
from sft.curate.corpus import Corpus


def test_lengths_far_from_the_others(rows):
    texts = ["word " * (20 + i % 7) for i in range(100)]
    assert lengths_text(Corpus(rows(texts, texts))) == []
    texts[40] = "word " * 4000
    (found,) = lengths_text(Corpus(rows(["Say it please"] * 100, texts)))
    assert (found.severity, found.rows) == ("info", ("rows.jsonl:41",))
    assert lengths_text(Corpus(rows(["a"], ["b"]))) == []
