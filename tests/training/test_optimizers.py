"""Groups that decay, and updates as the papers write them."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load, save

import tiny
from sft.config import MethodConfig, OptimConfig
from sft.config.optim_section import OPTIMIZERS
from sft.errors import ConfigError
from sft.model.lora import prepare_method, trained_parameters
from sft.training.optimizer_state import check_optimizer, load_optimizer, numbers_of, tensors_of
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


OUTSIDE = '''
import torch


class Outside(torch.optim.Optimizer):
    """Integer, half and text state, and a count in its group that is not a setting."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr, "weight_decay": 0.0, "betas": (0.9, 0.5), "count": 0})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["count"] += 1
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                state["seen"] = state.get("seen", torch.zeros(p.shape, dtype=torch.int64)) + 7
                state["half"] = state.get("half", torch.zeros(p.shape, dtype=torch.float16)) + 0.5
                state["steps"] = state.get("steps", 0) + 1
                state["phase"] = "even" if state["steps"] % 2 == 0 else "odd"
                scale = state["seen"] % 5 + state["steps"] + group["count"]
                p.add_(p.grad * scale * state["half"], alpha=-group["lr"])


class Nested(Outside):
    def step(self, closure=None):
        super().step(closure)
        for p in self.state:
            self.state[p]["history"] = {"seen": [1, 2, 3]}


class Hidden(Outside):
    def __init__(self, params, lr=0.1):
        super().__init__(params, lr)
        self.count = 0

    def step(self, closure=None):
        super().step(closure)
        self.count += 1


class Global(Outside):
    def step(self, closure=None):
        super().step(closure)
        self.state["global"] = {"count": 1}


class Grouped(Outside):
    def step(self, closure=None):
        super().step(closure)
        self.param_groups[0]["past"] = [{"count": 1}]


class NeedsClosure(Outside):
    def step(self, closure):
        closure()


def function(groups, config, lr):
    return torch.optim.SGD(groups, lr=lr, momentum=config.beta1 / 2)


def nothing(groups, config, lr):
    return None
'''


@pytest.fixture
def outside(tmp_path):
    (tmp_path / "mine.py").write_text(OUTSIDE)
    return lambda name: f"{tmp_path / 'mine.py'}:{name}"


def checked(spec: str) -> None:
    parameters = trained_parameters(tiny.model("gpt2"))
    config = OptimConfig(name=spec)
    before = torch.get_rng_state()
    check_optimizer(lambda some: build_optimizer(some, config, 0.1), parameters, spec)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", [*OPTIMIZERS, "Outside", "function"])
def test_an_optimizer_whose_state_can_be_saved_is_used(name, outside):
    checked(name if name in OPTIMIZERS else outside(name))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Nested", r"history` is \{'seen': \[1, 2, 3\]\} \(dict\), which cannot be saved"),
        ("Hidden", "it keeps state in its attribute `count`"),
        ("Global", "its state has the key 'global', which is no parameter"),
        ("Grouped", r"`#0.past` is \{'count': 1\} \(dict\), which cannot be saved"),
        ("NeedsClosure", "TypeError: "),
        ("nothing", "made a NoneType, which is no"),
        ("function_", "Did you mean 'function'"),
    ],
)
def test_what_cannot_be_saved_is_refused_by_name(name, problem, outside):
    with pytest.raises(ConfigError, match=problem):
        checked(outside(name))


def test_all_state_of_an_optimizer_from_outside_is_resumed(outside):
    """Integer, half, number, text and group state: the next step is the one without a stop."""

    def run_on(parameter, optimizer, steps):
        for i in range(steps):
            parameter.grad = torch.full((3, 2), 0.1 + i)
            optimizer.step()

    config = OptimConfig(name=outside("Outside"))
    straight = torch.nn.Parameter(torch.ones(3, 2))
    first = build_optimizer({"a.w": straight}, config, 0.1)
    run_on(straight, first, 3)
    stopped = torch.nn.Parameter(straight.detach().clone())
    second = build_optimizer({"a.w": stopped}, config, 0.1)
    tensors = load(save(tensors_of(first, {"a.w": straight})))
    assert {name: t.dtype for name, t in tensors.items()} == {
        "a.w.seen": torch.int64,
        "a.w.half": torch.float16,
    }
    numbers = json.loads(json.dumps(numbers_of(first, {"a.w": straight})))
    load_optimizer(second, {"a.w": stopped}, tensors, numbers)
    assert second.param_groups[0]["count"] == 3 and second.param_groups[0]["betas"] == (0.9, 0.5)
    assert second.state[stopped]["phase"] == "odd"
    run_on(straight, first, 2)
    run_on(stopped, second, 2)
    assert torch.equal(straight, stopped)
    numbers["#0.count"] = 0  # what a save that dropped it would give
    load_optimizer(second, {"a.w": stopped}, tensors, numbers)
    run_on(straight, first, 1)
    run_on(stopped, second, 1)
    assert not torch.equal(straight, stopped)
