"""Train and validation: no prompt and no near-duplicate on both sides, whatever the row order."""

import pytest

from sft.data.repeats import leaks, prompt_key, row_text
from sft.data.rows.conversation import Message
from sft.data.splits import given, num_val, split_off
from sft.errors import ConfigError, DataError


@pytest.fixture
def rows(talk):
    """`rows(*prompts)`: one row a prompt, on lines from 1."""

    def make(*prompts, first=1, answer="a"):
        lines = enumerate(prompts, start=first)
        return [talk(("user", p), ("assistant", answer), line=line) for line, p in lines]

    return make


def lines(side):
    return [row.origin.line for row in side]


@pytest.mark.parametrize(
    ("num_rows", "fraction", "expected"),
    [
        *((1, "auto", 0), (4, "auto", 0), (5, "auto", 1), (50, "auto", 10), (79, "auto", 15)),
        *((80, "auto", 16), (320, "auto", 16), (400, "auto", 20), (2560, "auto", 128)),
        *((1_000_000, "auto", 128), (100, 0.0, 0), (100, 0.25, 25), (1000, 0.5, 500)),
        *((3, 0.1, 0), (10, 0.99, 9), (1, 0.9, 0)),
    ],
)
def test_sizes(num_rows, fraction, expected):
    assert num_val(num_rows, fraction) == expected


def test_every_row_is_on_one_side_in_the_order_of_the_data(rows):
    data = rows(*map(str, range(100)))
    split = split_off(data, 0.2, seed=0)
    assert len(split.val) == 20 and split.leaked == []
    assert sorted(lines(split.train) + lines(split.val)) == list(range(1, 101))
    assert lines(split.train) == sorted(lines(split.train))
    assert lines(split.val) == sorted(lines(split.val))


def test_the_split_does_not_depend_on_the_order_of_the_rows(rows):
    data = rows(*(str(i % 60) for i in range(100)))
    val = set(lines(split_off(data, 0.3, seed=1).val))
    assert val and set(lines(split_off(data[::-1], 0.3, seed=1).val)) == val
    shuffled = data[37:] + data[:37]
    assert set(lines(split_off(shuffled, 0.3, seed=1).val)) == val


def test_seeds_give_different_splits(rows):
    data = rows(*map(str, range(100)))
    sides = [tuple(lines(split_off(data, 0.2, seed=seed).val)) for seed in (0, 1, 2, 0)]
    assert len(set(sides)) == 3 and sides[0] == sides[3]


def test_equal_prompts_are_on_one_side(talk):
    """Copies, other answers, and prompts that differ in white space or case only."""
    data = []
    for i in range(40):
        for answer in ("a", "a", "another answer"):
            for prompt in (f"What is {i}?", f" what  IS\n{i}? "):
                data.append(talk(("user", prompt), ("assistant", answer), line=len(data) + 1))
    split = split_off(data, 0.3, seed=0)
    assert len(split.val) == 72  # whole groups of six
    assert not {prompt_key(row) for row in split.train} & {prompt_key(row) for row in split.val}


def test_what_makes_a_prompt(talk):
    base = [("user", "Hi"), ("assistant", "a"), ("user", "two"), ("assistant", "b")]
    key = prompt_key(talk(*base))
    same = [
        [("user", "hi "), *base[1:]],
        [base[0], ("assistant", "other"), *base[2:3], ("assistant", "answers", 0.5)],
    ]
    other = [
        base[:2],
        [("system", "Be"), *base],
        [("user", "Hi two"), ("assistant", "a")],
        [("user", "Hi"), ("assistant", "a"), ("user", "three"), ("assistant", "b")],
        [("user", "Hi"), ("assistant", "a"), Message("tool", "two"), ("assistant", "b")],
        [("system", "Hi"), ("user", "two"), ("assistant", "b")],
    ]
    assert {prompt_key(talk(*rows)) for rows in same} == {key}
    assert len({key, *(prompt_key(talk(*rows)) for rows in other)}) == 7


def test_copies_of_one_row_cannot_be_split(rows):
    split = split_off(rows(*["Hi"] * 50), "auto", seed=0)
    assert (len(split.train), split.val) == (50, [])


def test_a_group_that_is_too_large_stays_in_train(rows):
    data = rows(*["Hi"] * 90, *map(str, range(10)))
    split = split_off(data, 0.05, seed=0)
    assert len(split.val) == 5
    assert "Hi" not in [row.messages[0].content for row in split.val]


def test_something_is_always_left_to_train_on(rows):
    data = rows(*"abcdefghij")
    assert [len(split_off(data, 0.99, seed).train) for seed in range(5)] == [1] * 5


def test_given_rows_are_used_as_they_are(rows):
    train, val = rows("a", "b", "c"), rows("d", "e", "e", first=11)
    split = given(train, val)
    assert (lines(split.train), lines(split.val), split.leaked) == ([1, 2, 3], [11, 12, 13], [])


