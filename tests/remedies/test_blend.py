"""Blends of two models: exact ends, LoRA by scaling, paired changes, and the choice."""

from __future__ import annotations

import io
import math
from functools import partial

import numpy as np
import pytest
import torch
from rich.console import Console

import tiny
from sft.config import MethodConfig
from sft.data.tokenize import Example
from sft.model.forward import Forward
from sft.model.lora import merge, prepare_method, trained_parameters
from sft.remedies.blend import (
    Change,
    Point,
    adapter_ends,
    choose,
    crossing,
    interpolate,
    sweep,
    weights_of,
)
from sft.remedies.blend_run import BlendResult, render

KINDS = ["gpt2", "llama", "mistral"]
IDS = torch.arange(380, 400)[None]


def example(row: int, length: int = 14) -> Example:
    ids = np.random.default_rng(row).integers(5, 400, length)
    labels = np.append(ids[1:], -100)
    labels[:2] = -100
    return Example(f"row:{row}", None, 0, ids, labels, (labels >= 0).astype(np.float32), 0)


TASK = [example(row, 8 + row) for row in range(7)]
RETAIN = [example(row, 10) for row in range(50, 54)]


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


# --- weights -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_are_exact_and_between_is_between(kind):
    base, tuned = tiny.model(kind), tiny.model(kind, seed=1)
    wanted = {0.0: logits(base), 1.0: logits(tuned)}
    model = tiny.model(kind, seed=2)
    set_alpha = partial(interpolate, model, weights_of(base), weights_of(tuned))
    for alpha in (1.0, 0.0, 1.0):
        set_alpha(alpha)
        assert torch.equal(logits(model), wanted[alpha])
    set_alpha(0.25)
    for name, parameter in model.named_parameters():
        a, b = base.get_parameter(name), tuned.get_parameter(name)
        torch.testing.assert_close(parameter, 0.75 * a + 0.25 * b)
    assert (
        model.get_output_embeddings().weight.data_ptr()
        == (model.get_input_embeddings().weight.data_ptr())
        or kind == "mistral"
    )


def test_fp32_is_used_whatever_the_weights_are_kept_in():
    model = torch.nn.Linear(64, 1, bias=False)
    base = {"weight": torch.full((1, 64), 256.0, dtype=torch.bfloat16)}
    tuned = {"weight": torch.full((1, 64), 258.0, dtype=torch.bfloat16)}
    interpolate(model, base, tuned, 0.5)
    assert torch.equal(model.weight, torch.full((1, 64), 257.0))  # bf16 has no 257


def lora_model(kind: str, new_tokens=(), **options):
    """LoRA matrices as after training, on a model of `kind`."""
    model = tiny.model(kind)
    method = MethodConfig(kind="lora", lora_rank=4, **options)
    wrapper = prepare_method(model, method, list(new_tokens))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trained_parameters(model).values():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model, wrapper


@pytest.mark.parametrize("options", [{}, {"rslora": True}, {"new_tokens": [398, 399]}])
@pytest.mark.parametrize("kind", KINDS)
def test_scaling_an_adapter_is_blending_the_merged_weights(kind, options):
    base = weights_of(tiny.model(kind))
    merged = merge(lora_model(kind, **options)[1])
    ends = base, weights_of(merged)
    assert (logits(merged) - logits(tiny.model(kind))).abs().max() > 0.1
    for alpha in (0.0, 0.3, 1.0):
        scaled, wrapper = lora_model(kind, **options)
        interpolate(scaled, *adapter_ends(scaled), alpha)
        interpolate(merged, *ends, alpha)
        torch.testing.assert_close(logits(scaled), logits(merged), rtol=1e-3, atol=1e-3)
        found = dict(merge(wrapper).named_parameters())
        for name, wanted in merged.named_parameters():
            torch.testing.assert_close(found[name], wanted, rtol=1e-5, atol=1e-5)


def test_the_adapter_itself_is_scaled_and_comes_back():
    model, _ = lora_model("llama")
    before = weights_of(model)
    base, tuned = adapter_ends(model)
    assert tuned and all("lora_B" in name for name in tuned)
    for alpha in (0.5, 1.0):
        interpolate(model, base, tuned, alpha)
        for name, parameter in model.named_parameters():
            scale = alpha if "lora_B" in name else 1.0
            assert torch.equal(parameter, scale * before[name])


def test_dora_is_refused():
    with pytest.raises(ValueError, match="DoRA"):
        adapter_ends(lora_model("llama", dora=True)[0])


# --- sweep ---------------------------------------------------------------------------------


def loss_by_transformers(model, one: Example) -> float:
    ids = torch.from_numpy(one.input_ids)[None]
    labels = torch.full_like(ids, -100)
    labels[0, 1:] = torch.from_numpy(one.labels)[:-1]
    with torch.no_grad():
        return float(model.eval()(input_ids=ids, labels=labels).loss)


@pytest.mark.parametrize("layout", ["flat", "padded"])
def test_each_point_is_a_paired_change_per_example(layout):
    base, tuned = tiny.model(), tiny.model(seed=1)
    model = tiny.model(seed=2)
    seen = []
    points = sweep(
        partial(interpolate, model, weights_of(base), weights_of(tuned)),
        Forward(model, layout=layout),
        TASK,
        RETAIN,
        micro_batch_tokens=40,
        alphas=(1.0, 0.5),
        on_progress=lambda *progress: seen.append(progress),
    )
    assert [point.alpha for point in points] == [0.0, 0.5, 1.0]
    assert points[0] == Point(0.0, Change(0.0, 0.0, 7), Change(0.0, 0.0, 4))
    assert seen[-1] == ("measuring blends", 3, 3)
    for probe, examples in (("task", TASK), ("retain", RETAIN)):
        deltas = [loss_by_transformers(tuned, e) - loss_by_transformers(base, e) for e in examples]
        change = getattr(points[2], probe)
        assert change.n == len(examples)
        assert change.mean == pytest.approx(np.mean(deltas), abs=1e-4)
        assert change.se == pytest.approx(np.std(deltas, ddof=1) / math.sqrt(len(deltas)), abs=1e-4)


