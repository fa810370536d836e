"""The chunked loss against plain autograd cross-entropy, written out here."""

from __future__ import annotations

import math

import pytest
import torch

from sft.config.optim_section import LOSSES
from sft.errors import ConfigError
from sft.model import losses
from sft.model.losses import (
    LossSums,
    chunk_rows,
    linear_loss,
    logits_loss,
    loss_named,
    module_loss,
)

VOCAB, DIM = 11, 6


def by_hand(hidden, weight, bias, labels, weights, loss="nll"):
    """`LossSums` in float64, from the definition."""
    hidden, weight = hidden.double(), weight.double()
    logits = hidden @ weight.T + (0 if bias is None else bias.double())
    nll = torch.logsumexp(logits, -1) - logits[torch.arange(len(labels)), labels]
    share = torch.exp(-nll).detach() if loss == "dft" else torch.ones_like(nll)
    hits = (logits.argmax(-1) == labels).double()
    return LossSums((weights * share * nll).sum(), (weights * nll).sum(), (weights * hits).sum())


def problem(rows: int, with_bias: bool = True, seed: int = 0):
    torch.manual_seed(seed)
    hidden = torch.randn(rows, DIM, requires_grad=True)
    weight = torch.randn(VOCAB, DIM, requires_grad=True)
    bias = torch.randn(VOCAB, requires_grad=True) if with_bias else None
    labels = torch.randint(VOCAB, (rows,))
    weights = torch.rand(rows) + 0.1
    return hidden, weight, bias, labels, weights


def gradients(objective: torch.Tensor, *tensors: torch.Tensor | None) -> list[torch.Tensor]:
    return list(torch.autograd.grad(objective, [t for t in tensors if t is not None]))


def assert_same(found: LossSums, wanted: LossSums, *tensors: torch.Tensor | None) -> None:
    for name in ("objective", "nll", "correct"):
        ours, theirs = getattr(found, name).item(), getattr(wanted, name).item()
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6), name
    both = (gradients(sums.objective, *tensors) for sums in (found, wanted))
    for ours, theirs in zip(*both, strict=True):
        torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=1e-4, atol=1e-6)


def test_two_tokens_of_a_vocabulary_of_three_by_hand():
    """Logits [2, 0, 0] with label 0 and weight 1; [0, 1, 0] with label 2 and weight 0.5."""
    hidden = torch.eye(2, requires_grad=True)
    weight = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]], requires_grad=True)
    sums = linear_loss(hidden, weight, None, torch.tensor([0, 2]), torch.tensor([1.0, 0.5]))
    e, e2 = math.e, math.e**2
    nll = [math.log(e2 + 2) - 2, math.log(e + 2)]
    assert sums.objective.item() == pytest.approx(nll[0] + 0.5 * nll[1], rel=1e-6)
    assert sums.nll.item() == pytest.approx(nll[0] + 0.5 * nll[1], rel=1e-6)
    assert sums.correct.item() == 1.0
    first = [e2 / (e2 + 2) - 1, 1 / (e2 + 2), 1 / (e2 + 2)]
    second = [0.5 / (e + 2), 0.5 * e / (e + 2), 0.5 * (1 / (e + 2) - 1)]
    (found,) = gradients(sums.objective, weight)
    torch.testing.assert_close(found, torch.tensor([first, second]).T)


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("rows", [1, 7, 8, 9, 16, 40])
def test_linear_loss_is_plain_cross_entropy_at_every_chunk_border(
    monkeypatch, rows, with_bias, loss
):
    monkeypatch.setattr(losses, "chunk_rows", lambda *_: 8)
    hidden, weight, bias, labels, weights = problem(rows, with_bias)
    assert_same(
        linear_loss(hidden, weight, bias, labels, weights, loss_named(loss)),
        by_hand(hidden, weight, bias, labels, weights, loss),
        hidden,
        weight,
        bias,
    )


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("rows", [1, 256, 257, 600])
def test_module_loss_is_plain_cross_entropy(rows, loss):
    hidden, weight, bias, labels, weights = problem(rows)
    head = torch.nn.Linear(DIM, VOCAB)
    head.weight, head.bias = torch.nn.Parameter(weight.detach()), torch.nn.Parameter(bias.detach())
    assert_same(
        module_loss(hidden, head, labels, weights, loss_named(loss)),
        by_hand(hidden, head.weight, head.bias, labels, weights, loss),
        hidden,
        head.weight,
        head.bias,
    )