def test_rows_of_val_that_are_also_trained_on_are_left_out(rows):
    train = rows("a", "b", "c", "d")
    val = rows("x", " B", "y", "d", first=11, answer="another")
    split = given(train, val)
    assert (lines(split.train), lines(split.val)) == ([1, 2, 3, 4], [11, 13])
    assert lines(split.leaked) == [12, 14]


def test_val_larger_than_train(rows):
    with pytest.raises(ConfigError, match=r"data\.val has 3 rows and data.train 2: .* swapped"):
        given(rows("a", "b"), rows("c", "d", "e"))
    assert len(given(rows("a", "b"), rows("c", "d")).val) == 2


def test_nothing_left_to_measure_with(rows):
    with pytest.raises(DataError, match=r"all 2 rows of data\.val have a prompt that is also in"):
        given(rows("a", "b"), rows("b", "a"))


WORDS = [f"word{i}" for i in range(60)]


def near(kind, number):
    """A text of 60 words that differs in one from the others of its kind."""
    return " ".join([*(f"{kind}{w}" for w in WORDS[:20]), str(number), *WORDS[21:]])


@pytest.fixture
def alike(talk):
    """`alike(kinds, copies)`: rows of different prompts, near-duplicates within each kind."""

    def make(kinds, copies, first=1):
        texts = [near(kind, copy) for copy in range(copies) for kind in range(kinds)]
        return [
            talk(("user", text), ("assistant", "answer"), line=line)
            for line, text in enumerate(texts, start=first)
        ]

    return make


def test_near_duplicates_are_on_one_side(alike):
    data = alike(kinds=30, copies=3)
    split = split_off(data, 0.2, seed=0)
    assert len({prompt_key(row) for row in data}) == 90
    assert len(split.val) == 18 and split.notes == []
    assert not leaks(split.train, split.val)
    val = set(lines(split.val))
    assert set(lines(split_off(data[::-1], 0.2, seed=0).val)) == val
    assert set(lines(split_off(data, 0.2, seed=1).val)) != val


def test_groups_are_linked_through_prompts_and_near_duplicates(talk, rows):
    """A is near B, B has the prompt of C: all three go together, whatever C says."""
    a = talk(("user", near("x", 1)), ("assistant", "yes"), line=101)
    b = talk(("user", near("x", 2)), ("assistant", "yes"), line=102)
    c = talk(("user", near("x", 2)), ("assistant", " ".join(map(str, range(80)))), line=103)
    for seed in range(20):
        split = split_off([*rows(*map(str, range(17))), a, b, c], 0.5, seed)
        assert len({101, 102, 103} & set(lines(split.val))) in (0, 3)


def test_one_large_cluster_falls_back_to_equal_prompts_and_says_so(alike):
    data = alike(kinds=1, copies=100)
    split = split_off(data, 0.2, seed=0)
    assert len(split.val) == 20 and len(split.train) == 80
    assert len(split.notes) == 1 and split.notes[0].startswith("100 of 100 rows are near-dup")
    assert len(leaks(split.train, split.val).held_out) == 20
    assert set(lines(split_off(data[::-1], 0.2, seed=0).val)) == set(lines(split.val))


def test_a_system_message_does_not_make_rows_alike(talk):
    system = ("system", " ".join(WORDS))
    data = [
        talk(system, ("user", f"What is {i}?"), ("assistant", f"It is {i}."), line=i)
        for i in range(1, 41)
    ]
    split = split_off(data, 0.25, seed=0)
    assert len(split.val) == 10 and split.notes == []
    assert not leaks(split.train, split.val)


def test_tool_calls_tell_rows_apart(talk):
    def call(line, place):
        calls = ({"function": {"name": "weather", "arguments": {"place": place}}},)
        said = Message("assistant", "", tool_calls=calls, weight=1.0)
        return talk(("user", "weather"), said, line=line)

    assert row_text(call(1, "Rome")) != row_text(call(1, "Oslo"))
    assert "Rome" in row_text(call(1, "Rome"))


def test_leaks_are_equal_prompts_and_near_duplicates(talk, rows, alike):
    train = [*rows("a", "b", "c"), *alike(kinds=2, copies=1, first=10)]
    val = [
        *rows("x", "B", answer="of another kind", first=21),
        talk(("user", near(1, 99)), ("assistant", "answer"), line=23),
    ]
    found = leaks(train, val)
    assert found.rows == {1: 1, 4: 2} and found.held_out == {1: 1, 2: 4}
    assert not leaks(train, [])


def test_given_keeps_near_duplicates(alike):
    train, val = alike(kinds=4, copies=2), alike(kinds=4, copies=3)[8:]
    split = given(train, val)
    assert len(split.val) == 4 and split.leaked == []
    assert len(leaks(split.train, split.val).held_out) == 4
