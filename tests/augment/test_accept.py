"""New rows are kept when validation improves for sure, and set aside otherwise. Whole runs."""

import json
import random

import pytest

from sft.runs.compare import compare
from sft.runs.run_dir import RunDir
from sft.runs.store import read_records
from trained import Outcome, make_world

ANSWERS = {"Quick": "Paris.", "Brown": "one two three"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Rows whose answer hangs on one word, in capitals to train on and in lower case to validate.

    The two spellings are other tokens, so that a model has to see both.
    """
    folder, rng = make_world(tmp_path_factory.mktemp("accept")), random.Random(0)

    def rows(num, spell):
        for number in range(num):
            word = list(ANSWERS)[number % 2]
            others = " ".join(rng.choices(["dog", "fox", "lazy", "over", "jumps"], k=4))
            prompt = f"The {word} {others} {number}"
            yield {"prompt": spell(prompt), "completion": ANSWERS[word]}

    for name, found in (("capital", rows(48, str)), ("val", rows(20, str.lower))):
        text = "".join(json.dumps(row) + "\n" for row in found)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


def config(world, name, *lines, steps=12):
    text = "\n".join(
        [
            f"model: {{name: {world / 'llama'}}}",
            f"optim: {{learning_rate: 1e-2, schedule: constant, max_steps: {steps}}}",
            f"run: {{dir: {world / name}}}",
            "guards: {enabled: false}",
            *lines,
        ]
    )
    path = world / f"{name}.yaml"
    path.write_text(text + "\n")
    return path


def run(world, path, out, *args, data="rows.jsonl"):
    return Outcome(
        "augment", str(world / data), "--out", str(world / out), "--accept", str(path),
        *args,
    )  # fmt: skip


def test_rows_that_help_are_accepted(world):
    data = f"data: {{train: {world / 'capital.jsonl'}, val: {world / 'val.jsonl'}}}"
    path = config(world, "helps", data, steps=40)
    args = ("--way", "case", "--per-row", "2")
    outcome = run(world, path, "helps.jsonl", *args, data="capital.jsonl")
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() == str(world / "helps.jsonl")
    summary = json.loads((world / "helps.summary.json").read_text())
    found = compare(world / "helps-plain", world / "helps-augmented")
    assert summary["accepted"] is True and found.p_better < 0.05
    assert summary["acceptance"]["difference"] == found.difference < 0
    assert summary["acceptance"]["rows"] == found.n == 20
    assert "\naccepted: -" in f"\n{outcome.err}".replace("\x1b[32m", "")
    steps, evals = zip(*(_steps(world / f"helps-{name}") for name in ("plain", "augmented")),
                       strict=True)  # fmt: skip
    assert steps[0] == steps[1] == 40 and evals[0] == evals[1]
    again = run(
        world, path, "helps.jsonl", *args, data="capital.jsonl"
    )  # both runs are finished: nothing is trained
    assert again.code == 0 and again.err.count("this run is finished") == 2


def _steps(run_dir):
    records = read_records(RunDir(run_dir).metrics)
    evals = [record["step"] for record in records if "eval_seconds" in record]
    return sum("loss" in record for record in records), evals


def test_rows_that_do_not_help_are_set_aside(world):
    path = config(world, "idle", f"data: {{train: {world / 'rows.jsonl'}}}")
    args = ("--way", "whitespace")
    outcome = run(world, path, "idle.jsonl", *args)
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() == str(world / "idle.rejected.jsonl")
    assert not (world / "idle.jsonl").exists() and (world / "idle.rejected.jsonl").exists()
    summary = json.loads((world / "idle.summary.json").read_text())
    assert summary["accepted"] is False and summary["acceptance"]["p_one_sided"] >= 0.05
    account = json.loads((world / "idle-augmented" / "account.json").read_text())
    assert account["counts"]["val"] == summary["acceptance"]["rows"] == 12
    assert account["counts"]["dropped"] == 12  # children of validation rows
    again = run(world, path, "idle.jsonl", *args)
    assert again.code == 0 and again.err.count("this run is finished") == 2


def test_without_validation_nothing_is_accepted(world):
    data = f"data: {{train: {world / 'rows.jsonl'}, val_fraction: 0.0}}"
    outcome = run(world, config(world, "blind", data), "blind.jsonl", "--way", "case")
    assert outcome.code == 2 and "nothing was scored on val" in outcome.err
    assert json.loads((world / "blind.summary.json").read_text())["accepted"] is None
    assert (world / "blind.jsonl").exists()


def test_a_config_that_trains_on_something_else(world):
    path = config(world, "other", f"data: {{train: {world / 'capital.jsonl'}}}")
    outcome = run(world, path, "other.jsonl", "--way", "case")
    assert outcome.code == 2 and "and not on" in outcome.error()
    assert not (world / "other.jsonl").exists()
