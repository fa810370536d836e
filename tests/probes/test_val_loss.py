"""Scores of held-out rows, one by one, against transformers' own loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import tiny
from sft.data.tokenize import Example
from sft.model.forward import Forward
from sft.probes.val_loss import Score, score_examples, summarize


def example(row: int, length: int, num_bytes: int = 7, weight: float = 1.0) -> Example:
    rng = np.random.default_rng(row)
    ids = rng.integers(5, 400, length)
    trained = rng.random(length) < 0.6
    trained[-1], trained[1] = False, True
    labels = np.where(trained, np.roll(ids, -1), -100)
    weights = np.where(trained, weight, 0).astype(np.float32)
    return Example(f"row:{row}", None, 0, ids, labels, weights, num_bytes)


EXAMPLES = [example(row, length, row) for row, length in enumerate([9, 30, 4, 17, 30, 11])]


def guessable(model) -> Example:
    """A row whose last eight tokens are what `model` ranks first."""
    ids = EXAMPLES[0].input_ids.tolist()
    for _ in range(8):
        with torch.no_grad():
            ids.append(int(model.eval()(torch.tensor([ids])).logits[0, -1].argmax()))
    labels = np.append(ids[1:], -100)
    weights = (labels >= 0).astype(np.float32)
    return Example("guessable", None, 0, np.array(ids), labels, weights, 99)


def by_transformers(model, one: Example) -> tuple[float, int]:
    """Summed nll and number of hits, from the model's own forward."""
    ids = torch.from_numpy(one.input_ids)[None]
    labels = torch.full_like(ids, -100)
    labels[0, 1:] = torch.from_numpy(one.labels)[:-1]
    with torch.no_grad():
        out = model.eval()(input_ids=ids, labels=labels)
    hits = out.logits[0].argmax(-1) == torch.from_numpy(one.labels)
    return float(out.loss) * one.num_trained, int(hits.sum())


@pytest.mark.parametrize("layout", ["flat", "padded"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral-window", "gemma2"])
def test_each_example_has_transformers_own_loss(kind, layout):
    model, reference = tiny.model(kind), tiny.model(kind)
    examples = [*EXAMPLES, guessable(reference)]
    scores = {s.id: s for s in score_examples(Forward(model, layout=layout), examples, 40)}
    assert set(scores) == {e.id for e in examples}
    total = 0
    for one in examples:
        nll, hits = by_transformers(reference, one)
        score = scores[one.id]
        assert score.nll == pytest.approx(nll, rel=1e-5)
        assert (score.tokens, score.correct) == (one.num_trained, hits)
        assert score.bytes == one.num_bytes
        total += hits
    assert total >= 8


@pytest.mark.parametrize("micro_batch_tokens", [1, 45, 10_000])
def test_grouping_changes_no_score(micro_batch_tokens):
    forward = Forward(tiny.model())
    single = {s.id: s for s in score_examples(forward, EXAMPLES, 1)}
    for score in score_examples(forward, EXAMPLES, micro_batch_tokens):
        assert score.nll == pytest.approx(single[score.id].nll, rel=1e-5)
        assert score.correct == single[score.id].correct


def test_scores_are_not_weighted():
    """Validation measures tokens; a weight below one is about training."""
    forward = Forward(tiny.model())
    whole, half = example(3, 12), example(3, 12, weight=0.5)
    assert list(score_examples(forward, [whole], 99)) == list(score_examples(forward, [half], 99))


def test_scoring_leaves_no_gradient_and_no_random_number_behind():
    model = tiny.model("gpt2")
    state = torch.get_rng_state()
    list(score_examples(Forward(model), EXAMPLES, 40))
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_it_ends_early_between_micro_batches(after):
    asked = []
    found = score_examples(
        Forward(tiny.model()),
        EXAMPLES,
        1,
        stop_requested=lambda: asked.append(1) or len(asked) > after,
    )
    assert len(list(found)) == after


def test_nothing_to_score_is_nothing():
    assert list(score_examples(Forward(tiny.model()), [], 100)) == []


def test_the_summary_is_weighted_by_tokens():
    scores = [Score("a", 6.0, 3, 10, 2), Score("b", 1.0, 7, 20, 1)]
    assert summarize(scores) == {
        "val_loss": 0.7,
        "val_accuracy": 0.3,
        "val_perplexity": pytest.approx(math.exp(0.7)),
    }


def test_the_summary_is_the_loss_of_the_whole_set():
    model, reference = tiny.model(), tiny.model()
    losses = [by_transformers(reference, one) for one in EXAMPLES]
    tokens = sum(one.num_trained for one in EXAMPLES)
    summary = summarize(list(score_examples(Forward(model), EXAMPLES, 40)))
    assert summary["val_loss"] == pytest.approx(sum(nll for nll, _ in losses) / tokens, rel=1e-5)
    assert summary["val_accuracy"] == sum(hits for _, hits in losses) / tokens


def test_a_record_has_the_step_the_probe_and_all_of_the_score():
    assert Score("data.jsonl:3", 1.5, 4, 9, 2).record(120, "val") == {
        "step": 120,
        "probe": "val",
        "id": "data.jsonl:3",
        "nll": 1.5,
        "tokens": 4,
        "bytes": 9,
        "correct": 2,
    }
