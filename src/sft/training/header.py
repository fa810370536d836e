"""What the terminal shows before the first step: model, data, plan, where to watch, how to stop."""

from __future__ import annotations

import shlex
from pathlib import Path

from sft.training.setup import Setup

# The counts of `account.json` that are told, and what they are called.
_COUNTS = {
    "val": "for validation",
    "truncated": "truncated",
    "dropped": "dropped",
    "bad": "unusable",
}
_MOST_FILES = 3


def run_header(setup: Setup, run: Path) -> dict[str, str]:
    """The facts of a run by name, each one line of text."""
    return {
        "model": _model(setup),
        "data": _data(setup),
        "plan": _plan(setup),
        "watch": f"sft watch {shlex.quote(str(run))}",
        "stop": "Ctrl-C saves and stops; the same command resumes",
    }


def _model(setup: Setup) -> str:
    config = setup.config
    total = setup.model.num_parameters()
    trained = sum(parameter.numel() for parameter in setup.state.parameters.values())
    method = "all trained"
    if trained != total:
        kind = f"LoRA rank {config.method.lora_rank}" if config.method.kind == "lora" else "frozen"
        method = f"{kind}: {_amount(trained)} trained ({trained / total:.2%})"
    device = setup.device.type.replace("cuda", "GPU").replace("cpu", "CPU")
    name = Path(config.model.name).name
    return f"{name}, {_amount(total)} parameters, {method}, {config.model.dtype}, {device}"


def _data(setup: Setup) -> str:
    files = [Path(source.path).name for source in setup.config.data.train]
    names = ", ".join(files[:_MOST_FILES]) + (", ..." if len(files) > _MOST_FILES else "")
    counts = setup.data.counts()
    uses = [f"{counts[key]:,} {use}" for key, use in _COUNTS.items() if counts[key]]
    rows = ", ".join([f"{len(setup.data.train):,} for training", *uses])
    return f"{names}: {_count(setup.data.num_rows, 'row')}, {rows}"


def _plan(setup: Setup) -> str:
    config, size = setup.config, setup.config.batch.examples
    epochs = f"{setup.num_steps * size / setup.batches.epoch_size:,.1f}".removesuffix(".0")
    return (
        f"{_count(setup.num_steps, 'step')} of {_count(size, 'example')}, "
        f"{epochs} {'epoch' if epochs == '1' else 'epochs'}, "
        f"evaluation every {_count(int(config.eval.every), 'step')}, "
        f"checkpoint every {_count(int(config.checkpoint.every), 'step')}, "
        f"learning rate {float(config.optim.learning_rate):g}"
    )


def _count(number: int, thing: str) -> str:
    """`1 step`, `1,200 steps`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def _amount(number: int) -> str:
    """`134.5 M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)
