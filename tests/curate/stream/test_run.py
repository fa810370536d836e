"""Options, workers, engines, memory and the command."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from curating import lines, pair, run, similar_rows, write
from sft.cli import cli
from sft.curate.stream.options import load_curate_config
from sft.curate.stream.run import curate
from sft.errors import ConfigError, SFTError

OPTIONS = {
    "dedupe": "near",
    "cap_openers": 0.3,
    "quality": True,
    "drop": ["empty", "refusals"],
    "balance": 3,
    "select": 150,
}


def test_neither_workers_nor_chunks_change_a_byte(tmp_path):
    source = write(tmp_path / "rows.jsonl", similar_rows(400))
    first = run(source, tmp_path, chunk_rows=400, **OPTIONS)
    assert 100 < len(first.rows) < 200
    small = run(source, tmp_path, chunk_rows=3, name="small", **OPTIONS)
    pooled = run(source, tmp_path, chunk_rows=30, name="pooled", workers=2, **OPTIONS)
    assert first.files == small.files == pooled.files


@pytest.mark.slow
def test_ray_makes_the_same(tmp_path):
    pytest.importorskip("ray")
    source = write(tmp_path / "rows.jsonl", similar_rows(200))
    first = run(source, tmp_path, dedupe="near")
    on_ray = run(source, tmp_path, dedupe="near", engine="ray", name="ray", chunk_rows=30)
    import ray

    ray.shutdown()
    assert first.files == on_ray.files


def test_ray_that_is_missing_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'sft\[ray\]'"):
        run([pair("a", "b")], tmp_path, engine="ray")


MEASURE = """
import resource, sys
sys.path[:0] = sys.argv[3:]
from sft.curate.stream.options import load_curate_config
from sft.curate.stream.run import curate
config = load_curate_config({'data': sys.argv[1], 'out': sys.argv[2], 'dedupe': 'near',
                             'cap_openers': 0.5})
curate(config)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_hardly_grows_with_the_rows(tmp_path):
    """100,000 rows need less than 40 MB more than 5,000, in all of both passes."""
    peaks = []
    for count in (5_000, 100_000):
        source = tmp_path / f"{count}.jsonl"
        with source.open("w") as file:
            for i in range(count):
                prompt = f"question {i} of {i * 7919 % 10_007}"
                file.write(f'{{"instruction": "{prompt}", "output": "answer {i // 2} is so"}}\n')
        command = [sys.executable, "-c", MEASURE, str(source), str(tmp_path / f"o{count}.jsonl")]
        done = subprocess.run([*command, *sys.path], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    assert peaks[1] - peaks[0] < 40, peaks


def test_a_dry_run_writes_nothing(tmp_path):
    source = write(tmp_path / "rows.jsonl", similar_rows(50))
    out = tmp_path / "out.jsonl"
    done = CliRunner().invoke(
        cli, ["curate", str(source), "--out", str(out), "--dedupe", "near", "--dry-run"]
    )
    assert done.exit_code == 0, done.output
    assert "near duplicates" in done.output
    assert "nothing was written" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_the_command_with_a_config_file(tmp_path):
    source = write(tmp_path / "rows.jsonl", similar_rows(60))
    out = tmp_path / "out.jsonl"
    config = tmp_path / "curate.yaml"
    config.write_text(f"curate:\n  data: {source}\n  dedupe: near\n  min_answer_words: 20\n")
    arguments = ["curate", "--config", str(config), "--out", str(out), "--min-answer-words", "5"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    same = run(source, tmp_path, name="same", dedupe="near", min_answer_words=5)
    assert lines(out) == same.rows
    assert f"{len(same.rows):,} rows; " in done.output
    again = CliRunner().invoke(cli, arguments)
    assert "nothing was done" in again.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dedup": "near"}, "dedup: unknown option. Did you mean 'dedupe'?"),
        ({"cap_openers": 3}, "cap_openers: Input should be less than or equal to 1 (found 3)"),
        ({"openers": "strip"}, "openers needs cap_openers"),
        ({"mode": "select"}, "mode select needs toward"),
        ({"toward": "u.jsonl", "mode": "select"}, "needs select"),
        ({"out": "rows.csv"}, "must end in .jsonl"),
        ({"data": []}, "data: "),
        ({"min_answer_words": 9, "max_answer_words": 3}, "is more than max_answer_words"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError) as error:
        load_curate_config({"data": "rows.jsonl", "out": "out.jsonl", **options})
    assert message in str(error.value)


def test_wrong_files(tmp_path):
    source = write(tmp_path / "rows.jsonl", [pair("a", "b")])
    with pytest.raises(ConfigError, match="is one of the files that are read"):
        curate(load_curate_config({"data": str(source), "out": str(source)}))
    with pytest.raises(ConfigError, match="sft curate reads files"):
        run([pair("a", "b")], tmp_path, **{"data": "someone/data"})
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    other = write(tmp_path / "other.jsonl", [{"messages": turns}])
    with pytest.raises(ConfigError, match="One file cannot hold both"):
        run(source, tmp_path, data=[str(source), str(other)])
    with pytest.raises(SFTError, match="no such file"):
        run(source, tmp_path, toward=str(tmp_path / "none.jsonl"))
    strange = write(tmp_path / "strange.jsonl", [{"x": "a"}])
    with pytest.raises(SFTError, match="no known shape"):
        run(strange, tmp_path)


def test_columns_and_an_empty_file_of_a_folder(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    for name in ("b", "a"):
        write(folder / f"{name}.jsonl", [{"q": f"{name} asks", "a": f"{name} says"}])
    columns = {"question": "q", "answer": "a"}
    done = run(folder, tmp_path, columns=columns, format="question_answer")
    assert [row["a"] for row in done.rows] == ["a says", "b says"]
    (folder / "c.jsonl").write_text("\n")
    with pytest.raises(SFTError, match=r"c.jsonl: holds no rows"):
        run(folder, tmp_path, columns=columns, format="question_answer", name="more")


def test_the_summary_says_what_it_was_made_with(tmp_path):
    done = run(similar_rows(20), tmp_path, dedupe="exact", seed=3)
    summary = done.summary
    assert summary["parameters"]["seed"] == 3
    assert summary["versions"].keys() >= {"sft", "numpy"}
    assert summary["peak_memory_bytes"] > 1e6
    assert len(summary["output"]["sha256"]) == 64
    assert json.dumps(summary)


@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_long_rows_come_in_small_chunks(tmp_path, ending):
    from sft.config import SourceConfig
    from sft.curate.stream.rows import CHUNK_BYTES, chunks, open_sources

    rows = [pair("q", "word " * (CHUNK_BYTES // 12)) for _ in range(7)]
    source = tmp_path / f"rows.{ending}"
    if ending == "json":
        source.write_text(json.dumps(rows))
    else:
        write(source, rows)
    found = list(chunks(open_sources([SourceConfig(path=str(source))]), 100))
    assert [len(chunk.items) for chunk in found] == [3, 3, 1]
    assert [number for chunk in found for number in chunk.numbers] == (
        list(range(1, 8)) if ending == "jsonl" else [1] * 7
    )
