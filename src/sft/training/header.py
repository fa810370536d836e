"""What the terminal says before the first step: data, model, plan, where to watch, how to stop."""

from __future__ import annotations

import shlex
from pathlib import Path

from sft.training.setup import Setup

_FATES = {"val": "to validate on", "truncated": "cut", "dropped": "dropped", "bad": "bad"}
_MOST_NAMES = 3


def opening(setup: Setup, run: Path) -> dict[str, str]:
    """A few facts by their names, each one line of text."""
    place = shlex.quote(str(run))
    return {
        "model": _model(setup),
        "data": _data(setup),
        "plan": _plan(setup),
        "watch": f"sft watch {place}",
        "stop": "Ctrl-C saves and stops; the same command goes on from there",
    }


def _model(setup: Setup) -> str:
    config = setup.config
    total = setup.model.num_parameters()
    trained = sum(parameter.numel() for parameter in setup.state.parameters.values())
    what = "all trained"
    if trained != total:
        kind = f"LoRA rank {config.method.lora_rank}" if config.method.kind == "lora" else "frozen"
        what = f"{kind}: {_amount(trained)} trained ({trained / total:.2%})"
    device = setup.device.type.replace("cuda", "GPU").replace("cpu", "CPU")
    name = Path(config.model.name).name
    return f"{name}, {_amount(total)} weights, {what}, {config.model.dtype}, {device}"


def _data(setup: Setup) -> str:
    names = [Path(source.path).name for source in setup.config.data.train]
    shown = ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
    counts = setup.data.counts()
    fates = [f"{counts[key]:,} {word}" for key, word in _FATES.items() if counts[key]]
    said = ", ".join([f"{len(setup.data.train):,} to train on", *fates])
    return f"{shown}: {setup.data.num_rows:,} rows, {said}"


def _plan(setup: Setup) -> str:
    config, each = setup.config, setup.config.batch.examples
    epochs = f"{setup.num_steps * each / setup.batches.epoch_size:,.1f}".removesuffix(".0")
    return (
        f"{setup.num_steps:,} steps of {each} examples, {epochs} epochs, an evaluation every "
        f"{config.eval.every}, a checkpoint every {config.checkpoint.every}, "
        f"learning rate {float(config.optim.learning_rate):g}"
    )


def _amount(number: int) -> str:
    """`134.5 M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)
