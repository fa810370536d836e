"""Schedules at the steps where they go wrong: the first, the end of warm-up, the last."""

from __future__ import annotations

import itertools
import math

import pytest

from sft.config.optim_section import SCHEDULES
from sft.errors import ConfigError
from sft.training.schedules import lr_multiplier, schedule_named


def curve(schedule: str, num_steps: int = 100, warmup_steps: int = 10, **more) -> list[float]:
    """The shares of steps 1 to `num_steps`; index 0 is step 1."""
    named = schedule_named(schedule)
    return [
        lr_multiplier(step, num_steps, schedule=named, warmup_steps=warmup_steps, **more)
        for step in range(1, num_steps + 1)
    ]


LAST = {  # progress of the last of 90 steps after warm-up is 89/90
    "constant": 1.0,
    "linear": 1 / 90,
    "cosine": 0.5 * (1 - math.cos(math.pi / 90)),
    "wsd": (1 / 90) / 0.2,
}


def test_every_schedule_is_tested():
    assert set(LAST) == set(SCHEDULES)


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_first_step_end_of_warmup_and_last_step(schedule):
    shares = curve(schedule)
    assert shares[0] == pytest.approx(0.1)
    assert shares[:10] == pytest.approx([k / 10 for k in range(1, 11)])
    assert shares[10] == 1.0  # and one full step after it
    assert shares[-1] == pytest.approx(LAST[schedule], rel=1e-12)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 10, 1000, 100_000])
@pytest.mark.parametrize("warmup_steps", [0, 1, 2])
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_no_update_has_rate_zero_and_none_exceeds_the_peak(schedule, warmup_steps, num_steps):
    steps = {1, 2, num_steps // 2, num_steps - 1, num_steps} & set(range(1, num_steps + 1))
    for step in steps:
        share = lr_multiplier(
            step, num_steps, schedule=schedule_named(schedule), warmup_steps=warmup_steps
        )
        assert 0 < share <= 1


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_after_warmup_it_never_rises(schedule):
    shares = curve(schedule)[9:]
    assert all(later <= earlier for earlier, later in itertools.pairwise(shares))
    assert (shares[-1] < shares[0]) == (schedule != "constant")


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_a_warmup_as_long_as_the_run_is_a_ramp(schedule):
    assert curve(schedule, 5, 5) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert curve(schedule, 5, 10) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_a_run_of_one_step_without_warmup_takes_the_peak(schedule):
    assert curve(schedule, 1, 0) == [1.0]


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_the_least_rate_lifts_the_end_and_not_the_warmup(schedule):
    plain, lifted = curve(schedule), curve(schedule, min_lr_ratio=0.25)
    assert lifted[:10] == plain[:10]
    assert lifted[10:] == pytest.approx([0.25 + 0.75 * share for share in plain[10:]])
    assert min(lifted[10:]) >= 0.25


def test_cosine_and_linear_are_half_way_in_the_middle():
    for schedule in ("cosine", "linear"):
        middle = lr_multiplier(56, 100, schedule=schedule_named(schedule), warmup_steps=10)
        assert middle == pytest.approx(0.5)
    early = [curve(name)[30] for name in ("cosine", "linear")]
    assert early[0] > early[1]


@pytest.mark.parametrize("decay_fraction", [0.1, 0.5, 1.0])
def test_wsd_is_flat_and_then_falls_in_a_line(decay_fraction):
    shares = curve("wsd", decay_fraction=decay_fraction)
    decay = round(90 * decay_fraction)
    assert shares[9 : 100 - decay + 1] == pytest.approx([1.0] * (92 - decay))
    falling = shares[100 - decay + 1 :]
    assert falling == pytest.approx([k / decay for k in range(decay - 1, 0, -1)])


def test_an_unknown_schedule_is_an_error():
    with pytest.raises(ConfigError, match="'triangle' is not one of"):
        schedule_named("triangle")


def test_a_schedule_of_the_users_own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def staircase(progress, decay_fraction):\n    return 1 - progress // 0.25 / 4\n"
        "def broken(progress, decay_fraction):\n    return float('nan')\n"
    )
    shares = curve(f"{file}:staircase", warmup_steps=0, num_steps=8)
    assert shares == [1.0, 1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]
    with pytest.raises(ConfigError, match="broken' gives"):
        curve(f"{file}:broken")
