"""Rows without a chat template: exact ids, weights and bytes of plain texts and of token ids."""

import json

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing

import tiny
from sft.config import DataConfig
from sft.data.dataset import load_data
from sft.data.repeats import prompt_key
from sft.data.rows.conversation import Conversation, Message, Origin
from sft.data.rows.problems import BadRows
from sft.data.splits import given, split_off
from sft.data.template.chat_template import ChatTemplate
from sft.data.tokenize import IGNORE_INDEX, RowFate, tokenize

NO = IGNORE_INDEX
BOS, EOS = 1, 2
YES = [61, 73, 87]  # Y e s
ORIGIN = Origin("rows.jsonl", 1)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def template(tokenizer):
    """Of a tokenizer that puts nothing before a text."""
    return ChatTemplate(tokenizer)


@pytest.fixture(scope="module")
def with_bos():
    made = tiny.tokenizer()
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", BOS)]
    )
    return ChatTemplate(made)


def text_row(text):
    return Conversation((Message("assistant", text, weight=1.0),), ORIGIN, kind="text")


def token_row(*runs):
    """Runs of ids, the first of them of the user, then of the assistant, and so on."""
    said = [" ".join(map(str, run)) for run in runs]
    messages = [
        Message("assistant", run, weight=1.0) if place % 2 else Message("user", run)
        for place, run in enumerate(said)
        if run
    ]
    return Conversation(tuple(messages), ORIGIN, kind="tokens")


def run(template, *rows, max_seq_len=100, **options):
    bad = BadRows("skip")
    return tokenize(rows, template, bad, max_seq_len=max_seq_len, **options), bad


def only(template, row, **options):
    (example,) = run(template, row, **options)[0].examples
    return example


def test_a_text_is_trained_whole_with_its_end(template):
    example = only(template, text_row("Yes"))
    assert example.input_ids.tolist() == [*YES, EOS]
    assert example.labels.tolist() == [73, 87, EOS, NO]
    assert example.weights.tolist() == [1, 1, 1, 0]
    assert example.num_bytes == len("es") + len("</s>")


def test_bos_stands_where_the_tokenizer_puts_it(with_bos):
    example = only(with_bos, text_row("Yes"))
    assert example.input_ids.tolist() == [BOS, *YES, EOS]
    assert example.labels.tolist() == [*YES, EOS, NO]
    assert example.num_bytes == len("Yes") + len("</s>")


def test_special_tokens_in_a_text_are_text(template, tokenizer):
    done, _ = run(template, text_row("a</s>b<|im_end|>"))
    ids = done.examples[0].input_ids.tolist()
    assert ids[-1] == EOS and EOS not in ids[:-1] and 4 not in ids
    assert tokenizer.decode(ids[:-1]) == "a</s>b<|im_end|>"
    assert done.num_text_specials == 1


@pytest.mark.parametrize("text", ["é", "中文 🎉", " a \n b", "e\u0301"])
def test_bytes_of_a_text(with_bos, text):
    assert only(with_bos, text_row(text)).num_bytes == len(text.encode()) + len("</s>")


def test_an_over_long_text_is_dropped_or_cut_and_never_ended_by_a_lie(with_bos):
    reason = "5 tokens, max_seq_len is 4"
    done, _ = run(with_bos, text_row("Yes"), max_seq_len=4)
    assert (done.examples, done.fates) == ([], [RowFate(ORIGIN, "dropped", reason)])
    done, _ = run(with_bos, text_row("Yes"), max_seq_len=4, overflow="truncate")
    assert done.examples[0].input_ids.tolist() == [BOS, *YES]
    assert done.examples[0].labels.tolist() == [*YES, NO]
    assert done.fates == [RowFate(ORIGIN, "truncated", reason)]
    done, bad = run(with_bos, text_row("Yes"), max_seq_len=4, overflow="error")
    assert (done.examples, [row.reason for row in bad.rows]) == ([], [reason])


