"""The anchor: KL to the base model, its gradient, and what it does to training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny
from sft.config import MethodConfig, OptimConfig
from sft.data.packing import pack
from sft.data.tokenize import Example, continuation
from sft.model.forward import Forward
from sft.model.lora import prepare_method, trained_parameters
from sft.probes.generate import continuations
from sft.remedies.anchor import Anchor
from sft.remedies.dropout import add_dropout
from sft.training.optimizers import build_optimizer

VOCAB = 400


def example(row: int, length: int = 14) -> Example:
    ids = np.random.default_rng(row).integers(5, VOCAB, length)
    labels = np.append(ids[1:], -100)
    labels[:2] = -100
    return Example(f"row:{row}", None, 0, ids, labels, (labels >= 0).astype(np.float32), 0)


TEXTS = [example(row, 8 + 3 * row) for row in range(5)]
TASK = pack([example(row) for row in range(100, 104)])


def moved(model, seed: int = 1, scale: float = 0.05):
    """`model` as after training."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in trained_parameters(model).values():
            parameter.add_(scale * torch.randn_like(parameter))
    return model


def log_probs(model, one: Example) -> torch.Tensor:
    """Of the supervised positions, by the model's own forward; differentiable."""
    model.set_attn_implementation("sdpa")
    logits = model.eval()(torch.from_numpy(one.input_ids)[None]).logits[0]
    return logits[torch.from_numpy(one.labels) >= 0].log_softmax(-1)


def full_kl(base, now, texts) -> torch.Tensor:
    """Mean over all supervised positions of KL(base || now), over the whole vocabulary."""
    parts = []
    for one in texts:
        with torch.no_grad():
            log_p = log_probs(base, one)
        parts.append((log_p.exp() * (log_p - log_probs(now, one))).sum(-1))
    return torch.cat(parts).mean()


def gradients(model, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in trained_parameters(model).items()}


@pytest.mark.parametrize("layout", ["flat", "padded"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "mistral"])
def test_with_the_whole_vocabulary_loss_and_gradient_are_those_of_kl(kind, layout):
    model = tiny.model(kind)
    forward = Forward(model, layout=layout)
    anchor = Anchor(forward, TEXTS, 0.7, per_step=2, top=VOCAB)
    moved(model)
    loss = anchor.loss(2)
    assert [text.id for text in anchor.texts(2)] == ["row:2", "row:3"]
    found = gradients(model, loss)
    kl = full_kl(tiny.model(kind), model, TEXTS[2:4])
    assert float(kl.detach()) > 0.05
    assert float(loss.detach()) == pytest.approx(0.7 * float(kl.detach()), rel=1e-4)
    wanted = gradients(model, 0.7 * kl)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("top", [1, 16, 64, 256])
def test_a_part_of_the_vocabulary_never_overstates(top):
    """And comes closer the more of it there is."""
    model = tiny.model()
    parts = [Anchor(Forward(model), TEXTS, 1.0, 5, top=k) for k in (top, VOCAB)]
    moved(model)
    some, whole = (float(anchor.loss(1).detach()) for anchor in parts)
    assert 0 < some <= whole
    if top == 256:
        assert some > 0.5 * whole


def test_it_is_nothing_at_the_base_model_and_leaves_mode_and_randomness_alone():
    model = tiny.model()
    add_dropout(model, 0.5)
    forward = Forward(model)
    anchor = Anchor(forward, TEXTS, 1.0, per_step=3)
    model.train()
    before = torch.get_rng_state()
    loss = anchor.loss(1)
    assert torch.equal(before, torch.get_rng_state()) and model.training
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    largest = max(float(g.abs().max()) for g in gradients(model, loss).values())
    assert largest < 1e-5


def test_all_texts_come_in_turn_whatever_the_batches_were():
    forward = Forward(tiny.model())
    anchor = Anchor(forward, TEXTS, 1.0, per_step=2, micro_batch_tokens=20)
    seen = [text for step in range(1, 6) for text in anchor.texts(step)]
    assert seen == TEXTS * 2
    assert anchor.texts(4) == Anchor(forward, TEXTS, 1.0, per_step=2).texts(4)
    assert Anchor(forward, TEXTS, 1.0, per_step=99).texts(1) == TEXTS
    moved(forward.model)
    other = Anchor(Forward(tiny.model()), TEXTS, 1.0, per_step=2)
    other._forward = forward
    assert torch.allclose(anchor.loss(3), other.loss(3), rtol=1e-4)


def written(model, num: int, seed: int) -> list[Example]:
    """Texts of the model itself."""
    texts = continuations(model, [[1]] * num, 20, seed, stop_ids=(), batch=num)
    return [continuation(f"{seed}:{i}", None, [1], ids, 0) for i, ids in enumerate(texts)]


def train(method: MethodConfig, weight: float) -> tuple[float, float]:
    """Loss on the task, and KL on texts that were not anchored, after 12 steps."""
    model = tiny.model()
    prepare_method(model, method)
    forward = Forward(model)
    anchor = Anchor(forward, written(model, 24, seed=0), weight, per_step=6)
    held_out = Anchor(forward, written(model, 12, seed=1), 1.0, per_step=12, top=VOCAB)
    parameters = trained_parameters(model)
    optimizer = build_optimizer(parameters, OptimConfig(learning_rate=1e-2), 1e-2)
    for step in range(1, 13):
        optimizer.zero_grad()
        (forward.loss(TASK).objective / TASK.weights.sum()).backward()
        if weight:
            anchor.loss(step).backward()
        optimizer.step()
    return float(forward.scores(TASK)[0].mean()), float(held_out.loss(1).detach())


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_training_still_learns_and_moves_less_on_other_texts(kind):
    method = MethodConfig(kind=kind, lora_rank=4)
    before = float(Forward(tiny.model()).scores(TASK)[0].mean())
    free, held = train(method, 0.0), train(method, 3.0)
    assert held[1] < 0.6 * free[1]
    assert held[0] < before - 0.3


def test_without_texts_it_is_refused():
    with pytest.raises(ValueError, match="at least one text"):
        Anchor(Forward(tiny.model()), [], 1.0)