def test_a_budget_is_closed_in_on():
    model = tiny.model()
    ends = weights_of(model), weights_of(tiny.model(seed=1))
    scored = partial(
        sweep, partial(interpolate, model, *ends), Forward(model), TASK, RETAIN,
        micro_batch_tokens=99, alphas=(0.5, 1.0),
    )  # fmt: skip
    everything = [point.alpha for point in scored(budget=1e9)]
    assert everything == [0.0, 0.5, 1.0]  # nothing forgets too much, so there is nothing to find
    retain = {point.alpha: point.retain.mean for point in scored(budget=-1e9)}
    assert list(retain) == [0.0, 0.125, 0.25, 0.5, 1.0]  # halved twice towards the base model


def test_the_crossing_lies_between_the_last_allowed_and_the_first_beyond():
    def at(alpha, rise):
        return Point(alpha, Change(-1.0, 0.1, 9), Change(rise, 0.1, 9))

    points = [at(0.0, 0.0), at(0.1, 0.03), at(0.25, 0.2), at(1.0, 0.01)]
    assert crossing(points, 0.05) == 0.175
    assert crossing(points[:2], 0.05) is None


def test_one_example_none_and_broken_weights():
    model = tiny.model()
    ends = weights_of(model), weights_of(tiny.model(seed=1))
    forward = Forward(model)
    scored = partial(sweep, partial(interpolate, model, *ends), forward, micro_batch_tokens=99)
    point = scored(TASK[:1], [], alphas=(1.0,))[1]
    assert point.task.mean and point.task.se is None and point.task.n == 1
    assert point.retain == Change(None, None, 0)
    ends[1]["model.norm.weight"].fill_(math.nan)
    points = scored(TASK, RETAIN, alphas=(0.5,))
    assert points[1].task == Change(None, None, 7)
    assert choose(points, 9.0).alpha == 0.0


# --- choice --------------------------------------------------------------------------------


def point(alpha: float, task: float | None, retain: float | None) -> Point:
    return Point(alpha, Change(task, 0.1, 9), Change(retain, 0.1, 9))


PILOT = [  # the forgetting run of the research pilot: GSM8K and WikiText
    point(0.0, 0.0, 0.0),
    point(0.1, -0.830, -0.018),
    point(0.25, -0.962, 0.011),
    point(0.5, -0.887, 0.187),
    point(0.75, -0.720, 0.512),
    point(1.0, -0.457, 0.959),
]


@pytest.mark.parametrize(
    ("budget", "alpha"), [(0.05, 0.25), (0.0, 0.1), (0.011, 0.25), (0.2, 0.25), (9.0, 0.25)]
)
def test_the_largest_gain_within_the_budget_is_chosen(budget, alpha):
    assert choose(PILOT, budget).alpha == alpha
    assert choose(PILOT[::-1], budget).alpha == alpha


def test_the_budget_binds():
    rising = [point(0.0, 0, 0), point(0.5, -0.5, 0.04), point(1.0, -1.0, 0.2)]
    assert [choose(rising, b).alpha for b in (0.0, 0.04, 0.1, 0.2)] == [0.0, 0.5, 0.5, 1.0]


def test_the_base_model_always_qualifies_and_is_chosen_where_nothing_gains():
    assert choose([point(0.0, 0, 0), point(1.0, 0.3, 0.0)], 0.05).alpha == 0.0
    assert choose([point(0.0, 0, 0), point(1.0, -0.3, 0.5)], 0.05).alpha == 0.0
    assert choose([point(0.0, 0, 0), point(0.5, 0.0, 0.0)], 0.05).alpha == 0.0
    broken = [point(0.0, 0, 0), point(0.5, None, 0.0), point(1.0, -1.0, None)]
    assert choose(broken, 0.05).alpha == 0.0


# --- display -------------------------------------------------------------------------------


def printed(result: BlendResult) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(render(result))
    return out.getvalue()


def test_the_table_marks_what_was_chosen():
    test = [point(0.25, -0.91, 0.02), point(1.0, -0.4, 0.9)]
    result = BlendResult("runs/a", "[bold]base", "runs/a/model-blend", 0.05, 0.25, PILOT, test, "")
    lines = printed(result).splitlines()
    assert "runs/a: blends of [bold]base" in lines[0]
    (chosen,) = [line for line in lines if "chosen" in line and "test" not in line]
    assert chosen.split() == ["│", "0.25", "│", "-0.962", "±", "0.100", "│", "+0.011", "±",
                              "0.100", "│", "chosen", "│"]  # fmt: skip
    assert sum("chosen, on test" in line for line in lines) == 1
    assert any("1 (tuned)" in line and "+0.900" in line and "on test" in line for line in lines)
    assert "budget 0.05" in printed(result) and "no blend" not in printed(result)


def test_what_was_not_measured_or_not_finite_says_so():
    points = [point(0.0, 0, 0), Point(1.0, Change(None, None, 9), Change(None, None, 0))]
    text = printed(BlendResult("runs/a", "base", "x", 0.05, 0.0, points, [], ""))
    assert "not finite" in text and "not measured" in text
    assert "no blend gains anything within it" in " ".join(text.split())
