"""What a finished run leaves behind, and what running it again does."""

import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from sft import load_config
from sft.errors import CheckpointError
from sft.training.finish import run_folder
from trained import OVERFIT, Trained, contents, loss_of, make_world, overfit_run, write_rows


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def plain(world):
    return Trained(world, "plain")


@pytest.fixture(scope="module")
def overfit(world):
    return overfit_run(world)


def test_the_model_loads_in_plain_transformers_and_knows_its_stop_token(plain):
    model = AutoModelForCausalLM.from_pretrained(plain.path / "model")
    tokenizer = AutoTokenizer.from_pretrained(plain.path / "model")
    assert tokenizer.chat_template == tiny.CHATML
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert stop in model.generation_config.eos_token_id
    assert tokenizer.eos_token_id in model.generation_config.eos_token_id
    assert model.generation_config.pad_token_id is not None
    assert model.dtype == torch.float32


def test_a_model_that_learned_its_rows_answers_and_stops(overfit):
    model = AutoModelForCausalLM.from_pretrained(overfit.path / "checked")
    tokenizer = AutoTokenizer.from_pretrained(overfit.path / "checked")
    for messages in overfit.rows("used")[:4]:
        inputs = tokenizer.apply_chat_template(
            messages[:-1], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        before = inputs["input_ids"].shape[1]
        made = model.generate(**inputs, max_new_tokens=40, do_sample=False)[0, before:]
        assert tokenizer.decode(made) == messages[-1]["content"] + "<|im_end|>"


def test_the_model_folder_holds_the_best_weights(overfit):
    val = overfit.rows("val")
    assert loss_of(overfit.path / "model", val) == pytest.approx(
        overfit.summary.best["val_loss"], abs=1e-5
    )
    assert loss_of(overfit.path / "checked", val) > overfit.summary.best["val_loss"] + 0.5
    best = overfit.path / "checkpoints" / f"step-{overfit.summary.best_step:06d}"
    saved, exported = load_file(best / "model.safetensors"), overfit.weights
    assert all(torch.equal(saved[name], exported[name]) for name in saved)
    assert overfit.summary.verified.startswith("equal")


def test_lora_writes_an_adapter_and_a_merged_model(world):
    run = Trained(world, "lora", method__kind="lora", method__lora_rank=4, optim__max_steps=8)
    base = AutoModelForCausalLM.from_pretrained(world / "llama")
    original = {name: value.clone() for name, value in base.state_dict().items()}
    tuned = PeftModel.from_pretrained(base, run.path / "adapter").eval()
    merged = AutoModelForCausalLM.from_pretrained(run.path / "model").eval()
    ids = torch.arange(20, 60)[None]
    with torch.no_grad():
        both = [model(ids).logits for model in (tuned, merged)]
        before = AutoModelForCausalLM.from_pretrained(world / "llama")(ids).logits
    assert torch.allclose(*both, atol=1e-4)
    assert (both[0] - before).abs().max() > 0.01
    saved = load_file(max((run.path / "checkpoints").iterdir()) / "model.safetensors")
    assert saved and all("lora_" in name for name in saved)
    assert (
        run.steps[-1]["train_flos"]
        < Trained(world, "full8", optim__max_steps=8).steps[-1]["train_flos"]
    )
    changed = [n for n, value in run.weights.items() if not torch.equal(value, original[n])]
    assert changed and all("_proj" in name for name in changed)
    assert run.evals[-1]["val_loss"] < run.evals[0]["val_loss"]


def test_frozen_changes_only_what_was_named(world):
    run = Trained(
        world, "frozen", method__kind="frozen", method__trainable=[r"layers\.1\.mlp", "norm"]
    )
    base = load_file(world / "llama" / "model.safetensors")
    changed = {name for name, value in run.weights.items() if not torch.equal(value, base[name])}
    assert changed == {name for name in base if "layers.1.mlp" in name or "norm" in name}
    assert run.steps[-1]["loss"] < run.steps[0]["loss"]


def test_a_finished_run_is_reported_and_not_touched(plain, world):
    before = contents(plain.path)
    again = Trained(world, "plain")
    assert contents(plain.path) == before
    assert again.summary == plain.summary
    assert "this run is finished; nothing to do" in again.shown
    assert f"model: {plain.path / 'model'}" in again.shown


@pytest.mark.parametrize(
    ("values", "folder"),
    [
        ({"run.dir": "~/x"}, "/home/me/x"),
        ({"data.train": ["a/rows.v2.jsonl"]}, "runs/starter-rows.v2"),
        ({"data.train": ["org/set"], "model.name": "org/a model"}, "runs/a-model-set"),
        ({"data.train": ["../.."], "model.name": ".."}, "runs/run"),
    ],
)
def test_where_a_run_lives(values, folder, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert str(run_folder(load_config({}, values))) == folder


def test_a_finished_run_may_be_moved(plain, world):
    shutil.copytree(plain.path, world / "elsewhere")
    moved = Trained(world, "elsewhere")
    assert "nothing to do" in moved.shown
    assert moved.summary.model_dir == str(world / "elsewhere" / "model")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"optim__learning_rate": 1e-3}, "optim.learning_rate: was 0.003, now 0.001"),
        ({"optim__learning_rate": "auto"}, "optim.learning_rate: was 0.003, now 'auto'"),
        ({"optim__max_steps": 13}, "optim.max_steps: was 12, now 13"),
        ({"eval__every": 3}, "eval.every: was 4, now 3"),
        ({"method__kind": "lora"}, "method.kind: was 'full', now 'lora'"),
    ],
)
def test_a_finished_run_of_something_else_is_refused(plain, world, changes, line):
    before = contents(plain.path)
    with pytest.raises(CheckpointError) as caught:
        Trained(world, "plain", **changes)
    assert line in str(caught.value)
    assert contents(plain.path) == before


