import json
import math
import random

import numpy as np
import pytest

from sft.runs.run_dir import RunDir
from sft.runs.series import Series, series_of, smoothed, thinned
from sft.runs.store import RecordStore


@pytest.fixture
def run(tmp_path):
    return RunDir(tmp_path)


def step(number, **more):
    return {
        "step": number,
        "loss": 1 / number,
        "num_tokens": 10 * number,
        "seconds": 2.0 * number,
    } | more


def evaluation(number, **more):
    return {
        "step": number,
        "epoch": 0.5,
        "val_loss": 3.0 - number / 100,
        "eval_seconds": 1.0,
    } | more


def write(run, *records):
    with RecordStore(run.metrics) as store:
        for record in records:
            store.append(record)


def lines(series, **options):
    points = series.points("loss", **options)
    return list(zip(points.step.tolist(), points.x.tolist(), points.y.tolist(), strict=True))


def test_points_are_those_of_the_records(run):
    write(
        run,
        evaluation(0),
        step(1),
        step(2, loss=math.nan),
        step(3),
        evaluation(3),
        {"step": 3, "test_loss": 2.0},
    )
    series = series_of(run)
    assert series.num_steps == 3
    assert lines(series) == [(1, 1, 1.0), (3, 3, 1 / 3)]  # what was not finite is left out
    assert lines(series, x="tokens") == [(1, 10, 1.0), (3, 30, 1 / 3)]
    assert lines(series, x="time", low=3, high=6) == [(3, 6, 1 / 3)]
    assert lines(series, low=2, high=2) == []
    assert series.points("nonsense").y.tolist() == []
    val = series.points("val_loss", of="evaluations", x="tokens")
    assert (val.step.tolist(), val.x.tolist(), val.y.tolist()) == ([0, 3], [0, 30], [3.0, 2.97])
    assert series.points("test_loss", of="evaluations").x.tolist() == [3]
    assert series.names("evaluations") == ["step", "epoch", "val_loss", "eval_seconds", "test_loss"]


def test_metrics_by_source_and_metrics_that_begin_late(run):
    write(run, step(1), step(2, loss_by_source={"a.jsonl": 0.5, "b": None}, extra=7), step(3))
    series = series_of(run)
    assert series.points("loss_by_source.a.jsonl").record() == {
        "x": [2.0],
        "y": [0.5],
        "step": [2],
        "smooth": {"x": [], "y": []},
    }
    assert series.points("extra").x.tolist() == [2]


def test_records_of_another_trainer_have_no_tokens_and_no_seconds(run):
    write(run, evaluation(0), {"step": 5, "loss": 1.0}, evaluation(5))
    series = series_of(run)
    assert lines(series) == [(5, 5, 1.0)]
    assert lines(series, x="tokens") == []
    assert series.points("val_loss", of="evaluations", x="time").x.tolist() == [0]


def test_new_lines_are_added_and_torn_ones_wait(run):
    write(run, step(1))
    series = series_of(run)
    with open(run.metrics, "a") as file:
        file.write(json.dumps(step(2)) + "\n" + json.dumps(step(3)))
        file.flush()
        series.update()
        assert series.num_steps == 2
        file.write("\n")
    series.update()
    assert [point[0] for point in lines(series)] == [1, 2, 3]


@pytest.mark.parametrize("regrown", [1, 20])
def test_a_resumed_run_is_read_anew(run, regrown):
    write(run, *(step(number) for number in range(1, 11)))
    series = series_of(run)
    with RecordStore(run.metrics) as store:
        end = len(json.dumps(step(1))) + 1
        store.truncate_to(end)
        for number in range(2, 2 + regrown):
            store.append(step(number, loss=9.0))  # also past the place that was read
    series.update()
    assert lines(series) == [(1, 1, 1.0), *((n, n, 9.0) for n in range(2, 2 + regrown))]


def test_odd_files_have_no_points(run):
    assert series_of(run).num_steps == 0
    run.metrics.write_text(
        '[1]\nnull\n{"loss": 1}\n{"step": "x", "loss": 1}\n{"step": 1, "loss": "x"}\n'
    )
    series = series_of(run)
    assert (series.num_steps, lines(series)) == (1, [])
    run.metrics.write_text('{"step": 2, "loss": ' + "9" * 400 + ', "grad_norm": 1e999}\n')
    series.update()
    assert lines(series) == []
    assert series.points("grad_norm").y.tolist() == []


def test_names_of_a_hostile_file_do_not_fill_the_memory(run):
    write(
        run, *({"step": n, "loss": 1.0} | {f"m{n}_{i}": 1.0 for i in range(300)} for n in (1, 2, 3))
    )
    series = series_of(run)
    assert len(series.names()) <= 512
    assert len(lines(series)) == 3


def test_thinning_keeps_every_peak_in_order():
    rng = random.Random(0)
    values = np.array([rng.random() for _ in range(10_000)])
    values[[1234, 7777]] = [50.0, -50.0]
    kept = thinned(values, 400)
    assert len(kept) <= 400
    assert kept.tolist() == sorted(set(kept.tolist()))
    assert {0, 1234, 7777, 9999} <= set(kept.tolist())
    # Nothing that a chart of 100 columns shows is lost: the extremes of each are kept.
    for start in range(0, 10_000, 100):
        inside = kept[(kept >= start) & (kept < start + 100)]
        assert values[inside].max() == values[start : start + 100].max()
        assert values[inside].min() == values[start : start + 100].min()


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 399, 400, 401, 1601])
def test_thinning_of_any_size(size):
    values = np.sin(np.arange(size) * 1.7)
    kept = thinned(values, 400)
    assert len(kept) <= 400
    assert len(kept) == size or size > 400
    assert size == 0 or {0, size - 1} <= set(kept.tolist())


@pytest.mark.parametrize("weight", [0.5, 0.9, 0.999])
@pytest.mark.parametrize("size", [0, 1, 64, 65, 1000])
def test_smoothing_is_that_of_the_plain_loop(weight, size):
    rng = random.Random(size)
    values = [rng.random() for _ in range(size)]
    total = mass = 0.0
    expected = []
    for value in values:
        total, mass = weight * total + value, weight * mass + 1
        expected.append(total / mass)
    assert smoothed(np.array(values), weight).tolist() == pytest.approx(expected, rel=1e-12)


def test_the_smooth_line_is_of_all_points_whatever_is_shown(run):
    write(run, *(step(number) for number in range(1, 3001)))
    series = series_of(run)
    whole = smoothed(np.array([1 / number for number in range(1, 3001)]), 0.9)
    part = series.points("loss", low=2900, width=10, smooth=0.9)
    assert len(part.x) <= 20
    assert part.smooth_x[[0, -1]].tolist() == [2900, 3000]
    assert part.smooth_y.tolist() == whole[part.smooth_x.astype(int) - 1].tolist()


def test_a_value_is_kept_as_eight_bytes(run):
    write(run, *(step(number) for number in range(1, 2001)))
    series = Series(run.metrics)
    series.update()
    columns = series.steps.columns.values()
    assert {(column.typecode, len(column)) for column in columns} == {("d", 2000)}
