"""`sft blend`: the right alpha, a model anyone can load, and nothing half written."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from sft.config import load_config
from sft.data.dataset import load_data
from sft.data.held_out import load_held_out
from sft.data.packing import pack
from sft.data.template.chat_template import ChatTemplate
from sft.data.tokenize import fingerprint
from sft.errors import ConfigError, DataError
from sft.model import load
from sft.model.forward import Forward
from sft.probes.retention import sampled, save_texts
from sft.probes.val_loss import score_examples
from sft.remedies.blend_run import blend
from sft.runs.run_dir import RunDir

WORDS = ["fox", "dog", "Paris", "France", "quick", "brown", "lazy", "one", "two", "three"]


def write_rows(path, num, start=0):
    rows = []
    for index in range(start, start + num):
        question = f"{WORDS[index % 10]} {WORDS[index // 10 % 10]} {index}?"
        pair = [("user", question), ("assistant", f"It is {WORDS[index % 10]}.")]
        rows.append({"messages": [{"role": role, "content": text} for role, text in pair]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def make_run(root, *, rate=0.01, steps=15, dtype=torch.float32, **data):
    """A run folder as training leaves it: a model taught too fast, and the probes of its base."""
    base = tiny.model()
    base.to(dtype).save_pretrained(root / "base")
    tokenizer = tiny.tokenizer()
    tokenizer.save_pretrained(root / "base")
    sections = {
        "model": {"name": str(root / "base"), "dtype": "float32", "attention": "flat"},
        "data": {
            "train": [write_rows(root / "rows.jsonl", 48)],
            "max_seq_len": 128,
            "val_fraction": 0.25,
            **data,
        },
    }
    config = load_config(sections)
    template = ChatTemplate(tokenizer)
    found = load_data(config.data, template, config.run.seed)
    held_out = load_held_out(config.data, template)
    base.float()
    identity = {
        "config": config.model_dump(mode="json"),
        "fingerprint": {
            "val": fingerprint(found.val),
            "usage": fingerprint(held_out.usage),
            "model": load.fingerprint(base),
        },
    }
    run = RunDir(root / "run")
    run.probes.mkdir(parents=True)
    run.config.write_text(yaml.safe_dump(identity), encoding="utf-8")
    save_texts(run.retain, sampled(base, template, tokenizer, 12, seed=1, name="self"))
    forward, batch = Forward(base), pack(found.train)
    optimizer = torch.optim.AdamW(base.parameters(), rate, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        (forward.loss(batch).objective / batch.weights.sum()).backward()
        optimizer.step()
    base.set_attn_implementation("sdpa")
    base.to(dtype).save_pretrained(run.model)
    tokenizer.save_pretrained(run.model)
    return run


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("blend")
    test = [write_rows(root / "test.jsonl", 16, start=60)]
    return make_run(root, test=test)


@pytest.fixture(scope="module")
def found(world):
    return blend(world.path, budget=0.2)


def losses(folder, examples):
    """Of each example, with plain transformers in the padded layout."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    scores = score_examples(Forward(model, layout="padded"), examples, 1)
    return {score.id: score.nll / score.tokens for score in scores}


def probes_of(run):
    config = load_config(yaml.safe_load(run.config.read_text())["config"])
    template = ChatTemplate(AutoTokenizer.from_pretrained(run.model))
    held_out = load_held_out(config.data, template)
    return load_data(config.data, template, config.run.seed).val, held_out


def mean_change(run, folder, examples):
    before, after = losses(run.path.parent / "base", examples), losses(folder, examples)
    return sum(after[name] - before[name] for name in before) / len(before)


def test_a_blend_keeps_the_budget_and_most_of_the_gain(world, found):
    tuned = found.points[-1]
    (chosen,) = [point for point in found.points if point.alpha == found.alpha]
    alphas = [point.alpha for point in found.points]
    assert {0.0, 0.1, 0.25, 0.5, 0.75, 1.0} < set(alphas) and len(alphas) == 8  # two closed in
    assert tuned.retain.mean > 0.2 >= chosen.retain.mean and 0 < found.alpha < 1
    assert chosen.task.mean < -0.1
    assert min(p.task.mean for p in found.points if p.retain.mean <= 0.2) == chosen.task.mean


def test_the_saved_model_is_the_blend_it_says(world, found):
    base = load_file(world.path.parent / "base" / "model.safetensors")
    tuned = load_file(world.model / "model.safetensors")
    saved = load_file(world.blended / "model.safetensors")
    assert saved.keys() == tuned.keys()
    for name, weight in saved.items():
        wanted = (1 - found.alpha) * base[name] + found.alpha * tuned[name]
        torch.testing.assert_close(weight, wanted, rtol=1e-5, atol=1e-6)
    assert found.verified.startswith("equal: ")
    tokenizer = AutoTokenizer.from_pretrained(world.blended)
    assert tokenizer.chat_template == tiny.CHATML
    (chosen,) = [point for point in found.points if point.alpha == found.alpha]
    val, _ = probes_of(world)
    assert mean_change(world, world.blended, val) == pytest.approx(chosen.task.mean, abs=1e-4)