def test_a_finished_run_whose_data_changed_is_refused(world):
    path = write_rows(world / "mine.jsonl", 20, lambda q, _: q)
    Trained(world, "mine", data__train=[str(path)], optim__max_steps=1)
    with path.open("a") as file:
        file.write(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(CheckpointError, match=r"mine\.jsonl: was '[0-9a-f]{36}"):
        Trained(world, "mine", data__train=[str(path)], optim__max_steps=1)
    path.unlink()  # data that is gone changed nothing
    assert (
        "nothing to do" in Trained(world, "mine", data__train=[str(path)], optim__max_steps=1).shown
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.yaml", None),
        ("config.yaml", ""),
        ("config.yaml", "config: 3"),
        ("config.yaml", "{"),
        ("summary.json", "{}"),
        ("summary.json", "{"),
    ],
)
def test_a_damaged_run_folder_is_told_apart_from_a_bug(world, plain, name, text):
    folder = world / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(plain.path, folder)
    (folder / name).unlink() if text is None else (folder / name).write_text(text)
    with pytest.raises(CheckpointError, match=name):
        Trained(world, "damaged")


def test_a_best_checkpoint_that_is_gone_is_told(world, overfit):
    shutil.copytree(overfit.path, world / "gone")
    (world / "gone" / "summary.json").unlink()
    best = overfit.summary.best_step
    shutil.rmtree(world / "gone" / "checkpoints" / f"step-{best:06d}")
    with pytest.raises(CheckpointError, match=f"step {best}, the best one, is gone"):
        Trained(world, "gone", data__train=[str(world / "noise.jsonl")], **OVERFIT)


def test_without_validation_it_says_so(world):
    run = Trained(world, "noval", data__val_fraction=0, optim__max_steps=2)
    assert all(
        "val_loss" not in evaluation
        for evaluation in (*run.evals, run.summary.base, run.summary.best)
    )
    assert run.summary.best_step == 2
    assert run.summary.verified.startswith("not verified")
    assert "validation: not measured" in run.shown
