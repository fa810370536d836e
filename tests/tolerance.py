"""How far two right computations of one number may lie apart, on any processor.

Another order of summation rounds differently: AVX2, AVX-512 and AMX add in blocks of different
size, and with or without fused multiply-add. Each of n additions rounds by up to eps / 2 of the
sum so far, in either direction, so the errors grow like a random walk:

    |a - b|  <=  8 * eps * sqrt(n) * scale

with eps of the dtype, n the summed terms from input to result (through all layers), and scale the
largest value on the way. 8 standard deviations leave room for intermediate values that are larger
than the result. A wrong formula is off by a share of the scale: four to six digits more.
"""

from __future__ import annotations

import math

import pytest
import torch


def allowed(terms: int, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> float:
    """The largest difference that rounding explains."""
    return 8 * torch.finfo(dtype).eps * math.sqrt(terms) * scale


def terms(model: torch.nn.Module) -> int:
    """Summed terms on the way through `model`: the rows of its matrices, one after the other."""
    return sum(p.shape[-1] for p in model.parameters() if p.dim() == 2)


def assert_rounded(found: torch.Tensor, wanted: torch.Tensor, terms: int) -> None:
    """`found` is `wanted` but for rounding; the scale is the largest of `wanted`."""
    atol = allowed(terms, float(wanted.detach().abs().max()), wanted.dtype)
    torch.testing.assert_close(found, wanted, rtol=0, atol=atol)


def rounded(wanted: float, terms: int) -> object:
    """What a sum that should be `wanted` is compared with."""
    return pytest.approx(wanted, rel=allowed(terms))
