"""Killed anywhere, the same command keeps finished passes and ends with the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from filelock import FileLock

from curating import made, run, similar_rows, write
from sft.curate.stream.options import load_curate_config
from sft.curate.stream.run import curate
from sft.errors import ConfigError

OPTIONS = {
    "dedupe": "near",
    "cap_openers": 0.1,
    "openers": "strip",
    "min_answer_words": 2,
    "balance": 3,
    "select": 50,
}


class Killed(BaseException):
    """Ends the process as far as the code can tell."""


def rows_with_openers():
    rows = similar_rows(110)
    for row in rows[::3]:
        row["output"] = f"Sure! {row['output']}"
    return rows


def dying(after):
    """A progress callback that kills at its `after`th call."""
    calls = 0

    def progress(*_):
        nonlocal calls
        calls += 1
        if calls == after:
            raise Killed

    progress.calls = lambda: calls
    return progress


def test_killed_at_every_point_with_more_written_than_counts(tmp_path):
    source = write(tmp_path / "rows.jsonl", rows_with_openers())
    counting = dying(None)
    whole = run(source, tmp_path, counting, chunk_rows=20, **OPTIONS)
    assert {"balance", "select", "near_duplicates", "exact_duplicates"} <= {
        entry["by"] for entry in whole.ledger
    }
    for point in range(1, counting.calls() + 1, 3):
        name = f"killed{point}"
        with pytest.raises(Killed):
            run(source, tmp_path, dying(point), chunk_rows=20, name=name, **OPTIONS)
        assert not (tmp_path / f"{name}.jsonl").exists()
        work = tmp_path / f"{name}.jsonl.work"
        unfinished = {"features": ["line", "runs", "fates"], "write": ["out", "ledger"]}
        for names in unfinished.keys() - json.loads((work / "state.json").read_text())["finished"]:
            for column in unfinished[names]:
                with (work / column).open("ab") as file:
                    file.write(b"\xff torn")  # a pass that was killed counts for nothing
        again = run(source, tmp_path, chunk_rows=13, name=name, **OPTIONS)
        assert again.files == whole.files
        assert not work.exists()


@pytest.mark.parametrize(
    ("phase", "kept"),
    [
        ("reading rows:", []),
        ("comparing rows: band", ["features", "exact_duplicates"]),
        ("writing rows:", ["features", "exact_duplicates", "near_duplicates"]),
    ],
)
def test_finished_passes_are_kept_and_a_killed_one_starts_again(tmp_path, phase, kept):
    source = write(tmp_path / "rows.jsonl", similar_rows(100))

    def kill(what, done, total):
        if what == phase and done >= 20:
            raise Killed

    def seen(what, *_):
        phases.append(what)

    with pytest.raises(Killed):
        run(source, tmp_path, kill, chunk_rows=20, dedupe="near")
    state = json.loads((tmp_path / "out.jsonl.work" / "state.json").read_text())
    assert list(state["finished"]) == kept
    phases = []
    run(source, tmp_path, seen, chunk_rows=20, dedupe="near")
    assert phase in phases
    assert ("reading rows:" in phases) == ("features" not in kept)
    assert ("exact duplicates" in phases) == ("exact_duplicates" not in kept)


def test_a_process_that_is_killed(tmp_path):
    source = write(tmp_path / "rows.jsonl", similar_rows(400))
    whole = run(source, tmp_path, dedupe="near")
    out = tmp_path / "killed.jsonl"
    code = (
        "import sys, time; sys.path[:0] = sys.argv[3:]\n"
        "from sft.curate.stream.options import load_curate_config\n"
        "from sft.curate.stream.run import curate\n"
        "config = load_curate_config({'data': sys.argv[1], 'out': sys.argv[2], 'dedupe': 'near'})\n"
        "curate(config, lambda *_: time.sleep(0.05), chunk_rows=20)\n"
    )
    command = [sys.executable, "-c", code, str(source), str(out), *sys.path]
    process = subprocess.Popen(command)
    state = tmp_path / "killed.jsonl.work" / "state.json"
    while process.poll() is None and not (state.exists() and b"features" in state.read_bytes()):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert b'"write"' not in state.read_bytes()
    assert run(source, tmp_path, dedupe="near", name="killed").files == whole.files


@pytest.mark.parametrize("moved", [1, 2, 3])
def test_killed_while_the_files_are_put_into_their_places(tmp_path, monkeypatch, moved):
    source = write(tmp_path / "rows.jsonl", similar_rows(30))
    whole = run(source, tmp_path, dedupe="exact")
    real, calls = os.replace, []

    def replace(a, b):
        if str(b).endswith("state.json"):
            return real(a, b)
        calls.append(b)
        real(a, b)
        if len(calls) == moved:
            raise Killed
        return None

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(Killed):
            run(source, tmp_path, dedupe="exact", name="again")
    again = run(source, tmp_path, dedupe="exact", name="again")
    assert again.files == whole.files
    assert again.summary["output"]["sha256"] == whole.summary["output"]["sha256"]
    assert sorted(path.name for path in tmp_path.iterdir() if "again" in path.name) == [
        "again.jsonl",
        "again.ledger.jsonl",
        "again.summary.json",
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dedupe": "near"}, "dedupe was 'exact' and is 'near'"),
        ({"rows": 1}, "rows.jsonl has changed"),
    ],
)
def test_changed_rows_or_options_start_from_the_beginning(tmp_path, change, reason):
    rows = similar_rows(60)
    source = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(Killed):
        run(source, tmp_path, dying(5), dedupe="exact")
    if "rows" in change:
        write(source, [*rows[1:], rows[0]])
    options = {"dedupe": change.get("dedupe", "exact")}
    notes = []
    config = load_curate_config(
        {"data": str(source), "out": str(tmp_path / "out.jsonl"), **options}
    )
    curate(config, note=notes.append)
    assert len(notes) == 1
    assert reason in notes[0]
    fresh = run(source, tmp_path, name="fresh", **options)
    assert made(tmp_path / "out.jsonl").files == fresh.files


def test_done_before_is_not_done_again(tmp_path):
    source = write(tmp_path / "rows.jsonl", similar_rows(30))
    first = run(source, tmp_path, dedupe="exact")
    calls = dying(None)
    assert run(source, tmp_path, calls, dedupe="exact").files == first.files
    assert calls.calls() == 0
    with pytest.raises(ConfigError, match="exists, and was not made from these rows"):
        run(source, tmp_path, dedupe="near")


def test_a_folder_of_someone_else_is_left_alone(tmp_path):
    source = write(tmp_path / "rows.jsonl", similar_rows(5))
    theirs = tmp_path / "out.jsonl.work"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("chapter 1")
    with pytest.raises(ConfigError, match="is no work folder"):
        run(source, tmp_path, dedupe="exact")
    assert (theirs / "thesis.txt").exists()


def test_a_damaged_state_is_told_and_the_work_begins_again(tmp_path):
    source = write(tmp_path / "rows.jsonl", similar_rows(40))
    with pytest.raises(Killed):
        run(source, tmp_path, dying(3), dedupe="near")
    (tmp_path / "out.jsonl.work" / "state.json").write_text('{"finger')
    notes = []
    config = load_curate_config(
        {"data": str(source), "out": str(tmp_path / "out.jsonl"), "dedupe": "near"}
    )
    curate(config, note=notes.append)
    assert "state.json is damaged" in notes[0]
    fresh = run(source, tmp_path, dedupe="near", name="fresh")
    assert made(tmp_path / "out.jsonl").files == fresh.files


def test_two_at_once_do_not_write_one_file(tmp_path):
    source = write(tmp_path / "rows.jsonl", similar_rows(5))
    with (
        FileLock(tmp_path / "out.jsonl.lock"),
        pytest.raises(ConfigError, match="another sft curate is writing it"),
    ):
        run(source, tmp_path, dedupe="exact")
    assert len(run(source, tmp_path, dedupe="exact").rows) <= 5
