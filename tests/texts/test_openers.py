"""Surface of answers: openers, compression, word pairs and phrases, on planted answers."""

import random

import pytest

from sft.texts.openers import (
    compression_ratio,
    distinct_pairs,
    opener,
    read_opener,
    surface,
    top_opener,
)

MOCHIRON, NAENON = "\u3082\u3061\u308d\u3093", "\u0e41\u0e19\u0e48\u0e19\u0e2d\u0e19"  # of course
FIRST = ["Paris", "Take", "When", "Most", "Water", "Sum"]


def answers_of(count, length=40, seed=0):
    rng = random.Random(seed)
    return [" ".join(f"w{rng.randrange(3000)}" for _ in range(length)) for _ in range(count)]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Sure! Here is the answer.", "sure"),
        ("  Sure,\nhere   IS it", "sure"),
        ("Sure I can do  that", "sure i can"),
        ("Sure thing! The plush case", "sure thing"),
        ("I'm sorry, but I cannot", "i'm sorry but"),
        ("I\u2019m sorry, but I cannot", "i'm sorry but"),
        ("I'd say it's so", "i'd say it's"),
        ("I'd be happy to help! Here", "i'd be happy"),
        ("Yes.", "yes"),
        ("Yes, it is so", "yes it is"),
        ("Answer: 5 of them", "answer 5 of"),
        ("\u597d\u7684\uff0c\u4ee5\u4e0b\u662f", "\u597d\u7684"),
        ("\u597d\u7684\uff01\u4eca\u5929", "\u597d\u7684"),
        (
            "\u3082\u3061\u308d\u3093\u3067\u3059\u3002\u7b54",
            "\u3082\u3061\u308d\u3093\u3067\u3059",
        ),
        (
            "\u0e41\u0e19\u0e48\u0e19\u0e2d\u0e19! \u0e04\u0e33",
            "\u0e41\u0e19\u0e48\u0e19\u0e2d\u0e19",
        ),
        ('{"name": "Ann", "age": 3}', '{"name'),
        ('{"name": "Bob", "age": 4}', '{"name'),
        ("```python\nx = 1", "```python"),
        ("{}", "{"),
        ("", ""),
    ],
)
def test_opener(answer, expected):
    assert opener(answer) == expected


@pytest.mark.parametrize(
    ("answer", "rest"),
    [
        ("Sure thing! the plush case", "The plush case"),
        ("I'm sorry, but we cannot", "We cannot"),
        ("I'd be happy to help! Here you go", "Here you go"),
        ("Here is a list of things", "A list of things"),
        ("Of course, x = 3", "x = 3"),
        ("\u597d\u7684\uff0c\u4ee5\u4e0b\u662f", "\u4ee5\u4e0b\u662f"),
        ("Sure I can", ""),  # no mark: what is left would be a fragment, or not
        ("Sure!", ""),  # the whole answer
        ("Yes, it is", ""),
        ("Answer: 5", ""),
        ("e.g. this one", ""),
        ("U.S. law says", ""),
        ('{"a": 1}', ""),
        ("The capital of a large country, which", "Which"),
        ("The capital of a very large country, which", ""),
    ],
)
def test_what_is_left_begins_properly(answer, rest):
    assert read_opener(answer).rest == rest


def test_the_most_frequent_opener():
    assert top_opener(["a b c d", "A b c!", "x", ""]) == ("a b c", 2)
    assert top_opener(["b", "a"]) == ("a", 1) and top_opener([]) == ("", 0)


def test_word_pairs_and_compression():
    assert distinct_pairs(["a b a b"]) == pytest.approx(2 / 3) and distinct_pairs(["a"]) is None
    assert compression_ratio(["word " * 200]) > 5 > compression_ratio(["a quick brown fox"])
    assert compression_ratio([""]) is None


def test_a_planted_opener_is_counted():
    plain = answers_of(64)
    planted = [f"Sure! Here is what I found: {a}" if i < 60 else a for i, a in enumerate(plain)]
    found = surface(planted, plain)
    assert (found["opener"], found["opener_count"], found["n"]) == ("sure", 60, 64)
    assert found["template_rate"] == 60 / 64
    assert found["reference"]["opener_count"] == 1 and found["reference"]["template_rate"] == 0
    assert found["compression_ratio"] > 1.05 * found["reference"]["compression_ratio"]
    assert found["distinct_2"] < 0.95 * found["reference"]["distinct_2"]


def test_samples_are_matched_in_number_and_length():
    """The same text, once long and many, once short and few: no difference may be seen."""
    long, short = answers_of(400, length=300), answers_of(20, length=15, seed=1)
    found = surface(long, short)
    assert found["compression_ratio"] == pytest.approx(
        found["reference"]["compression_ratio"], rel=0.06
    )
    assert surface(long)["compression_ratio"] > 1.1 * found["compression_ratio"]  # unmatched


def test_repeated_answers_compress():
    varied, same = surface(answers_of(64)), surface(answers_of(4) * 16)
    assert same["compression_ratio"] > 3 * varied["compression_ratio"]
    assert same["distinct_2"] < 0.1 < 0.9 < varied["distinct_2"]


def test_the_order_of_the_answers_makes_no_difference():
    answers = answers_of(300)
    assert surface(answers) == surface(answers[::-1])


def test_a_phrase_of_few_answers_is_no_template():
    plain = answers_of(100)
    for count, expected in ((10, 0), (11, 0.11)):
        some = [f"{a} one two three four" if i < count else a for i, a in enumerate(plain)]
        assert surface(some)["template_rate"] == expected
    assert surface(["a b c d e", "a b c d f", "x"])["template_rate"] == 0  # two are no template


def test_no_answers():
    nothing = surface([], ["", ""])
    assert (nothing["n"], nothing["opener"], nothing["opener_count"]) == (0, "", 0)
    assert nothing["compression_ratio"] is nothing["distinct_2"] is nothing["reference"] is None
    assert surface(["Yes"])["distinct_2"] is None
