from __future__ import annotations

import math
import subprocess
import sys

import pytest

from sft.runs.metrics import METRICS, deterministic, panels, perplexity, with_derived


def test_the_table_is_keyed_by_name_and_complete() -> None:
    assert list(METRICS) == [
        "step",
        "loss",
        "loss_by_source",
        "accuracy",
        "perplexity",
        "learning_rate",
        "epoch",
        "train_flos",
        "grad_norm",
        "num_tokens",
        "num_trained_tokens",
        "tokens_per_second",
        "val_loss",
        "val_accuracy",
        "val_perplexity",
        "val_loss_by_source",
        "seconds",
        *[f"usage_{name}" for name in ("loss", "accuracy", "perplexity")],
        *[f"test_{name}" for name in ("loss", "accuracy", "perplexity")],
        "train_probe_loss",
        "usage_drift_loss",
        "retain_loss",
        "retain_kl",
        "eval_seconds",
    ]
    for name, metric in METRICS.items():
        assert metric.name == name and metric.unit and metric.meaning.endswith(".")
    assert {name for name, metric in METRICS.items() if metric.wall_clock} == {
        "tokens_per_second",
        "seconds",
        "eval_seconds",
    }


@pytest.mark.parametrize("loss", [0.0, 0.5, 2.0, 700.0])
def test_perplexity_is_exp(loss: float) -> None:
    assert perplexity(loss) == math.exp(loss)


def test_perplexity_never_raises() -> None:
    assert perplexity(1e6) == math.inf
    assert perplexity(math.inf) == math.inf
    assert math.isnan(perplexity(math.nan))


def test_deterministic_drops_the_clock_and_nothing_else() -> None:
    record = {"step": 3, "loss": None, "loss_nonfinite": "nan", "note": "kept"}
    clock = {"seconds": 1.5, "tokens_per_second": None, "tokens_per_second_nonfinite": "inf"}
    assert deterministic({**record, **clock}) == record


def test_records_and_run_dir_load_no_torch() -> None:
    script = (
        "import sys, sft.runs.run_dir, sft.runs.metrics, sft.runs.store; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_record_gets_what_can_be_computed_from_it() -> None:
    assert with_derived({"step": 1, "loss": 0.0}) == {"step": 1, "loss": 0.0, "perplexity": 1.0}
    assert with_derived({"val_loss": math.inf})["val_perplexity"] == math.inf
    assert with_derived({"step": 1, "loss": None}) == {"step": 1, "loss": None}
    assert with_derived({"loss": 1.0, "perplexity": 5.0})["perplexity"] == 5.0


def test_a_panel_begins_with_the_metric_that_it_is_named_after() -> None:
    assert [names[0].name for names in panels().values()] == list(panels())
    assert [metric.name for metric in panels()["accuracy"]] == [
        "accuracy",
        "val_accuracy",
        "usage_accuracy",
        "test_accuracy",
    ]
