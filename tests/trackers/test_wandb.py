"""What stands in the file that an offline run of wandb leaves, and `wandb sync` uploads."""

import json
import struct

import pytest

from sft.runs.events import EventLog
from sft.trackers.installed import missing
from tracked import SIX, cut_back, end, new_run, sft, step_record, write_steps

if missing("wandb"):
    pytest.skip(missing("wandb"), allow_module_level=True)

from wandb.proto.wandb_internal_pb2 import Record


def read(run):
    """All records of wandb's files, oldest first.

    The frames are those of LevelDB's log: blocks of 32 KiB; each piece has a checksum, its length
    and its kind (1: a whole record, 2: the first piece, 3: a middle one, 4: the last one).
    """
    found = []
    for path in sorted(run.trackers.glob("wandb/offline-run-*/run-*.wandb")):
        data = path.read_bytes()
        assert data[:4] == b":W&B"
        at, whole = 7, b""
        while at + 7 <= len(data):
            if at % 32768 > 32768 - 7:  # too little room for a frame: padding
                at += -at % 32768
                continue
            length, kind = struct.unpack_from("<HB", data, at + 4)
            whole += data[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):
                found.append(Record.FromString(whole))
                whole = b""
    return found


def items(found):
    return {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in found}


def offline(run, *more):
    return sft("track", run.path, "--to", "wandb", *more, WANDB_MODE="offline")


def test_every_value_is_there_once_after_two_attempts(tmp_path):
    run, config = new_run(tmp_path / "run")
    write_steps(run, 1, 7)
    end(run, "interrupted")
    code, out, err = offline(run, "--project", "mine")
    assert (code, out, err) == (0, "records sent to wandb: 9\n", "")
    cut_back(run, 4)
    write_steps(run, 5, 12, stretch=1.5)
    EventLog(run.events).add("alarm", "it overfits", step=12)
    end(run)
    code, out, _ = offline(run, "--project", "mine")
    assert (code, out) == (0, "records sent to wandb: 7\n")
    found = read(run)
    history = [items(r.history.item) for r in found if r.WhichOneof("record_type") == "history"]
    steps = [row for row in history if "loss" in row]
    assert [row["step"] for row in steps] == [*range(1, 13)]
    for name in SIX:
        assert [row[name] for row in steps] == [step_record(s)[name] for s in range(1, 13)], name
    assert [row["step"] for row in history if "val_loss" in row] == [0, 4, 8, 12]
    assert [row["_step"] for row in history] == [*range(16)]
    runs = [r.run for r in found if r.WhichOneof("record_type") == "run"]
    assert len({one.run_id for one in runs}) == 1
    assert {(one.project, one.display_name) for one in runs} == {("mine", "run")}
    settings = items(runs[0].config.update)
    assert settings["batch.examples"] == config.batch.examples
    metrics = [r.metric for r in found if r.WhichOneof("record_type") == "metric"]
    assert ("*", "step") in {(metric.glob_name, metric.step_metric) for metric in metrics}
    alerts = [r.alert for r in found if r.WhichOneof("record_type") == "alert"]
    assert [(alert.title, alert.text) for alert in alerts] == [
        ("sft: alarm", "step 12: it overfits")
    ]


def test_without_a_key_nobody_is_asked_for_one(tmp_path):
    run, _ = new_run(tmp_path / "run")
    write_steps(run, 1, 1)
    code, out, err = sft("track", run.path, "--to", "wandb", WANDB_API_KEY="", HOME=str(tmp_path))
    assert (code, out) == (2, "")
    assert "No API key configured" in err
    assert "0 of 2 were sent; the same command goes on" in err
