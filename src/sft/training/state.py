"""`TrainState`: everything a run needs to go on as if it had never stopped."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol

import numpy as np
import torch

from sft.training.optimizer_state import load_optimizer, numbers_of, tensors_of


class Stateful(Protocol):
    """What the batches offer."""

    def state_dict(self) -> dict[str, int]: ...  # noqa: D102
    def load_state_dict(self, state: dict[str, int]) -> None: ...  # noqa: D102


@dataclass
class Counters:
    """Numbers that describe the run so far. `step` counts completed optimizer updates."""

    step: int = 0
    num_tokens: int = 0
    num_trained_tokens: int = 0
    train_flos: float = 0.0
    seconds: float = 0.0
    last_eval: int = -1  # step of the last finished evaluation
    evals: list[tuple[int, float]] = field(default_factory=list)  # (step, loss on usage, else val)
    over_budget: list[int] = field(default_factory=list)  # evaluations beyond the forgetting budget
    eval_seconds: float = 0.0
    stopped: str | None = None  # why the run ended early
    restore_best: bool = False  # a guard asked for the best weights
    keep_last: bool = False  # a guard asked to end with the weights as they are


class TrainState:
    """Parameters, optimizer, batches, random state and counters."""

    def __init__(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        batches: Stateful,
        counters: Counters | None = None,
    ) -> None:
        self.parameters = dict(parameters)
        self.optimizer = optimizer
        self.batches = batches
        self.counters = counters or Counters()

    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """Named tensors by file: model, optimizer, rng."""
        model = {name: p.detach() for name, p in self.parameters.items()}
        optimizer = tensors_of(self.optimizer, self.parameters)
        return {"model": model, "optimizer": optimizer, "rng": _rng_tensors()}

    def json(self) -> dict[str, Any]:
        """The rest, as JSON."""
        return {
            "counters": asdict(self.counters),
            "optimizer": numbers_of(self.optimizer, self.parameters),
            "batches": self.batches.state_dict(),
            "python_rng": _python_rng(),
        }

    def load(self, tensors: dict[str, dict[str, torch.Tensor]], rest: dict[str, Any]) -> None:
        """Continue from what `tensors` and `json` returned."""
        self.load_model(tensors["model"])
        numbers = rest.get("optimizer", {})  # which checkpoints of 1.x do not have
        load_optimizer(self.optimizer, self.parameters, tensors["optimizer"], numbers)
        known = {f.name for f in fields(Counters)}
        counters = {key: value for key, value in rest["counters"].items() if key in known}
        counters["evals"] = [(int(step), float(loss)) for step, loss in counters["evals"]]
        for name, value in counters.items():
            setattr(self.counters, name, value)
        self.batches.load_state_dict(rest["batches"])
        _set_rng(tensors["rng"], rest["python_rng"])

    def load_model(self, tensors: dict[str, torch.Tensor]) -> None:
        """Only the trained weights, such as those of the best checkpoint."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[name])

    def mark(self) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
        """What a step consumes before it updates anything: random numbers and examples."""
        return _rng_tensors(), self.batches.state_dict()

    def back_to(self, mark: tuple[dict[str, torch.Tensor], dict[str, int]]) -> None:
        """Undo a step that was given up before its update."""
        _set_torch_rng(mark[0])
        self.batches.load_state_dict(mark[1])


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _rng_tensors() -> dict[str, torch.Tensor]:
    tensors = {"torch": torch.get_rng_state()}
    for index in range(torch.cuda.device_count()):
        tensors[f"cuda{index}"] = torch.cuda.get_rng_state(index)
    return tensors


def _set_torch_rng(tensors: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(tensors["torch"])
    for index in range(torch.cuda.device_count()):
        if f"cuda{index}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda{index}"], index)


def _python_rng() -> dict[str, Any]:
    """State of `random` and `numpy.random`, which model code may draw from."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, [int(key) for key in keys], position, has_gauss, cached],
    }


def _set_rng(tensors: dict[str, torch.Tensor], rest: dict[str, Any]) -> None:
    _set_torch_rng(tensors)
    version, internal, gauss = rest["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = rest["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
