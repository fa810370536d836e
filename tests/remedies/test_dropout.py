"""Dropout on what a layer adds: only while training, in every decoder, and repeatable."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny
from sft.config import MethodConfig
from sft.data.packing import pack
from sft.data.tokenize import Example
from sft.errors import ConfigError
from sft.model.forward import Forward
from sft.model.lora import prepare_method, trained_parameters
from sft.remedies.dropout import add_dropout, decoder_layers

KINDS = ["gpt2", "llama", "mistral"]
METHODS = {
    "full": {},
    "checkpointed": {"activation_checkpointing": True},
    "lora": {"kind": "lora", "lora_rank": 4},
    "lora checkpointed": {"kind": "lora", "lora_rank": 4, "activation_checkpointing": True},
}


def example(row: int) -> Example:
    ids = np.random.default_rng(row).integers(5, 400, 12 + row)
    labels = np.append(ids[1:], -100)
    return Example(f"row:{row}", None, 0, ids, labels, (labels >= 0).astype(np.float32), 0)


BATCH = pack([example(row) for row in range(3)])


def built(kind: str, method: str = "full", probability: float = 0.0, layout="flat"):
    model = tiny.model(kind)
    prepare_method(model, MethodConfig(**METHODS[method]))
    with torch.no_grad():
        for name, parameter in trained_parameters(model).items():
            if "lora_B" in name:
                parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(3))
    handles = add_dropout(model, probability)
    return Forward(model, layout=layout), handles


def step(forward, seed: int = 5) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of one batch, with the random numbers of `seed`."""
    torch.manual_seed(seed)
    forward.model.zero_grad()
    sums = forward.loss(BATCH)
    sums.objective.backward()
    gradients = {name: p.grad.clone() for name, p in trained_parameters(forward.model).items()}
    return float(sums.objective), gradients


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("kind", KINDS)
def test_training_drops_repeatably_and_evaluation_is_the_same_to_the_bit(kind, method):
    plain, _ = built(kind, method)
    dropping, _ = built(kind, method, 0.3)
    before = plain.scores(BATCH)[0]
    assert torch.equal(before, dropping.scores(BATCH)[0])
    loss, gradients = step(dropping)
    again, same = step(dropping)
    assert loss == again and all(torch.equal(gradients[name], same[name]) for name in gradients)
    assert abs(loss - step(plain)[0]) > 1e-3
    assert abs(loss - step(dropping, seed=6)[0]) > 1e-3
    assert torch.equal(before, dropping.scores(BATCH)[0])


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("kind", KINDS)
def test_recomputed_activations_are_dropped_alike(kind, method):
    loss, gradients = step(built(kind, method, 0.3)[0])
    other = "checkpointed" if method == "full" else f"{method} checkpointed"
    recomputed, same = step(built(kind, other, 0.3)[0])
    assert loss == pytest.approx(recomputed, rel=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(same[name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_adds_nothing_and_handles_take_it_off(kind):
    forward, handles = built(kind)
    assert handles == []
    assert not any(layer._forward_hooks for layer in decoder_layers(forward.model))
    loss, _ = step(forward)
    dropping, handles = built(kind, probability=0.5)
    assert len(handles) == 2 and step(dropping)[0] != loss
    for handle in handles:
        handle.remove()
    assert step(dropping)[0] == loss


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_what_is_added_is_dropped_and_the_rest_is_scaled(kind):
    """Element by element: an output is its input, or input plus (output - input) / (1 - p)."""
    model = tiny.model(kind)
    layer = decoder_layers(model)[0]
    seen = {}
    layer.register_forward_hook(
        lambda _m, args, kwargs, out: seen.update(
            before=args[0] if args else kwargs["hidden_states"],
            plain=out[0] if isinstance(out, tuple) else out,
        ),
        with_kwargs=True,
    )
    add_dropout(model, 0.25)
    layer.register_forward_hook(
        lambda _m, _args, out: seen.update(after=out[0] if isinstance(out, tuple) else out)
    )
    Forward(model).loss(BATCH)
    before, plain, after = seen["before"], seen["plain"], seen["after"]
    dropped = after == before
    assert dropped.float().mean() == pytest.approx(0.25, abs=0.03)
    kept = before + (plain - before) / 0.75
    torch.testing.assert_close(after[~dropped], kept[~dropped])


def test_the_padded_layout_drops_too():
    forward, _ = built("llama", probability=0.3, layout="padded")
    plain, _ = built("llama", layout="padded")
    assert torch.equal(forward.scores(BATCH)[0], plain.scores(BATCH)[0])
    assert step(forward)[0] != step(plain)[0]


def test_an_architecture_without_such_layers_is_refused():
    model = tiny.model()
    model.config.num_hidden_layers = 7
    with pytest.raises(ConfigError, match=r"optim\.dropout: LlamaForCausalLM has no list of 7"):
        add_dropout(model, 0.1)
    assert add_dropout(model, 0.0) == []
