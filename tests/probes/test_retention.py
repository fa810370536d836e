"""The retain probe: texts of the base model, texts of the user's, kept in the run folder."""

import json

import numpy as np
import pytest
import torch

import tiny
from sft.config import load_config
from sft.data.template.chat_template import ChatTemplate
from sft.errors import ConfigError, DataError
from sft.model.forward import Forward
from sft.probes.retention import (
    TEXT_TOKENS,
    load_texts,
    opening_ids,
    sampled,
    save_texts,
    user_texts,
)
from sft.probes.val_loss import score_examples
from sft.runs.run_dir import RunDir

ALONE = "{% if messages|length < 2 %}{{ raise_exception('no') }}{% endif %}" + tiny.CHATML
SENTENCE = "The quick brown fox jumps over the lazy dog and the capital of France is Paris. "


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def template(tokenizer):
    return ChatTemplate(tokenizer)


def test_the_opening_is_what_comes_before_the_users_words(tokenizer, template):
    assert tokenizer.decode(opening_ids(template, tokenizer)) == "<|im_start|>user\n"


def test_an_opening_with_a_system_message_of_the_templates_own(tokenizer):
    own = "<|im_start|>system\nAnswer.<|im_end|>\n"
    made = tiny.tokenizer("{{ '" + own.replace("\n", "\\n") + "' }}" + tiny.CHATML)
    ids = opening_ids(ChatTemplate(made), made)
    assert made.decode(ids) == own + "<|im_start|>user\n"


def test_a_template_that_refuses_a_lone_message_leaves_the_start_token():
    made = tiny.tokenizer(tiny.CHATML)
    strict = ChatTemplate(made)
    strict.text = ALONE
    assert opening_ids(strict, made) == [made.bos_token_id]


def test_texts_of_the_model_are_scored_from_their_first_token(tokenizer, template):
    model = tiny.model("llama")
    texts = sampled(model, template, tokenizer, 5, seed=3, name="self", num_tokens=12)
    opening = opening_ids(template, tokenizer)
    assert [text.id for text in texts] == [f"self:{i}" for i in range(1, 6)]
    for text in texts:
        assert text.input_ids[: len(opening)].tolist() == opening
        assert text.num_trained == text.num_tokens - len(opening) == 12
        assert text.labels[len(opening) - 1] == text.input_ids[len(opening)]
        assert text.num_bytes == len(tokenizer.decode(text.input_ids[len(opening) :]).encode())
    again = sampled(model, template, tokenizer, 5, seed=3, name="self", num_tokens=12)
    other = sampled(model, template, tokenizer, 5, seed=4, name="self", num_tokens=12)
    same = [np.array_equal(a.input_ids, b.input_ids) for a, b in zip(texts, again, strict=True)]
    assert all(same)
    assert not np.array_equal(texts[0].input_ids, other[0].input_ids)


def test_the_base_model_finds_its_own_texts_likely(tokenizer, template):
    """The loss on them is its entropy; another model's is higher by the divergence."""
    model, changed = tiny.model("llama"), tiny.model("llama", seed=1)
    texts = sampled(model, template, tokenizer, 24, seed=0, name="self", num_tokens=16)
    losses = []
    for each in (model, changed):
        scores = list(score_examples(Forward(each, layout="padded"), texts, 512))
        losses.append(sum(s.nll for s in scores) / sum(s.tokens for s in scores))
    assert losses[0] < losses[1] - 0.05


def config(*retain, **more):
    return load_config({}, {"data.retain": [str(path) for path in retain], **more}).data


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "general.txt"
    lines = ["# heading", "", *[f"{i} {SENTENCE * 5}" for i in range(10)], "short"]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_paragraphs_of_a_text_file(text, tokenizer, template):
    found = user_texts(config(text), template, tokenizer, 100)
    assert [example.origin.line for example in found] == list(range(3, 13))  # no short ones
    for number, example in enumerate(found):
        assert example.num_tokens == TEXT_TOKENS == example.num_trained + 1
        whole = f"{number} {SENTENCE * 5}".strip()
        shown = tokenizer.decode(example.input_ids)
        assert whole.startswith(shown) and len(shown) > 30
        assert example.num_bytes == len(tokenizer.decode(example.input_ids[1:]).encode())
        assert example.id == f"{text}:{number + 3}"


def test_some_of_many_are_spread_over_the_file(text, tokenizer, template):
    found = user_texts(config(text), template, tokenizer, 4)
    assert [example.origin.line for example in found] == [3, 5, 8, 10]


def test_rows_are_measured_on_their_answers(tmp_path, text, tokenizer, template):
    rows = tmp_path / "rows.jsonl"
    pairs = [{"prompt": "What is one?", "completion": "one"}, {"prompt": "And?", "completion": "x"}]
    rows.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    options = {"data.max_seq_len": 128}
    found = user_texts(config(rows, **options), template, tokenizer, 10)
    assert [example.id for example in found] == [f"{rows}:1", f"{rows}:2"]
    (stop,) = tokenizer("<|im_end|>").input_ids
    assert found[0].labels[found[0].labels >= 0].tolist() == [*tokenizer("one").input_ids, stop]
    assert len(user_texts(config(text, rows, **options), template, tokenizer, 99)) == 12


def test_nothing_given_is_nothing_found(tokenizer, template):
    assert user_texts(config(), template, tokenizer, 5) == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read"),
        ("A text.\n".encode("utf-16"), "UTF-16 text, and UTF-8 is needed"),
        (b"good\ncaf\xe9\n", r"general\.txt:2: column 4: byte 0xE9 is not UTF-8"),
        (b"", "no text of 16 tokens or more"),
        (b"short\nlines\n", "no text of 16 tokens or more"),
    ],
)
def test_a_text_file_that_cannot_be_used(tmp_path, tokenizer, template, content, problem):
    path = tmp_path / "general.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=problem) as caught:
        user_texts(config(path), template, tokenizer, 5)
    assert str(caught.value).startswith("data.retain: ") and str(path) in str(caught.value)


def test_rows_that_are_not_there(tmp_path, tokenizer, template):
    with pytest.raises(ConfigError, match=r"none\.jsonl: no such file"):
        user_texts(
            config(tmp_path / "none.jsonl", **{"data.max_seq_len": 64}), template, tokenizer, 5
        )


def test_a_probe_is_kept_in_the_run_folder(tmp_path, tokenizer, template, text):
    run = RunDir(tmp_path)
    assert load_texts(run.retain) == []
    made = sampled(tiny.model("llama"), template, tokenizer, 3, seed=0, name="self", num_tokens=8)
    made += user_texts(config(text), template, tokenizer, 2)
    save_texts(run.retain, made)
    loaded = load_texts(run.retain)
    assert len(loaded) == len(made) == 5
    for a, b in zip(made, loaded, strict=True):
        assert (a.id, a.origin, a.num_bytes, a.source) == (b.id, b.origin, b.num_bytes, b.source)
        for name in ("input_ids", "labels", "weights"):
            assert np.array_equal(getattr(a, name), getattr(b, name))
            assert getattr(a, name).dtype == getattr(b, name).dtype
    assert torch.tensor(loaded[0].labels >= 0).sum() == 8


def test_a_damaged_line_is_told(tmp_path):
    path = tmp_path / "retain.jsonl"
    path.write_text('{"id": \n')
    with pytest.raises(DataError, match=r"retain\.jsonl:1: not JSON"):
        load_texts(path)
