"""The guards in a transformers Trainer: 13 seconds of computing."""

from __future__ import annotations

import copy
import json
import random

import numpy as np
import peft
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, GPT2Config, TrainerCallback

import tiny
from sft.config import load_config, read_config
from sft.errors import CheckpointError, ConfigError
from sft.guards.base import Finding
from sft.integrations.transformers import JOINED, GuardCallback
from sft.integrations.watch import unchanged
from sft.probes.generate import generate
from sft.runs.history import history_of, read_findings, replay
from sft.runs.run_dir import RunDir
from sft.runs.store import read_records
from trained import WORDS, Outcome
from trained_elsewhere import rows, tokenised, trainer

TRAIN, VAL = rows(24), rows(12, start=100)
SIX_EVALS = [0, 1, 2, 3, 4, 5, 6]


def model_with_dropout():
    torch.manual_seed(1)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "vocab_size": 400}
    return AutoModelForCausalLM.from_config(GPT2Config(**sizes))  # dropout of 0.1 everywhere


def same_weights(one, other):
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)


def metrics(run):
    return read_records(RunDir(run).metrics)


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A training that draws random numbers in every step, with the callback."""
    folder = tmp_path_factory.mktemp("watched")
    guards = GuardCallback(folder / "run", train=TRAIN, val=Dataset.from_list(VAL))
    done = trainer(folder, TRAIN, [guards], model=model_with_dropout())
    done.train()
    return folder / "run", done


def test_guards_that_watch_leave_the_training_bit_for_bit_as_it_was(watched, tmp_path):
    alone = trainer(tmp_path, TRAIN, model=model_with_dropout())
    alone.train()
    assert not same_weights(alone.model, model_with_dropout())
    assert same_weights(watched[1].model, alone.model)
    steps = [[log for log in run.state.log_history if "loss" in log] for run in (watched[1], alone)]
    assert steps[0] == steps[1]


def test_the_run_folder_is_one_that_sft_guards_reads(watched):
    run, done = watched
    assert sorted({record["step"] for record in read_records(RunDir(run).scores)}) == SIX_EVALS
    steps = [record for record in metrics(run) if "loss" in record]
    logged = [log for log in done.state.log_history if "loss" in log]
    for name in ("step", "loss", "learning_rate", "epoch", "grad_norm"):
        assert [record[name] for record in steps] == [log[name] for log in logged]
    assert [record["step"] for record in metrics(run) if "val_loss" in record] == SIX_EVALS
    assert json.loads(RunDir(run).preflight.read_text())["rows"]["train"] == len(TRAIN)
    samples = read_records(RunDir(run).samples)
    assert {sample["step"] for sample in samples} == {0, 3, 6}
    outcome = Outcome("guards", str(run), "--json")
    assert outcome.code == 0
    said = [Finding.from_record(json.loads(line)) for line in outcome.out.splitlines()]
    assert said == read_findings(RunDir(run)) == replay(history_of(RunDir(run)))


def test_the_config_says_what_the_trainer_does(watched):
    config = history_of(RunDir(watched[0])).settings
    assert (config.num_steps, config.num_evals) == (6, 6)
    assert config.learning_rate == pytest.approx(3e-3)
    # 24 rows, two at a time, two times a step: one pass is six steps.
    assert json.loads(RunDir(watched[0]).preflight.read_text())["rows"]["visits"] == 24


def test_a_eval_leaves_no_trace_in_the_model():
    model = tiny.model()
    model.train()
    model.model.layers[0].eval()  # a frozen part, as some trainers have it
    model.set_attn_implementation("eager")
    model.generation_config.eos_token_id = 7
    own = model.generation_config
    before = (model.config.to_dict(), copy.deepcopy(own.to_dict()))
    modes = [module.training for module in model.modules()]
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    wanted = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    with unchanged(model):
        generate(model, [[1, 5, 9]], max_new_tokens=3, stop_ids=[2], temperature=1.0)
        model.generation_config.eos_token_id = [1, 2]
        torch.rand(3), np.random.rand(3), random.random()
        assert model.config._attn_implementation == "sdpa"
    assert model.generation_config is own
    assert (model.config.to_dict(), own.to_dict()) == before
    assert model.config._attn_implementation == "eager"
    assert [module.training for module in model.modules()] == modes
    assert (torch.rand(1), np.random.rand(), random.random()) == wanted


def test_rows_may_be_a_path_a_list_or_a_data_set(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in TRAIN))
    losses = []
    for name, given in (("path", path), ("list", TRAIN), ("set", Dataset.from_list(TRAIN))):
        guards = GuardCallback(tmp_path / name, train=given, val=VAL, every=1)
        trainer(tmp_path, TRAIN, [guards], max_steps=1).train()
        losses.append([r["nll"] for r in read_records(RunDir(tmp_path / name).scores)])
        if name != "path":
            kept = RunDir(tmp_path / name).data / "train.jsonl"
            assert [json.loads(line) for line in kept.read_text().splitlines()] == TRAIN
    # Which rows are scored depends on their ids, so only validation, which is whole, is alike.
    assert losses[0][-12:] == losses[1][-12:] == losses[2][-12:]


class Snapshots(TrainerCallback):
    """The weights after every step."""

    def __init__(self):
        self.taken = {}

    def on_step_end(self, args, state, control, model, **_parts):
        self.taken[state.global_step] = copy.deepcopy(model.state_dict())


@pytest.mark.parametrize("action", ["stop", "restore_best"])
def test_an_alarm_ends_the_training(tmp_path, capsys, action):
    rng = random.Random(0)

    def noise(num, start):
        made = rows(num, start=start)
        for row in made:
            row["messages"][1]["content"] = " ".join(rng.choices(WORDS, k=4))
        return made

    train, val = noise(4, 0) * 8, noise(24, 100)
    snapshots = Snapshots()
    guards = GuardCallback(
        tmp_path / "run", train=train, val=val, every=5, action={"overfitting": action}
    )
    run = trainer(
        tmp_path,
        train,
        [snapshots, guards],
        max_steps=100,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        logging_steps=500,  # evaluations do not depend on it
    )
    run.train()
    last = run.state.global_step
    assert last < 100 and last % 5 == 0
    alarms = [f for f in read_findings(RunDir(tmp_path / "run")) if f.verdict == "alarm"]
    assert "overfitting" in {f.guard for f in alarms if f.step == last and f.primary}
    losses = {r["step"]: r["val_loss"] for r in metrics(tmp_path / "run") if r["step"]}
    best = min(losses, key=losses.__getitem__)
    assert best < last
    wanted = snapshots.taken[best if action == "restore_best" else last]
    assert all(torch.equal(value, wanted[name]) for name, value in run.model.state_dict().items())
    assert "overfitting: alarm" in capsys.readouterr().err


def test_a_training_that_is_continued_continues_its_records(tmp_path):
    def run(folder, **options):
        guards = GuardCallback(tmp_path / folder, train=TRAIN, val=VAL)
        made = trainer(tmp_path, TRAIN, [guards], save_strategy="steps", save_steps=4, **options)
        return made

    run("run").train()
    whole = metrics(tmp_path / "run")
    run("run").train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4"))
    again = metrics(tmp_path / "run")
    assert [r["step"] for r in again] == [r["step"] for r in whole]
    assert [r.get("val_loss") for r in again] == [r.get("val_loss") for r in whole]
    assert replay(history_of(RunDir(tmp_path / "run"))) == read_findings(RunDir(tmp_path / "run"))
    cut = read_records(tmp_path / "run" / "metrics.discarded.jsonl")
    assert {record["step"] for record in cut} == {5, 6}
    with pytest.raises(ConfigError, match="no evaluation of the base model"):
        run("new").train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4"))
    # The folder is free again, and is refused for other rows.
    other = GuardCallback(tmp_path / "run", train=TRAIN[:20], val=VAL)
    with pytest.raises(CheckpointError, match="other rows of `train`"):
        trainer(tmp_path, TRAIN, [other]).train()


def test_lora_is_scored_through_its_base_model(tmp_path):
    def lora():
        torch.manual_seed(2)
        config = peft.LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.1)
        return peft.get_peft_model(tiny.model(), config)

    guards = GuardCallback(tmp_path / "run", train=TRAIN, val=VAL, every=2)
    watched = trainer(tmp_path, TRAIN, [guards], model=lora(), max_steps=2)
    watched.train()
    alone = trainer(tmp_path, TRAIN, model=lora(), max_steps=2)
    alone.train()
    assert same_weights(watched.model, alone.model)
    config = load_config(read_config(RunDir(tmp_path / "run").config)["config"])
    assert config.method.kind == "lora"
    losses = [r["val_loss"] for r in metrics(tmp_path / "run") if "val_loss" in r]
    assert losses[0] != losses[1]


def test_what_is_not_measured_is_told(tmp_path, capsys):
    plain = [
        {"prompt": r["messages"][0]["content"], "completion": " " + r["messages"][1]["content"]}
        for r in TRAIN
    ]
    given = tokenised(TRAIN, tiny.tokenizer())
    guards = GuardCallback(tmp_path / "run", train=plain, every=1, chat_template=JOINED)
    run = trainer(tmp_path, TRAIN, [guards], max_steps=1)
    template = run.processing_class.chat_template
    run.eval_dataset = given
    run.train()
    told = capsys.readouterr().err
    assert "without `val`, overfitting cannot be seen" in told
    assert "do not begin like any row of `train`" in told
    assert run.processing_class.chat_template == template
    found = {f.guard: f for f in read_findings(RunDir(tmp_path / "run")) if f.step == 1}
    assert found["distribution_mismatch"].verdict == "not_measured"


def sharded():
    model = tiny.model()
    next(model.parameters()).ds_id = 0  # what ZeRO-3 puts on the parameters it took away
    return model


def prompt_tuned():
    config = peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    return peft.get_peft_model(tiny.model(), config)


@pytest.mark.parametrize(
    ("options", "make_model", "message"),
    [
        ({}, sharded, "the model is sharded"),
        ({}, prompt_tuned, "prompt tuning is neither"),
        ({"train": {"train": TRAIN}}, None, "one split"),
        ({"train": ["rows.jsonl"]}, None, "found text in them"),
        ({"action": "restore_best"}, None, "restore_best: which weights are best"),
        ({"action": {"overfiting": "stop"}}, None, "unknown guard 'overfiting'"),
        ({"settings": {"eval.bugdet": 1}}, None, "eval.bugdet"),
    ],
)
def test_what_cannot_be_watched_is_refused(tmp_path, options, make_model, message):
    guards = GuardCallback(tmp_path / "run", **{"train": TRAIN, **options})
    model = make_model() if make_model else None
    run = trainer(tmp_path, TRAIN, [guards], model=model, max_steps=1)
    with pytest.raises(ConfigError, match=message):
        run.train()
    assert not (tmp_path / "run" / "findings.jsonl").exists()


def test_a_column_that_is_not_json_is_named(tmp_path):
    from sft.errors import DataError
    from sft.integrations.rows import sources

    run = RunDir(tmp_path)
    row = {**TRAIN[0], "image": object()}
    with pytest.raises(DataError, match=r"train, row 2: column 'image' holds a value of type"):
        sources("train", [TRAIN[0], row], run)
    assert list(run.data.iterdir()) == []
