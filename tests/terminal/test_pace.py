import pytest

from sft.terminal.pace import Pace


def run(pace, first, last, seconds=1.0, aside=0.0, now=0.0):
    for _ in range(first, last + 1):
        now += seconds + aside
        pace.step(seconds, now)
    return now


@pytest.mark.parametrize(("num_steps", "known_after"), [(1000, 10), (30, 10), (29, 3), (5, 3)])
def test_nothing_is_said_too_early(num_steps, known_after):
    pace = Pace(num_steps)
    for step in range(1, num_steps):
        pace.step(1.0, float(step))
        assert (pace.left(step) is not None) == (step >= known_after)


def test_one_slow_step_changes_nothing():
    pace = Pace(100)
    run(pace, 1, 20)
    pace.step(500.0, 520.0)
    assert pace.left(21) == pytest.approx(79.0)


def test_what_every_step_takes_besides_itself_counts():
    pace = Pace(110)
    run(pace, 1, 10, seconds=1.0, aside=0.5)
    assert pace.left(10) == pytest.approx(150.0)


def test_evals_and_the_saving_after_them_count():
    pace = Pace(105, every=10)  # evaluations at 10, 20, ... 100, and after the last step
    pace.evaluate(30.0)  # before the first step: all that is known at first
    now = run(pace, 1, 10)
    assert pace.left(10) == pytest.approx(95 + 10 * 30)
    pace.evaluate(4.0)
    run(pace, 11, 11, now=now + 7.0)  # 4 seconds of looking, 3 of saving
    assert pace.left(11) == pytest.approx(94 + 10 * 7)


def test_at_the_end_nothing_is_left():
    pace = Pace(12, every=4)
    run(pace, 1, 12)
    assert pace.left(12) is None
