import pytest

from sft.terminal.live_line import (
    Curve,
    Standing,
    live_line,
    log_line,
    progress_bar,
    roughly,
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


def standing(left=1864.0, step=STEP, eval_before=None, num_losses=100):
    return Standing(
        step=step,
        num_steps=4872,
        losses=[1.0 / (i + 1) for i in range(num_losses)],
        evaluation={"val_loss": 1.287},
        eval_before=eval_before or {},
        left=left,
    )


def test_a_wide_terminal_has_room_for_everything():
    spark = sparkline(standing().losses, 24)
    assert live_line(standing(eval_before={"val_loss": 1.3}), 200).plain == (
        f"step 1,204/4,872  ▕{'█' * 2}▌{' ' * 7}▏  25%  loss 1.3120 {spark}  val 1.2870 ↓  "
        "lr 0.00018  |g| 0.71  18,234 tok/s  epoch 0.74  ETA 31:04"
    )


@pytest.mark.parametrize("num_losses", [0, 1, 3, 100])
def test_it_is_never_wider_than_the_terminal(num_losses):
    # The first part is always there, and cut by the terminal where even that is too long.
    for width in range(17, 260):
        assert len(live_line(standing(num_losses=num_losses), width).plain) <= width


def test_what_matters_most_stays_longest():
    assert live_line(standing(), 80).plain.startswith("step 1,204/4,872  loss 1.3120 ")
    assert live_line(standing(), 60).plain == (
        "step 1,204/4,872  loss 1.3120  val 1.2870  ETA 31:04"
    )
    assert live_line(standing(), 42).plain == "step 1,204/4,872  loss 1.3120  ETA 31:04"
    assert live_line(standing(), 30).plain == "step 1,204/4,872  loss 1.3120"


def test_no_part_comes_and_goes_while_the_sparkline_grows():
    shown = {
        tuple(name for name in ("|g|", "epoch", "lr", "tok/s") if name in line)
        for n in range(1, 200)
        if (line := live_line(standing(num_losses=n), 100).plain)
    }
    assert len(shown) == 1


def test_what_was_not_measured_is_not_shown():
    bare = {name: STEP[name] for name in ("step", "loss", "learning_rate", "tokens_per_second")}
    line = log_line(standing(left=None, step=bare, num_losses=0))
    assert line == "step 1,204/4,872  loss 1.3120  val 1.2870  lr 0.00018  18,234 tok/s"


@pytest.mark.parametrize(
    ("before", "trend"), [(1.3, "1.2870 ↓"), (1.2, "1.2870 ↑"), (1.287, "1.2870 ")]
)
def test_where_validation_goes(before, trend):
    assert f"val {trend}" in live_line(standing(eval_before={"val_loss": before}), 200).plain


@pytest.mark.parametrize(
    ("share", "bar"),
    [
        (0, "▕    ▏"),
        (1, "▕████▏"),
        (0.5, "▕██  ▏"),
        (1 / 32, "▕▏   ▏"),
        (2, "▕████▏"),
        (-1, "▕    ▏"),
    ],
)
def test_bars(share, bar):
    assert progress_bar(share, 4) == bar


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
    assert roughly(seconds) == text


def test_a_bar_from_120_columns_on():
    assert "▕" not in live_line(standing(), 119).plain
    line = live_line(standing(), 120).plain
    assert "  25%  loss" in line and "ETA" in line and "epoch" in line
