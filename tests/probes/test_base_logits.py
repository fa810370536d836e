"""The divergence from the base model out of its largest probabilities: exact, or never too much."""

import pytest
import torch

from sft.probes.base_logits import TOP, BaseLogits, divergence


def log_probs(num, vocab, seed, scale=2.0):
    logits = torch.randn(num, vocab, generator=torch.Generator().manual_seed(seed))
    return (logits * scale).log_softmax(-1)


def exact(base, now):
    """KL(base || now) over the whole vocabulary, in fp64."""
    p, q = base.double(), now.double()
    return (p.exp() * (p - q)).sum(-1)


def remembered(base):
    kept = BaseLogits()
    kept.remember("x", base)
    return kept


@pytest.mark.parametrize("vocab", [5, TOP])
def test_it_is_exact_where_every_token_is_kept(vocab):
    base, now = log_probs(9, vocab, 0), log_probs(9, vocab, 1)
    found = remembered(base).divergence("x", 0, now)
    torch.testing.assert_close(found.double(), exact(base, now), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [0.3, 2.0, 6.0])
def test_otherwise_it_is_a_lower_bound_and_close_where_the_head_holds_most(scale):
    base, now = log_probs(50, 1000, 2, scale), log_probs(50, 1000, 3, scale)
    found = remembered(base).divergence("x", 0, now).double()
    truth = exact(base, now)
    assert bool((found <= truth + 1e-5).all()) and bool((found > 0).all())
    if scale == 6.0:  # nearly all of the probability is in 64 tokens
        assert float((found / truth).min()) > 0.9


def test_it_is_exact_where_the_tail_keeps_its_shape():
    base = log_probs(6, 300, 4)
    head = base.topk(TOP).indices
    lifted = base.clone()
    lifted.scatter_add_(1, head, log_probs(6, TOP, 5))
    now = lifted.log_softmax(-1)
    found = remembered(base).divergence("x", 0, now)
    torch.testing.assert_close(found.double(), exact(base, now), rtol=1e-4, atol=1e-5)


def test_the_base_model_has_not_moved_from_itself():
    base = log_probs(20, 500, 6)
    assert float(remembered(base).divergence("x", 0, base).abs().max()) < 1e-5


def test_a_prediction_without_a_tail_stays_finite():
    certain = torch.full((1, 200), -80.0)
    certain[0, 7] = 0.0
    found = remembered(certain).divergence("x", 0, log_probs(1, 200, 7))
    assert bool(found.isfinite().all()) and float(found) > 0
    away = remembered(log_probs(1, 200, 7)).divergence("x", 0, certain.log_softmax(-1))
    assert bool(away.isfinite().all()) and float(away) > 1


def test_positions_are_found_again_by_name_and_place():
    base, now = log_probs(7, 120, 8), log_probs(7, 120, 9)
    kept = BaseLogits()
    kept.remember("a", base[:2])  # examples come in pieces, other examples between them
    kept.remember("b", base[4:])
    kept.remember("a", base[2:4])
    assert (kept.num_positions("a"), kept.num_positions("b"), kept.num_positions("c")) == (4, 3, 0)
    assert "a" in kept and "c" not in kept
    whole = divergence(*remembered(base).rows("x", 0, 7), now)
    assert torch.equal(kept.divergence("a", 1, now[1:4]), whole[1:4])
    assert torch.equal(kept.divergence("b", 2, now[6:]), whole[6:])


def test_saved_and_loaded_it_says_the_same(tmp_path):
    base, now = log_probs(7, 120, 10), log_probs(7, 120, 11)
    kept = BaseLogits()
    kept.remember("val/rows.jsonl:3", base[:5])
    kept.remember("retain/self:1", base[5:])
    kept.remember("val/rows.jsonl:3", base[5:])
    kept.save(tmp_path / "base.safetensors")
    again = BaseLogits.load(tmp_path / "base.safetensors")
    for name, count in (("val/rows.jsonl:3", 7), ("retain/self:1", 2)):
        assert again.num_positions(name) == kept.num_positions(name) == count
        before = kept.divergence(name, 0, now[:count])
        assert torch.equal(again.divergence(name, 0, now[:count]), before)


def test_nothing_is_saved_where_nothing_is_known(tmp_path):
    kept = remembered(log_probs(2, 30, 12))
    kept.clear()
    assert "x" not in kept
    kept.save(tmp_path / "base.safetensors")
    assert list(tmp_path.iterdir()) == []
