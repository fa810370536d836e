"""The end of a run in a terminal of 80 and of 40 columns."""

import io

import pytest

from report.run_folders import eval_record, summary
from sft.report.final_summary import show_ending
from sft.terminal.console import Console


def ending(width, monkeypatch, **changes):
    monkeypatch.setenv("COLUMNS", str(width))
    out = io.StringIO()
    with Console(out, quiet=True) as show:  # which shows the end all the same
        show_ending(summary(**changes), [2.0, 1.5, 1.0], show)
    return out.getvalue()


@pytest.mark.parametrize("width", [40, 80, 120])
def test_tables_fit(width, monkeypatch):
    text = ending(width, monkeypatch)
    tables = [line.rstrip() for line in text.split("overfitting: watch")[0].splitlines()]
    assert max(map(len, tables)) <= width
    for said in ("12 steps in 0:18  █▅▁", "val_loss", "base model", "step 8", "▲ watch", "0.25"):
        assert said in text
    assert "val_loss rises" in text and "next:" in text and "sft watch runs/mine" in text


def test_what_went_wrong_is_said(monkeypatch):
    worse = {**eval_record(8), "val_loss": 3.0}
    text = ending(80, monkeypatch, best=worse, stopped="overfitting: it rose")
    assert "this training made it worse" in text
    assert "ended early: overfitting: it rose" in text


def test_without_validation_and_guards(monkeypatch):
    text = ending(80, monkeypatch, best={}, base={}, guards=[], indicators=[])
    assert "validation: not measured" in text
    assert "guards: off, nothing was measured" in text
    assert "held-out rows" not in text


def test_a_run_that_learned_nothing_says_so_first(monkeypatch):
    text = ending(80, monkeypatch, headline="The run learned nothing: no loss moved")
    assert text.startswith("The run learned nothing: no loss moved")


def test_losses_by_source(monkeypatch):
    best = {**eval_record(8), "val_loss_by_source": {"a\x1b[2J.jsonl": 1.25, "b.jsonl": 1.5}}
    base = {**eval_record(0), "val_loss_by_source": {"a\x1b[2J.jsonl": 2.25}}
    text = ending(80, monkeypatch, best=best, base=base)
    assert "val_loss, a" in text and "\x1b" not in text
    assert "2.25" in text and "b.jsonl" not in text  # nothing to compare with
