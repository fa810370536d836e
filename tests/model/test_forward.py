"""Modes, heads, noise and precision; the equalities themselves are in invariants/."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, CohereConfig, GraniteConfig, PhiConfig

import tiny
from sft.data.packing import pack
from sft.data.tokenize import Example
from sft.model import forward as forward_module
from sft.model.attention import FLAT
from sft.model.forward import Forward
from tolerance import assert_rounded, rounded, terms

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 400,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
UNUSUAL_HEADS = {  # scaled, divided, capped, with a bias
    "cohere": lambda: CohereConfig(**SMALL, logit_scale=0.25),
    "granite": lambda: GraniteConfig(**SMALL, logits_scaling=3.0, embedding_multiplier=2.0),
    "gemma2": tiny.CONFIGS["gemma2"],
    "phi": lambda: PhiConfig(**SMALL),
}


def example(row: int, length: int) -> Example:
    rng = np.random.default_rng(row)
    ids = rng.integers(5, 400, length)
    labels = np.append(ids[1:], -100)
    labels[: length // 2] = -100
    return Example(f"row:{row}", None, 0, ids, labels, (labels >= 0).astype(np.float32), 0)


BATCH = pack([example(0, 12), example(1, 7), example(2, 20)])
NUM_TRAINED = int((BATCH.labels >= 0).sum())


def unusual(kind: str):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(UNUSUAL_HEADS[kind]())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 or name.endswith("bias"):
                parameter.normal_(0, 0.15)
    return model


@pytest.mark.parametrize("kind", sorted(UNUSUAL_HEADS))
def test_heads_that_are_not_just_a_matrix(kind):
    """Loss, scores and gradients of the flat path are those of the model's own forward."""
    model = unusual(kind)
    padded = Forward(model, layout="padded")
    wanted, _ = padded.scores(BATCH)
    padded.loss(BATCH).objective.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    flat = Forward(model)
    assert_rounded(flat.scores(BATCH)[0], wanted, terms(model))
    sums = flat.loss(BATCH)
    assert float(sums.nll) == rounded(float(wanted.sum()), terms(model))
    sums.objective.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad - gradients[name]).norm() <= 1e-4 * gradients[name].norm() + 1e-5


@pytest.mark.parametrize("layout", ["flat", "padded"])
def test_losses_train_and_scores_do_not(layout):
    model = tiny.model("gpt2")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    forward = Forward(model, layout=layout)
    first = forward.scores(BATCH)[0]
    assert not first.requires_grad and not model.training
    losses = {float(forward.loss(BATCH).nll) for _ in range(3)}
    assert len(losses) == 3 and model.training
    assert torch.equal(forward.scores(BATCH)[0], first)


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_the_head_reads_supervised_positions_only(kind, monkeypatch):
    """Through the fast head and through the module, no other row reaches the vocabulary."""
    rows = []
    for name in ("linear_loss", "module_loss"):
        original = getattr(forward_module, name)
        monkeypatch.setattr(
            forward_module,
            name,
            lambda hidden, *rest, run=original: (rows.append(len(hidden)), run(hidden, *rest))[1],
        )
    Forward(tiny.model(kind)).loss(BATCH)
    assert rows == [NUM_TRAINED] and BATCH.num_tokens > NUM_TRAINED


def test_the_fast_head_is_used_where_the_head_is_a_matrix(monkeypatch):
    used = []
    for name in ("linear_loss", "module_loss"):
        original = getattr(forward_module, name)
        monkeypatch.setattr(
            forward_module,
            name,
            lambda *given, name=name, run=original: (used.append(name), run(*given))[1],
        )
    for kind in ("llama", "gpt2", "gemma", "gemma2"):
        Forward(tiny.model(kind)).loss(BATCH)
    Forward(unusual("phi")).loss(BATCH)
    Forward(unusual("cohere")).loss(BATCH)
    fast, slow = "linear_loss", "module_loss"
    assert used == [fast, fast, fast, slow, fast, slow]


def test_flat_stays_switched_on_for_the_recomputation_in_backward():
    model = tiny.model()
    Forward(model).loss(BATCH)
    assert model.config._attn_implementation == FLAT
    Forward(model, layout="padded").loss(BATCH)
    assert model.config._attn_implementation == "sdpa"


# --- NEFTune -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma", "gemma2"])
def test_noise_of_almost_nothing_changes_almost_nothing(kind):
    """The embeddings that are handed in are those the model would have looked up."""
    model = tiny.model(kind)
    plain = Forward(model).loss(BATCH).nll
    noisy = Forward(model, neftune_alpha=1e-6).loss(BATCH).nll
    assert float(noisy) == pytest.approx(float(plain), rel=1e-5)


def test_noise_is_uniform_and_scaled_by_the_length_of_each_example():
    model = tiny.model()
    forward = Forward(model, neftune_alpha=5.0)
    seen = []
    model.model.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    torch.manual_seed(0)
    for _ in range(40):
        forward.loss(BATCH)
    with torch.no_grad():
        noise = torch.stack(seen)[:, 0] - model.get_input_embeddings()(BATCH.input_ids)
    for part, length in zip(noise.split(BATCH.lengths, dim=1), BATCH.lengths, strict=True):
        most = 5.0 / math.sqrt(length * 32)
        assert 0.98 * most < float(part.abs().max()) <= most * (1 + 1e-5)
        assert float(part.mean()) == pytest.approx(0, abs=0.02 * most)
        assert float(part.std()) == pytest.approx(most / math.sqrt(3), rel=0.02)


def test_noise_is_for_training_only():
    model = tiny.model()
    noisy = Forward(model, neftune_alpha=5.0)
    assert float(noisy.loss(BATCH).nll) != float(noisy.loss(BATCH).nll)
    assert torch.equal(noisy.scores(BATCH)[0], Forward(model).scores(BATCH)[0])


def test_the_embedding_learns_through_the_noise():
    model = tiny.model("mistral")  # untied: the gradient comes through the evaluation-up alone
    Forward(model, neftune_alpha=5.0).loss(BATCH).objective.backward()
    touched = model.get_input_embeddings().weight.grad.abs().sum(1) > 0
    assert set(touched.nonzero().flatten().tolist()) <= set(BATCH.input_ids.tolist())
    assert touched.sum() > 20


# --- precision -----------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["flat", "padded"])
def test_bfloat16_computes_in_it_and_keeps_fp32_weights_and_gradients(layout):
    model = tiny.model()
    exact = float(Forward(model, layout=layout).loss(BATCH).nll)
    reduced = Forward(model, layout=layout, dtype=torch.bfloat16)
    inside = []
    model.model.layers[0].mlp.register_forward_hook(lambda _m, _i, out: inside.append(out.dtype))
    sums = reduced.loss(BATCH)
    sums.objective.backward()
    assert inside == [torch.bfloat16]
    assert float(sums.nll) != exact
    assert float(sums.nll) == pytest.approx(exact, rel=0.02)
    assert sums.objective.dtype == reduced.scores(BATCH)[0].dtype == torch.float32
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}


def test_fp32_is_not_reduced():
    model = tiny.model()
    inside = []
    model.model.layers[0].mlp.register_forward_hook(lambda _m, _i, out: inside.append(out.dtype))
    Forward(model).loss(BATCH)
    assert inside == [torch.float32]
