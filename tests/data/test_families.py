"""Augmented rows: never validated on, never trained on without the row they come from."""

import json
from dataclasses import replace

import pytest

from sft.config import SourceConfig, load_config
from sft.data.account import account
from sft.data.dataset import load_data
from sft.data.repeats import prompt_key
from sft.data.rows.read import read_conversations
from sft.data.splits import LIKE_HELD_OUT, NOT_VALIDATED_ON, PARENT_HELD_OUT, given, split_off

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


@pytest.fixture
def rows(talk):
    """`rows(*prompts)`: one row a prompt, on lines from `first`."""

    def make(*prompts, first=1):
        lines = enumerate(prompts, start=first)
        return [talk(("user", p), ("assistant", f"to {p}"), line=line) for line, p in lines]

    return make


def child(talk, parent, prompt, line):
    return replace(talk(("user", prompt), ("assistant", "a"), line=line), parent=prompt_key(parent))


def lines(side):
    return [row.origin.line for row in side]


@pytest.fixture
def family(talk, rows):
    """Forty rows, and three children of each, on lines from 101."""
    own = rows(*(f"{word} {i}" for i in range(4) for word in WORDS))
    texts = ("please {}", "hello {}, would you", "{} thanks")
    children = [
        child(talk, row, text.format(row.messages[0].content), 101 + 3 * i + j)
        for i, row in enumerate(own)
        for j, text in enumerate(texts)
    ]
    return own, children


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_children_follow_their_parents_and_change_nothing_else(family, seed):
    own, children = family
    alone, split = split_off(own, 0.2, seed), split_off([*own, *children], 0.2, seed)
    assert lines(split.val) == lines(alone.val) and len(split.val) == 8
    trained = set(lines(alone.train))
    follow = [c.origin.line for c in children if (c.origin.line - 101) // 3 + 1 in trained]
    assert lines(split.train) == lines(alone.train) + follow
    assert {o.line for o in split.changed} == {c.origin.line for c in children} - set(follow)
    assert set(split.changed.values()) == {PARENT_HELD_OUT}
    assert split.notes == [
        "24 of 120 augmented rows are left out: they come from validation rows, or have the "
        "prompt of one"
    ]


def test_children_keep_their_place_in_the_data(family):
    own, children = family
    mixed = [row for pair in zip(children, own, strict=False) for row in pair]
    split = split_off(mixed, 0.2, 0)
    places = {id(row): place for place, row in enumerate(mixed)}
    order = [places[id(row)] for row in split.train]
    assert order == sorted(order) and any(row.parent for row in split.train)


def test_a_child_with_the_prompt_of_a_validation_row_is_left_out(talk, family):
    own, _ = family
    alone = split_off(own, 0.2, 0)
    twin = child(talk, alone.train[0], alone.val[0].messages[0].content.upper(), 500)
    split = split_off([*own, twin], 0.2, 0)
    assert lines(split.val) == lines(alone.val) and 500 not in lines(split.train)
    assert list(split.changed.values()) == [LIKE_HELD_OUT]


def test_without_validation_all_children_are_trained_on(family):
    own, children = family
    split = split_off([*own, *children], 0.0, 0)
    assert len(split.train) == 160 and not split.changed and not split.notes


def test_children_of_one_missing_parent_stay_together(talk, rows):
    """They are split like any row, and a note says so."""
    gone = rows("gone", "lost", first=900)
    own = rows(*(f"{word} {i}" for i in range(2) for word in WORDS))
    texts = ("sunny hills are far", "where is my blue coat", "count every apple")
    orphans = [
        child(talk, parent, f"{text} {parent.messages[0].content}", 100 + 10 * p + t)
        for p, parent in enumerate(gone)
        for t, text in enumerate(texts)
    ]
    sides = []
    for seed in range(30):
        split = split_off([*own, *orphans], 0.3, seed)
        assert len(split.train) + len(split.val) == 26 and not split.changed
        assert "6 augmented rows come from rows that are not in the data" in split.notes[0]
        for p in (0, 1):
            held = {line for line in lines(split.val) if 100 + 10 * p <= line < 110 + 10 * p}
            assert len(held) in (0, 3)
            sides.append(len(held))
    assert set(sides) == {0, 3}


def test_given_validation_takes_its_children_out_of_training(talk, rows):
    train, val = rows(*WORDS), rows("eleven", "twelve", first=51)
    children = [child(talk, row, f"say {row.messages[0].content}", 200 + row.origin.line)
                for row in (*train, *val)]  # fmt: skip
    split = given([*train, *children], val)
    assert lines(split.val) == [51, 52] and not split.leaked
    assert lines(split.train) == [*range(1, 11), *range(201, 211)]
    assert {(o.line, why) for o, why in split.changed.items()} == {
        (251, PARENT_HELD_OUT), (252, PARENT_HELD_OUT)
    }  # fmt: skip


def test_augmented_rows_are_not_validated_on(talk, rows):
    train, val = rows(*WORDS), rows("eleven", "twelve", first=51)
    of_train = child(talk, train[0], "say one", 61)
    of_val = child(talk, val[0], "say eleven", 62)
    split = given(train, [*val, of_train, of_val])
    assert lines(split.val) == [51, 52] and lines(split.train) == list(range(1, 11))
    assert {o.line: why for o, why in split.changed.items()} == dict.fromkeys(
        (61, 62), NOT_VALIDATED_ON
    )


def test_a_leaked_validation_row_does_not_take_its_children_along(talk, rows):
    """Its prompt is trained on, so it is no validation row, and its children may stay."""
    train, val = rows(*WORDS), rows("one", "twelve", first=51)
    split = given([*train, child(talk, train[0], "say one", 201)], val)
    assert lines(split.leaked) == [51] and 201 in lines(split.train)


def test_the_column_parent(tmp_path):
    key = "0123456789abcdef" * 4
    values = [key, "some other column", 7, None, key.upper()]
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(
            json.dumps({"prompt": f"p{i}", "completion": "c", "parent": value}) + "\n"
            for i, value in enumerate(values)
        )
    )
    read = read_conversations([SourceConfig.model_validate(str(path))], "error")
    assert [row.parent for row in read.conversations] == [key, "", "", "", ""]


