"""Every test and interval against scipy, brute force, published values or a simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from sft.guards import statistics as st


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("n", [30, 64])
def test_paired_is_the_one_sample_t_test(n):
    delta = generator().normal(0.03, 0.1, n)
    test = st.paired(delta, margin=0.02)
    other = stats.ttest_1samp(delta, 0.02, alternative="greater")
    assert test.t == pytest.approx(other.statistic)
    assert test.p == pytest.approx(other.pvalue)
    both = stats.ttest_1samp(delta, 0.0).confidence_interval(0.95)
    assert test.interval == pytest.approx((both.low, both.high))
    assert (test.n, test.se) == (n, pytest.approx(delta.std(ddof=1) / math.sqrt(n)))


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_few_examples_are_tested_by_every_pattern_of_signs(margin):
    delta = np.array([1.2, -0.4, 0.9, 2.0, 0.3, -0.1, 1.1])
    x = delta - margin
    sums = [
        sum(s * v for s, v in zip(p, x, strict=True)) for p in itertools.product((1, -1), repeat=7)
    ]
    brute = sum(total >= x.sum() - 1e-9 for total in sums) / 2**7
    assert st.paired(delta, margin).p == pytest.approx(brute)


def test_sampled_signs_agree_with_every_sign():
    delta = generator(3).normal(0.1, 0.3, 16)
    bits = (np.arange(2**16)[:, None] >> np.arange(16)) & 1
    exact = ((1 - 2 * bits) @ delta >= delta.sum() - 1e-9).mean()
    assert st.paired(delta).p == pytest.approx(exact, abs=3 * math.sqrt(exact / 19_999))


@pytest.mark.parametrize(
    ("n", "smallest"), [(1, 1.0), (8, 1 / 256), (14, 2**-14), (20, 1 / 20_000), (30, 0.0)]
)
def test_the_smallest_p(n, smallest):
    assert st.smallest_p(n) == smallest
    if n > 1:
        assert st.paired(np.arange(1.0, n + 1) + 1e6).p == pytest.approx(smallest, abs=1e-9)


def test_what_is_not_finite_is_dropped():
    clean = st.paired([0.1, 0.2, 0.4])
    assert st.paired([0.1, math.nan, 0.2, math.inf, 0.4]) == clean


@pytest.mark.parametrize("delta", [[], [0.5], [math.nan, 0.5]])
def test_fewer_than_two_examples_show_nothing(delta):
    test = st.paired(delta)
    assert (test.p, test.se, test.mde) == (1.0, math.inf, math.inf)
    assert not math.isnan(test.mean + test.t + test.sd)


def test_equal_differences():
    assert st.paired(np.full(40, 0.5), 0.02).p == 0
    assert st.paired(np.zeros(40), 0.02).p == 1
    assert st.paired(np.zeros(8), 0.02).p == 1
    assert st.paired(np.zeros(40)).t == 0


@pytest.mark.parametrize("n", [12, 20, 40])
def test_p_is_uniform_when_the_mean_is_at_the_margin(n):
    rng = generator(n)
    p = [st.paired(rng.normal(0.02, 0.1, n), 0.02).p for _ in range(400)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_intervals_cover_as_often_as_they_say():
    rng = generator(1)
    intervals = [st.paired(rng.normal(0.3, 1, 12)).interval for _ in range(1000)]
    assert 0.93 < np.mean([low <= 0.3 <= high for low, high in intervals]) < 0.97


def test_the_level_is_shared():
    assert st.corrected_level(0.05, 10, 6) == pytest.approx(0.05 / 60)
    assert st.corrected_level(0.05, 0, 0) == 0.05


@pytest.mark.parametrize(("n", "level"), [(20, 0.01), (32, 0.0014), (64, 0.05)])
def test_the_detectable_effect_is_found_four_times_in_five(n, level):
    rng, sd, margin = generator(n), 0.13, 0.02
    effect = st.minimum_detectable_effect(sd, n, level)
    found = [st.paired(rng.normal(margin + effect, sd, n), margin).p < level for _ in range(400)]
    assert 0.74 < np.mean(found) < 0.86


def test_too_few_examples_detect_nothing():
    assert st.minimum_detectable_effect(0.01, 8, 0.0014) == math.inf
    assert st.paired(np.ones(8) + np.arange(8), level=0.0014).mde == math.inf


def test_the_examples_needed_are_the_fewest():
    n = st.examples_needed(0.13, 0.05, 0.0014)
    assert st.minimum_detectable_effect(0.13, n, 0.0014) <= 0.05
    assert st.minimum_detectable_effect(0.13, n - 1, 0.0014) > 0.05
    with pytest.raises(ValueError, match="above 0"):
        st.examples_needed(0.13, 0.0, 0.05)


def test_published_intervals():
    """Newcombe 1998, table I: 81 of 263, and 0 of 20."""
    assert st.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert st.clopper_pearson(81, 263) == pytest.approx((0.2527, 0.3676), abs=5e-5)
    assert st.wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert st.clopper_pearson(0, 20) == pytest.approx((0.0, 0.1684), abs=5e-5)


def test_one_sided_bounds():
    """20 of 20 found: 86 % at least; 0 of 59 false alarms: below 5 %."""
    assert st.clopper_pearson(20, 20, 0.90)[0] == pytest.approx(0.861, abs=5e-4)
    assert st.clopper_pearson(0, 59, 0.90)[1] < 0.05 < st.clopper_pearson(0, 58, 0.90)[1]
    assert st.wilson(0, 0) == st.clopper_pearson(0, 0) == (0.0, 1.0)


def test_mcnemar():
    assert st.mcnemar(6, 0) == pytest.approx(2 / 64)
    assert st.mcnemar(9, 1) == st.mcnemar(1, 9) == pytest.approx(22 / 1024)
    assert st.mcnemar(0, 0) == 1


def test_auc_counts_pairs():
    high, low = [3.0, 1.0, 2.0, math.nan], [1.0, 0.0, 2.5]
    pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(high[:3], low)]
    area, p = st.auc(high, low)
    assert area == pytest.approx(np.mean(pairs))
    assert 0.05 < p < 0.5
    assert st.auc(low, high)[1] > 0.5
    assert st.auc([4, 5, 6], [1, 2, 3]) == (1.0, pytest.approx(1 / 20))
    assert st.auc([], [1.0]) == (0.5, 1.0)


def test_welch_is_that_of_scipy():
    rng = generator()
    a, b = rng.normal(0.2, 1, 15), rng.normal(0, 3, 40)
    other = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert st.welch(a, b) == pytest.approx((a.mean() - b.mean(), other.low, other.high))
    assert st.welch([1.0], b)[1:] == (-math.inf, math.inf)
    assert st.welch([1.0, 1.0], [0.5, 0.5]) == (0.5, 0.5, 0.5)


def test_ratio_intervals_cover_as_often_as_they_say():
    rng = generator(7)
    hits = []
    for _ in range(1000):
        _, low, high = st.ratio_interval(rng.normal(-0.2, 0.2, 30), rng.normal(-0.8, 0.4, 40))
        hits.append(low <= 0.25 <= high)
    assert 0.93 < np.mean(hits) < 0.975


def test_a_ratio_to_nothing_is_unknown():
    rng = generator(8)
    noise = rng.normal(0, 1, 30)
    assert st.ratio_interval(noise, noise - noise.mean() + 0.01)[1:] == (-math.inf, math.inf)
    assert st.ratio_interval([1.0], [1.0, 2.0])[1:] == (-math.inf, math.inf)


def test_the_slope_is_that_of_scipy_and_ignores_outliers():
    x = np.arange(40.0)
    y = 2 - 0.05 * x + generator(4).normal(0, 0.02, 40)
    y[[3, 17, 30]] += 5
    slope, low, high = st.theil_sen(x, y)
    assert slope == pytest.approx(stats.theilslopes(y, x).slope)
    assert low < -0.05 < high < 0


@pytest.mark.parametrize("memory", [0.0, 0.5])
@pytest.mark.parametrize("n", [30, 300])
def test_slopes_of_noise_cover_zero(n, memory):
    """Noise that remembers the step before, as the loss of a run does."""
    rng = generator(n)
    hits = []
    for _ in range(25):
        noise = rng.normal(0, 1, n)
        for i in range(1, n):
            noise[i] += memory * noise[i - 1]
        _, low, high = st.theil_sen(np.arange(n), noise)
        hits.append(low <= 0 <= high)
    assert np.mean(hits) >= 0.8


def test_two_points_have_no_slope():
    assert st.theil_sen([1, 2, 3], [1.0, math.nan, 2.0]) == (0.0, -math.inf, math.inf)


def test_robust_z():
    z = st.robust_z([1.0, 2.0, 3.0, 4.0, 100.0, math.nan])
    assert z[:5] == pytest.approx((np.array([1, 2, 3, 4, 100]) - 3) / 1.4826, rel=1e-5)
    assert math.isnan(z[5])
    assert st.robust_z([5.0, 5.0, 5.0, 5.0, 9.0])[4] == pytest.approx(4 / (1.2533 * 0.8))
    assert not st.robust_z([5.0, 5.0]).any()
    assert len(st.robust_z([])) == 0


def test_holm_steps_down():
    assert st.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert st.holm([0.9, 0.8]) == [1.0, 1.0]
