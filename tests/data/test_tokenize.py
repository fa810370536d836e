"""Examples: labels shifted by hand, over-long rows, prompt weight, bytes."""

import numpy as np
import pytest

import tiny
from sft.data.rows.problems import BadRows
from sft.data.template.chat_template import ChatTemplate
from sft.data.tokenize import IGNORE_INDEX, RowFate, fingerprint, tokenize
from sft.errors import DataError

ROW = [("user", "Hi"), ("assistant", "Yes")]
# <|im_start|>user \n H i <|im_end|> \n <|im_start|>assistant \n Y e s <|im_end|> \n
START, STOP, BREAK = 3, 4, 203
IDS = [START, 330, BREAK, 44, 77, STOP, BREAK, START, 302, 358, 88, BREAK, 61, 73, 87, STOP, BREAK]
NO = IGNORE_INDEX
THOUGHTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{{ m.content if loop.last else m.content.split('|')[-1] }}{% else %}{{ m.content }}"
    "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% endif %}"
)


@pytest.fixture(scope="module")
def template():
    return ChatTemplate(tiny.tokenizer())


@pytest.fixture(scope="module")
def thoughts():
    """Drops what stands before a bar in earlier answers, so each turn is an example."""
    return ChatTemplate(tiny.tokenizer(THOUGHTS))


def run(template, *rows, max_seq_len=100, policy="skip", **settings):
    bad = BadRows(policy)
    return tokenize(rows, template, bad, max_seq_len=max_seq_len, **settings), bad


def test_labels_are_the_next_tokens(template, talk):
    done, bad = run(template, talk(*ROW, line=7, source=2))
    (example,) = done.examples
    assert example.input_ids.tolist() == IDS
    assert example.labels.tolist() == [NO] * 11 + [61, 73, 87, STOP] + [NO, NO]
    assert example.weights.tolist() == [0] * 11 + [1, 1, 1, 1] + [0, 0]
    arrays = (example.input_ids, example.labels, example.weights)
    assert [a.dtype for a in arrays] == [np.int64, np.int64, np.float32]
    assert (example.num_tokens, example.num_trained) == (17, 4)
    assert (example.id, str(example.origin), example.source) == ("rows.jsonl:7", "rows.jsonl:7", 2)
    assert (done.fates, done.num_text_specials, done.num_split, bad.count) == ([], 0, 0, 0)


def test_weights_of_messages(template, talk):
    rows = [*ROW, ("user", "two"), ("assistant", "a", 0.5), ("user", "two"), ("assistant", "a", 0)]
    ((example,), _) = (run(template, talk(*rows))[0].examples, None)
    trained = example.weights > 0
    assert example.weights[trained].tolist() == [1, 1, 1, 1, 0.5, 0.5]
    assert example.labels[trained].tolist() == [61, 73, 87, STOP, 69, STOP]
    assert ((example.labels != NO) == trained).all()


def test_prompt_weight(template, talk):
    (example,) = run(template, talk(*ROW), prompt_weight=0.25)[0].examples
    assert example.labels.tolist() == [*IDS[1:], NO]
    assert example.weights.tolist() == [0.25] * 11 + [1] * 4 + [0.25, 0]
    (plain,) = run(template, talk(*ROW))[0].examples
    assert example.num_bytes == plain.num_bytes


@pytest.mark.parametrize(
    ("answer", "num_bytes"),
    [("Yes", 3), (" Yes \n", 6), ("é", 2), ("中文", 6), ("🎉🎉", 8), ("e\u0301👩\u200d👧", 14)],
)
def test_bytes_are_those_of_the_trained_text(answer, num_bytes, template, talk):
    (example,) = run(template, talk(("user", "🎉"), ("assistant", answer)))[0].examples
    assert len(answer.encode()) == num_bytes
    assert example.num_bytes == num_bytes + len("<|im_end|>")


def test_bytes_of_several_answers(template, talk):
    rows = [("user", "é"), ("assistant", "é"), ("user", "é"), ("assistant", "éé", 0.5)]
    (example,) = run(template, talk(*rows))[0].examples
    assert example.num_bytes == 2 + 4 + 2 * len("<|im_end|>")
    rows[1] = ("assistant", "é", 0)
    (example,) = run(template, talk(*rows))[0].examples
    assert example.num_bytes == 4 + len("<|im_end|>")


@pytest.mark.parametrize("overflow", ["drop", "truncate", "error"])
@pytest.mark.parametrize("spare", [0, 1])
def test_a_row_that_fits_is_whole(overflow, spare, template, talk):
    done, bad = run(template, talk(*ROW), max_seq_len=17 + spare, overflow=overflow)
    assert done.examples[0].input_ids.tolist() == IDS
    assert (done.fates, bad.count) == ([], 0)