def test_every_row_is_in_the_account(tmp_path, chat_template, talk):
    """Rows of both files, once each; those left out say why."""
    own = [{"prompt": f"{word} {i}", "completion": word} for i in range(4) for word in WORDS]
    keys = [prompt_key(talk(("user", row["prompt"]), ("assistant", "a"))) for row in own]
    new = [
        {"prompt": f"please {row['prompt']}", "completion": row["completion"], "parent": key}
        for row, key in zip(own, keys, strict=True)
    ]
    for name, rows in (("own", own), ("new", new)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths = [str(tmp_path / "own.jsonl"), str(tmp_path / "new.jsonl")]
    config = load_config(
        {}, {"data.train": paths, "data.max_seq_len": 64, "data.deduplicate": True}
    )
    data = load_data(config.data, chat_template("chatml"), seed=0)
    told = account(data)
    assert told["counts"] == {
        "used": 64, "val": 8, "changed": 0, "truncated": 0, "dropped": 8, "bad": 0
    }  # fmt: skip
    assert told["num_rows"] == 80 == len(told["rows"])
    dropped = [row for row in told["rows"] if row["status"] == "dropped"]
    assert {row["reason"] for row in dropped} == {PARENT_HELD_OUT}
    held = {row["row"].rpartition(":")[2] for row in told["rows"] if row["status"] == "val"}
    assert {row["row"].rpartition(":")[2] for row in dropped} == held


def test_remedies_keep_the_reasons_of_rows_left_out(tmp_path, chat_template, family):
    own, children = family
    split = split_off([*own, *children], 0.2, 0)
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(
            json.dumps({"prompt": r.messages[0].content, "completion": "x", "parent": r.parent})
            + "\n"
            for r in (*own, *children)
        )
    )
    values = {"data.train": [str(path)], "data.max_seq_len": 64, "data.val_fraction": 0.2}
    config = load_config({}, values)

    def without_first(train, _val):
        return list(train[1:]), [(train[0].origin, "a remedy")]

    data = load_data(config.data, chat_template("chatml"), 0, choose_rows=without_first)
    told = account(data)
    reasons = [row.get("reason") for row in told["rows"] if row["status"] == "dropped"]
    assert reasons.count(PARENT_HELD_OUT) == len(split.changed) == 24
    assert reasons.count("a remedy") == 1 and told["num_rows"] == 160 == len(told["rows"])
