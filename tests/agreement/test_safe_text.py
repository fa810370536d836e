"""Text that hides or steers: every target takes the same characters for unsafe."""

import pytest

from agreement.tellers import report
from report.run_folders import edit, finished_run
from sft.report.card import card
from sft.report.html import render
from sft.texts.markdown import code, text
from sft.texts.safe import UNSAFE, one_line, printable, visible
from sft.trackers.base import printable_event

CHARACTERS = [chr(c) for c in range(0x110000) if UNSAFE.match(chr(c))]
KNOWN = "\x00\x07\x1b\x7f\x9b\u200b\u2028\u202e\u2066\u2060\ufeff\ud800\ufff9\U000e0041"


def test_the_set_holds_what_hides_and_steers_and_leaves_what_scripts_need():
    assert set(KNOWN) <= set(CHARACTERS)
    assert not UNSAFE.search("a\tb\n\u200d\u200cüß漢字🙂\u0301")


@pytest.mark.parametrize(
    "target",
    [printable, visible, text, code, one_line, lambda t: printable_event({"text": t})["text"]],
    ids=["terminal", "page", "Markdown", "Markdown code", "row messages", "trackers"],
)
def test_no_target_lets_one_through(target):
    assert [hex(ord(c)) for c in CHARACTERS if c in target(f"a{c}b")] == []
    assert target("plain") in ("plain", "`plain`")


def test_a_report_and_a_card_hold_none(tmp_path):
    run = finished_run(tmp_path / "mine")
    hostile = "x" + KNOWN.replace("\ud800", "") + "y"
    edit(run.findings, lambda finding: {**finding, "message": hostile})
    facts = report(run)
    for written in (render(facts), card(facts)):
        assert not UNSAFE.search(written)
