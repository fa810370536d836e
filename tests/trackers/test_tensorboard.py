"""What TensorBoard itself reads from the event files of a run."""

import math

import pytest

from sft.runs.events import EventLog
from sft.trackers.follow import Followers
from sft.trackers.session import send
from tracked import SIX, begin, cut_back, end, new_run, step_record, write_steps

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
numpy = pytest.importorskip("numpy")


def read(run):
    everything = {"scalars": 0, "tensors": 0}
    found = accumulator.EventAccumulator(str(run.trackers / "tensorboard"), everything)
    found.Reload()
    return found


def texts(found, tag):
    return [event.tensor_proto.string_val[0].decode() for event in found.Tensors(tag)]


def test_every_value_is_there_under_its_name(tmp_path):
    run, config = new_run(tmp_path / "run")
    with Followers(run, config, print) as followers:
        followers.start()
        write_steps(run, 1, 12)
        EventLog(run.events).add("alarm", "<b>*it* overfits</b>", step=8)
        end(run)
    found = read(run)
    for name in (*SIX, "tokens_per_second", "seconds"):
        sent = [(event.step, event.value) for event in found.Scalars(name) if event.step]
        assert sent == [(s, numpy.float32(step_record(s)[name])) for s in range(1, 13)], name
    assert [event.value for event in found.Scalars("loss_by_source/a")][:2] == [2.0, 3.0]
    assert [event.step for event in found.Scalars("val_loss")] == [0, 4, 8, 12]
    assert [event.step for event in found.Scalars("epoch")] == [*range(13)]
    norms = [event.value for event in found.Scalars("grad_norm")]
    assert [math.isnan(norm) for norm in norms] == [step == 3 for step in range(1, 13)]
    assert "optim.epochs" in texts(found, "config")[0].replace("\\", "")
    assert texts(found, "events/alarm") == ["\\<b\\>\\*it\\* overfits\\</b\\>"]
    assert "| best\\_step | 8 |" in texts(found, "summary")[0]


def test_an_attempt_goes_on_where_the_last_one_ended(tmp_path):
    run, config = new_run(tmp_path / "run")
    for first, last, ending in ((1, 7, "interrupted"), (5, 12, "finished")):
        if first == 5:
            cut_back(run, 4)
        with Followers(run, config, print) as followers:
            begin(run)
            followers.start()
            write_steps(run, first, last)
            end(run, ending)
    assert len(list((run.trackers / "tensorboard").iterdir())) == 2
    found = read(run)
    assert [event.step for event in found.Scalars("loss")] == [*range(1, 13)]
    assert [event.step for event in found.Scalars("val_loss")] == [0, 4, 8, 12]
    times = [event.wall_time for event in found.Scalars("loss")]
    assert times == sorted(times)
    assert times[-1] - times[0] == pytest.approx(11 * 0.5 + 2 * 0.25, abs=1e-3)


def test_a_whole_run_can_be_sent_afterwards(tmp_path):
    run, config = new_run(tmp_path / "run")
    write_steps(run, 1, 12)
    end(run)
    assert send(run, "tensorboard", config) == 16
    assert [event.step for event in read(run).Scalars("loss")] == [*range(1, 13)]
