"""`sft export-metrics`: every record, in a table that other programs read."""

import csv
import json

import pyarrow.parquet as pq
import pytest

from report.run_folders import append, finished_run, unfinished_run
from sft.errors import ConfigError, DataError
from sft.runs.export_metrics import export_metrics
from sft.runs.run_dir import RunDir
from trained import Outcome


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = finished_run(tmp_path_factory.mktemp("runs") / "mine")
    by_source = {"val_loss_by_source": {"=cmd|' /c'!A0": 1.5, "b.jsonl": 2.5}}
    append(run.metrics, {"step": 13, "loss": float("nan"), "epoch": 1.1, "told": ["a", 1]})
    append(run.metrics, {"step": 13, "epoch": 1.1, **by_source, "eval_seconds": 1.0, "=x": True})
    append(run.metrics, {"step": 8, "test_loss": 1.25, "who": "=HYPERLINK(1)"})
    append(run.metrics, {"step": 9, "test_loss": -1.25, "who": "-a", "train_flos": 10**30})
    return run


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_record_is_a_row(run, tmp_path):
    done = export_metrics(run.path, tmp_path / "m.csv")
    rows = rows_of(done.out)
    assert len(rows) == done.num_rows == 12 + 4 + 4
    assert done.columns[:4] == ["record", "step", "loss", "accuracy"]
    assert [row["record"] for row in rows[:6]] == ["evaluation", *["step"] * 4, "evaluation"]
    assert [row["record"] for row in rows[-4:]] == ["step", "evaluation", "end", "end"]
    assert float(rows[1]["loss"]) == 2.0 - 0.08 and rows[1]["val_loss"] == ""
    assert rows[-4]["loss"] == "" and rows[-4]["loss_nonfinite"] == "nan"
    assert json.loads(rows[-4]["told"]) == ["a", 1]


def test_sources_have_columns_of_their_own(run, tmp_path):
    done = export_metrics(run.path, tmp_path / "m.csv")
    (row,) = [row for row in rows_of(done.out) if row["val_loss_by_source/b.jsonl"]]
    assert float(row["val_loss_by_source/b.jsonl"]) == 2.5
    assert done.columns.index("val_loss_by_source/b.jsonl") < done.columns.index("eval_seconds")


def test_no_cell_is_a_formula(run, tmp_path):
    rows = rows_of(export_metrics(run.path, tmp_path / "m.csv").out)
    assert rows[-2]["who"] == "'=HYPERLINK(1)" and rows[-1]["who"] == "'-a"
    assert rows[-3]["'=x"] == "true"
    assert rows[-1]["test_loss"] == "-1.25"  # a number is no formula


def test_parquet_has_the_same_with_types(run, tmp_path):
    table = pq.read_table(export_metrics(run.path, tmp_path / "m.parquet").out)
    assert table.num_rows == 20
    assert str(table.schema.field("step").type) == "int64"
    assert str(table.schema.field("loss").type) == "double"
    assert str(table.schema.field("train_flos").type) == "double"
    assert table["who"].to_pylist()[-2:] == ["=HYPERLINK(1)", "-a"]  # no spreadsheet runs these
    assert table["val_loss_by_source/b.jsonl"].to_pylist()[-3] == 2.5
    assert table["loss"].to_pylist()[-4] is None


def test_scores(run, tmp_path):
    done = export_metrics(run.path, tmp_path / "s.csv", scores=True)
    rows = rows_of(done.out)
    assert done.columns[:3] == ["step", "probe", "id"]
    assert len(rows) == 4 * (12 + 10)
    assert float(rows[0]["nll"]) == 20.0 and rows[0]["probe"] == "val"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("m.cvs", r"Did you mean '\.csv'\?"),
        ("m.parq", r"Did you mean '\.parquet'\?"),
        ("m.xlsx", r"ends in \.csv or \.parquet"),
        ("m", r"ends in \.csv or \.parquet"),
        ("no/m.csv", "there is no folder"),
        ("there.csv", "is there already"),
        ("folder.csv", "is a folder"),
    ],
)
def test_files_that_cannot_be_written(run, tmp_path, name, said):
    (tmp_path / "there.csv").write_text("mine")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigError, match=said):
        export_metrics(run.path, tmp_path / name)
    assert (tmp_path / "there.csv").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.csv", "there.csv"]


def test_force_writes_over_a_file(run, tmp_path):
    (tmp_path / "m.csv").write_text("mine")
    done = Outcome("export-metrics", str(run.path), "--out", str(tmp_path / "m.csv"), "--force")
    assert done.code == 0 and "20 rows" in done.out
    assert len(rows_of(tmp_path / "m.csv")) == 20


def test_a_run_that_has_just_begun_and_one_that_is_damaged(tmp_path):
    new = RunDir(tmp_path / "new")
    new.path.mkdir()
    new.lock.touch()
    with pytest.raises(ConfigError, match="nothing was recorded yet"):
        export_metrics(new.path, tmp_path / "m.csv")
    torn = unfinished_run(tmp_path / "torn")
    with open(torn.metrics, "a") as file:
        file.write('{"step": 13, "los')  # being written
    assert export_metrics(torn.path, tmp_path / "m.csv").num_rows == 16
    with open(torn.metrics, "a") as file:
        file.write("\nnothing\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl:17"):
        export_metrics(torn.path, tmp_path / "m2.csv")
    assert not (tmp_path / "m2.csv").exists()
