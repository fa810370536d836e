"""A training that is followed from its first step, and continued."""

import pytest

from sft.errors import Interrupted
from sft.runs.run_dir import RunDir
from sft.runs.store import read_records
from sft.train import Loop
from sft.training.step import StopRequested
from tracked import SIX
from trained import Trained, make_world

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def test_an_interrupted_run_goes_on_in_the_same_curves(tmp_path, monkeypatch):
    world = make_world(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Loop, "_step", stop_after(6))
        with pytest.raises(Interrupted):
            Trained(world, "run")
    run = Trained(world, "run")
    folder = RunDir(run.path).trackers / "tensorboard"
    assert len(list(folder.iterdir())) == 2
    found = accumulator.EventAccumulator(str(folder), {"scalars": 0, "tensors": 0})
    found.Reload()
    records = read_records(run.path / "metrics.jsonl")
    steps = [record for record in records if "loss" in record]
    for name in SIX:
        sent = [(event.step, event.value) for event in found.Scalars(name) if event.step]
        assert sent == [(r["step"], pytest.approx(r[name], rel=1e-6)) for r in steps], name
    evals = [record["step"] for record in records if "eval_seconds" in record]
    assert [event.step for event in found.Scalars("val_loss")] == evals
    assert "not sent" not in run.shown


def stop_after(count):
    """A step that asks to be stopped, as Ctrl-C does, once `count` were made."""
    whole = Loop._step

    def step(loop):
        if loop._state.counters.step == count:
            raise StopRequested
        whole(loop)

    return step
