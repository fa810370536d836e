"""Flat, padded, checkpointed, in any grouping: all are the model that transformers runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny
from sft.config import MethodConfig
from sft.data.packing import micro_batches, pack
from sft.data.tokenize import Example
from sft.model.forward import Forward
from sft.model.lora import prepare_method
from sft.model.losses import loss_named
from tolerance import allowed, rounded, terms

KINDS = ["gpt2", "llama", "mistral", "mistral-window", "qwen3", "gemma", "gemma2"]
LENGTHS = [12, 31, 5, 20, 31, 9, 17, 24]  # several beyond the sliding window of 8


def example(row: int, length: int, weight: float = 1.0) -> Example:
    """A random row: prompt ignored, answer trained, labels shifted."""
    rng = np.random.default_rng(row)
    ids = rng.integers(5, 400, length)
    trained = np.arange(length) >= length // 3  # token t is an answer token
    shifted = np.append(trained[1:], False)
    labels = np.where(shifted, np.append(ids[1:], 0), -100)
    weights = np.where(shifted, weight, 0).astype(np.float32)
    return Example(f"row:{row}", None, 0, ids, labels, weights, 0)


EXAMPLES = [example(row, length) for row, length in enumerate(LENGTHS)]


def build(kind: str, tied: bool | None = None):
    """A tiny model; `tied` overrules its config."""
    model = tiny.model(kind)
    embedding = model.get_input_embeddings().weight
    if tied is not None:
        model.config.tie_word_embeddings = tied
        head = embedding if tied else torch.nn.Parameter(embedding.detach().flip(0).clone())
        model.get_output_embeddings().weight = head
    return model


def transformers_loss(model, examples) -> float:
    """Transformers' own loss, one example at a time; leaves the gradients in the model."""
    model.train()
    total = 0.0
    for one in examples:
        ids = torch.from_numpy(one.input_ids)[None]
        labels = torch.full_like(ids, -100)
        labels[0, 1:] = torch.from_numpy(one.labels)[:-1]  # transformers shifts by itself
        loss = model(input_ids=ids, labels=labels).loss * one.num_trained
        loss.backward()
        total += loss.item()
    return total


def our_loss(model, batches, layout: str) -> tuple[float, float]:
    """Sums over `batches`; leaves the gradients in the model."""
    forward = Forward(model, layout=layout)
    nll = correct = 0.0
    for batch in batches:
        sums = forward.loss(batch)
        sums.objective.backward()
        nll += float(sums.nll)
        correct += float(sums.correct)
    return nll, correct


def gradients(model) -> dict[str, torch.Tensor]:
    found = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    assert all(g is not None and g.norm() > 0 for g in found.values())
    return found


def assert_close(found, wanted, tolerance: float) -> None:
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= tolerance * gradient.norm(), name


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", KINDS)
def test_flat_and_padded_are_transformers_own_loss_and_gradients(kind, tied):
    model = build(kind, tied)
    wanted = transformers_loss(model, EXAMPLES)
    wanted_gradients = gradients(model)
    for layout in ("flat", "padded"):
        nll, _ = our_loss(model, [pack(EXAMPLES)], layout)
        assert nll == rounded(wanted, terms(model)), layout
        assert_close(gradients(model), wanted_gradients, allowed(3 * terms(model)))


