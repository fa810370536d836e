"""A run that is continued is the run that never stopped, to the last bit."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from sft.config import MethodConfig, OptimConfig
from sft.data.batches import Batches
from sft.data.packing import micro_batches
from sft.data.tokenize import Example
from sft.model.forward import Forward
from sft.model.lora import prepare_method, trained_parameters
from sft.training.optimizers import build_optimizer
from sft.training.state import Counters, TrainState, seed_everything
from sft.training.step import StopRequested, train_step


def example(row: int) -> Example:
    rng = np.random.default_rng(row)
    ids = rng.integers(5, 400, 6 + row % 5)
    labels = np.append(ids[1:], -100)
    return Example(f"row:{row}", None, 0, ids, labels, (labels >= 0).astype(np.float32), 0)


EXAMPLES = [example(row) for row in range(11)]  # not a multiple of the 4 of a step


class Run:
    """GPT-2 with dropout, its state, and steps that count."""

    def __init__(self, optimizer: str = "adamw", method: str = "full") -> None:
        seed_everything(0)
        self.model = tiny.model("gpt2")
        for module in self.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.2
        prepare_method(self.model, MethodConfig(kind=method, lora_rank=2, lora_dropout=0.1))
        self.parameters = trained_parameters(self.model)
        config = OptimConfig(name=optimizer, weight_decay=0.1)
        self.state = TrainState(
            self.parameters,
            build_optimizer(self.parameters, config, 1.0),
            Batches(EXAMPLES, 4, [1.0], seed=3),
        )
        self.forward = Forward(self.model)
        self.losses: list[float] = []

    def step(self, stop_requested=lambda: False) -> None:
        state = self.state
        result = train_step(
            self.forward,
            state.optimizer,
            state.parameters,
            micro_batches(state.batches.next(), 10),
            step=state.counters.step + 1,
            learning_rate=0.02,
            max_grad_norm=1.0,
            stop_requested=stop_requested,
        )
        state.counters.step += 1
        state.counters.num_tokens += result.num_tokens
        self.losses.append(result.loss)


def through_files(state: TrainState, folder):
    """What a checkpoint gives back."""
    for name, tensors in state.tensors().items():
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / name)
    (folder / "json").write_text(json.dumps(state.json()))
    tensors = {name: load_file(folder / name) for name in ("model", "optimizer", "rng")}
    return tensors, json.loads((folder / "json").read_text())


def assert_bitwise(a: Run, b: Run) -> None:
    for name, parameter in a.parameters.items():
        assert torch.equal(parameter, b.parameters[name]), name
    ours, theirs = a.state.tensors()["optimizer"], b.state.tensors()["optimizer"]
    assert ours.keys() == theirs.keys() and ours
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    assert a.state.counters == b.state.counters
    assert a.state.batches.state_dict() == b.state.batches.state_dict()


def disturb() -> None:
    """Another process: other random numbers everywhere."""
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_continued_is_uninterrupted(tmp_path, optimizer, method):
    straight = Run(optimizer, method)
    for _ in range(3):
        straight.step()
    saved = through_files(straight.state, tmp_path)
    for _ in range(3):
        straight.step()
    numbers = random.random(), np.random.rand(), torch.rand(1)
    assert len(set(straight.losses)) == 6

    disturb()
    resumed = Run(optimizer, method)
    resumed.step()  # even a state that has moved is overwritten
    disturb()
    resumed.state.load(*saved)
    resumed.losses = straight.losses[:3]
    for _ in range(3):
        resumed.step()
    assert resumed.losses == straight.losses
    assert_bitwise(resumed, straight)
    assert numbers == (random.random(), np.random.rand(), torch.rand(1))


@pytest.mark.parametrize("left_out", ["rng", "optimizer", "model", "batches"])
def test_every_part_of_the_state_is_needed(tmp_path, left_out):
    """Without any one of them the next step is another one: nothing above passes by chance."""
    straight = Run()
    for _ in range(2):
        straight.step()
    tensors, rest = through_files(straight.state, tmp_path)
    straight.step()
    resumed = Run()
    fresh = through_files(resumed.state, tmp_path)
    if left_out == "batches":
        rest["batches"] = fresh[1]["batches"]
    else:
        tensors[left_out] = fresh[0][left_out]
    resumed.state.load(tensors, rest)
    resumed.step()
    assert any(
        not torch.equal(parameter, resumed.parameters[name])
        for name, parameter in straight.parameters.items()
    )


def test_what_is_saved_is_json_and_tensors_with_the_names_of_the_parameters(tmp_path):
    run = Run("adamw", "lora")
    run.step()
    run.state.counters.evals = [(0, 3.5), (1, 3.25)]
    run.state.counters.stopped = "a plateau"
    tensors, rest = through_files(run.state, tmp_path)
    assert set(tensors["model"]) == set(run.parameters)
    assert all("lora_" in name for name in tensors["model"])
    assert set(tensors["optimizer"]) == {
        f"{name}.{key}" for name in run.parameters for key in ("step", "exp_avg", "exp_avg_sq")
    }
    other = Run("adamw", "lora")
    other.state.load(tensors, rest)
    assert other.state.counters == run.state.counters
    assert other.state.counters.evals == [(0, 3.5), (1, 3.25)]  # tuples again


def test_counters_of_a_later_version_are_ignored(tmp_path):
    run = Run()
    tensors, rest = through_files(run.state, tmp_path)
    rest["counters"]["something_new"] = 1
    run.state.load(tensors, rest)
    assert run.state.counters == Counters()


def test_names_that_begin_alike_are_kept_apart():
    """`a` and `a.b` are both parameters; the moments of one are not those of the other."""
    parameters = {"a": torch.nn.Parameter(torch.ones(2)), "a.b": torch.nn.Parameter(torch.ones(3))}
    states = []
    for _ in range(2):
        optimizer = build_optimizer(parameters, OptimConfig(), 0.1)
        states.append(TrainState(parameters, optimizer, Batches(EXAMPLES, 4, [1.0], 0)))
    for parameter in parameters.values():
        parameter.grad = torch.rand_like(parameter)
    states[0].optimizer.step()
    states[1].load(states[0].tensors(), states[0].json())
    for parameter in parameters.values():
        loaded = states[1].optimizer.state[parameter]
        assert set(loaded) == {"step", "exp_avg", "exp_avg_sq"}
        assert torch.equal(loaded["exp_avg"], states[0].optimizer.state[parameter]["exp_avg"])


def test_only_the_weights_of_the_best_checkpoint(tmp_path):
    run = Run()
    run.step()
    best = {name: p.detach().clone() for name, p in run.parameters.items()}
    saved = through_files(run.state, tmp_path)[0]["model"]
    run.step()
    run.state.load_model(saved)
    assert all(torch.equal(p, best[name]) for name, p in run.parameters.items())
    assert run.state.counters.step == 2
    assert run.model.lm_head.weight is run.model.transformer.wte.weight  # still tied


@pytest.mark.parametrize("stopped_after", [0, 1, 3])
def test_a_step_given_up_is_taken_again_as_it_was(stopped_after):
    straight, stopped = Run(), Run()
    seed_everything(5)
    for _ in range(3):
        straight.step()

    seed_everything(5)
    stopped.step()
    mark = stopped.state.mark()
    asked = []
    with pytest.raises(StopRequested):
        stopped.step(lambda: asked.append(1) or len(asked) > stopped_after)
    assert stopped.state.counters.step == 1
    stopped.state.back_to(mark)
    for _ in range(2):
        stopped.step()
    assert stopped.losses == straight.losses
    assert_bitwise(stopped, straight)


def test_seed_everything_seeds_all_three():
    def numbers():
        return random.random(), np.random.rand(), float(torch.rand(1))

    seed_everything(2**62)
    first = numbers()
    assert first != numbers()
    seed_everything(2**62)
    assert first == numbers()