def test_a_row_one_token_too_long(template, talk):
    row = talk(*ROW, line=3)
    reason = "17 tokens, max_seq_len is 16"
    done, bad = run(template, row, max_seq_len=16, overflow="drop")
    assert (done.examples, done.fates) == ([], [RowFate(row.origin, "dropped", reason)])
    assert bad.count == 0

    done, bad = run(template, row, max_seq_len=16, overflow="error", policy="error")
    assert (done.examples, done.fates) == ([], [])
    assert [(b.origin, b.reason) for b in bad.rows] == [(row.origin, reason)]
    with pytest.raises(DataError, match="1 of 1 rows cannot be used"):
        bad.raise_if_any(1)

    done, bad = run(template, row, max_seq_len=16, overflow="truncate")
    assert done.examples[0].input_ids.tolist() == IDS[:16]
    assert done.examples[0].labels.tolist() == [NO] * 11 + [61, 73, 87, STOP, NO]
    assert (done.fates, bad.count) == ([RowFate(row.origin, "truncated", reason)], 0)


@pytest.mark.parametrize("length", [13, 14, 15])
def test_a_cut_answer_gets_no_stop_token(length, template, talk):
    done, _ = run(template, talk(*ROW), max_seq_len=length, overflow="truncate")
    (example,) = done.examples
    assert example.input_ids.tolist() == IDS[:length]
    assert example.labels.tolist() == [NO] * 11 + [61, 73, 87][: length - 12] + [NO]
    assert STOP not in example.labels
    assert example.num_bytes == length - 12


@pytest.mark.parametrize("prompt_weight", [0.0, 0.5])
def test_a_prompt_that_fills_the_row_drops_it(prompt_weight, template, talk):
    for length in (2, 11, 12):
        done, _ = run(
            template,
            talk(*ROW),
            max_seq_len=length,
            overflow="truncate",
            prompt_weight=prompt_weight,
        )
        reason = f"17 tokens, max_seq_len is {length}; the prompt alone fills it"
        assert done.examples == []
        assert [(fate.status, fate.reason) for fate in done.fates] == [("dropped", reason)]


def test_rows_that_cannot_be_masked_are_bad(template, talk):
    rows = [talk(*ROW, line=1), talk(("user", "\ue0f0"), ("assistant", "a"), line=2)]
    done, bad = run(template, *rows)
    assert [example.origin.line for example in done.examples] == [1]
    assert [row.origin.line for row in bad.rows] == [2]
    assert "private-use characters" in bad.rows[0].reason


def test_counts(template, talk):
    rows = [talk(*ROW), talk(("user", "</s>"), ("assistant", "a"))]
    done, _ = run(template, *rows)
    assert (done.num_text_specials, done.num_split, len(done.examples)) == (1, 0, 2)


SPLIT = [("user", "Hi"), ("assistant", "a|Yes"), ("user", "two"), ("assistant", "b|Yes")]


def test_a_row_that_is_split_by_turn(thoughts, talk):
    done, _ = run(thoughts, talk(*SPLIT, line=5))
    assert [example.id for example in done.examples] == ["rows.jsonl:5#1", "rows.jsonl:5#2"]
    assert [example.num_tokens for example in done.examples] == [19, 36]
    assert [example.num_trained for example in done.examples] == [6, 6]
    assert (done.num_split, done.fates) == (1, [])


def test_a_split_row_has_one_fate(thoughts, talk):
    row = talk(*SPLIT, line=5)
    length = "36 tokens, max_seq_len is "
    done, bad = run(thoughts, row, max_seq_len=35)
    assert [example.id for example in done.examples] == ["rows.jsonl:5#1"]
    reason = f"{length}35; its longer turns are left out"
    assert (done.fates, bad.count) == ([RowFate(row.origin, "truncated", reason)], 0)

    done, _ = run(thoughts, row, max_seq_len=35, overflow="truncate")
    assert [example.num_tokens for example in done.examples] == [19, 35]
    assert done.fates == [RowFate(row.origin, "truncated", f"{length}35")]

    done, _ = run(thoughts, row, max_seq_len=18)
    assert done.examples == []
    assert done.fates == [RowFate(row.origin, "dropped", f"{length}18")]


def test_a_split_row_with_an_over_long_turn_is_an_error_as_a_whole(thoughts, talk):
    """What is bad is not trained on, its first turn neither."""
    row = talk(*SPLIT, line=5)
    done, bad = run(thoughts, row, max_seq_len=35, overflow="error")
    assert (done.examples, done.fates) == ([], [])
    assert [(b.origin, b.reason) for b in bad.rows] == [
        (row.origin, "36 tokens, max_seq_len is 35")
    ]


def test_fingerprint(template, talk):
    def of(*rows, **settings):
        return fingerprint(run(template, *rows, **settings)[0].examples)

    a, b = talk(*ROW), talk(("user", "Hi"), ("assistant", "No"))
    assert of(a, b) == of(a, b)
    others = [of(b, a), of(a), of(a, a), of(a, b, prompt_weight=0.1), of(a, b, prompt_weight=0.2)]
    assert len({of(a, b), *others}) == 6
