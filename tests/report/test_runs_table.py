"""`sft runs`: what the table says, however wide, and of odd folders."""

import json

import pytest

from report.run_folders import edit, finished_run, unfinished_run
from sft.report.runs_table import ago, verdict_marks
from trained import Outcome


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    finished_run(folder / "good")
    broken = unfinished_run(folder / "broken")
    broken.config.write_text("config: [")
    killed = unfinished_run(folder / "killed\x1b[2J", steps=8)
    killed.lock.write_text(
        json.dumps({"pid": 2**22 + 1, "host": __import__("socket").gethostname()})
    )
    return folder


def lines(folder, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    run = Outcome("runs", str(folder))
    assert run.code == 0
    assert all(len(line.rstrip()) <= width for line in run.out.splitlines() if ": " not in line)
    return run.out.splitlines()


def test_a_row_for_each_run(folder, monkeypatch):
    shown = lines(folder, 80, monkeypatch)
    good = next(line for line in shown if line.startswith(" good"))
    assert good.split()[1:7] == ["✓", "finished", "12/12", "1.0000", "▲O✓C○M◐F✓H", "0:18"]
    killed = next(line for line in shown if line.startswith(" killed"))
    assert "↯ killed" in killed and "8/12" in killed and "\x1b" not in killed
    assert any("ended without a word" in line for line in shown)
    assert shown[-2].startswith("✓ pass  ▲ watch") and "M mismatch" in shown[-1]


def test_forty_columns(folder, monkeypatch):
    shown = lines(folder, 40, monkeypatch)
    at = shown.index(next(line for line in shown if line.startswith("good")))
    assert shown[at].split() == ["good", "✓", "finished"]
    assert shown[at + 1].split()[:3] == ["12/12", "val", "1.0000"]
    assert shown[at + 1].split()[-1] == "▲O○M◐F"


def test_json_has_what_the_page_has(folder):
    rows = {row["name"]: row for row in json.loads(Outcome("runs", str(folder), "--json").out)}
    assert len(rows) == 3
    assert rows["good"]["best_step"] == 8 and rows["good"]["verdicts"]["overfitting"] == "watch"
    assert rows["good"]["config"]["eval.every"] == 4


def test_a_run_that_is_named_itself(folder):
    (row,) = json.loads(Outcome("runs", str(folder / "good"), "--json").out)
    assert row["state"] == "finished"


def test_no_runs_is_no_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no runs in runs" in Outcome("runs").out
    assert json.loads(Outcome("runs", "--json").out) == []


def test_a_folder_that_is_not_there(folder):
    run = Outcome("runs", str(folder.parent / (folder.name + "x")))
    assert run.code == 2
    assert f"no such folder. Did you mean '{folder.name}'?" in run.error()


def test_guards_that_are_not_ours_have_a_letter_too():
    assert verdict_marks({"my_guard": "alarm", "health": "pass"}).plain == "✓H■M"
    assert verdict_marks({"health": "odd"}).plain == "?H"
    assert verdict_marks({}).plain == "-"


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (300, "5 min"), (7200, "2 h"), (864_000, "10 d"), (-3, "0 s")]
)
def test_how_long_ago(seconds, text):
    assert ago(1000.0, 1000.0 + seconds) == text
    assert ago(None, 5.0) == "-"


def test_odd_records_do_not_hide_a_run(tmp_path, monkeypatch):
    run = finished_run(tmp_path / "odd")
    edit(run.summary, lambda summary: {**summary, "best": {"val_loss": "?"}, "guards": 3})
    assert any("odd" in line for line in lines(tmp_path, 80, monkeypatch))