def test_no_token_at_all_is_zero():
    hidden, weight, bias, labels, weights = problem(0)
    sums = linear_loss(hidden, weight, bias, labels, weights)
    assert (sums.objective.item(), sums.nll.item(), sums.correct.item()) == (0, 0, 0)
    found = gradients(sums.objective, hidden, weight, bias)
    assert [tuple(g.shape) for g in found] == [(0, DIM), (VOCAB, DIM), (VOCAB,)]
    assert all(not g.any() for g in found)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_dft_and_nll_agree_on_what_is_reported_and_differ_in_what_is_minimised(loss):
    sums = linear_loss(*problem(5), loss_named(loss))
    assert (sums.objective.item() == sums.nll.item()) == (loss == "nll")
    assert sums.nll.item() == linear_loss(*problem(5)).nll.item()
    assert not sums.nll.requires_grad and not sums.correct.requires_grad


@pytest.mark.parametrize("frozen", ["hidden", "head"])
def test_what_is_frozen_gets_no_gradient(frozen):
    hidden, weight, bias, labels, weights = problem(5)
    wanted = gradients(
        by_hand(hidden, weight, bias, labels, weights).objective, hidden, weight, bias
    )
    for tensor in [hidden] if frozen == "hidden" else [weight, bias]:
        tensor.requires_grad_(False)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: (saved.append(tuple(t.shape)), t)[1], lambda t: t
    ):
        objective = linear_loss(hidden, weight, bias, labels, weights).objective
    # Nor is one computed.
    assert sorted(saved) == ([(VOCAB,), (VOCAB, DIM)] if frozen == "hidden" else [(5, DIM)])
    objective.backward()
    for tensor, gradient in zip((hidden, weight, bias), wanted, strict=True):
        if tensor.requires_grad:
            torch.testing.assert_close(tensor.grad, gradient.float(), rtol=1e-4, atol=1e-6)
        else:
            assert tensor.grad is None


def test_an_upstream_gradient_scales_all():
    hidden, weight, bias, labels, weights = problem(9)
    plain = gradients(
        linear_loss(hidden, weight, bias, labels, weights).objective, hidden, weight, bias
    )
    scaled = gradients(
        -linear_loss(hidden, weight, bias, labels, weights).objective / 4, hidden, weight, bias
    )
    for ours, theirs in zip(scaled, plain, strict=True):
        assert torch.equal(ours, -theirs / 4)


def test_a_second_backward_never_scales_twice():
    """The gradients are kept in place; asking again must fail rather than give another number."""
    hidden, weight, bias, labels, weights = problem(9)
    objective = linear_loss(hidden, weight, bias, labels, weights).objective * 3
    first = torch.autograd.grad(objective, hidden, retain_graph=True)[0].clone()
    try:
        second = torch.autograd.grad(objective, hidden)[0]
    except RuntimeError as error:
        assert "inplace" in str(error)
    else:
        assert torch.equal(first, second)


def test_large_logits_stay_finite():
    hidden, weight, bias, labels, weights = problem(6)
    far = (hidden.detach() * 1000).requires_grad_()
    assert_same(
        linear_loss(far, weight, bias, labels, weights),
        by_hand(far, weight, bias, labels, weights),
        far,
        weight,
    )


def test_float64_and_bfloat16_inputs():
    hidden, weight, _, labels, weights = problem(9)
    wanted = by_hand(hidden, weight, None, labels, weights).objective.item()
    double = linear_loss(hidden.double(), weight.double(), None, labels, weights)
    assert double.objective.item() == pytest.approx(wanted, rel=1e-6)
    half = hidden.detach().bfloat16().requires_grad_()
    sums = linear_loss(half, weight.bfloat16(), None, labels, weights)
    assert sums.objective.dtype == torch.float32
    assert sums.objective.item() == pytest.approx(wanted, rel=0.02)
    (found,) = gradients(sums.objective, half)
    assert found.dtype == torch.bfloat16


def test_autocast_computes_in_its_dtype_and_keeps_fp32_gradients():
    hidden, weight, bias, labels, weights = problem(30)
    exact = by_hand(hidden, weight, bias, labels, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sums = linear_loss(hidden, weight, bias, labels, weights)
    assert sums.objective.item() != pytest.approx(exact.objective.item(), rel=1e-6)
    wanted = gradients(exact.objective, hidden, weight, bias)
    found = gradients(sums.objective, hidden, weight, bias)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


def test_logits_of_one_chunk_only_are_alive(monkeypatch):
    """Every matrix with a vocabulary's width has at most as many rows as a chunk."""
    monkeypatch.setattr(losses, "chunk_rows", lambda *_: 8)
    shapes = []
    original = losses._chunk

    def seen(logits, *rest):
        shapes.append(tuple(logits.shape))
        return original(logits, *rest)

    monkeypatch.setattr(losses, "_chunk", seen)
    hidden, weight, bias, labels, weights = problem(20)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: (saved.append(tuple(t.shape)), t)[1], lambda t: t
    ):
        linear_loss(hidden, weight, bias, labels, weights).objective.backward()
    assert shapes == [(8, VOCAB), (8, VOCAB), (4, VOCAB)]
    assert sorted(saved) == sorted([(20, DIM), (VOCAB, DIM), (VOCAB,)])


