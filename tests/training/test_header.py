"""What `sft train` says before the first step, and how little it can be told to say."""

import json

import pytest

from trained import Outcome, Trained, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def test_the_facts_before_the_first_step(world):
    run = Trained(world, "my run", method__kind="lora", method__lora_rank=4)
    lines = run.shown.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("model: "))
    assert lines[first : first + 5] == [
        "model: llama, 32.0 k parameters, LoRA rank 4: 3.7 k trained (11.59%), float32, CPU",
        "data: rows.jsonl: 60 rows, 48 for training, 12 for validation",
        "plan: 12 steps of 8 examples, 2 epochs, evaluation every 4 steps, "
        "checkpoint every 4 steps, learning rate 0.003",
        f"watch: sft watch '{run.path}'",
        "stop: Ctrl-C saves and stops; the same command resumes",
    ]


def test_quiet_and_json(world):
    run = world / "quiet"
    words = ["--model", world / "llama", "--data", world / "rows.jsonl", "--run", run]
    done = Outcome("train", *map(str, words), "--max-steps", "4", "--quiet", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == json.loads((run / "summary.json").read_text())
    assert "step 1/4" not in done.err and "plan:" not in done.err
    assert "4 steps in" in done.err and "next:" in done.err
