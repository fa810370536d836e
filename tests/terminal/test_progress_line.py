"""The line of a run at every width of a terminal, and how long the run still takes."""

import io

import pytest
from rich.console import Console

from sft.terminal.progress_line import (
    Curve,
    ProgressLine,
    rough_duration,
    seconds_left,
    sparkline,
)

STEP = {
    "step": 1204,
    "loss": 1.312,
    "learning_rate": 1.8e-4,
    "grad_norm": 0.7123,
    "tokens_per_second": 18_234.4,
    "epoch": 0.741,
}


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr("sft.terminal.progress_line.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def line(clock):
    """`line(width)`: what is drawn after step 1,204 of 4,872, with 31:04 to go."""

    def draw(width, *, step=STEP, losses=100, evaluations=({"val_loss": 1.287},), plain=False):
        progress = ProgressLine(Console(file=io.StringIO(), width=width))
        progress.begin(4872)
        for number in range(losses):
            clock.now += 0.5082
            done = STEP["step"] - losses + number + 1
            progress.step({**step, "step": done, "loss": 1.0 / (number + 1)})
        progress.step(step)
        for record in evaluations:
            progress.evaluate(record)
        if plain:
            return progress.plain()
        console = Console(file=io.StringIO(), width=width)
        console.print(*progress.get_renderables())
        rows = console.file.getvalue().rstrip("\n").split("\n")
        assert len(rows) == 1
        return rows[0].rstrip()

    return draw


def test_a_wide_terminal_has_room_for_everything(line):
    text = line(200, evaluations=({"val_loss": 1.3}, {"val_loss": 1.287}))
    assert text.startswith(f"step 1,204/4,872  ━━{' ' * 8}  loss")
    bars = sparkline([1.0 / (i + 1) for i in range(100)] + [1.312], 24)
    assert text.endswith(
        f"  loss 1.3120 {bars:<24}  val 1.2870 ↓  lr 0.00018  epoch 0.741  |g| 0.712  "
        "18,234 tok/s  ETA 31:04"
    )


@pytest.mark.parametrize("losses", [0, 1, 3, 100])
def test_it_is_never_wider_than_the_terminal(line, losses):
    # The first column is always there, and cut by the terminal where even that is too long.
    for width in range(17, 200, 3):
        assert len(line(width, losses=losses)) <= width


def test_what_matters_most_stays_longest(line):
    assert line(80).startswith("step 1,204/4,872  loss 1.3120 ")
    assert line(60) == "step 1,204/4,872  loss 1.3120  val 1.2870  ETA 31:04"
    assert line(42) == "step 1,204/4,872  loss 1.3120  ETA 31:04"
    assert line(30) == "step 1,204/4,872  loss 1.3120"


def test_no_column_comes_and_goes_while_the_sparkline_grows(line):
    columns = {
        tuple(name for name in ("|g|", "epoch", "lr", "tok/s") if name in text)
        for n in range(12, 60, 3)
        if (text := line(100, losses=n))
    }
    assert len(columns) == 1


def test_what_was_not_measured_is_not_shown(line):
    bare = {name: STEP[name] for name in ("step", "loss", "learning_rate", "tokens_per_second")}
    text = line(80, step=bare, losses=0, plain=True)
    assert text == "step 1,204/4,872  loss 1.3120 ▁  val 1.2870  lr 0.00018  18,234 tok/s"


@pytest.mark.parametrize(
    ("before", "trend"), [(1.3, "1.2870 ↓"), (1.2, "1.2870 ↑"), (1.287, "1.2870  ")]
)
def test_where_validation_goes(line, before, trend):
    text = line(200, evaluations=({"val_loss": before}, {"val_loss": 1.287}))
    assert f"val {trend}" in text


def test_a_bar_from_120_columns_on(line):
    assert "━" not in line(119)
    assert "━" in line(120) and "ETA" in line(120)


def test_the_time_left_counts_what_passes_between_steps(clock):
    """A resumed run of 100 steps: 20 seconds each, and 40 more around every fifth."""
    progress = ProgressLine(Console(file=io.StringIO()))
    progress.begin(100)
    for step in range(51, 72):
        clock.now += 20.0 + (40.0 if step % 5 == 1 else 0.0)
        progress.step({**STEP, "step": step})
        known = seconds_left(progress.task)
        assert (known is None) == (step < 60)
    assert known == pytest.approx(29 * 28.0)
    progress.step({**STEP, "step": 100})
    assert seconds_left(progress.task) is None


def test_a_curve_of_a_long_run_stays_short_and_keeps_its_shape():
    curve = Curve()
    for i in range(100_000):
        curve.add(float(i))
    curve.add(float("nan"))
    assert 400 < len(curve.means) < 960
    assert sparkline(curve.means, 8) == "▁▂▃▄▅▆▇█"
    assert curve.means[0] == pytest.approx(63.5)  # the mean of the first 128


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "1 min"), (2460, "41 min"), (18_720, "5 h 12 min"), (7170, "2 h 0 min")],
)
def test_rough_times(seconds, text):
    assert rough_duration(seconds) == text
