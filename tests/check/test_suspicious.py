import io
import json
import math

import numpy as np
import pytest
import torch

from sft import load_config
from sft.check.suspicious import find_suspicious, last_answer, pick, rank, without_prompt
from sft.data.rows.conversation import Origin
from sft.data.tokenize import IGNORE_INDEX, Example
from sft.model.forward import Forward
from sft.probes.val_loss import Score, score_examples
from sft.terminal.console import Console
from sft.training.tokens import prepare_data
from trained import make_world


def example(ids, targets, weight=1.0):
    labels = np.array([t if t is not None else IGNORE_INDEX for t in targets])
    weights = np.where(labels == IGNORE_INDEX, 0, weight).astype(np.float32)
    return Example("a:1", Origin("a", 1), 0, np.array(ids), labels, weights, 5)


def test_only_the_last_answer_is_scored():
    found = last_answer(example([5, 6, 7, 8, 9], [None, 7, None, 9, None]), 0.0)
    assert found.labels.tolist() == [IGNORE_INDEX] * 3 + [9, IGNORE_INDEX]
    assert found.weights.tolist() == [0, 0, 0, 1, 0]


def test_prompt_tokens_that_are_trained_a_little_are_no_answer():
    row = example([5, 6, 7, 8], [6, 7, 8, None])
    row.weights[:2] = 0.25
    found = last_answer(row, 0.25)
    assert found.labels.tolist() == [IGNORE_INDEX, IGNORE_INDEX, 8, IGNORE_INDEX]


def test_text_without_a_prompt_has_no_answer():
    assert last_answer(example([5, 6, 7], [6, 7, None]), 0.0) is None
    assert last_answer(example([5, 6, 7], [None, None, None]), 0.0) is None


def test_an_answer_alone_keeps_its_tokens_and_their_order():
    row = example([5, 6, 7, 8, 2], [None, None, 8, 2, None])
    alone = without_prompt(row, [3, 4])
    assert alone.input_ids.tolist() == [3, 4, 8, 2]
    assert alone.labels.tolist() == [IGNORE_INDEX, 8, 2, IGNORE_INDEX]
    bare = without_prompt(row, [])  # the token before the answer is read in its place
    assert bare.input_ids.tolist() == [7, 8, 2] and bare.labels.tolist() == [8, 2, IGNORE_INDEX]


def scores(pairs):
    return [
        (Score(f"a:{i}", loss * 10, 10, 9, 0), Score(f"a:{i}", alone * 10, 10, 9, 0))
        for i, (loss, alone) in enumerate(pairs)
    ]


def test_what_stands_out_and_why():
    usual = [(1.0 + i / 50, 2.0) for i in range(20)]
    found = rank(scores([*usual, (9.0, 9.5), (1.1, 0.9), (0.01, 2.0)]))
    assert [(row.row, row.reason.split(":")[0]) for row in found] == [
        ("a:20", "far harder than the others"),
        ("a:21", "the prompt does not help to predict the answer"),
        ("a:22", "the model knows it already"),
    ]
    assert found[1].ifd == pytest.approx(math.exp(0.2)) and found[1].loss == pytest.approx(1.1)
    assert rank(scores(usual)) == [] == rank([])


def test_so_many_are_picked_in_order_and_again_the_same():
    rows = [example([i, i + 1], [i + 1, None]) for i in range(50)]
    found = [row.input_ids[0] for row in pick(rows, 10, 3)]
    assert found == sorted(found) == [row.input_ids[0] for row in pick(rows, 10, 3)]
    assert len(found) == 10 and found != list(range(10)) and pick(rows, 50, 3) == rows


def test_the_scores_are_those_of_the_model(tmp_path, monkeypatch):
    """A row whose answer is noise is far harder than rows that repeat each other."""
    make_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    config = {"data.train": ["rows.jsonl"], "data.val_fraction": 0, "model.name": "llama"}
    tokens = prepare_data(load_config({}, config), Console(io.StringIO()))
    found = find_suspicious(tokens, 40, Console(io.StringIO()))
    again = find_suspicious(tokens, 40, Console(io.StringIO()))
    assert found == again
    from sft.check.rehearsal import load_checked
    from sft.training.interrupt import StopFlag

    model, *_ = load_checked(
        tokens, torch.device("cpu"), torch.float32, Console(io.StringIO()), StopFlag()
    )
    rows = {e.id: last_answer(e, 0.0) for e in tokens.data.train}
    direct = {s.id: s for s in score_examples(Forward(model), list(rows.values()), 2048)}
    for row in found:
        assert row.loss == pytest.approx(direct[row.row].nll / direct[row.row].tokens, rel=1e-4)
    assert json.dumps([row.loss for row in found])
