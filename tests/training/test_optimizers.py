"""Groups that decay, and updates as the papers write them."""

from __future__ import annotations

import pytest
import torch

import tiny
from sft.config import MethodConfig, OptimConfig
from sft.config.optim_section import OPTIMIZERS
from sft.model.lora import prepare_method, trained_parameters
from sft.training.optimizers import build_optimizer


def test_matrices_decay_and_vectors_do_not():
    parameters = trained_parameters(tiny.model("gpt2"))
    optimizer = build_optimizer(parameters, OptimConfig(weight_decay=0.1), 1e-3)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert len(decay) == len(parameters)
    for name, parameter in parameters.items():
        is_vector = name.endswith("bias") or ".ln_" in name
        assert decay[id(parameter)] == (0.0 if is_vector else 0.1), name


def test_a_model_with_one_kind_has_one_group():
    model = tiny.model()
    prepare_method(model, MethodConfig(kind="lora"))
    optimizer = build_optimizer(trained_parameters(model), OptimConfig(weight_decay=0.1), 1e-3)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1]
    norms = {n: p for n, p in model.named_parameters() if "norm" in n}
    optimizer = build_optimizer(norms, OptimConfig(weight_decay=0.1), 1e-3)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0]


def run(name: str, gradients: list[torch.Tensor], start: torch.Tensor, **config) -> torch.Tensor:
    parameter = torch.nn.Parameter(start.clone())
    optimizer = build_optimizer({"w": parameter}, OptimConfig(name=name, **config), 0.01)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize("shape", [(3, 4), (5,)])
def test_adamw_is_the_reference_update(shape):
    """Decoupled weight decay (arXiv 1711.05101), algorithm 2, written out in float64."""
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), [torch.randn(shape) for _ in range(5)]
    beta1, beta2, eps, decay = 0.8, 0.95, 1e-3, 0.1 if len(shape) == 2 else 0.0
    w, m, v = start.double(), torch.zeros(shape).double(), torch.zeros(shape).double()
    for t, gradient in enumerate(gradients, start=1):
        g = gradient.double()
        w = w * (1 - 0.01 * decay)
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        w = w - 0.01 * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + eps)
    found = run("adamw", gradients, start, beta1=beta1, beta2=beta2, eps=eps, weight_decay=0.1)
    torch.testing.assert_close(found, w.float())


def test_adamw_is_torch_own_with_the_same_settings():
    torch.manual_seed(0)
    start, gradients = torch.randn(3, 4), [torch.randn(3, 4) for _ in range(5)]
    theirs = torch.nn.Parameter(start.clone())
    reference = torch.optim.AdamW(
        [theirs], lr=0.01, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1, foreach=False
    )
    for gradient in gradients:
        theirs.grad = gradient.clone()
        reference.step()
    ours = run("adamw", gradients, start, beta1=0.8, beta2=0.95, eps=1e-3, weight_decay=0.1)
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-6, atol=1e-7)


def test_sgd_has_momentum_and_decay():
    torch.manual_seed(0)
    start, gradients = torch.randn(3, 4), [torch.randn(3, 4) for _ in range(4)]
    w, velocity = start.clone(), None
    for gradient in gradients:
        gradient = gradient + 0.1 * w
        velocity = gradient if velocity is None else 0.7 * velocity + gradient
        w = w - 0.01 * velocity
    torch.testing.assert_close(run("sgd", gradients, start, beta1=0.7, weight_decay=0.1), w)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_name_of_the_config_is_built_with_its_rate(name):
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = build_optimizer({"w": parameter}, OptimConfig(name=name), 0.125)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125]