@pytest.mark.parametrize("layout", ["flat", "padded"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_grouping_is_the_same_step(kind, layout):
    model = build(kind)
    groupings = [micro_batches(EXAMPLES, most) for most in (10_000, 60, 1)]
    assert [len(grouping) for grouping in groupings] == [1, 3, 8]
    nll, correct = our_loss(model, groupings[0], layout)
    together = gradients(model)
    for grouping in groupings[1:]:
        other, other_correct = our_loss(model, grouping, layout)
        assert other == rounded(nll, terms(model))
        assert other_correct == correct
        assert_close(gradients(model), together, allowed(3 * terms(model)))


@pytest.mark.parametrize("layout", ["flat", "padded"])
@pytest.mark.parametrize("kind", KINDS)
def test_activation_checkpointing_changes_nothing(kind, layout):
    plain, checkpointed = build(kind), build(kind)
    prepare_method(checkpointed, MethodConfig(activation_checkpointing=True))
    runs = []
    for model in (plain, checkpointed):
        runs.append((our_loss(model, [pack(EXAMPLES)], layout), gradients(model)))
    assert runs[0][0] == runs[1][0]
    assert_close(runs[1][1], runs[0][1], allowed(1))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_activation_checkpointing_really_recomputes(method):
    """Every layer runs a second time in backward, and the loss is the same."""
    calls = []
    losses = []
    for checkpointing in (False, True):
        model = build("llama")
        prepare_method(model, MethodConfig(kind=method, activation_checkpointing=checkpointing))
        for layer in model.base_model.layers:
            layer.mlp.register_forward_pre_hook(lambda *_, on=checkpointing: calls.append(on))
        losses.append(our_loss(model, [pack(EXAMPLES)], "flat"))
    assert (calls.count(False), calls.count(True)) == (2, 4)
    assert losses[0] == losses[1]


@pytest.mark.parametrize("kind", KINDS)
def test_examples_never_see_each_other(kind):
    """Other tokens in the neighbours, of the same length, leave every bit of the middle one."""
    forward = Forward(build(kind))
    batch = pack(EXAMPLES[:3])
    first, middle = EXAMPLES[0].num_trained, EXAMPLES[1].num_trained
    nll, correct = forward.scores(batch)
    changed = batch.input_ids.clone()
    changed[: LENGTHS[0]] += 1
    changed[LENGTHS[0] + LENGTHS[1] :] -= 1
    other, other_correct = forward.scores(replace(batch, input_ids=changed))
    inside = slice(first, first + middle)
    assert torch.equal(nll[inside], other[inside])
    assert torch.equal(correct[inside], other_correct[inside])
    assert not torch.isclose(nll[:first], other[:first]).any()


@pytest.mark.parametrize("kind", KINDS)
def test_no_token_sees_a_later_one(kind):
    forward = Forward(build(kind))
    batch = pack(EXAMPLES[1:2])
    changed = batch.input_ids.clone()
    changed[-1] += 1  # read, but predicts nothing
    nll, _ = forward.scores(batch)
    assert torch.equal(nll, forward.scores(replace(batch, input_ids=changed))[0])


@pytest.mark.parametrize("layout", ["flat", "padded"])
@pytest.mark.parametrize("loss", ["nll", "dft"])
def test_weights_count_token_by_token(layout, loss):
    model, reference = build("llama"), build("llama")
    batch = pack([EXAMPLES[0], example(1, LENGTHS[1], weight=0.5)])
    trained = batch.weights[batch.labels >= 0]
    assert sorted(set(trained.tolist())) == [0.5, 1.0]
    sums = Forward(model, layout=layout, loss=loss_named(loss)).loss(batch)
    sums.objective.backward()
    found = gradients(model)

    logits = torch.cat(
        [
            reference(input_ids=torch.from_numpy(e.input_ids)[None]).logits[0, e.labels >= 0]
            for e in EXAMPLES[:2]
        ]
    )
    labels = batch.labels[batch.labels >= 0]
    nll = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    share = torch.exp(-nll.detach()) if loss == "dft" else torch.ones_like(nll)
    objective = (trained * share * nll).sum()
    objective.backward()
    assert sums.objective.item() == pytest.approx(objective.item(), rel=1e-5)
    assert float(sums.nll) == pytest.approx((trained * nll).sum().item(), rel=1e-5)
    hits = (logits.argmax(-1) == labels).float()
    assert float(sums.correct) == float((trained * hits).sum())
    assert_close(found, gradients(reference), 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_the_loss_token_by_token(kind):
    """What validation reads is what training minimises; three ways of the same number."""
    model = build(kind)
    batch = pack(EXAMPLES)
    sums = Forward(model).loss(batch)
    for layout in ("flat", "padded"):
        nll, correct = Forward(model, layout=layout).scores(batch)
        assert nll.shape == correct.shape == (sum(e.num_trained for e in EXAMPLES),)
        assert float(nll.sum()) == pytest.approx(float(sums.nll), rel=1e-5)
        assert float(correct.sum()) == float(sums.correct)
