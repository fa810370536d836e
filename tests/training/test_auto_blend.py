"""`guards.blend: auto`: the base model mixed back in by itself, and left alone where not due."""

import json

import pytest
from safetensors.torch import load_file

from sft.runs.run_dir import RunDir
from trained import Trained, make_world

# A rate at which everything else is forgotten, seen by three evaluations.
FORGETS = {
    "optim__learning_rate": 2e-2,
    "optim__schedule": "constant",
    "optim__max_steps": 12,
    "eval__every": 4,
    "eval__samples": 0,
    "eval__early_stopping": "off",
    "guards__overfitting": "warn",
    "guards__alpha": 0.5,  # 10 texts are few
    "checkpoint__keep": 9,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def kept(world):
    return Trained(world, "kept", **FORGETS)


@pytest.fixture(scope="module")
def blended(world):
    return Trained(world, "blended", guards__blend="auto", **FORGETS)


def weights(run):
    return load_file(run.path / "model" / "model.safetensors")


def last_verdict(run):
    return {f["guard"]: f["verdict"] for f in run.summary.guards}["forgetting"]


def test_it_blends_after_an_alarm(kept, blended):
    assert last_verdict(kept) == last_verdict(blended) == "alarm"
    found = json.loads(RunDir(blended.path).blend.read_text())
    assert 0 < found["alpha"] < 1 and found["budget"] == 0.05
    (chosen,) = [p for p in found["points"] if p["alpha"] == found["alpha"]]
    assert chosen["retain"]["mean"] <= 0.05 and chosen["task"]["mean"] < 0
    assert blended.summary.best["blend_alpha"] == found["alpha"]
    rise = blended.summary.best["retain_loss"] - blended.summary.base["retain_loss"]
    assert rise <= 0.06  # by token, where the budget is by text
    assert blended.summary.verified.startswith("equal")


def test_without_it_nothing_is_blended(kept):
    assert not RunDir(kept.path).blend.exists()
    assert "blend_alpha" not in kept.summary.best


def test_the_model_is_the_blend(world, blended):
    found = json.loads(RunDir(blended.path).blend.read_text())
    folder = blended.path / "checkpoints" / f"step-{found['step']:06d}"
    tuned = load_file(folder / "model.safetensors")
    base = load_file(world / "llama" / "model.safetensors")
    for name, value in weights(blended).items():
        wanted = base[name].lerp(tuned[name], found["alpha"])
        assert value.allclose(wanted, atol=1e-6), name


def test_no_alarm_no_blend(world):
    run = Trained(world, "calm", guards__blend="auto", **{**FORGETS, "optim__learning_rate": 1e-6})
    assert last_verdict(run) != "alarm"
    assert not RunDir(run.path).blend.exists()
