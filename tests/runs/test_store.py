from __future__ import annotations

import json
import math
import resource
from pathlib import Path

import pytest

from sft.errors import DataError, DiskError
from sft.runs.metrics import METRICS
from sft.runs.store import RecordStore, read_records


def test_append_and_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_records(path) == []
    records = [{"step": 1, "loss": 0.1 + 0.2}, {"step": 2, "text": "a\nb\u2028ü\ud800", "n": [1]}]
    with RecordStore(path) as store:
        assert store.offset == 0
        for record in records:
            store.append(record)
        store.sync()
        assert store.offset == path.stat().st_size
    with RecordStore(path) as store:  # a second writer, later, appends
        store.append({"step": 3})
    assert read_records(path) == [*records, {"step": 3}]
    assert path.read_bytes().count(b"\n") == 3


def test_a_nonfinite_value_is_null_and_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with RecordStore(path) as store:
        store.append({"loss": math.nan, "grad_norm": math.inf, "val_loss": -math.inf, "step": 1})
    line = path.read_text()
    assert json.loads(line, parse_constant=pytest.fail) == {
        "loss": None,
        "loss_nonfinite": "nan",
        "grad_norm": None,
        "grad_norm_nonfinite": "inf",
        "val_loss": None,
        "val_loss_nonfinite": "-inf",
        "step": 1,
    }
    assert not any(name.endswith("_nonfinite") for name in METRICS)


def test_every_torn_tail_is_ignored_by_readers_and_mended_by_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = b'{"step": 1}\n'
    line = b'{"step": 2, "loss": 1.25}\n'
    for tail in [line[:cut] for cut in range(len(line))] + [b"\0" * 5000, b"\xff" * 200_000]:
        path.write_bytes(whole + tail)
        assert read_records(path) == [{"step": 1}]
        with RecordStore(path) as store:
            assert store.offset == len(whole)
            store.append({"step": 2})
        assert path.read_bytes() == whole + b'{"step": 2}\n'


def test_a_torn_first_line_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"st')
    with RecordStore(path) as store:
        assert store.offset == 0
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    "garbage", [b"{", b"", b"[1]", b"3", b"\xff\xfe", b"\0\0", b"[" * 100_000, b"1" * 5000 + b"x"]
)
def test_garbage_inside_names_file_and_line(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + garbage + b'\n{"step": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: not "):
        read_records(path)


def test_truncate_moves_the_cut_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    discarded = tmp_path / "metrics.discarded.jsonl"
    with RecordStore(path) as store:
        store.append({"step": 1})
        offset = store.offset
        store.truncate_to(offset)
        assert not discarded.exists()
        store.append({"step": 2, "text": "x" * 200_000})
        store.append({"step": 3})
        store.truncate_to(offset)
        assert store.offset == offset == path.stat().st_size
        store.append({"step": 2})
    assert read_records(path) == [{"step": 1}, {"step": 2}]
    assert [record["step"] for record in read_records(discarded)] == [2, 3]
    with RecordStore(path) as store:
        store.truncate_to(0)
    assert read_records(path) == []
    assert [record["step"] for record in read_records(discarded)] == [2, 3, 1, 2]


@pytest.mark.parametrize("offset", [-1, 5, 13, 10_000])
def test_truncate_refuses_a_place_where_no_line_ends(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n')
    with RecordStore(path) as store, pytest.raises(DataError, match="the file was changed since"):
        store.truncate_to(offset)
    assert len(read_records(path)) == 2


def test_a_full_disk_leaves_whole_lines_only_and_the_store_usable(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RecordStore(path) as store:
        store.append({"step": 1})
        for limit in range(store.offset, store.offset + 40):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            try:
                with pytest.raises(DiskError, match=r"metrics\.jsonl: cannot be written"):
                    store.append({"step": 2, "text": "longer than the limit allows" * 2})
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert path.stat().st_size == store.offset
        store.append({"step": 2})
    assert read_records(path) == [{"step": 1}, {"step": 2}]


def test_a_nonfinite_value_is_null_inside_of_a_record_too(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with RecordStore(path) as store:
        store.append({"step": 1, "val_loss_by_source": {"a": 1.0, "b": math.inf}})
    assert read_records(path) == [
        {"step": 1, "val_loss_by_source": {"a": 1.0, "b": None, "b_nonfinite": "inf"}}
    ]
