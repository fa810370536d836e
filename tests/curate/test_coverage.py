"""Coverage: one in ten by chance, nearly all of an unseen topic, and its words named."""

import random

import numpy as np
import pytest

from sft.curate.coverage import coverage, group, slices, space, uncovered_groups
from sft.curate.vectors import nearest, tfidf


def uncovered_share(train, usage):
    return len(coverage(space(train, usage)).uncovered) / len(usage)


def test_usage_like_training_is_uncovered_one_time_in_ten(topic):
    shares = []
    for seed in range(10):
        prompts = topic("food", seed).prompts(150)
        shares.append(uncovered_share(prompts[:100], prompts[100:]))
    assert 0.05 < np.mean(shares) < 0.13
    assert max(shares) <= 0.3


@pytest.mark.parametrize(("share", "low", "high"), [(0.2, 0.2, 0.45), (1.0, 0.85, 1.0)])
def test_an_unseen_topic_is_uncovered(topic, share, low, high):
    known = topic("food", 0).prompts(260)
    new = topic("law", 1).prompts(60)[: int(60 * share)]
    usage = new + known[200 : 260 - len(new)]
    assert low <= uncovered_share(known[:200], usage) <= high


def test_words_that_training_lacks_count(topic):
    """Prompts of known words around an unknown one: a vocabulary of training alone loses it."""
    rng = random.Random(0)
    known = topic("food", 0)
    train = known.prompts(200)
    usage = [" ".join([*rng.choices(known.own, k=2), *[f"new{i}" for i in range(10)]])] * 5
    assert uncovered_share(train, usage) == 1
    from sklearn.feature_extraction.text import TfidfVectorizer

    narrow = TfidfVectorizer().fit(train)
    # What the mistake would read: the unknown words gone, the known ones scaled up.
    assert nearest(narrow.transform(usage), narrow.transform(train))[1].min() > 0.3
    vectors = tfidf(train, usage)[0]
    assert nearest(vectors[200:], vectors[:200])[1].max() < 0.3


def test_copies_in_training_do_not_uncover_everything(topic):
    """Each copy finds the other; without removing them nothing else would be near enough."""
    prompts = topic("food", 0).prompts(150)
    once, thrice = prompts[:100], prompts[:100] * 3
    usage = prompts[100:]
    assert uncovered_share(thrice, usage) == uncovered_share(once, usage) < 0.3
    assert space(thrice, usage).train.shape[0] == len(space(once, usage).train_index)


def test_the_p_value_is_a_rank(topic):
    prompts = topic("food", 0).prompts(30)
    found = coverage(space(prompts, [prompts[3], "nothing of this is known", ""]))
    assert found.p_values[0] == 1 and found.nearest[0] == 3
    assert found.cosine[0] == pytest.approx(1, abs=1e-5)
    assert found.p_values[1:].tolist() == [pytest.approx(1 / 31)] * 2
    assert found.uncovered.tolist() == [2, 1]  # the least covered first


def test_too_few_training_prompts_accuse_nobody():
    usage = ["other words", "nothing alike"]
    assert uncovered_share(["only one prompt here"], usage) == 0
    assert uncovered_share([f"prompt number {i} x{i}" for i in range(8)], usage) == 0


def test_large_training_sets_are_sampled(topic, monkeypatch):
    prompts = topic("food", 0).prompts(400)
    train, usage = prompts[:300], [*prompts[300:], *topic("law", 1).prompts(20)]
    whole = uncovered_share(train, usage)
    monkeypatch.setattr("sft.curate.coverage.MAX_CALIBRATION", 60)
    monkeypatch.setattr("sft.curate.coverage.MAX_TRAIN", 150)
    sampled = coverage(space(train, usage))
    assert space(train, usage).train.shape[0] == 150
    assert (sampled.p_values * 61 == pytest.approx(np.round(sampled.p_values * 61))) and (
        abs(len(sampled.uncovered) / len(usage) - whole) < 0.1
    )
    # The index counts in all texts, not in the sample.
    assert all(0 <= i < 300 for i in sampled.nearest) and sampled.nearest.max() > 150


def test_uncovered_prompts_are_grouped_and_named(topic):
    law, sport = topic("law", 1), topic("sport", 2)
    usage = [*law.prompts(20), *sport.prompts(12)]
    prompts = space(topic("food", 0).prompts(200), usage)
    found = coverage(prompts)
    groups = uncovered_groups(prompts, found)
    assert sorted(i for group in groups.values() for i in group) == sorted(found.uncovered)
    assert list(map(len, groups.values())) == sorted(map(len, groups.values()), reverse=True)
    for label, members in groups.items():
        lawful = sum(i < 20 for i in members)
        assert max(lawful, len(members) - lawful) >= 0.8 * len(members)
        own = law.own if lawful > len(members) / 2 else sport.own
        assert set(label.split(", ")) <= set(own)


def test_slices_cover_all_usage_prompts(topic):
    food, law = topic("food", 0), topic("law", 1)
    usage = [*food.prompts(20), *law.prompts(20)]
    found = slices(space(food.prompts(50), usage))
    assert sorted(i for members in found.values() for i in members) == list(range(40))
    assert 2 <= len(found) <= 6
    for members in found.values():  # no slice mixes the topics
        assert len({i < 20 for i in members}) == 1


def test_few_rows_are_one_group():
    assert group(tfidf(["a b c", "d e f", "g h i"])[0]).tolist() == [0, 0, 0]
    assert slices(space(["some words here"], ["1", "2"])) == {"other": [0, 1]}


def test_texts_without_words():
    found = coverage(space(["", "!!"], ["?", ""]))
    assert found.uncovered.tolist() == [] and found.p_values.tolist() == [1, 1]


def test_the_rates_on_real_prompts(real):
    """Table 2.2 of the study: 0.10 by chance, 0.22 with a fifth of another topic, 0.79 of it."""
    alpaca, gsm8k = ([prompt for prompt, _ in real(name)] for name in ("alpaca", "gsm8k"))
    rng = random.Random(0)
    none, fifth, other = [], [], []
    for _ in range(4):
        sample = rng.sample(alpaca, 500)
        train, usage = sample[:400], sample[400:]
        none.append(uncovered_share(train, usage))
        fifth.append(uncovered_share(train, usage[:80] + rng.sample(gsm8k, 20)))
        other.append(uncovered_share(rng.sample(gsm8k, 400), usage))
    assert np.mean(none) == pytest.approx(0.10, abs=0.03)
    assert np.mean(fifth) == pytest.approx(0.20, abs=0.05)
    assert np.mean(other) == pytest.approx(0.79, abs=0.06)
