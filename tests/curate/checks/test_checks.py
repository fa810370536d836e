"""All checks together: order, purity, and what they say of real data."""

import dataclasses
import json
import subprocess
import sys

import pytest

from sft.curate.checks import CHECKS, run_checks
from sft.curate.corpus import Corpus
from sft.curate.finding import SEVERITIES


@pytest.fixture
def faulty(rows):
    prompts = ["Is it so?", "Is it so?", "Name a fruit", "Where is it now?", "Say\x1b[31m it"]
    answers = ["Yes.", "No.", "", "It is near the", "\x1b[31mred caf\u00c3\u00a9 &amp; a@b.org"]
    return Corpus(rows(prompts, answers), val=rows(["Name a fruit"], ["Pear."], "val.jsonl"))


def test_the_worst_comes_first(faulty):
    order = [(SEVERITIES.index(one.severity), -one.count) for one in run_checks(faulty)]
    assert order == sorted(order)
    assert {"leaks", "conflicts", "empty", "encoding", "personal_data"} <= {
        one.check for one in run_checks(faulty)
    }


def test_findings_are_plain_and_printable(faulty):
    for one in run_checks(faulty):
        assert json.loads(json.dumps(one.record()))["rows"] == list(one.rows)
        assert one.check in CHECKS
        assert one.count == len(one.rows) == len(set(one.rows))
        assert one.message.isprintable()


def test_a_check_changes_nothing_and_says_the_same_twice(faulty):
    before = [dataclasses.replace(row) for row in faulty.train]
    assert run_checks(faulty) == run_checks(Corpus(faulty.train, faulty.val))
    assert list(faulty.train) == before


def test_progress_names_every_check(faulty):
    named = []
    run_checks(faulty, named.append)
    assert named == list(CHECKS)


def test_no_rows_have_no_faults():
    assert run_checks(Corpus([])) == []


def test_no_check_needs_torch():
    code = "import sys, sft.curate.checks as c; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_real_rows(rows, real):
    """What was read by hand in Alpaca's demo rows, and nothing else."""
    prompts, answers = zip(*real("alpaca"), strict=True)
    found = {one.check: one for one in run_checks(Corpus(rows(prompts, answers)))[::-1]}
    assert {name for name, one in found.items() if one.severity != "info"} == {
        *("duplicates", "refusals", "cut_answers", "empty")
    }
    assert found["duplicates"].count == 14
    cut = {125, 180, 270, 464, 559, 731, 783, 899}
    assert {int(place.split(":")[1]) for place in found["cut_answers"].rows} == cut
    assert "wrong_roles" not in found