def test_a_tokenizer_without_eos_cannot_end_a_text():
    tokenizer = tiny.tokenizer()
    tokenizer.eos_token = None
    done, bad = run(ChatTemplate(tokenizer), text_row("Yes"))
    assert done.examples == []
    assert "the tokenizer has no EOS token" in bad.rows[0].reason


def test_token_ids_stay_as_they_are(template):
    example = only(template, token_row([3, 330, 203], [*YES, 4], [203, 3], [61]))
    assert example.input_ids.tolist() == [3, 330, 203, *YES, 4, 203, 3, 61]
    assert example.labels.tolist() == [NO, NO, *YES, 4, NO, NO, 61, NO]
    assert example.weights.tolist() == [0, 0, 1, 1, 1, 1, 0, 0, 1, 0]
    assert example.num_bytes == len("Yes") + len("<|im_end|>") + len("Y")


def test_the_first_of_the_token_ids_is_told_from_nothing(template):
    example = only(template, token_row([], YES))
    assert example.labels.tolist() == [73, 87, NO]
    assert example.num_bytes == len("es")


def test_bytes_of_token_ids_that_are_not_the_usual_ones(template, tokenizer):
    usual = tokenizer("The é", add_special_tokens=False)["input_ids"]
    letters = [tokenizer.convert_tokens_to_ids(letter) for letter in "The"]
    assert usual[: len(letters)] != letters
    space_and_e = usual[-3:]
    assert tokenizer.decode(space_and_e) == " é"
    example = only(template, token_row([3], letters + space_and_e))
    assert example.num_bytes == len("The é".encode())
    assert example.num_trained == 6


def test_an_id_beyond_the_vocabulary_is_refused(template, tokenizer):
    size = len(tokenizer)
    done, bad = run(template, token_row([3, size - 1], [61, size]))
    assert done.examples == []
    assert bad.rows[0].reason == (
        f"input_ids[3]: [{size}] is not in the vocabulary of this model's tokenizer, "
        f"which has {size} tokens; was another tokenizer used?"
    )


def test_prompt_weight_trains_the_ids_that_are_shown(template):
    example = only(template, token_row([3, 330], YES), prompt_weight=0.25)
    assert example.weights.tolist() == [0.25, 1, 1, 1, 0]


def test_texts_are_told_apart_by_what_they_say():
    rows = [text_row(f"text number {number}") for number in "abc"]
    assert len({prompt_key(row) for row in rows}) == 3
    assert prompt_key(text_row("One  TEXT")) == prompt_key(text_row("one text"))
    tokens = [token_row([3, 4], [61]), token_row([3, 4], [73]), token_row([3, 5], [61])]
    keys = [prompt_key(row) for row in tokens]
    assert keys[0] == keys[1] != keys[2]


def test_texts_can_be_split_and_checked_for_leaks():
    words = [
        f"{a} {b} {c} tells of {a}" for a in ["one", "two", "three"] for b in "xy" for c in "pq"
    ]
    rows = [text_row(text) for text in words]
    split = split_off(rows, 0.25, seed=1)
    assert (len(split.train), len(split.val)) == (9, 3)
    assert [row.messages for row in given(rows, [*rows[:2], text_row("new")]).val] == [
        text_row("new").messages
    ]


def test_chats_texts_and_token_ids_are_trained_together(tmp_path, template):
    """One run over all three, from files to arrays."""
    rows = {
        "chat": {
            "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
        },
        "text": {"text": "Yes"},
        "tokens": {"input_ids": [3, 61, 73], "labels": [-100, 61, 73]},
    }
    sources = []
    for name, row in rows.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text(json.dumps(row) + "\n")
        sources.append({"path": str(path), "format": "text" if name == "text" else "auto"})
    config = DataConfig.model_validate({"train": sources, "max_seq_len": 100, "val_fraction": 0.0})
    data = load_data(config, template, seed=0)
    assert data.counts()["used"] == 3
    assert [example.labels[example.labels != NO].tolist() for example in data.train] == [
        [*YES, 4],
        [73, 87, EOS],
        [61, 73],
    ]
    assert {example.input_ids.dtype for example in data.train} == {np.dtype(np.int64)}
