"""`sft check` from the command line, on rows with faults that were put there."""

import json
import random

import pytest

from sft.curate.checks import CHECKS
from sft.curate.finding import SEVERITIES
from trained import WORDS, Outcome, make_world


def row(prompt, answer):
    return {"prompt": prompt, "completion": answer}


def fine_rows(number, seed=0):
    """Rows that have little in common."""
    pick = random.Random(seed)

    def sentence(length):
        return " ".join(f"{pick.choice(WORDS)}{pick.randrange(999)}" for _ in range(length))

    return [row(f"What is {sentence(4)}?", f"It is {sentence(5)}.") for _ in range(number)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = make_world(tmp_path_factory.mktemp("world"))
    rows = fine_rows(40)
    rows[7] = dict(rows[3])  # line 8 repeats line 4
    rows[20] = row("What is the capital of France?", "")
    write(folder / "faulty.jsonl", rows)
    write(folder / "fine.jsonl", fine_rows(40, seed=5))
    write(folder / "public_test.jsonl", [fine_rows(40, seed=5)[11]])
    write(folder / "real.jsonl", [{"prompt": f"{2 * i} + {i + 3} = ?"} for i in range(24)])
    return folder


def write(path, rows):
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))


@pytest.fixture(autouse=True)
def here(world, monkeypatch):
    monkeypatch.chdir(world)
    monkeypatch.setenv("COLUMNS", "200")


def check(*args):
    return Outcome("check", *args, "--model", "llama", "--set", "data.max_seq_len=200")


def findings(*args):
    done = check(*args, "--json")
    return {found["check"]: found for found in json.loads(done.out)}, done.code


def test_findings_are_json_with_every_row_and_a_fix():
    found, code = findings("faulty.jsonl")
    assert code == 3
    assert set(found["unusable"]) == {"check", "severity", "count", "rows", "message", "fix"}
    assert found["unusable"]["severity"] == "error"
    assert found["unusable"]["rows"] == ["faulty.jsonl:21"]
    assert "data.on_bad_row=skip" in found["unusable"]["fix"]
    assert found["duplicates"]["rows"] == ["faulty.jsonl:8"]
    assert "faulty.jsonl:4" in found["duplicates"]["message"]


def test_clean_rows_have_no_fault():
    found, code = findings("fine.jsonl")
    assert code == 0
    assert not [each for each in found.values() if each["severity"] != "info"]


def test_the_exit_code_follows_what_is_asked():
    skip = ("--set", "data.on_bad_row=skip")
    assert check("faulty.jsonl", *skip).code == 0  # warnings only
    failed = check("faulty.jsonl", *skip, "--fail-on", "warning")
    assert failed.code == 3 and "warning" in failed.err.splitlines()[-1]
    assert check("faulty.jsonl", "--fail-on", "never").code == 0


def test_a_public_test_in_the_training_rows_is_found():
    found, _ = findings("fine.jsonl", "--benchmark", "public_test.jsonl")
    assert found["contamination"]["rows"] == ["fine.jsonl:12"]
    assert "public_test" in found["contamination"]["message"]
    told = check("fine.jsonl", "--rows", "0").out
    assert "contamination: not measured" in told


def test_usage_that_training_does_not_cover_is_found():
    found, _ = findings("fine.jsonl", "--usage", "real.jsonl")
    assert found["usage_coverage"]["severity"] == "warning"
    assert found["usage_coverage"]["count"] > 12
    assert all(place.startswith("real.jsonl:") for place in found["usage_coverage"]["rows"])


def test_a_row_is_found_by_its_text():
    wanted = fine_rows(40, seed=5)[17]["completion"]
    done = check("fine.jsonl", "--search", wanted)
    assert "fine.jsonl:18  " in done.out and wanted in done.out
    assert check("fine.jsonl", "--search", "nowhere").code == 2


def test_the_page_has_the_findings_and_the_rows(world):
    done = check("faulty.jsonl", "--html", "out.html", "--fail-on", "never", "--rows", "0")
    page = (world / "out.html").read_text()
    assert "page: out.html" in done.out
    assert "faulty.jsonl:8" in page and "data.deduplicate" in page
    assert fine_rows(40)[5]["completion"] in page


def test_every_check_ran_and_severities_are_sorted():
    found, _ = findings("faulty.jsonl")
    order = [SEVERITIES.index(each["severity"]) for each in found.values()]
    assert order == sorted(order)
    assert {"duplicates", "near_duplicates", "leaks", "conflicts"} <= set(CHECKS)


def test_rows_that_would_be_repeated_too_often_are_told():
    found, _ = findings("fine.jsonl", "--set", "optim.epochs=9")
    assert "9." in found["repeats"]["message"] and found["repeats"]["severity"] == "warning"


def test_scores_of_the_base_model_are_shown_where_asked():
    told = check("fine.jsonl", "--score", "20", "--rows", "0").out
    assert "suspicious rows: not measured" not in told


def test_what_cannot_be_scored_is_not_called_fine(world):
    (world / "notes.txt").write_text("\n\n".join(f"{w} and {w}" for w in WORDS))
    source = "data.train=[{path: notes.txt, format: text}]"
    told = check("--set", source, "--score", "9", "--rows", "0").out
    assert "suspicious rows: not measured; no row has an answer after a prompt" in told


def test_validation_rows_that_a_run_would_leave_out_are_still_a_leak(world):
    rows = fine_rows(40, seed=5)
    write(world / "held_out.jsonl", [rows[9], *fine_rows(11, seed=8)])
    found, code = findings("fine.jsonl", "--val", "held_out.jsonl")
    assert found["leaks"]["rows"] == ["fine.jsonl:10"] and code == 3
