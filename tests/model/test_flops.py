"""The formula against PyTorch's own counter.

The counter needs eager attention (it misses the fused kernel on CPU), and eager attention
computes the whole square of scores, where the formula counts the causal half. So the attention
part is replaced here by the full square; all else must agree to the operation.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen3Config

import tiny
from sft.config import MethodConfig
from sft.model.flops import attended, model_shape
from sft.model.lora import prepare_method

ROWS, LENGTH = 2, 64
TOKENS = ROWS * LENGTH
SIZE = {
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
}
CONFIGS = {
    "llama": lambda tied: LlamaConfig(**SIZE, tie_word_embeddings=tied),
    "gpt2": lambda tied: GPT2Config(
        n_embd=128, n_layer=3, n_head=4, n_positions=64, vocab_size=1000, tie_word_embeddings=tied
    ),
    "wide heads": lambda tied: Qwen3Config(**SIZE, head_dim=64, tie_word_embeddings=tied),
}
LORA = MethodConfig(kind="lora", lora_rank=8)
both = pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
every_kind = pytest.mark.parametrize("kind", sorted(CONFIGS))


def build(kind: str, tied: bool):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[kind](tied), attn_implementation="eager")


def counted(model, backward: bool = True) -> float:
    """FLOPs of one pass over `ROWS` sequences of `LENGTH` tokens, as PyTorch counts them."""
    ids = torch.arange(TOKENS).view(ROWS, LENGTH)
    with FlopCounterMode(display=False) as counter:
        loss = model.train()(input_ids=ids, labels=ids, use_cache=False).loss
        if backward:
            loss.backward()
    return float(counter.get_total_flops())


def full_square(shape, formula: float, times: int) -> float:
    """`formula`, with every query attending to every key; `times` is 12 or 4 per pair."""
    width = sum(width for width, _ in shape.layers)
    pairs = ROWS * (LENGTH**2 - attended(LENGTH))
    return formula + times * width * pairs


def train_flos(model) -> float:
    shape = model_shape(model)
    return full_square(shape, shape.train_flos([LENGTH] * ROWS), 12)


@both
@every_kind
def test_full_training(kind, tied):
    model = build(kind, tied)
    assert train_flos(model) == pytest.approx(counted(model), rel=1e-6)


@both
@every_kind
def test_lora_training(kind, tied):
    """The formula has an input gradient for every matrix; the first layer's need none.

    That is three per cent in these three layers, and 0.2 in the thirty of a real model.
    """
    model = build(kind, tied)
    prepare_method(model, LORA)
    first = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))[0]
    saved = 0
    for name, module in first.named_modules():
        leaf = name.split(".")
        if leaf[-1] == "base_layer" or "lora_A" in leaf[:-1]:
            reads_embeddings = {"q_proj", "k_proj", "v_proj", "c_attn"} & set(leaf)
            saved += 2 * TOKENS * module.weight.numel() if reads_embeddings else 0
    assert 0 < saved < 0.04 * train_flos(model)
    assert train_flos(model) - saved == pytest.approx(counted(model), rel=1e-6)


@both
@every_kind
def test_lora_training_with_a_gradient_down_to_the_embedding(kind, tied):
    """As activation checkpointing has it; then not an operation is missing."""
    model = build(kind, tied)
    prepare_method(model, LORA)
    model.enable_input_require_grads()
    assert train_flos(model) == pytest.approx(counted(model), rel=1e-6)


def test_frozen_layers_need_no_weight_gradient():
    model = build("llama", False)
    prepare_method(model, MethodConfig(kind="frozen", trainable=[r"layers\.[12]\.", "lm_head"]))
    model.enable_input_require_grads()
    assert train_flos(model) == pytest.approx(counted(model), rel=1e-6)


def test_lora_costs_about_seventy_per_cent_of_full_training():
    full = model_shape(build("llama", True))
    model = build("llama", True)
    prepare_method(model, LORA)
    share = model_shape(model).train_flos([LENGTH]) / full.train_flos([LENGTH])
    assert 0.66 < share < 0.8


@pytest.mark.parametrize(
    ("tied", "targets", "new_tokens"),
    [
        (True, "all-linear", [998, 999]),
        (False, "all-linear", [998, 999]),
        (False, ["q_proj", "lm_head"], []),
    ],
)
def test_every_matrix_is_counted_once_with_and_without_wrappers(tied, targets, new_tokens):
    """Trained token rows and LoRA on the head wrap the head; its matrix is one matrix still."""
    plain = model_shape(build("llama", tied))
    assert plain.num_matmul == 128_000 + 3 * (128 * (128 + 64 + 64 + 128) + 3 * 128 * 320)
    assert plain.num_trained == plain.num_matmul
    model = build("llama", tied)
    prepare_method(model, LORA.model_copy(update={"target_modules": targets}), new_tokens)
    adapter = sum(p.numel() for n, p in model.named_parameters() if "lora_" in n)
    shape = model_shape(model)
    assert shape.num_matmul == plain.num_matmul + adapter
    assert shape.num_trained == adapter > 0


class Head(torch.nn.Module):
    """A head of another make: neither Linear nor wrapped by peft."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1000, 128))
        self.bias = torch.nn.Parameter(torch.zeros(1000))


def test_a_head_of_another_make_counts_too():
    model = build("llama", False)
    plain = model_shape(model)
    model.set_output_embeddings(Head())
    assert model_shape(model).num_matmul == plain.num_matmul
    assert model_shape(model).num_trained == plain.num_trained


@pytest.mark.parametrize("window", [None, 1, 2, 7, 8, 9, 50])
@pytest.mark.parametrize("length", [1, 2, 8, 9, 30])
def test_attended_pairs_by_brute_force(length, window):
    reach = length if window is None else window
    pairs = sum(1 for q in range(length) for k in range(length) if 0 <= q - k < reach)
    assert attended(length, window) == pairs


@pytest.mark.parametrize(
    ("kind", "width", "windows"),
    [
        ("gpt2", 32, (None, None)),
        ("mistral", 32, (None, None)),
        ("mistral-window", 32, (8, 8)),
        ("qwen3", 64, (None, None)),
        ("gemma2", 64, (8, None)),
    ],
)
def test_widths_and_windows_are_read_off_the_config(kind, width, windows):
    assert model_shape(tiny.model(kind)).layers == tuple((width, window) for window in windows)


def test_sequences_add_up_and_the_window_saves():
    shape, windowed = (model_shape(tiny.model(kind)) for kind in ("mistral", "mistral-window"))
    assert shape.train_flos([30, 7]) == shape.train_flos([30]) + shape.train_flos([7])
    assert shape.train_flos(iter([30, 7])) == shape.train_flos([30, 7])
    assert shape.train_flos([30]) > shape.train_flos([15, 15])  # longer attends to more
    assert windowed.train_flos([8]) == shape.train_flos([8])
    saved = 12 * 2 * 32 * (math.comb(31, 2) - (36 + 22 * 8))
    assert shape.train_flos([30]) - windowed.train_flos([30]) == saved
