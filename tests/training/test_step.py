"""One optimizer step: sums over micro-batches, errors before the update, and the update itself."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny
from sft.config import OptimConfig
from sft.data.packing import micro_batches, pack
from sft.data.tokenize import Example
from sft.errors import DivergedError, OutOfMemoryError
from sft.model.forward import Forward
from sft.model.lora import trained_parameters
from sft.training.optimizers import build_optimizer
from sft.training.step import StopRequested, train_step


def example(row: int, length: int, weight: float = 1.0) -> Example:
    rng = np.random.default_rng(row)
    ids = rng.integers(5, 400, length)
    trained = np.arange(1, length + 1) % length >= 3  # all but three prompt tokens
    labels = np.where(trained, np.roll(ids, -1), -100)
    return Example(
        f"row:{row}", None, 0, ids, labels, np.where(trained, weight, 0).astype(np.float32), 0
    )


EXAMPLES = [example(row, 8 + 3 * row) for row in range(8)]
OPTIM = {"learning_rate": 0.05, "max_grad_norm": 0.0}


class Run:
    """A model with what a step needs; `step` is `train_step` with defaults."""

    def __init__(self, name: str = "sgd", kind: str = "llama", **config) -> None:
        self.model = tiny.model(kind)
        self.parameters = trained_parameters(self.model)
        self.optimizer = build_optimizer(
            self.parameters, OptimConfig(name=name, beta1=0.0, **config), 1.0
        )
        self.forward = Forward(self.model)

    def step(self, batches, **changes):
        return train_step(
            self.forward,
            self.optimizer,
            self.parameters,
            batches,
            **{"step": 7, **OPTIM, **changes},
        )

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in self.parameters.items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[k].nan_to_num(), b[k].nan_to_num()) for k in a
    )


@pytest.mark.parametrize("max_tokens", [1, 40, 100])
def test_eight_micro_batches_are_one(max_tokens):
    one, many = Run(), Run()
    before = one.weights()
    whole = one.step([pack(EXAMPLES)])
    batches = micro_batches(EXAMPLES, max_tokens)
    assert len(batches) == {1: 8, 40: 4, 100: 2}[max_tokens]
    split = many.step(batches)
    assert split.loss == pytest.approx(whole.loss, rel=1e-6)
    assert split.grad_norm == pytest.approx(whole.grad_norm, rel=1e-5)
    assert split.accuracy == whole.accuracy
    assert split.num_tokens == whole.num_tokens == sum(e.num_tokens for e in EXAMPLES)
    assert split.num_trained_tokens == whole.num_trained_tokens
    assert whole.num_trained_tokens == sum(e.num_trained for e in EXAMPLES)
    for name, weight in one.weights().items():
        moved = weight - before[name]
        assert moved.any()
        assert (many.weights()[name] - weight).norm() <= 1e-5 * moved.norm() + 1e-7


def test_loss_is_the_weighted_mean_over_tokens_not_over_examples_or_batches():
    run = Run()
    mixed = [example(0, 8), example(1, 30, weight=0.5)]
    sums = [run.forward.loss(pack([e])) for e in mixed]
    total = sum(float(e.weights.sum()) for e in mixed)
    result = run.step([pack([e]) for e in mixed], learning_rate=0.0)
    assert result.loss == pytest.approx(sum(float(s.nll) for s in sums) / total, rel=1e-6)
    assert result.accuracy == sum(float(s.correct) for s in sums) / total
    assert result.num_trained_tokens == 5 + 27


@pytest.mark.parametrize("max_grad_norm", [0.0, 1e-3, 1e9])
def test_the_update_is_the_clipped_gradient_times_the_rate(max_grad_norm):
    run, reference = Run(), Run()
    before = run.weights()
    sums = reference.forward.loss(pack(EXAMPLES))
    (sums.objective / sum(e.num_trained for e in EXAMPLES)).backward()
    gradient = {name: p.grad for name, p in reference.parameters.items()}
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradient.values()))
    result = run.step([pack(EXAMPLES)], learning_rate=0.3, max_grad_norm=max_grad_norm)
    assert result.grad_norm == pytest.approx(norm, rel=1e-5)  # as it was before clipping
    factor = min(1.0, max_grad_norm / norm) if max_grad_norm else 1.0
    for name, weight in run.weights().items():
        expected = -0.3 * factor * gradient[name]
        assert (weight - before[name] - expected).norm() <= 1e-3 * expected.norm() + 1e-6, name


def test_every_group_gets_the_rate_of_the_step():
    run = Run("adamw")
    assert len(run.optimizer.param_groups) == 2
    run.step([pack(EXAMPLES)], learning_rate=0.0)
    assert same(run.weights(), Run().weights())
    run.step([pack(EXAMPLES)], learning_rate=1e-3)
    assert {group["lr"] for group in run.optimizer.param_groups} == {1e-3}
    assert not same(run.weights(), Run().weights())


def test_gradients_of_the_step_before_are_gone():
    run = Run()
    first = run.step([pack(EXAMPLES)], learning_rate=0.0)
    assert run.step([pack(EXAMPLES)], learning_rate=0.0) == first


def test_repeated_steps_learn_the_rows():
    run = Run("adamw")
    losses = [run.step([pack(EXAMPLES[:2])], learning_rate=0.01).loss for _ in range(30)]
    assert losses[-1] < 0.2 * losses[0]


def test_a_loss_that_is_not_finite_stops_before_the_update():
    run = Run("adamw")
    with torch.no_grad():
        run.parameters["model.norm.weight"][3] = math.nan
    before = run.weights()
    batches = [pack(EXAMPLES[:2]), pack(EXAMPLES[2:])]
    with pytest.raises(DivergedError) as error:
        run.step(batches, step=12)
    assert same(run.weights(), before) and not run.optimizer.state
    text = str(error.value)
    assert text.startswith("step 12: the loss is nan; stopped before the update")
    assert "those of step 11" in text
    assert "Rows: row:0, row:1." in text  # only of the micro-batch that showed it


@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stops_before_the_update_and_is_named(value, max_grad_norm):
    run = Run("adamw")
    broken = "model.layers.1.mlp.up_proj.weight"
    run.parameters[broken].register_hook(lambda gradient: gradient * value)
    before = run.weights()
    with pytest.raises(DivergedError) as error:
        run.step(micro_batches(EXAMPLES, 60), step=3, max_grad_norm=max_grad_norm)
    assert same(run.weights(), before) and not run.optimizer.state
    text = str(error.value)
    assert text.startswith("step 3: the gradient norm is ")
    assert f"gradient of {broken}. Usual" in text
    assert all(e.id in text for e in EXAMPLES)


def test_many_rows_are_shortened():
    run = Run()
    run.parameters["model.norm.weight"].register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(DivergedError, match=r"row:7 and 12 more\."):
        run.step([pack([example(row, 6) for row in range(20)])])


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_stop_between_micro_batches_leaves_the_weights(after):
    run = Run("adamw")
    before = run.weights()
    asked = []
    with pytest.raises(StopRequested):
        run.step(
            micro_batches(EXAMPLES, 60),
            stop_requested=lambda: asked.append(1) or len(asked) > after,
        )
    assert len(asked) == after + 1
    assert same(run.weights(), before) and not run.optimizer.state


@pytest.mark.parametrize("when", ["forward", "backward"])
def test_memory_that_is_not_there_becomes_advice(when):
    """A real failure of the allocator, half-way through the model."""
    run = Run()
    layer = run.model.model.layers[1]
    allocate = lambda *_: torch.empty(2**52, dtype=torch.uint8) and None  # noqa: E731
    if when == "forward":
        layer.register_forward_hook(allocate)
    else:
        layer.register_full_backward_hook(allocate)
    before = run.weights()
    with pytest.raises(OutOfMemoryError) as error:
        run.step([pack([example(0, 400), example(1, 600)])], step=5)
    text = str(error.value)
    assert text.startswith("step 5: out of memory on a micro-batch of 1000 tokens, the longest ")
    assert "row:1 with 600" in text
    for advice in ("batch.micro_batch_tokens=500", "activation_checkpointing=true", "lora"):
        assert advice in text
    assert "data.max_seq_len=300" in text
    assert same(run.weights(), before)


def test_memory_of_a_gpu_that_is_not_there_becomes_advice():
    run = Run()

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    run.model.model.layers[0].register_forward_hook(fail)
    with pytest.raises(OutOfMemoryError):
        run.step([pack(EXAMPLES)])


class Greedy(torch.optim.SGD):
    """Asks for more memory than there is, as moments may in the first update."""

    def step(self, closure=None):
        torch.empty(2**52, dtype=torch.uint8)


def test_memory_that_is_not_there_for_the_moments_becomes_advice():
    run = Run()
    run.optimizer = Greedy(run.parameters.values())
    with pytest.raises(OutOfMemoryError, match=r"^step 5: out of memory in the update.*lora"):
        run.step([pack(EXAMPLES)], step=5)


def test_other_errors_of_the_model_stay_what_they_are():
    run = Run()

    def fail(*_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    run.model.model.layers[0].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="mat1 and mat2") as error:
        run.step([pack(EXAMPLES)])
    assert error.value.__cause__ is not error.value


def test_frozen_parameters_do_not_move():
    run = Run()
    frozen = {n: p for n, p in run.model.named_parameters() if "layers.0" in n}
    for parameter in frozen.values():
        parameter.requires_grad_(False)
    before = copy.deepcopy({n: p.detach() for n, p in run.model.named_parameters()})
    run.parameters = trained_parameters(run.model)
    run.step([pack(EXAMPLES)])
    for name, parameter in run.model.named_parameters():
        assert torch.equal(parameter, before[name]) == (name in frozen), name


@pytest.mark.parametrize("layout", ["flat", "padded"])
@pytest.mark.parametrize("kind", ["llama", "gemma2"])  # a plain head, and one that is transformed
def test_the_loss_of_each_source_is_that_of_its_examples_alone(kind, layout):
    mixed = [replace(e, source=i % 3) for i, e in enumerate(EXAMPLES)]
    mixed[1] = replace(mixed[1], weights=mixed[1].weights * np.float32(0.5))
    alone = {}
    for source in range(3):
        run = Run(kind=kind)
        run.forward = Forward(run.model, layout=layout)
        alone[source] = run.step([pack([e for e in mixed if e.source == source])]).loss
    run = Run(kind=kind)
    run.forward = Forward(run.model, layout=layout)
    found = run.step(micro_batches(mixed, 40), by_source=True)
    losses = {source: nll / weight for source, (nll, weight) in found.by_source.items()}
    assert losses == pytest.approx(alone, rel=1e-5)
    nll, weight = (sum(sums) for sums in zip(*found.by_source.values(), strict=True))
    assert found.loss == pytest.approx(nll / weight, rel=1e-6)


def test_asking_for_the_loss_of_each_source_changes_nothing_else():
    (plain, asked), results = (Run(), Run()), []
    for run, by_source in ((plain, False), (asked, True)):
        results.append(run.step(micro_batches(EXAMPLES, 40), by_source=by_source))
    assert results[0] == replace(results[1], by_source={})
    assert all(torch.equal(a, asked.weights()[name]) for name, a in plain.weights().items())
