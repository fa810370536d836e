"""What a run records, learns and repeats: a tiny Llama on sixty rows."""

import math

import pytest
from transformers import AutoTokenizer

from sft.runs.metrics import METRICS, deterministic
from sft.runs.store import read_records
from trained import (
    NUM_ROWS,
    NUM_VAL,
    PER_STEP,
    Trained,
    encode,
    loss_of,
    make_world,
    overfit_run,
    write_rows,
)

SIX = {"loss", "accuracy", "perplexity", "learning_rate", "epoch", "train_flos"}
STEP_KEYS = {"step", *SIX, "grad_norm", "num_tokens", "num_trained_tokens"}
CLOCKS = {"tokens_per_second", "seconds"}
EVAL_KEYS = {"step", "epoch", "val_loss", "val_accuracy", "val_perplexity", "eval_seconds"}
EVAL_KEYS |= {"train_probe_loss", "retain_loss", "retain_kl"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def plain(world):
    return Trained(world, "plain")


@pytest.fixture(scope="module")
def overfit(world):
    return overfit_run(world)


def test_every_training_record_has_the_metrics_under_their_names(plain):
    assert [record["step"] for record in plain.steps] == list(range(1, 13))
    assert METRICS.keys() > SIX
    for record in plain.steps:
        assert record.keys() == STEP_KEYS | CLOCKS
        assert record.keys() <= METRICS.keys()
        assert all(math.isfinite(value) for value in record.values())
        assert 0 <= record["accuracy"] <= 1 and record["grad_norm"] > 0
        assert record["tokens_per_second"] > 0
        assert record["perplexity"] == math.exp(record["loss"])


def test_evals_have_the_validation_metrics(plain):
    assert [record["step"] for record in plain.evals] == [0, 4, 8, 12]
    for record in plain.evals:
        assert record.keys() == EVAL_KEYS
        assert record["val_perplexity"] == math.exp(record["val_loss"])
        assert 0 <= record["val_accuracy"] <= 1


def test_it_learns(plain):
    assert plain.steps[-1]["loss"] < 0.6 * plain.steps[0]["loss"]
    assert plain.evals[-1]["val_loss"] < 0.6 * plain.evals[0]["val_loss"]
    assert plain.steps[-1]["accuracy"] > plain.steps[0]["accuracy"] + 0.2


def test_the_first_loss_is_that_of_the_base_model(plain, world):
    """Step 0 is scored on rows that are known, so it can be recomputed from the base folder."""
    expected = loss_of(world / "llama", plain.rows("val"))
    assert plain.evals[0]["val_loss"] == pytest.approx(expected, abs=1e-5)


def test_epoch_rate_and_tokens_are_what_they_say(plain):
    num_train = NUM_ROWS - NUM_VAL
    tokenizer = AutoTokenizer.from_pretrained(plain.path / "model")
    sizes = [encode(tokenizer, messages) for messages in plain.rows("used")]
    for record in plain.steps:
        assert record["epoch"] == record["step"] * PER_STEP / num_train
    last = plain.steps[-1]
    assert last["epoch"] == 2.0  # so each row was seen twice
    assert last["num_tokens"] == 2 * sum(len(ids) for ids, _, _ in sizes)
    assert last["num_trained_tokens"] == 2 * sum(end - start for _, start, end in sizes)
    for name in ("num_tokens", "num_trained_tokens", "train_flos", "seconds"):
        values = [0, *(record[name] for record in plain.steps)]
        assert values == sorted(set(values)), name
    # One step of warm-up (3 % of 12), then a cosine over the other eleven.
    rates = [3e-3 * 0.5 * (1 + math.cos(math.pi * k / 11)) for k in range(11)]
    assert [r["learning_rate"] for r in plain.steps] == pytest.approx([3e-3, *rates], rel=1e-12)


def test_train_flos_by_hand(plain):
    tokenizer = AutoTokenizer.from_pretrained(plain.path / "model")
    lengths = 2 * [len(encode(tokenizer, messages)[0]) for messages in plain.rows("used")]
    layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48
    matmul = 2 * layer + 32 * 400
    attended = sum(n * (n + 1) // 2 for n in lengths)
    expected = 6 * matmul * sum(lengths) + 12 * 2 * 32 * attended
    assert plain.steps[-1]["train_flos"] == expected


def test_the_account_adds_up(plain):
    counts = plain.account["counts"]
    assert counts == {
        "used": NUM_ROWS - NUM_VAL,
        "val": NUM_VAL,
        "changed": 0,
        "truncated": 0,
        "dropped": 0,
        "bad": 0,
    }
    assert plain.account["num_rows"] == sum(counts.values()) == NUM_ROWS
    statuses = [row["status"] for row in plain.account["rows"]]
    assert {name: statuses.count(name) for name in counts} == counts
    assert len({row["row"] for row in plain.account["rows"]}) == NUM_ROWS


def test_the_account_names_every_long_row(world):
    run = Trained(world, "long", data__max_seq_len=26, optim__max_steps=1, data__val_fraction=0.2)
    counts, rows = run.account["counts"], run.account["rows"]
    assert counts["dropped"] > 3
    assert sum(counts.values()) == run.account["num_rows"] == NUM_ROWS == len(rows)
    reasons = [row["reason"] for row in rows if row["status"] == "dropped"]
    assert len(reasons) == counts["dropped"]
    assert all(reason.endswith("tokens, max_seq_len is 26") for reason in reasons)
    assert f"{counts['dropped']} over-long rows were dropped" in run.shown


def test_early_stopping_ends_a_run_that_overfits(overfit):
    assert overfit.summary.steps == overfit.steps[-1]["step"] < 400
    assert overfit.summary.stopped.startswith("val_loss rose")
    assert overfit.summary.stopped in overfit.shown
    best = min(overfit.evals[1:], key=lambda evaluation: evaluation["val_loss"])
    assert overfit.summary.best_step == best["step"] < overfit.summary.steps
    assert overfit.summary.best == best
    assert overfit.steps[-1]["loss"] < 0.2 < best["val_loss"]
    # Eight evaluations without a better one: the run ends at the eighth, not later.
    assert overfit.summary.steps == best["step"] + 8 * 10


def test_early_stopping_can_be_switched_off(world):
    values = {"optim__max_steps": 8, "eval__every": 1, "eval__patience": 1, "eval__margin": 100}
    stopped = Trained(world, "on", **values)
    assert stopped.summary.steps == 1
    assert stopped.summary.stopped.startswith("val_loss is on a plateau")
    assert Trained(world, "off", **values, eval__early_stopping="off").summary.steps == 8


def test_checkpoints_kept_are_the_newest_and_the_best(overfit):
    kept = sorted(path.name for path in (overfit.path / "checkpoints").iterdir())
    last = overfit.summary.steps
    wanted = {overfit.summary.best_step, last - 10, last}
    assert kept == [f"step-{step:06d}" for step in sorted(wanted)]


def test_the_same_seed_gives_the_same_bits(world, plain):
    again = Trained(world, "again")
    assert again.digest == plain.digest
    assert [deterministic(r) for r in again.records] == [deterministic(r) for r in plain.records]
    assert (again.path / "scores.jsonl").read_bytes() == (plain.path / "scores.jsonl").read_bytes()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_another_seed_gives_other_weights(world, method):
    runs = [
        Trained(world, f"{method}-{name}", method__kind=method, run__seed=seed, optim__max_steps=2)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    digests = [run.digest for run in runs]
    assert digests[0] == digests[1] != digests[2]
    assert runs[0].account["rows"] != runs[2].account["rows"]  # another split


def test_several_sources_with_weights(world):
    twice = write_rows(world / "twice.jsonl", 20, lambda q, _: "yes", seed=2)
    half = write_rows(world / "half.jsonl", 32, lambda q, _: "no", seed=3)
    sources = [{"path": str(twice), "weight": 2}, {"path": str(half), "weight": 0.5}]
    run = Trained(world, "weights", data__train=sources, data__val_fraction=0, optim__max_steps=7)
    # An epoch is 2 * 20 + 0.5 * 32 = 56 examples, which is seven steps of eight.
    assert [record["epoch"] for record in run.steps] == [step / 7 for step in range(1, 8)]
    assert run.account["counts"]["used"] == 52
    assert set(run.account["files"]) == {str(twice), str(half)}
    shares = [(s["source"], s["examples"], s["epochs"]) for s in run.account["sources"]]
    assert shares == [("twice.jsonl", 20, 2.0), ("half.jsonl", 32, 0.5)]
    for record in run.steps:  # a step's loss lies between those of its sources
        parts = record["loss_by_source"]
        assert min(parts.values()) <= record["loss"] * 1.00001 and set(parts) <= {
            s[0] for s in shares
        }
        assert max(parts.values()) >= record["loss"] * 0.99999
    # `yes` and `no` are other lengths, so the tokens tell how often each source was seen.
    tokenizer = AutoTokenizer.from_pretrained(run.path / "model")
    trained = [len(tokenizer(word + "<|im_end|>").input_ids) for word in ("yes", "no")]
    assert trained[0] != trained[1]
    assert run.steps[-1]["num_trained_tokens"] == 40 * trained[0] + 16 * trained[1]


def test_validation_is_told_by_source_where_there_are_several(world, plain):
    other = write_rows(world / "other.jsonl", 30, lambda q, _: "no", seed=4)
    sources = [str(world / "rows.jsonl"), str(other)]
    run = Trained(world, "bysource", data__train=sources, optim__max_steps=1)
    for evaluation in run.evals:
        scores = [r for r in read_records(run.path / "scores.jsonl") if r["probe"] == "val"]
        scores = [r for r in scores if r["step"] == evaluation["step"]]
        for name, loss in evaluation["val_loss_by_source"].items():
            mine = [r for r in scores if f"/{name}:" in r["id"]]
            assert loss == pytest.approx(
                sum(r["nll"] for r in mine) / sum(r["tokens"] for r in mine)
            )
    assert set(run.evals[-1]["val_loss_by_source"]) == {"rows.jsonl", "other.jsonl"}
    assert "val_loss, other.jsonl" in run.shown
    assert not any("by_source" in name for record in plain.records for name in record)
    assert "sources" not in plain.account


def test_validation_rows_of_ones_own(world):
    val = write_rows(world / "val.jsonl", 10, lambda q, _: "It is one.", seed=9)
    run = Trained(world, "ownval", data__val=[str(val)], optim__max_steps=1)
    assert run.account["counts"] == {
        "used": NUM_ROWS,
        "val": 10,
        "changed": 0,
        "truncated": 0,
        "dropped": 0,
        "bad": 0,
    }


def two_steps(world, name, **overrides):
    return Trained(world, name, optim__max_steps=2, eval__every=2, **overrides)


@pytest.fixture(scope="module")
def short(world):
    return two_steps(world, "short")


def test_neftune_adds_noise_in_training_only(world, short):
    noisy = two_steps(world, "neftune", optim__neftune_alpha=5.0)
    assert noisy.evals[0]["val_loss"] == short.evals[0]["val_loss"]
    assert noisy.steps[0]["loss"] != short.steps[0]["loss"]
    assert noisy.steps[0]["loss"] == pytest.approx(short.steps[0]["loss"], rel=0.2)
    assert noisy.digest != short.digest
    assert two_steps(world, "neftune2", optim__neftune_alpha=5.0).digest == noisy.digest


def test_dft_changes_the_gradient_and_not_what_is_reported(world, short):
    dft = two_steps(world, "dft", optim__loss="dft")
    assert deterministic(dft.evals[0]) == deterministic(short.evals[0])
    assert dft.steps[0]["loss"] == short.steps[0]["loss"]  # the nll, whatever is minimised
    # Weighted by the probability of the token, which is small at the start.
    assert dft.steps[0]["grad_norm"] < 0.2 * short.steps[0]["grad_norm"]
    assert dft.steps[1]["loss"] != short.steps[1]["loss"]


def test_prompt_weight_trains_on_prompts_and_measures_answers(world, short):
    both = two_steps(world, "prompt", data__prompt_weight=0.5)
    assert deterministic(both.evals[0]) == deterministic(short.evals[0])
    first, plain = both.steps[0], short.steps[0]
    assert plain["num_trained_tokens"] < first["num_trained_tokens"]
    # All tokens but the first of each row are predicted.
    assert first["num_trained_tokens"] == first["num_tokens"] - PER_STEP
    assert first["loss"] != plain["loss"]


@pytest.mark.parametrize(
    "overrides",
    [
        {"optim__name": "sgd", "optim__learning_rate": 0.05},
        {"optim__schedule": "wsd", "optim__weight_decay": 0.1, "optim__max_grad_norm": 0},
        {"batch__micro_batch_tokens": 64, "model__attention": "padded"},
        {"method__activation_checkpointing": True},
        {"data__overflow": "truncate", "data__max_seq_len": 26},
        {"method__kind": "lora", "method__dora": True, "method__lora_dropout": 0.1},
    ],
    ids=lambda overrides: "+".join(overrides),
)
def test_other_settings_train_too(world, overrides):
    name = "other-" + "-".join(overrides)
    run = Trained(world, name, **{"optim__max_steps": 4, **overrides})
    assert run.steps[-1]["loss"] < run.steps[0]["loss"]
    assert run.summary.verified.startswith("equal")
