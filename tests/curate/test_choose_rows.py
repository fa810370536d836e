"""Data remedies on the way from files to examples: every row is still accounted for, once."""

import json
from collections import Counter
from functools import partial

import numpy as np
import pytest

import tiny
from sft.config import load_config
from sft.curate.remedies import choose_rows
from sft.curate.usage_weights import importance
from sft.data.account import account
from sft.data.dataset import load_data
from sft.data.held_out import HeldOut, load_held_out
from sft.data.template.chat_template import ChatTemplate
from sft.errors import ConfigError
from sft.training.setup import build_batches

NOUNS = ["fox", "dog", "cat", "bird", "tree", "stone", "river", "cloud", "lamp", "chair"]
VERBS = ["sees", "likes", "draws", "finds", "breaks", "paints"]
NUM, COPIES = 60, 6


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def template(tokenizer):
    return ChatTemplate(tokenizer)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Sixty rows that differ, four in five of which open alike; six of them are there twice."""
    rows = []
    for i in range(NUM):
        noun, verb, other = NOUNS[i % 10], VERBS[i // 10], NOUNS[(3 * i + 1) % 10]
        answer = f"the {noun} {verb} number {i} of {other}."
        question = f"{verb} {other} {i * 7919}: what does the {noun} do {other * 3}?"
        opener = "Sure! " if i % 5 else ""
        rows.append({"prompt": question, "completion": opener + answer})
    rows += rows[:COPIES]
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def load(path, template):
    def make(**settings):
        values = {"train": [str(path)], "max_seq_len": 200, "val_fraction": 0.2, **settings}
        config = load_config({"data": values}).data
        choose = partial(choose_rows, config=config, seed=3)
        return load_data(config, template, 3, choose_rows=choose)

    return make


def check_sum(data):
    """One fate a row, examples of exactly the rows that say so, and reasons for the others."""
    counts = data.counts()
    assert sum(counts.values()) == data.num_rows == len(data.fates) == NUM + COPIES
    assert counts == {s: Counter(f.status for f in data.fates)[s] for s in counts}
    assert len({fate.origin for fate in data.fates}) == len(data.fates)
    trained = {f.origin for f in data.fates if f.status in ("used", "changed")}
    assert {example.origin for example in data.train} == trained
    assert {e.origin for e in data.val} == {f.origin for f in data.fates if f.status == "val"}
    for fate in data.fates:
        assert bool(fate.reason) == (fate.status in ("changed", "dropped"))
    assert account(data)["counts"] == counts
    return counts


def texts(tokenizer, examples):
    return [tokenizer.decode(e.labels[e.labels >= 0]) for e in examples]


def test_without_remedies_every_row_is_used(load):
    counts = check_sum(load())
    assert (counts["changed"], counts["dropped"]) == (0, 0)
    assert counts["val"] >= 6


def test_stripped_rows_are_changed_and_stay(load, tokenizer):
    plain, data = load(), load(openers="strip")
    counts = check_sum(data)
    assert counts["dropped"] == 0 and counts["val"] == plain.counts()["val"]
    before = sum(text.startswith("Sure!") for text in texts(tokenizer, plain.train))
    after = sum(text.startswith("Sure!") for text in texts(tokenizer, data.train))
    assert after <= 0.1 * len(data.train) and counts["changed"] == before - after > 20
    # What is measured stays as it is.
    assert texts(tokenizer, data.val) == texts(tokenizer, plain.val)
    reasons = {fate.reason for fate in data.fates if fate.status == "changed"}
    assert reasons == {'opener "sure" stripped from the answer'}


def test_dropped_rows_are_gone(load, tokenizer):
    data = load(openers="drop", opener_share=0.2)
    counts = check_sum(data)
    assert counts["changed"] == 0 and counts["used"] + counts["dropped"] + counts["val"] == 66
    openers = Counter(" ".join(text.split()[:3]) for text in texts(tokenizer, data.train))
    assert max(openers.values()) <= max(1, 0.2 * len(data.train))


def test_near_duplicates_go(load):
    data = load(deduplicate=True)
    counts = check_sum(data)
    both = {f.origin.line for f in data.fates if f.status == "dropped"}
    # A row and its copy are on one side of the split, so those of validation stay.
    assert 0 < counts["dropped"] <= COPIES and both <= set(range(61, 67))
    assert all("near-duplicate of " in f.reason for f in data.fates if f.status == "dropped")


def test_the_most_different_rows_are_chosen(load):
    data = load(select_rows=10)
    counts = check_sum(data)
    assert counts["used"] == len(data.train) == 10
    assert counts["dropped"] == 66 - 10 - counts["val"]
    assert check_sum(load(select_rows=1000))["dropped"] == 0


def test_several_remedies_at_once_tell_of_a_row_once(load):
    """A row that was stripped and then not chosen is dropped, and nothing else."""
    alone = load(openers="strip", deduplicate=True)
    data = load(openers="strip", deduplicate=True, select_rows=12)
    counts = check_sum(data)
    assert counts["used"] + counts["changed"] == 12
    stripped = {f.origin for f in alone.fates if f.status == "changed"}
    dropped = {f.origin: f.reason for f in data.fates if f.status == "dropped"}
    both = stripped & dropped.keys()
    assert both and all("not among the 12" in dropped[origin] for origin in both)


def test_a_changed_row_that_is_too_long_is_only_dropped(load):
    counts_all = load(openers="strip").counts()
    data = load(openers="strip", max_seq_len=72)
    assert sum(data.counts().values()) == data.num_rows == 66
    assert data.counts()["dropped"] > 0
    assert data.counts()["changed"] < counts_all["changed"]
    assert any("max_seq_len" in fate.reason for fate in data.fates)


def test_the_same_rows_whatever_came_before(load):
    again = load(openers="strip", deduplicate=True, select_rows=12)
    first = load(openers="strip", deduplicate=True, select_rows=12)
    assert [e.id for e in first.train] == [e.id for e in again.train]


# ---------------------------------------------------------------- weighting by usage


def weighting(path):
    values = {"train": [str(path)], "usage_weighting": True, "max_seq_len": 200, "val_fraction": 0}
    return load_config({"data": values, "batch": {"examples": 4}})


def test_weighting_needs_prompts_to_resemble(path, load):
    with pytest.raises(ConfigError, match=r"data\.usage_weighting: .* give --usage FILE"):
        build_batches(weighting(path), load(val_fraction=0), HeldOut())


def test_rows_are_seen_as_often_as_they_resemble_the_prompts(path, load, template, tmp_path):
    usage = tmp_path / "usage.jsonl"
    rows = [{"prompt": f"sees fox {i}: what does the dog do?"} for i in range(20)]
    usage.write_text("".join(json.dumps(row) + "\n" for row in rows))
    held_out = load_held_out(
        load_config({"data": {"usage": [str(usage)], "max_seq_len": 200}}).data, template
    )
    data = load(val_fraction=0)
    prompts = held_out.prompts
    weights = np.array([*importance(data.split.train, prompts, True).values()])
    assert weights.max() > 1.5 * weights.min()  # it is worth looking at
    batches, epochs = build_batches(weighting(path), data, held_out), 60
    seen = Counter()
    while batches.epoch < epochs:
        seen.update(example.id for example in batches.next())
    for row, weight in zip(data.split.train, weights, strict=True):
        assert seen[str(row.origin)] / epochs == pytest.approx(weight, abs=0.3)
