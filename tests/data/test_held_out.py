"""Rows that are measured and never trained on, as the model will see them."""

import json

import pytest

import tiny
from sft.config import load_config
from sft.data.held_out import load_held_out
from sft.data.template.chat_template import ChatTemplate
from sft.errors import ConfigError, DataError

LONG = "fox " * 200


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def template(tokenizer):
    return ChatTemplate(tokenizer)


@pytest.fixture
def load(tmp_path, template):
    """What is held out, given rows of `usage` and of `test`."""

    def make(usage=(), test=(), **more):
        given = {"data.max_seq_len": 64}
        for name, rows in (("usage", usage), ("test", test)):
            if rows:
                path = tmp_path / f"{name}.jsonl"
                path.write_text("".join(json.dumps(row) + "\n" for row in rows))
                given[f"data.{name}"] = [str(path)]
        return load_held_out(load_config({}, given | more).data, template)

    return make


def test_prompts_with_answers_and_without(load, tokenizer, tmp_path):
    found = load(
        [{"prompt": "one?", "completion": "two"}, {"prompt": "three?"}],
        [{"prompt": "four?", "completion": "five"}],
    )
    assert [example.id for example in found.usage] == [f"{tmp_path}/usage.jsonl:1"]
    assert [prompt.has_answer for prompt in found.prompts] == [True, False]
    shown = {name: tokenizer.decode(ids) for name, ids in found.unanswered.items()}
    # Exactly what is sent when serving: nothing of an answer, and nothing left out.
    start = "<|im_start|>user\nthree?<|im_end|>\n<|im_start|>assistant\n"
    assert shown == {f"{tmp_path}/usage.jsonl:2": start}
    assert [example.id for example in found.test] == [f"{tmp_path}/test.jsonl:1"]
    assert set(found.files) == {f"{tmp_path}/usage.jsonl", f"{tmp_path}/test.jsonl"}
    assert list(found.notes) == []


def test_only_the_answers_are_scored(load, tokenizer):
    (example,) = load([{"prompt": "one?", "completion": "two"}]).usage
    scored = example.labels[example.labels >= 0]
    assert tokenizer.decode(scored) == "two<|im_end|>"


def test_nothing_is_held_out_where_nothing_is_named(load):
    found = load()
    assert (found.prompts, found.usage, dict(found.unanswered), found.test) == ([], [], {}, [])
    assert dict(found.files) == {}


def test_what_is_too_long_is_left_out_aloud(load):
    short = {"prompt": "one?", "completion": "two"}
    found = load(
        [short, {"prompt": LONG, "completion": "x"}, {"prompt": LONG}, {"prompt": "one?"}],
        [short, {"prompt": LONG, "completion": "x"}],
    )
    assert (len(found.usage), len(found.unanswered), len(found.test)) == (1, 1, 1)
    assert list(found.notes) == [
        "data.usage: 2 rows longer than data.max_seq_len are left out",
        "data.test: 1 rows longer than data.max_seq_len are left out",
    ]


def test_a_prompt_must_leave_room_for_an_answer(load, tokenizer):
    (ids,) = load([{"prompt": "one?"}]).unanswered.values()
    assert len(load([{"prompt": "one?"}], **{"data.max_seq_len": len(ids) + 1}).unanswered) == 1
    with pytest.raises(DataError, match=r"every prompt is longer than data\.max_seq_len"):
        load([{"prompt": "one?"}], **{"data.max_seq_len": len(ids)})


def test_all_too_long_is_an_error(load):
    with pytest.raises(DataError, match=r"data\.usage: every prompt .* = 64$"):
        load([{"prompt": LONG}, {"prompt": LONG, "completion": "x"}])


@pytest.mark.parametrize("name", ["usage", "test"])
def test_a_bad_row_is_named_with_its_line(load, tmp_path, name):
    rows = [{"prompt": "one?", "completion": "two"}, {"prompt": 3, "completion": "x"}]
    with pytest.raises(DataError, match=rf"{name}\.jsonl:2"):
        load(**{name: rows})
    found = load(**{name: rows}, **{"data.on_bad_row": "skip"})
    assert len(getattr(found, name)) == 1
    assert list(found.notes) == [
        f"data.{name}: 1 unusable rows were skipped (data.on_bad_row: skip)"
    ]


def test_a_test_row_without_an_answer_cannot_be_scored(load):
    with pytest.raises(DataError, match=r"test\.jsonl:1"):
        load(test=[{"prompt": "one?", "completion": ""}])


@pytest.mark.parametrize("row", [{"prompt": "no?"}, {"prompt": "no?", "completion": "x"}])
def test_a_row_that_the_template_refuses_is_named(tmp_path, row):
    refusing = "{% for m in messages %}{% if m['content'] == 'no?' %}"
    refusing += "{{ raise_exception('not this') }}{% endif %}{% endfor %}" + tiny.CHATML
    template = ChatTemplate(tiny.tokenizer(refusing))
    path = tmp_path / "usage.jsonl"
    path.write_text(json.dumps({"prompt": "fine?"}) + "\n" + json.dumps(row) + "\n")
    given = {"data.usage": [str(path)], "data.max_seq_len": 64}
    with pytest.raises(DataError, match=r"not this.*usage\.jsonl:2"):
        load_held_out(load_config({}, given).data, template)
    skipped = load_held_out(load_config({}, given | {"data.on_bad_row": "skip"}).data, template)
    assert len(skipped.unanswered) == 1 and len(skipped.notes) == 1


@pytest.mark.parametrize("name", ["usage", "test"])
def test_a_file_that_is_not_there(load, name, tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.jsonl: no such file"):
        load(**{f"data.{name}": [str(tmp_path / "nowhere.jsonl")]})
