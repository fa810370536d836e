"""From files to examples: every row read is accounted for, once."""

import hashlib
import json
from collections import Counter

import pytest

import tiny
from sft.config import DataConfig
from sft.data.account import account
from sft.data.dataset import load_data
from sft.data.rows import problems
from sft.data.template.chat_template import ChatTemplate
from sft.errors import ConfigError, DataError

LONG = "The quick brown fox jumps over the lazy dog. " * 10
THOUGHTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{{ m.content if loop.last else m.content.split('|')[-1] }}{% else %}{{ m.content }}"
    "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% endif %}"
)


@pytest.fixture(scope="module")
def template():
    return ChatTemplate(tiny.tokenizer())


def row(prompt, completion="Yes"):
    return {"prompt": prompt, "completion": completion}


def config_of(tmp_path, train, val=(), **settings):
    """Writes the rows (a text is a line as it is) and returns the configuration."""
    paths = {}
    for name, rows in (("train", train), ("val", val)):
        if rows:
            paths[name] = tmp_path / f"{name}.jsonl"
            lines = [line if isinstance(line, str) else json.dumps(line) for line in rows]
            paths[name].write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    settings = {"val_fraction": 0.0, "max_seq_len": 60, "on_bad_row": "skip"} | settings
    return DataConfig.model_validate({**paths, **settings})


def fates(data):
    return [(fate.origin.line, fate.status) for fate in data.fates]


def check_sum(data):
    counts = data.counts()
    assert sum(counts.values()) == data.num_rows == len(data.fates)
    assert counts == {status: counts[status] for status in counts} | dict(
        Counter(fate.status for fate in data.fates)
    )
    examples = Counter(example.origin for example in (*data.train, *data.val))
    seen = [fate.origin for fate in data.fates if fate.status in ("used", "val", "truncated")]
    assert sorted(map(str, seen)) == sorted(map(str, examples))
    return counts


MIXED = [
    row("one"),
    row("two", ""),  # an empty answer
    row("three", LONG),  # cut, or dropped
    "{",  # no JSON
    row(LONG),  # the prompt alone is too long
    row("four \ue0f0"),  # refused when it is encoded
    row("five"),
    {"messages": [{"role": "user", "content": "no answer"}]},  # another shape
    row("six"),
]


@pytest.mark.parametrize(
    ("overflow", "counts"),
    [
        ("drop", {"used": 3, "val": 0, "changed": 0, "truncated": 0, "dropped": 2, "bad": 4}),
        ("truncate", {"used": 3, "val": 0, "changed": 0, "truncated": 1, "dropped": 1, "bad": 4}),
        ("error", {"used": 3, "val": 0, "changed": 0, "truncated": 0, "dropped": 0, "bad": 6}),
    ],
)
def test_the_account_adds_up(overflow, counts, tmp_path, template):
    data = load_data(config_of(tmp_path, MIXED, overflow=overflow), template, seed=0)
    assert check_sum(data) == counts
    assert data.num_rows == 9 and [fate.origin.line for fate in data.fates] == list(range(1, 10))
    used = {example.origin.line for example in data.train}
    assert used == ({1, 3, 7, 9} if overflow == "truncate" else {1, 7, 9})


def test_with_a_split(tmp_path, template):
    rows = [row(f"number {i}") for i in range(30)] + [row(f"long {i} {LONG}") for i in range(10)]
    data = load_data(config_of(tmp_path, rows, val_fraction=0.25), template, seed=0)
    counts = check_sum(data)
    assert (counts["dropped"], counts["used"] + counts["val"]) == (10, 30)
    assert (len(data.train), len(data.val)) == (counts["used"], counts["val"])
    assert 0 < counts["val"] <= 10
    again = load_data(config_of(tmp_path, rows, val_fraction=0.25), template, seed=0)
    other = load_data(config_of(tmp_path, rows, val_fraction=0.25), template, seed=1)
    assert fates(again) == fates(data) != fates(other)