def test_the_choice_is_measured_again_on_rows_that_had_no_part_in_it(world, found):
    assert [point.alpha for point in found.test] == [found.alpha, 1.0]
    _, held_out = probes_of(world)
    chosen, tuned = found.test
    assert chosen.task.n == 16 and chosen.retain.n == 12
    wanted = mean_change(world, world.blended, held_out.test)
    assert chosen.task.mean == pytest.approx(wanted, abs=1e-4)
    assert tuned.task.mean == pytest.approx(
        mean_change(world, world.model, held_out.test), abs=1e-4
    )
    assert chosen.retain.mean != found.points[0].retain.mean
    assert chosen.retain.mean < tuned.retain.mean


def test_the_run_folder_tells_what_was_found(world, found):
    told = json.loads(world.blend.read_text())
    assert told["alpha"] == found.alpha and told["budget"] == 0.2
    assert told["points"][1]["task"]["mean"] == found.points[1].task.mean
    assert told["verified"] == found.verified and told["model_dir"] == str(world.blended)
    card = (world.blended / "README.md").read_text()
    assert f"alpha = {found.alpha:g}" in card and "| task, test rows | -" in card
    assert f"base_model: {world.path.parent / 'base'}" in card


def test_a_blend_can_go_elsewhere_and_replaces_only_its_own(world, found, tmp_path):
    elsewhere = tmp_path / "deep" / "model"
    other = blend(world.path, budget=0.2, to=elsewhere, alphas=(found.alpha,))
    assert (other.alpha, other.model_dir) == (found.alpha, str(elsewhere))
    same = load_file(elsewhere / "model.safetensors")
    for name, weight in load_file(world.blended / "model.safetensors").items():
        assert torch.equal(weight, same[name])
    with pytest.raises(ConfigError, match=r"--to: .* exists; nothing was changed"):
        blend(world.path, to=elsewhere)
    before = (world.blended / "model.safetensors").stat().st_mtime_ns
    blend(world.path, budget=0.2, alphas=(found.alpha,))
    assert (world.blended / "model.safetensors").stat().st_mtime_ns > before
    assert not list(world.path.glob(".tmp-*"))


def test_with_no_budget_at_all_the_base_model_is_saved(tmp_path):
    run = make_run(tmp_path, steps=6, rate=0.02, dtype=torch.bfloat16)
    found = blend(run.path, budget=0.0, alphas=(0.75, 1.0))
    assert found.alpha == 0.0 and found.test == []
    saved = load_file(run.blended / "model.safetensors")
    for name, weight in load_file(tmp_path / "base" / "model.safetensors").items():
        assert weight.dtype == torch.bfloat16 and torch.equal(weight, saved[name])


def test_usage_with_answers_is_the_task_where_there_is_some(tmp_path):
    usage = [write_rows(tmp_path / "usage.jsonl", 10, start=70)]
    run = make_run(tmp_path, steps=4, usage=usage)
    found = blend(run.path, alphas=(1.0,))
    tuned = found.points[-1]
    assert tuned.alpha == 1 and tuned.task.n == 10 and found.budget == 0.05
    _, held_out = probes_of(run)
    wanted = mean_change(run, run.model, held_out.usage)
    assert tuned.task.mean == pytest.approx(wanted, abs=1e-4)


def test_what_cannot_be_blended_is_refused_with_a_reason(tmp_path):
    run = make_run(tmp_path, steps=1)
    asked = partial(blend, run.path)
    with pytest.raises(ConfigError, match="--budget: must be at least 0"):
        asked(budget=-0.1)
    with pytest.raises(ConfigError, match=r"numbers from 0 to 1, found \[1\.5\]"):
        asked(alphas=(0.5, 1.5))
    rows = (tmp_path / "rows.jsonl").read_text()
    (tmp_path / "rows.jsonl").write_text(rows.replace("It is", "It was"))
    with pytest.raises(DataError, match=r"the val rows are not those .*rows\.jsonl"):
        asked()
    (tmp_path / "rows.jsonl").write_text(rows)
    tiny.model(seed=5).save_pretrained(tmp_path / "base")
    with pytest.raises(ConfigError, match=r"no longer the model that .* was trained from"):
        asked()
    run.retain.unlink()
    with pytest.raises(ConfigError, match=r"no retain probe.*guards\.enabled=true"):
        asked()
    assert not run.blended.exists() and not run.blend.exists()
