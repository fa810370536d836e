"""Every `auto` gets a value and a reason; what was given stays as it is."""

from __future__ import annotations

import pytest

from sft.config import Config, load_config, with_values
from sft.config.resolve import Resolver, due
from sft.errors import ConfigError

AUTOS = {
    "data.max_seq_len",
    "optim.learning_rate",
    "optim.warmup_steps",
    "eval.every",
    "checkpoint.every",
}


def resolve(values=None, *, limit: int | None = 8192, num_steps: int = 100) -> Resolver:
    resolver = Resolver(load_config({}, values))
    resolver.lengths(limit)
    resolver.method()
    resolver.schedule(num_steps)
    return resolver


def get(config: Config, key: str):
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def autos(config: Config) -> set[str]:
    return {
        f"{section}.{name}"
        for section in Config.model_fields
        for name, value in getattr(config, section)
        if value == "auto"
    }


def test_every_auto_is_filled_with_a_reason():
    """Those left are decided elsewhere: by the loader, the self-check, the data."""
    resolver = resolve()
    decided_elsewhere = {"model.template", "model.dtype", "model.attention"}
    decided_elsewhere |= {"data.val_fraction", "data.tools", "data.workers", "data.cache"}
    decided_elsewhere |= {"trackers.tensorboard"}
    assert autos(Config()) == AUTOS | decided_elsewhere
    assert autos(resolver.config) == decided_elsewhere
    assert set(resolver.reasons) == AUTOS
    assert all(reason.strip() for reason in resolver.reasons.values())


def test_the_values():
    config = resolve().config
    assert {key: get(config, key) for key in AUTOS} == {
        "data.max_seq_len": 2048,
        "optim.learning_rate": 2e-5,
        "optim.warmup_steps": 3,
        "eval.every": 9,
        "checkpoint.every": 9,
    }


def test_given_values_stay_and_have_no_reason():
    given = {
        "data.max_seq_len": 77,
        "optim.learning_rate": 0.5,
        "optim.warmup_steps": 0,
        "eval.every": 5,
        "checkpoint.every": 9,
    }
    resolver = resolve(given)
    assert {key: get(resolver.config, key) for key in given} == given
    assert resolver.reasons == {}


def test_nothing_else_changes():
    given = {"optim.eps": 1e-9, "run.seed": 2**53 + 1, "data.train": ["a.jsonl"]}
    config = resolve(given).config
    for key, value in with_values(load_config({}, given), {k: get(config, k) for k in AUTOS}):
        assert getattr(config, key) == value


@pytest.mark.parametrize(
    ("limit", "length"), [(None, 2048), (512, 512), (2047, 2047), (2048, 2048), (131072, 2048)]
)
def test_length_is_what_the_model_can_read_at_most_2048(limit, length):
    resolver = resolve(limit=limit)
    assert resolver.config.data.max_seq_len == length
    assert ("limit" in resolver.reasons["data.max_seq_len"]) == (length < 2048)


def test_a_length_beyond_the_positions_of_the_model_is_refused():
    assert resolve({"data.max_seq_len": 512}, limit=512).config.data.max_seq_len == 512
    with pytest.raises(ConfigError, match=r"data.max_seq_len: 513 is more than the 512 positions"):
        resolve({"data.max_seq_len": 513}, limit=512)


def test_lora_takes_ten_times_the_rate():
    values = {"method.kind": "lora"}
    assert resolve(values).config.optim.learning_rate == 2e-4
    assert "LoRA" in resolve(values).reasons["optim.learning_rate"]
    frozen = {"method.kind": "frozen", "method.trainable": ["norm"]}
    assert resolve(frozen).config.optim.learning_rate == 2e-5


@pytest.mark.parametrize(
    ("num_steps", "warmup", "every"),
    [(1, 0, 1), (2, 1, 1), (12, 1, 1), (13, 1, 2), (33, 1, 3), (34, 2, 3), (1000, 30, 84)],
)
def test_warmup_and_evals_follow_the_length_of_the_run(num_steps, warmup, every):
    config = resolve(num_steps=num_steps).config
    assert (config.optim.warmup_steps, config.eval.every) == (warmup, every)
    assert config.optim.warmup_steps < num_steps  # the peak rate is used at least once
    evals = sum(due(step, every, num_steps) for step in range(1, num_steps + 1))
    assert min(num_steps, 6) <= evals <= 12


@pytest.mark.parametrize(
    ("eval_cost", "evals"),
    [(0.0, 12), (0.001, 12), (0.0076, 12), (0.008, 11), (0.01, 9), (0.013, 6), (0.9, 6)],
)
def test_dear_evals_are_fewer_but_at_least_six(eval_cost, evals):
    resolver = Resolver(load_config({}))
    resolver.schedule(3960, eval_cost)  # which all of 6, 9, 11 and 12 divide
    assert resolver.config.eval.every == 3960 / evals
    assert f"about {evals} evaluations in 3960 steps" in resolver.reasons["eval.every"]


@pytest.mark.parametrize(("budget", "evals"), [(0.05, 6), (0.1, 9), (0.11, 10), (1.0, 12)])
def test_evals_fit_into_their_budget_with_the_one_before_training(budget, evals):
    resolver = Resolver(load_config({"eval": {"budget": budget}}))
    resolver.schedule(3960, 0.01)
    assert resolver.config.eval.every == 3960 / evals
    assert (evals + 1) * 0.01 <= budget + 1e-9 or evals == 6


def test_a_checkpoint_at_each_eval_that_was_asked_for():
    assert resolve({"eval.every": 4}).config.checkpoint.every == 4


@pytest.mark.parametrize(
    ("step", "expected"), [(0, True), (1, False), (9, False), (10, True), (11, False), (25, True)]
)
def test_due_at_zero_at_every_and_at_the_end(step, expected):
    assert due(step, 10, 25) is expected


def test_due_at_every_step():
    assert all(due(step, 1, 5) for step in range(6))


def test_due_once_where_the_end_falls_on_a_multiple():
    assert [step for step in range(21) if due(step, 10, 20)] == [0, 10, 20]
    assert [step for step in range(6) if due(step, 10, 5)] == [0, 5]