def test_with_validation_of_the_users_own(tmp_path, template):
    train = [row("one"), row("two"), row("three"), row("four"), "{", row("five", LONG)]
    val = [row("six"), row(" ONE ", "another"), row("seven", LONG), row("eight", "")]
    data = load_data(config_of(tmp_path, train, val), template, seed=0)
    expected = {"used": 4, "val": 1, "changed": 0, "truncated": 0, "dropped": 3, "bad": 2}
    assert check_sum(data) == expected
    reasons = {str(fate.origin).rpartition("/")[2]: fate.reason for fate in data.fates}
    assert reasons["val.jsonl:2"] == "its prompt is also in data.train"
    assert reasons["val.jsonl:3"].endswith("tokens, max_seq_len is 60")
    assert reasons["val.jsonl:4"] == "completion: empty"
    assert [str(example.origin).rpartition("/")[2] for example in data.val] == ["val.jsonl:1"]
    names = [tmp_path / "train.jsonl", tmp_path / "val.jsonl"]
    assert data.files == {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in names}


def test_validation_does_not_weigh_prompts(tmp_path, template):
    config = config_of(tmp_path, [row("one"), row("two")], [row("six")], prompt_weight=0.5)
    data = load_data(config, template, seed=0)
    assert [set(example.weights.tolist()) for example in data.train] == [{0.0, 0.5, 1.0}] * 2
    assert set(data.val[0].weights.tolist()) == {0.0, 1.0}


def test_sources_keep_their_number(tmp_path, template):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row(f"in {name}")) + "\n")
    sources = [{"path": str(tmp_path / f"{name}.jsonl"), "weight": 2} for name in "ba"]
    config = DataConfig.model_validate({"train": sources, "max_seq_len": 60, "val_fraction": 0})
    data = load_data(config, template, seed=0)
    assert [(e.source, e.origin.source[-7:]) for e in data.train] == [
        (0, "b.jsonl"),
        (1, "a.jsonl"),
    ]


@pytest.mark.parametrize("overflow", ["drop", "truncate"])
def test_every_row_too_long(overflow, tmp_path, template):
    rows = [row(f"{LONG} {i} " + "a" * i) for i in range(4)]
    config = config_of(tmp_path, rows, overflow=overflow, on_bad_row="error")
    lengths = [len(template.prompt_ids([{"role": "user", "content": r["prompt"]}])) for r in rows]
    answer = 5  # Y e s <|im_end|> \n
    with pytest.raises(DataError) as caught:
        load_data(config, template, seed=0)
    assert str(caught.value) == (
        f"every row is longer than data.max_seq_len = 60: the shortest has {lengths[0] + answer} "
        f"tokens; raise it with --set data.max_seq_len={lengths[3] + answer}"
    )
    raised = config.model_copy(update={"max_seq_len": lengths[3] + answer})
    assert len(load_data(raised, template, seed=0).train) == 4


def test_every_row_too_long_or_bad(tmp_path, template):
    """Both reasons are told."""
    config = config_of(tmp_path, [row(LONG), row("\ue0f0"), row(LONG + "two")])
    with pytest.raises(DataError) as caught:
        load_data(config, template, seed=0)
    first, second, *rest = str(caught.value).splitlines()
    assert first.startswith("every usable row is longer than data.max_seq_len = 60: the shortest")
    assert first.endswith("; and 1 cannot be used:")
    assert "U+E0F0" in second and rest == []


def test_every_row_bad(tmp_path, template):
    config = config_of(tmp_path, [row("\ue0f0"), row("\ue0f1")])
    with pytest.raises(DataError, match=r"no usable row is left to train on:\n       2  .*U.E0F0"):
        load_data(config, template, seed=0)


def test_bad_rows_stop_it_unless_they_are_to_be_skipped(tmp_path, template):
    rows = [row("one"), row("two \ue0f0"), row("three", LONG)]
    with pytest.raises(DataError, match="1 of 3 rows cannot be used"):
        load_data(config_of(tmp_path, rows, on_bad_row="error"), template, seed=0)
    config = config_of(tmp_path, rows, on_bad_row="error", overflow="error")
    with pytest.raises(DataError, match="2 of 3 rows cannot be used") as caught:
        load_data(config, template, seed=0)
    assert "train.jsonl:3" in str(caught.value) and "max_seq_len is 60" in str(caught.value)