def test_module_loss_keeps_no_logits():
    """Between forward and backward only the hidden states are kept."""
    hidden, weight, _, labels, weights = problem(600)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: (saved.append(tuple(t.shape)), t)[1], lambda t: t
    ):
        module_loss(hidden, lambda x: x @ weight.T, labels, weights)
    assert all(VOCAB not in shape for shape in saved)


def test_chunks_fit_their_budget_and_are_never_tiny():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for vocab in (400, 32_000, 150_000):
        assert chunk_rows(vocab, cpu) * vocab <= 2**24
        assert chunk_rows(vocab, cuda) * vocab <= 2**28
        assert chunk_rows(vocab, cuda) > chunk_rows(vocab, cpu) >= 16
    assert chunk_rows(10**9, cpu) == 16


def test_logits_loss_is_differentiable_through_the_label_and_the_rest():
    hidden, weight, bias, labels, weights = problem(7)
    logits = (hidden @ weight.T + bias).detach().requires_grad_()
    for loss in LOSSES:
        objective, nll, correct, _ = logits_loss(logits, labels, weights, loss_named(loss))
        identity = torch.eye(VOCAB)
        assert_same(
            LossSums(objective, nll, correct),
            by_hand(logits, identity, None, labels, weights, loss),
            logits,
        )


FOCAL = """
import torch

def focal(logits, labels, weights):
    log_p = logits.log_softmax(-1).gather(-1, labels[:, None])[:, 0]
    smooth = logits.logsumexp(-1) - logits.mean(-1)
    return weights * (-((1 - log_p.exp()) ** 2) * log_p + 0.1 * smooth)

def total(logits, labels, weights):
    return focal(logits, labels, weights).sum()

def one(logits):
    return logits

def shape(logits, labels, weights):
    return logits

def constant(logits, labels, weights):
    return weights

def fails(logits, labels, weights):
    return logits[len(labels) + 5]
"""


def focal_by_hand(logits, labels, weights):
    """In float64, on all logits at once."""
    nll = torch.logsumexp(logits, -1) - logits[torch.arange(len(labels)), labels]
    smooth = torch.logsumexp(logits, -1) - logits.mean(-1)
    return (weights * ((1 - torch.exp(-nll)) ** 2 * nll + 0.1 * smooth)).sum(), (
        weights * nll
    ).sum()


@pytest.mark.parametrize("name", ["focal", "total"])
@pytest.mark.parametrize("rows", [1, 8, 9, 300])
@pytest.mark.parametrize("way", ["linear", "module", "logits"])
def test_a_loss_of_logits_has_the_gradient_of_autograd_on_all_logits(
    tmp_path, monkeypatch, way, rows, name
):
    monkeypatch.setattr(losses, "chunk_rows", lambda *_: 8)
    (tmp_path / "mine.py").write_text(FOCAL)
    loss = loss_named(f"{tmp_path / 'mine.py'}:{name}")
    hidden, weight, bias, labels, weights = problem(rows)
    if way == "linear":
        found = linear_loss(hidden, weight, bias, labels, weights, loss)
    elif way == "module":
        found = module_loss(hidden, lambda x: x @ weight.T + bias, labels, weights, loss)
    else:
        found = LossSums(*logits_loss(hidden @ weight.T + bias, labels, weights, loss))
    logits = hidden.double() @ weight.double().T + bias.double()
    objective, nll = focal_by_hand(logits, labels, weights)
    hits = (weights * (logits.argmax(-1) == labels)).sum()
    assert_same(found, LossSums(objective, nll, hits), hidden, weight, bias)


@pytest.mark.parametrize(
    ("name", "problem_text"),
    [
        ("one", "takes 1 arguments; expected"),
        ("torch", "is no function"),
        ("shape", r"returns \(5, 11\); expected \(5,\)"),
        ("constant", "does not depend on the logits"),
        ("fails", "raises IndexError"),
        ("focale", "Did you mean 'focal'"),
    ],
)
def test_a_loss_that_cannot_be_used_is_one_sentence(tmp_path, name, problem_text):
    (tmp_path / "mine.py").write_text(FOCAL)
    with pytest.raises(ConfigError, match=problem_text):
        linear_loss(*problem(5), loss_named(f"{tmp_path / 'mine.py'}:{name}"))
