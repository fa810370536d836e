"""Every writer says the same about a disk that is full, read-only or forbidden."""

import errno
import json
import os

import pytest
import torch

from sft.augment.run import write_json as augment_json
from sft.config import SourceConfig
from sft.curate.stream.store import Store
from sft.data.rows.convert import convert
from sft.disk import write_text
from sft.errors import DiskError
from sft.report import write as report
from sft.runs import export_metrics
from sft.runs.store import RecordStore
from sft.training import checkpoint

ROW = {"prompt": "Where?", "completion": "Here."}
SAYS = {
    errno.ENOSPC: ("the disk is full", "free some space, or choose another"),
    errno.EROFS: ("the file system is read-only", "choose another --run or --out"),
    errno.EACCES: ("permission denied", "make it writable, or choose another --run or --out"),
}


def train_records(folder):
    store = RecordStore(folder / "metrics.jsonl")
    return lambda: store.append({"step": 1})


def train_checkpoint(folder):
    tensors = {"model": {"weight": torch.zeros(4)}}
    return lambda: checkpoint.save_checkpoint(folder / "checkpoints", 1, tensors, {"step": 1})


def curate(folder):
    store = Store(folder / "work")
    store.open({})
    return lambda: store.finish("read")


def augment(folder):
    return lambda: augment_json(folder / "summary.json", {})


def converting(folder):
    (folder / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    source = SourceConfig(path=str(folder / "rows.jsonl"))
    return lambda: convert(source, "messages", folder / "out.jsonl")


def exporting(folder):
    return lambda: export_metrics.write_file(folder / "metrics.csv", b"step\n")


def reporting(folder):
    return lambda: report.write_text(folder / "report.html", "<html>")


WRITERS = [train_records, train_checkpoint, curate, augment, converting, exporting, reporting]


@pytest.mark.parametrize("code", SAYS, ids=errno.errorcode.get)
def test_all_writers_say_the_same(tmp_path, monkeypatch, code):
    writers = {}
    for make in WRITERS:
        (tmp_path / make.__name__).mkdir()
        writers[make.__name__] = make(tmp_path / make.__name__)

    def refuse(*_args, **_options):
        raise OSError(code, os.strerror(code))

    what, remedy = SAYS[code]
    for name, write in writers.items():
        with monkeypatch.context() as patch:
            for function in ("write", "fsync", "rename", "replace"):
                patch.setattr(os, function, refuse)
            with pytest.raises(DiskError) as caught:
                write()
        message = str(caught.value)
        assert caught.value.exit_code == 7, name
        assert message.startswith(str(tmp_path / name)), message
        assert f": {what}" in message and f"; {remedy}" in message, message
        assert message.endswith("--run or --out" + " on a larger disk" * (code == errno.ENOSPC))


def test_what_is_no_fault_of_the_disk_is_not_called_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "none" / "a.txt", "a")
