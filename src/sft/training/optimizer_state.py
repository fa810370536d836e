"""All that an optimizer keeps, as tensors and JSON; what cannot be kept is refused before step 1.

    state[parameter]   tensors of any dtype; numbers, texts, booleans, None
    param_groups       the same, and tuples and lists of them

State tensors are put back as they were: `Optimizer.load_state_dict` would cast integers to the
dtype of their parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from safetensors.torch import load, save

from sft.errors import ConfigError

Parameters = Mapping[str, torch.nn.Parameter]
_Scalar = int | float | str | bool | None
# What torch itself notes on an optimizer, none of which the next step depends on.
_TORCH_OWN = {"state", "param_groups", "defaults"}


def tensors_of(optimizer: torch.optim.Optimizer, parameters: Parameters) -> dict[str, torch.Tensor]:
    """The tensors of its state, as `parameter.key`, and of its groups, as `#group.key`.

    Raises:
        ConfigError: it keeps something that cannot be saved.
    """
    _refuse_strange(optimizer, parameters)
    return {
        name: value.detach().contiguous()
        for name, value in _values(optimizer, parameters)
        if isinstance(value, torch.Tensor)
    }


def numbers_of(optimizer: torch.optim.Optimizer, parameters: Parameters) -> dict[str, Any]:
    """The rest of it, as JSON, under the same names."""
    _refuse_strange(optimizer, parameters)
    return {
        name: _as_json(name, value)
        for name, value in _values(optimizer, parameters)
        if not isinstance(value, torch.Tensor)
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: Parameters,
    tensors: Mapping[str, torch.Tensor],
    numbers: Mapping[str, Any],
) -> None:
    """Put back what `tensors_of` and `numbers_of` returned."""
    saved = {**tensors, **{name: _from_json(value) for name, value in numbers.items()}}
    owners: dict[str, tuple[dict[str, Any], torch.device]] = {
        f"#{i}": (group, group["params"][0].device)
        for i, group in enumerate(optimizer.param_groups)
    }
    states: dict[str, dict[str, Any]] = {name: {} for name in parameters}
    owners |= {name: (states[name], p.device) for name, p in parameters.items()}
    for name, value in saved.items():
        owner, _, key = name.rpartition(".")
        target, device = owners[owner]
        target[key] = value.to(device) if isinstance(value, torch.Tensor) else value
    for name, state in states.items():
        if state:
            optimizer.state[parameters[name]] = state


def check_optimizer(
    build: Callable[[Parameters], torch.optim.Optimizer], parameters: Parameters, name: str
) -> None:
    """Raise `ConfigError` unless all state of the optimizer called `name` survives a checkpoint.

    Most of it appears in the first step, so one is done here: on copies of the smallest matrix and
    the smallest vector of `parameters`, saved and loaded into a second optimizer.
    """
    small: dict[str, torch.nn.Parameter] = {}
    for key, parameter in sorted(parameters.items(), key=lambda item: item[1].numel()):
        if all((other.dim() >= 2) != (parameter.dim() >= 2) for other in small.values()):
            small[key] = torch.nn.Parameter(parameter.detach().clone())
            small[key].grad = torch.full_like(parameter, 1e-3)
    first, second = build(small), build(small)
    before = _attributes(first)
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            first.step()
        tensors, numbers = load(save(tensors_of(first, small))), numbers_of(first, small)
        changed = [k for k, value in _attributes(first).items() if not _equal(before.get(k), value)]
        if changed:
            raise ConfigError(f"it keeps state in its attribute `{changed[0]}`")
        load_optimizer(second, small, tensors, numbers)
        for key, value in _values(first, small):
            if not _equal(value, dict(_values(second, small)).get(key)):
                raise ConfigError(f"`{key}` is another after it was saved and loaded")
    except Exception as error:
        kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
        raise ConfigError(
            f"optim.name: '{name}' cannot be resumed from a checkpoint, so it is not used: "
            f"{kind}{error}. State belongs into `self.state[parameter]` (tensors, numbers, texts) "
            "or `self.param_groups`"
        ) from error


def _values(optimizer: torch.optim.Optimizer, parameters: Parameters) -> Iterator[tuple[str, Any]]:
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            yield f"{name}.{key}", value
    for i, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            if key != "params":
                yield f"#{i}.{key}", value


def _refuse_strange(optimizer: torch.optim.Optimizer, parameters: Parameters) -> None:
    """Raise `ConfigError` for state that has no name under which it could be saved."""
    known = {id(parameter) for parameter in parameters.values()}
    for owner, state in optimizer.state.items():
        if id(owner) not in known:
            raise ConfigError(f"its state has the key {owner!r:.60}, which is no parameter")
        if not isinstance(state, Mapping):
            raise ConfigError(f"its state of a parameter is {state!r:.60}, and no dictionary")
    for mapping in (*optimizer.state.values(), *optimizer.param_groups):
        for key in mapping:
            if not isinstance(key, str) or "." in key:
                raise ConfigError(f"its state has the key {key!r:.60}; expected text without a dot")


def _as_json(name: str, value: Any, depth: int = 0) -> Any:
    if value is None or type(value) in (int, float, str, bool):
        return value
    if type(value) in (tuple, list) and name.startswith("#") and not depth:
        # JSON has no tuples, and `betas` is one.
        return {type(value).__name__: [_as_json(name, each, 1) for each in value]}
    raise ConfigError(
        f"its `{name}` is {value!r:.60} ({type(value).__name__}), which cannot be saved"
    )


def _from_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(value["tuple"]) if "tuple" in value else list(value["list"])
    return value


def _attributes(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Its own plain attributes, copied: state in them would be lost."""
    return {
        key: deepcopy(value)
        for key, value in vars(optimizer).items()
        if key not in _TORCH_OWN
        and not key.startswith(("_zero_grad", "_optimizer", "_patch", "_warned", "_step_count"))
        and isinstance(value, _Scalar | torch.Tensor | list | tuple | dict | set)
    }


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same_kind = a.dtype == b.dtype and a.shape == b.shape
        return same_kind and torch.equal(a.nan_to_num().cpu(), b.nan_to_num().cpu())
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return type(a) is type(b) and (a == b or repr(a) == repr(b))  # nan is not itself
