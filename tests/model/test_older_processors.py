"""The numeric tests hold on processors without AVX-512, and without AVX at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CHOSEN = (
    "model/test_save.py::test_a_lora_model_is_saved_merged_and_its_adapter_beside_it",
    "model/test_lora.py::test_merged_is_unmerged",
    "model/test_forward.py::test_heads_that_are_not_just_a_matrix",
    "invariants/test_equivalences.py::test_flat_and_padded_are_transformers_own_loss_and_gradients",
    "invariants/test_equivalences.py::test_any_grouping_is_the_same_step",
)
LIMITS = {
    "none": ("default", "SSE41", "SSE4_2"),
    "avx2": ("avx2", "AVX2", "AVX2"),
}


@pytest.mark.slow
@pytest.mark.parametrize("instructions", LIMITS)
def test_the_numbers_hold_with_fewer_instructions(instructions):
    names = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
    limits = dict(zip(names, LIMITS[instructions], strict=True))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", *CHOSEN],
        cwd=TESTS,
        env={**os.environ, **limits},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
