"""Near-duplicates: found as an exact comparison of all pairs finds them, in every process."""

import math
import os
import random
import subprocess
import sys

import pytest

from sft.texts.near_duplicates import clusters, effective_size, words


def text_of(rng, count=60):
    return [f"w{rng.randrange(5000)}" for _ in range(count)]


def edited(rng, parts, places):
    parts = list(parts)
    for place in places:
        parts[place] = f"new{rng.randrange(10**6)}"
    return parts


def grams(text):
    parts = words(text)
    return {tuple(parts[i : i + 5]) for i in range(max(1, len(parts) - 4))}


def by_brute_force(texts, threshold):
    """Cluster of each text from the Jaccard similarity of all pairs."""
    labels = list(range(len(texts)))
    sets = [grams(text) for text in texts]
    for j, b in enumerate(sets):
        for i, a in enumerate(sets[:j]):
            if labels[i] != labels[j] and len(a & b) >= threshold * len(a | b):
                old, new = labels[j], labels[i]
                labels = [new if label == old else label for label in labels]
    return partition(labels)


def partition(labels):
    groups = {}
    for index, label in enumerate(labels):
        groups.setdefault(label, set()).add(index)
    return sorted(map(sorted, groups.values()))


def test_a_changed_word_is_a_near_duplicate_and_three_are_not():
    rng = random.Random(0)
    base = text_of(rng)
    texts = [base, edited(rng, base, [30]), edited(rng, base, [10, 30, 50]), text_of(rng)]
    assert clusters([" ".join(text) for text in texts]) == [0, 0, 1, 2]


def test_the_same_clusters_as_comparing_all_pairs():
    rng = random.Random(1)
    texts = []
    for _ in range(40):
        base = text_of(rng, rng.choice([4, 12, 40, 90]))
        for _ in range(5):
            count = rng.choice([0, 1, 1, 2, 4])
            texts.append(" ".join(edited(rng, base, rng.sample(range(len(base)), count))))
    found = partition(clusters(texts))
    assert found == by_brute_force(texts, 0.8)
    assert 40 < len(found) < 200  # some are joined, and not all


def test_rows_from_one_template():
    """Thousands share a bucket: those that differ in one word are linked, those in ten are not."""
    rng = random.Random(2)
    base = text_of(rng)
    near = [" ".join(edited(rng, base, [i % 60])) for i in range(400)]
    far = [" ".join(edited(rng, base, range(0, 60, 6))) for _ in range(400)]
    labels = clusters(near + far)
    assert set(labels[:400]) == {0}
    assert len(set(labels[400:])) == 400 and 0 not in labels[400:]


def test_case_space_and_punctuation_make_no_difference():
    assert clusters(["What is it?", "what  is\nit", '"What" is: it!', "what is that"]) == [
        0,
        0,
        0,
        1,
    ]


def test_short_texts_are_together_only_when_they_are_equal():
    assert clusters(["Hi", "Hi there", "hi", "", " ", "3 + 5", "3 - 5"]) == [0, 1, 0, 2, 2, 3, 4]
    assert clusters([]) == [] and clusters(["a"]) == [0]


def test_scripts_without_spaces():
    base = "".join(chr(0x4E00 + 7 * i) for i in range(60))
    assert clusters([base, base[:30] + "\u9000" + base[31:], base[::-1]]) == [0, 0, 1]


def test_text_that_is_not_valid_unicode():
    assert clusters(["\ud800 a", "\ud800 a", "\ud801 a"]) == [0, 0, 1]


def test_the_order_of_the_texts_makes_no_difference():
    rng = random.Random(3)
    bases = [text_of(rng) for _ in range(20)]
    texts = [" ".join(edited(rng, bases[i % 20], [i % 60])) for i in range(120)]
    shuffled = rng.sample(range(120), 120)
    labels = clusters(texts)
    moved = clusters([texts[i] for i in shuffled])
    back = {i: label for i, label in zip(shuffled, moved, strict=True)}
    assert partition(labels) == partition([back[i] for i in range(120)])
    assert list(dict.fromkeys(moved)) == list(range(len(set(moved))))  # by first appearance


def test_every_process_finds_the_same():
    code = (
        "import random\nfrom sft.texts.near_duplicates import clusters\n"
        "rng = random.Random(4)\nw = [str(rng.randrange(99)) for _ in range(40)]\n"
        "texts = []\n"
        "for i in range(60):\n    w[rng.randrange(40)] = str(i)\n    texts.append(' '.join(w))\n"
        "print(clusters(texts))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(outputs) == 1
    assert 1 < len(set(outputs.pop().strip("[]\n").split(", "))) < 60


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([], 0),
        ([0], 1),
        ([0, 1, 2, 3], 4),
        ([0] * 16 + [1] * 16 + [2] * 16 + [3] * 16, 4),
        ([0] * 50, 1),
        ([0, 0, 0, 1], math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4))),
    ],
)
def test_effective_size(labels, expected):
    assert effective_size(labels) == pytest.approx(expected)
