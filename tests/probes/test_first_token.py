"""What is measured of first tokens, against the formulas computed once more in numpy."""

import numpy as np
import pytest
import torch

from sft.data.rows.conversation import Origin
from sft.data.tokenize import continuation
from sft.probes.base_logits import BaseLogits
from sft.probes.first_token import Openings

VOCAB = 40  # fewer than are kept of the base model, so that divergences are exact
SIZES = {"a": 1, "b": 2, "c": 5, "d": 9}  # tokens of the answers


def examples():
    return [
        continuation(name, Origin("rows", i), [1, 2, 3], [10 + i] * size, 0)
        for i, (name, size) in enumerate(SIZES.items())
    ]


def logits(seed):
    made = torch.Generator().manual_seed(seed)
    return {name: torch.randn(size, VOCAB, generator=made) * 2 for name, size in SIZES.items()}


def evaluation(base, shown, *, at_base, chunk=4):
    """What the observer measures, shown the answers in pieces that do not end where they do."""
    openings = Openings(base, "val", at_base=at_base)
    names = [name for name, rows in shown.items() for _ in rows]
    places = [place for rows in shown.values() for place in range(len(rows))]
    flat = torch.cat(list(shown.values()))
    for start in range(0, len(flat), chunk):
        part = slice(start, start + chunk)
        openings.observe(names[part], places[part], flat[part], torch.zeros(len(flat[part])))
    return openings.measures(examples())


def softmax(rows):
    rows = np.exp(rows.double().numpy())
    return rows / rows.sum(-1, keepdims=True)


@pytest.fixture
def firsts():
    """The distributions of the first token, `[num_examples, vocab]`."""
    return np.stack([softmax(rows)[0] for rows in logits(0).values()])


def entropy(q):
    return -(q * np.log(q)).sum(-1)


def test_the_mean_information_is_the_mutual_information(firsts):
    found = evaluation(BaseLogits(), logits(0), at_base=True)
    information = entropy(firsts.mean(0)) - entropy(firsts).mean()
    assert np.mean([f["first_info"] for f in found.values()]) == pytest.approx(information, 1e-5)
    each = (firsts * np.log(firsts / firsts.mean(0))).sum(-1)
    assert [f["first_info"] for f in found.values()] == pytest.approx(list(each), 1e-5)
    assert [f["first_entropy"] for f in found.values()] == pytest.approx(list(entropy(firsts)))


def test_the_mass_is_that_of_the_likeliest_opener_of_all(firsts):
    found = evaluation(BaseLogits(), logits(0), at_base=True)
    top = firsts.mean(0).argmax()
    assert {f["first_token"] for f in found.values()} == {top}
    assert [f["first_mass"] for f in found.values()] == pytest.approx(list(firsts[:, top]), 1e-5)
    assert [f["first_label"] for f in found.values()] == [10, 11, 12, 13]


def test_prompts_that_all_open_alike_hold_no_information():
    row = torch.randn(VOCAB, generator=torch.Generator().manual_seed(5))
    same = {name: row.repeat(size, 1) for name, size in SIZES.items()}
    for found in evaluation(BaseLogits(), same, at_base=True).values():
        assert found["first_info"] == pytest.approx(0, abs=1e-6)


def test_a_token_that_cannot_be_leaves_finite_numbers():
    shown = logits(0)
    for rows in shown.values():
        rows[:, 3:20] = -torch.inf
    for found in evaluation(BaseLogits(), shown, at_base=True).values():
        assert np.isfinite(list(found.values())).all()


def test_the_base_model_is_only_remembered():
    base = BaseLogits()
    for found in evaluation(base, logits(0), at_base=True).values():
        assert not {"kl_first", "kl_next"} & found.keys()
    kept = [base.num_positions(f"val/{name}") for name in SIZES]
    assert kept == [1, 2, 5, 5]  # beyond the fifth token nothing is compared


def test_divergences_of_the_first_token_and_of_the_next_four():
    base = BaseLogits()
    evaluation(base, logits(0), at_base=True)
    for found in evaluation(base, logits(0), at_base=False).values():
        assert found["kl_first"] == pytest.approx(0, abs=1e-5)
        assert found.get("kl_next", 0) == pytest.approx(0, abs=1e-5)
    moved = evaluation(base, logits(1), at_base=False, chunk=3)
    for name in SIZES:
        p, q = softmax(logits(0)[name]), softmax(logits(1)[name])
        each = (p * np.log(p / q)).sum(-1)
        assert moved[name]["kl_first"] == pytest.approx(each[0], 1e-4)
        if SIZES[name] == 1:
            assert "kl_next" not in moved[name]
        else:
            assert moved[name]["kl_next"] == pytest.approx(each[1:5].mean(), 1e-4)


def test_probes_do_not_share_what_is_remembered():
    base = BaseLogits()
    evaluation(base, logits(0), at_base=True)
    other = Openings(base, "usage", at_base=False)
    other.observe(["a"], [0], logits(1)["a"], torch.zeros(1))
    assert "kl_first" not in other.measures(examples())["a"]


def test_nothing_seen_is_nothing_measured():
    assert Openings(BaseLogits(), "val", at_base=True).measures(examples()) == {}
