"""Rows that are also held out, and rows that hold the text of a benchmark."""

import pytest

from sft.curate.checks.leaks import contaminated_rows, contamination, leaks
from sft.curate.corpus import Corpus

QUESTION = (
    "Natalia sold clips to 48 of her friends in April and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)
ANSWER = "She sold 24 clips in May, and 48 and 24 are 72 clips altogether in the two months."


def test_val_and_test_are_errors_and_usage_is_a_warning(rows, row):
    train = rows(["Ask one thing", "Ask two things", "Ask three", "Ask four"])
    corpus = Corpus(
        train,
        val=[row("ask  one THING", "Another answer", 1, "val.jsonl")],
        test=[row("Ask two things", "Another answer", 1, "test.jsonl")],
        usage=[row("Ask three", None, 1, "usage.jsonl")],
    )
    found = leaks(corpus)
    assert [(one.severity, one.rows) for one in found] == [
        ("error", ("rows.jsonl:1",)),
        ("error", ("rows.jsonl:2",)),
        ("warning", ("rows.jsonl:3",)),
    ]


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        (QUESTION, ANSWER.replace("months", "weeks")),
        (QUESTION.replace("friends", "pupils"), ANSWER),  # one word of the prompt
        (QUESTION.upper(), f"{ANSWER} So it is 72."),
    ],
)
def test_nearly_the_same_text_leaks(rows, prompt, answer):
    train = rows(["Something else", prompt], ["Yes", answer])
    corpus = Corpus(train, val=rows([QUESTION], [ANSWER], "val.jsonl"))
    assert [one.rows for one in leaks(corpus)] == [("rows.jsonl:2",)]


def test_the_same_short_answer_or_a_like_question_is_no_leak(rows):
    train = rows(["Is a whale a fish?", "What is the capital of France?"], ["No", "It is Paris."])
    held = rows(["Is a bat a bird?", "What is the capital of Spain?"], ["No", "It is Madrid."], "v")
    assert leaks(Corpus(train, val=held)) == []


def test_usage_rows_without_answers_are_compared_by_prompt(rows, row):
    near = QUESTION.replace("Natalia sold clips", "Maria sold clips")
    usage = [row("Hello you", "Hello", 1, "u.jsonl"), row(near, None, 2, "u.jsonl")]
    assert [one.count for one in leaks(Corpus(rows([QUESTION]), usage=usage))] == [1]


BENCHMARK = [QUESTION, "What is seven times the sum of two and three?", "Is it 7?"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (f"Solve this. {QUESTION} Think first.", 0),
        (QUESTION[: len(QUESTION) * 2 // 3], 0),  # more than half of it
        ("Tell me: what is seven times the sum of two and three?", 1),
        ("natalia SOLD clips to 48 of her friends in april, and then she went home again", 0),
    ],
)
def test_contaminated(text, number):
    found = contaminated_rows(["Nothing of it", text], {"gsm": BENCHMARK})
    assert {i: (hit.benchmark, hit.text) for i, hit in found.items()} == {1: ("gsm", number)}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Is it 7?",  # too short to be told from chance
        "Natalia sold her car to one of her friends in April",
        "What is seven times the sum of four and three?",
        "How many clips did she sell altogether?",
    ],
)
def test_not_contaminated(text):
    assert contaminated_rows([text], {"gsm": BENCHMARK}) == {}


def test_the_form_of_a_benchmark_does_not_count():
    form = "Answer the following question with one of the letters A, B, C and D and nothing else: "
    texts = [form + what for what in ("who wrote it", "where was it", "when was it", "what is it")]
    assert contaminated_rows([form + "how does a kettle work"], {"form": texts}) == {}


def test_contamination_names_the_benchmark_and_the_rows(rows):
    corpus = Corpus(rows(["Hello", QUESTION]), benchmarks={"gsm": [QUESTION], "other": ["No text"]})
    (found,) = contamination(corpus)
    assert (found.severity, found.rows) == ("error", ("rows.jsonl:2",))
    assert '1 of 1 question of "gsm"' in found.message
