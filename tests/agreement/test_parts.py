"""`sft train` and the callback in another trainer measure a run with the same parts."""

import io
import json

import pytest
import torch

from sft.config import load_config, read_config
from sft.integrations.watch import build
from sft.model.load import load_model, load_tokenizer
from sft.runs.run_dir import RunDir
from sft.terminal.console import Console
from sft.training.interrupt import StopFlag
from sft.training.setup import prepare
from trained import make_world, write_rows

NUM_STEPS, PER_STEP = 6, 4


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The parts that each builds of the same config and rows, and the two run folders."""
    world = make_world(tmp_path_factory.mktemp("parts"))
    for name, num_rows, seed in (("val", 12, 1), ("usage", 6, 2)):
        write_rows(world / f"{name}.jsonl", num_rows, lambda q, _: q.split()[0], seed)
    (world / "drift.jsonl").write_text('{"prompt": "What is a fox?"}\n{"prompt": "One or two?"}\n')
    values = {
        "model.name": str(world / "llama"),
        "model.dtype": "float32",
        "data.train": [str(world / "rows.jsonl")],
        "data.val": [str(world / "val.jsonl")],
        "data.usage": [str(world / "usage.jsonl"), str(world / "drift.jsonl")],
        "optim.max_steps": NUM_STEPS,
        "optim.warmup_steps": 1,
        "batch.examples": PER_STEP,
        "eval.every": 2,
        "checkpoint.every": 2,
    }
    config = load_config({}, values)
    with RunDir.open(world / "ours") as run, Console(io.StringIO()) as show:
        ours = prepare(config, run, show, StopFlag())
    info = load_tokenizer(config.model, config.model.name, "full")
    model = load_model(config.model, config.model.name, info, dtype=torch.float32)
    with RunDir.open(world / "theirs") as run, Console(io.StringIO()) as show:
        theirs = build(
            config,
            run,
            model,
            info.tokenizer,
            show,
            num_steps=NUM_STEPS,
            every=2,
            step=0,
            dtype=torch.float32,
            visits=lambda _rows: NUM_STEPS * PER_STEP,
        )
    return ours, theirs, RunDir(world / "ours"), RunDir(world / "theirs")


def test_the_same_probes(both):
    ours, theirs = (
        [
            (
                p.name,
                p.openings,
                [(e.id, e.input_ids.tolist(), e.labels.tolist()) for e in p.examples],
            )
            for p in parts.evaluator.probes
        ]
        for parts in both[:2]
    )
    assert ours == theirs
    assert [name for name, _, examples in ours if examples] == [
        "train_probe", "val", "usage", "usage_drift", "retain"
    ]  # fmt: skip


def test_the_same_evaluation_of_the_base_model(both):
    ours, theirs = (
        parts.evaluator.evaluate(at_base=True, progress=lambda *_: None).metrics()
        for parts in both[:2]
    )
    assert ours == theirs and ours["val_loss"] > 0


@pytest.mark.parametrize("name", ["objective", "stop_ids", "num_steps", "config"])
def test_the_same_facts(both, name):
    ours, theirs = (getattr(parts, name) for parts in both[:2])
    assert ours == theirs


@pytest.mark.parametrize("name", ["preflight", "examples", "retain", "drift"])
def test_the_same_files(both, name):
    ours, theirs = (getattr(run, name).read_text() for run in both[2:])
    assert ours == theirs != ""


def test_the_same_identity_and_account(both):
    ours, theirs = (read_config(run.config) for run in both[2:])
    for part in ("config", "fingerprint", "num_steps", "versions"):
        assert ours[part] == theirs[part], part
    ours, theirs = (json.loads(run.account.read_text()) for run in both[2:])
    assert {**ours, "shares": None} == {**theirs, "shares": None}


def test_a_builder_that_is_refused_has_written_nothing(both, tmp_path):
    """Building is apart from writing: the folder of a run that does not fit stays empty."""
    config = load_config(both[0].config.model_dump(mode="json"), {"optim.name": "sgdd.py:none"})
    with (
        RunDir.open(tmp_path / "run") as run,
        Console(io.StringIO()) as show,
        pytest.raises(Exception, match="cannot be read"),
    ):
        prepare(config, run, show, StopFlag())
    assert not [path for path in (tmp_path / "run").rglob("*.*") if path.stat().st_size]