def test_more_bad_rows_than_are_listed(tmp_path, template, monkeypatch):
    """Rows beyond those that are kept in memory are counted, and not called used."""
    monkeypatch.setattr(problems, "MAX_KEPT", 2)
    rows = [row("one"), *(row(f"{i} \ue0f0") for i in range(5)), row("two"), *["{"] * 3]
    data = load_data(config_of(tmp_path, rows), template, seed=0)
    expected = {"used": 2, "val": 0, "changed": 0, "truncated": 0, "dropped": 0, "bad": 8}
    assert data.counts() == expected
    assert (data.num_rows, data.num_bad) == (10, 8)
    assert [line for line, status in fates(data) if status == "used"] == [1, 7]
    assert [status for _, status in fates(data)].count("bad") == 4


def test_rows_that_are_split_by_turn(tmp_path):
    """A row is one row, however many examples it becomes."""
    template = ChatTemplate(tiny.tokenizer(THOUGHTS))

    def turns(name, last="b|Yes"):
        texts = [("user", name), ("assistant", "a|Yes"), ("user", "two"), ("assistant", last)]
        return {"messages": [{"role": role, "content": text} for role, text in texts]}

    rows = [turns("Hi"), turns("Hello", "b|" + LONG), turns(LONG)]
    data = load_data(config_of(tmp_path, rows), template, seed=0)
    expected = {"used": 1, "val": 0, "changed": 0, "truncated": 1, "dropped": 1, "bad": 0}
    assert check_sum(data) == expected
    assert [example.id.rpartition(":")[2] for example in data.train] == ["1#1", "1#2", "2#1"]
    assert data.notes == [
        "3 conversations are split into one example per turn, because the chat template rewrites "
        "earlier turns",
        "1 over-long rows were dropped (data.overflow)",
        "1 over-long rows were truncated (data.overflow)",
        "no validation: no rows are split off for it",
    ]


def test_notes(tmp_path, template):
    rows = [row("</s> one"), row("two"), row("three", "<s>"), row("long", LONG), row("", "")]
    data = load_data(config_of(tmp_path, rows, overflow="truncate"), template, seed=0)
    assert data.notes == [
        "1 unusable rows were skipped (data.on_bad_row: skip)",
        "2 rows spell a special token; it is encoded as text there",
        "1 over-long rows were truncated (data.overflow)",
        "no validation: no rows are split off for it",
    ]


def test_the_account_on_disk(tmp_path, template):
    data = load_data(config_of(tmp_path, MIXED), template, seed=0)
    written = json.loads(json.dumps(account(data)))
    assert written["num_rows"] == sum(written["counts"].values()) == len(written["rows"]) == 9
    assert written["rows"][0] == {"row": f"{tmp_path}/train.jsonl:1", "status": "used"}
    assert written["rows"][1] == {
        "row": f"{tmp_path}/train.jsonl:2",
        "status": "bad",
        "reason": "completion: empty",
    }
    assert written["files"] == data.files and written["notes"] == data.notes


def test_validation_of_which_nothing_can_be_used(tmp_path, template):
    config = config_of(tmp_path, [row("one"), row("two")], [row("six", LONG)])
    data = load_data(config, template, seed=0)
    assert (check_sum(data)["dropped"], data.val) == (1, [])
    assert data.notes[-1] == "no validation: none of its rows can be used"


def test_progress(tmp_path, template):
    seen = []
    rows = [row(f"number {i}") for i in range(120)]
    load_data(config_of(tmp_path, rows), template, 0, lambda *news: seen.append(news))
    assert seen == [("reading", 0, 0), *(("tokenising", n, 120) for n in (64, 120))]


def test_wrong_files(tmp_path, template):
    with pytest.raises(ConfigError, match="no such file"):
        load_data(DataConfig.model_validate({"train": tmp_path / "none.jsonl"}), template, seed=0)
