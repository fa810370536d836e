"""Near-duplicates out of core are those of `sft.texts.near_duplicates`."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from curating import pair, run, similar_rows, text, write
from sft.config import SourceConfig
from sft.data.repeats import clusters
from sft.data.rows.read import read_conversations
from sft.texts.near_duplicates import Roots, first_of_each, words
from sft.texts.ngrams import (
    band_keys,
    jaccard,
    run_hashes,
    signatures,
    word_hashes,
)


def test_the_rows_kept_are_the_first_of_each_cluster(tmp_path):
    rows = similar_rows(2_000)
    done = run(rows, tmp_path, dedupe="near", chunk_rows=300)
    source = SourceConfig(path=str(tmp_path / "rows.jsonl"))
    labels = clusters(read_conversations([source], "error").conversations)
    expected = first_of_each(labels)
    assert 1_000 < len(expected) < 1_800
    assert done.rows == [rows[i] for i in expected]


def test_of_a_template_one_row_stays(tmp_path):
    rng = random.Random(3)
    body = text(rng, 120)
    rows = [pair("Write the letter", f"Dear {text(rng, 1)}, {body}") for _ in range(600)]
    assert len(run(rows, tmp_path, dedupe="near").rows) == 1


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("Stop!", "stop", True),
        ("你好、世界、今天天气很好", "你好世界今天天气很好", True),
        ("a < b", "a > b", False),
        ("???", "!!!", True),
    ],
)
def test_short_and_unspaced_texts(tmp_path, first, second, same):
    rows = [pair("Say it", f"{text} yes") for text in (first, second)]
    rows[1]["instruction"] += "?"
    done = run(rows, tmp_path, dedupe="near")
    assert len(done.rows) == (1 if same else 2)
    if same:
        assert done.ledger[0]["reason"].startswith("like ")


def test_the_ledger_names_the_row_that_stays_and_how_alike_it_is(tmp_path):
    rng = random.Random(1)
    answer = text(rng, 60)
    rows = [pair("Tell me", answer), pair("Tell me", f"{answer} again"), pair("tell  ME", answer)]
    done = run(rows, tmp_path, dedupe="near")
    source = tmp_path / "rows.jsonl"
    assert done.ledger == [
        {
            "row": f"{source}:2",
            "action": "dropped",
            "by": "near_duplicates",
            "reason": f"like {source}:1 (0.98)",
            "kept": f"{source}:1",
        },
        {
            "row": f"{source}:3",
            "action": "dropped",
            "by": "exact_duplicates",
            "reason": f"same as {source}:1",
            "kept": f"{source}:1",
        },
    ]


def test_a_copy_of_a_row_that_is_like_another_names_the_one_that_stays(tmp_path):
    answer = text(random.Random(1), 60)
    rows = [pair("Tell me", answer), *[pair("Tell me", f"{answer} again")] * 2]
    done = run(rows, tmp_path, dedupe="near")
    source = tmp_path / "rows.jsonl"
    assert done.ledger[1]["reason"] == f"same as {source}:2"
    assert done.ledger[1]["kept"] == f"{source}:1"


def test_exact_keeps_what_differs_in_a_mark_or_a_system_message(tmp_path):
    rows = [
        {"instruction": "Add", "output": "a.b"},
        {"instruction": "ADD ", "output": "a.b"},
        {"instruction": "Add", "output": "a,b"},
        {"instruction": "Add", "output": "a.b", "system": "Be brief."},
    ]
    assert run(rows, tmp_path, dedupe="exact").dropped() == [2]


def test_signatures_estimate_the_similarity():
    rng = random.Random(0)
    estimates, real = [], []
    for _ in range(150):
        one = text(rng, 90).split()
        other = [*one[:78], *text(rng, 12).split()]
        runs, begins = run_hashes(*word_hashes([one, other]), 5)
        signed = signatures(runs, begins)
        estimates.append(float(np.mean(signed[0] == signed[1])))
        real.append(jaccard(runs[: begins[1]], runs[begins[1] :]))
        shown = [{" ".join(p[i : i + 5]) for i in range(86)} for p in (one, other)]
        assert real[-1] == len(shown[0] & shown[1]) / len(shown[0] | shown[1])
    assert abs(np.mean(estimates) - np.mean(real)) < 0.015
    assert np.std(np.subtract(estimates, real)) < 0.05


def test_runs_of_texts_that_stand_together_are_their_own():
    texts = ["one two three four five six", "", "one two", "two", "one two three four five six"]
    runs, begins = run_hashes(*word_hashes([words(text) for text in texts]), 5)
    assert np.diff(begins).tolist() == [2, 1, 1, 1, 2]
    parts = [runs[a:b].tolist() for a, b in itertools.pairwise(begins)]
    assert parts[0] == parts[4]
    assert len({run for part in parts for run in part}) == 5
    exact, begins = run_hashes(*word_hashes([words(text) for text in texts]), 5, whole=False)
    assert np.diff(begins).tolist() == [2, 0, 0, 0, 2]
    assert exact[:2].tolist() == parts[0]


def test_a_very_long_text_has_the_signature_of_its_words():
    parts = text(random.Random(5), 9_000).split()
    runs, begins = run_hashes(*word_hashes([parts]), 5)
    turned, turned_begins = runs[::-1].copy(), begins
    assert (signatures(runs, begins) == signatures(turned, turned_begins)).all()
    assert band_keys(signatures(runs, begins)).shape == (21, 1)


def test_roots_are_the_smallest_numbers():
    rng = random.Random(2)
    roots, plain = Roots(60), [{i} for i in range(60)]
    for _ in range(45):
        i, j = rng.randrange(60), rng.randrange(60)
        roots.join(i, j)
        both = plain[i] | plain[j]
        for one in both:
            plain[one] = both
        if rng.random() < 0.3:
            assert roots.all().tolist() == [min(one) for one in plain]
    assert [roots.find(i) for i in range(60)] == [min(one) for one in plain]


def test_the_same_file_read_twice(tmp_path):
    source = write(tmp_path / "rows.jsonl", similar_rows(20))
    once = run(source, tmp_path, dedupe="exact", name="once")
    twice = run(source, tmp_path, dedupe="exact", name="twice", data=[str(source), str(source)])
    assert once.rows == twice.rows
    assert twice.summary["rows_read"] == 40
