"""Surface of answers: openers, compression, word pairs and phrases, on planted answers."""

import random

import pytest

from sft.texts.openers import opener, surface

FIRST = ["Paris", "Take", "When", "Most", "Water", "Sum"]


def answers_of(count, length=40, seed=0):
    rng = random.Random(seed)
    return [" ".join(f"w{rng.randrange(3000)}" for _ in range(length)) for _ in range(count)]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Sure! Here is the answer.", "sure here is"),
        ("  Sure,\nhere   IS it", "sure here is"),
        ("I'd say it's so", "i'd say it's"),
        ("Yes.", "yes"),
        ('{"name": "Ann", "age": 3}', "name ann age"),
        ("{}", "{"),
        ("", ""),
    ],
)
def test_opener(answer, expected):
    assert opener(answer) == expected


def test_a_planted_opener_is_counted():
    plain = answers_of(64)
    planted = [f"Sure! Here is what I found: {a}" if i < 60 else a for i, a in enumerate(plain)]
    found = surface(planted, plain)
    assert (found["opener"], found["opener_count"], found["n"]) == ("sure here is", 60, 64)
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


def test_the_clean_baselines(real):
    """2.3 of the study: no opener beyond 4 % in clean sets; compression 2.19 and 2.47."""
    for name, ratio in (("alpaca", 2.19), ("gsm8k", 2.47)):
        found = surface([answer for _, answer in real(name)])
        assert found["opener_count"] / found["n"] < 0.05
        assert found["compression_ratio"] == pytest.approx(ratio, abs=0.15)
