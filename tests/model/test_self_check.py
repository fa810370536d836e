"""Flat only where it is proven; padded, with a sentence, where not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GptOssConfig, LlamaForCausalLM, MambaConfig

import tiny
from sft.data.packing import pack
from sft.data.tokenize import Example
from sft.errors import ConfigError
from sft.model.forward import Forward
from sft.model.self_check import check_layout

CPU = torch.device("cpu")
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 400,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def example(row: int, length: int) -> Example:
    ids = np.random.default_rng(row).integers(5, 400, length)
    labels = np.append(ids[1:], -100)
    return Example(f"row:{row}", None, 0, ids, labels, (labels >= 0).astype(np.float32), 0)


EXAMPLES = [example(row, length) for row, length in enumerate([7, 7, 20, 11])]


class Leaky(LlamaForCausalLM):
    """Adds a running mean over the whole stream: right when padded, a leak when flat."""

    def __init__(self, config) -> None:
        super().__init__(config)
        self.model.embed_tokens.register_forward_hook(self._mix)

    @staticmethod
    def _mix(_module, _inputs, out):
        counts = torch.arange(1, out.shape[1] + 1)[None, :, None]
        return out + out.cumsum(1) / counts


class NoFlat(LlamaForCausalLM):
    """Its layers take no boundaries, as architectures of another make do not."""

    @property
    def base_model(self):
        return lambda input_ids, position_ids, use_cache: None


def leaky() -> Leaky:
    made = Leaky(tiny.CONFIGS["llama"]())
    made.load_state_dict(tiny.model().state_dict())
    return made


@pytest.mark.parametrize("wanted", ["auto", "flat"])
@pytest.mark.parametrize("kind", sorted(tiny.CONFIGS))
def test_equal_models_run_flat(kind, wanted):
    check = check_layout(tiny.model(kind), EXAMPLES, CPU, torch.float32, wanted)
    assert check.layout == "flat"
    assert check.reason.startswith("flat equals padded (largest difference ")


def test_a_model_that_leaks_runs_padded_and_says_why():
    check = check_layout(leaky(), EXAMPLES, CPU, torch.float32, "auto")
    assert check.layout == "padded"
    assert check.reason.startswith("Leaky gives other losses flat than padded (by ")
    assert check.reason.endswith("nats); training with padding, which is slower")


def test_a_leak_is_seen_between_equal_lengths_and_in_one_row_too():
    for examples in (EXAMPLES[:2], EXAMPLES[:1]):
        assert check_layout(leaky(), examples, CPU, torch.float32, "auto").layout == "padded"


def test_long_rows_only_are_checked_too():
    rows = [example(row, 180 + row) for row in range(5)]
    assert check_layout(leaky(), rows, CPU, torch.float32, "auto").layout == "padded"
    assert check_layout(tiny.model(), rows, CPU, torch.float32, "auto").layout == "flat"


def test_a_leak_refuses_flat():
    with pytest.raises(ConfigError, match=r"^model.attention: flat was asked for, but Leaky gives"):
        check_layout(leaky(), EXAMPLES, CPU, torch.float32, "flat")


def test_a_model_that_cannot_run_flat_runs_padded():
    model = NoFlat(tiny.CONFIGS["llama"]())
    check = check_layout(model, EXAMPLES, CPU, torch.float32, "auto")
    assert check.layout == "padded"
    assert check.reason.startswith("NoFlat cannot run flat (")
    with pytest.raises(ConfigError, match="flat was asked for, but NoFlat cannot run flat"):
        check_layout(model, EXAMPLES, CPU, torch.float32, "flat")


@pytest.mark.parametrize(
    "config",
    [
        GptOssConfig(**SMALL, num_key_value_heads=2, head_dim=16, num_local_experts=4),
        MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=400, state_size=8),
    ],
    ids=["attention with sinks", "no attention"],
)
def test_architectures_without_fused_attention_run_padded(config):
    model = AutoModelForCausalLM.from_config(config)
    assert check_layout(model, EXAMPLES, CPU, torch.float32, "auto").layout == "padded"
    sums = Forward(model, layout="padded").loss(pack(EXAMPLES))
    sums.objective.backward()
    assert float(sums.nll) > 0


def test_padded_that_was_asked_for_is_not_checked():
    check = check_layout(tiny.model(), [], CPU, torch.float32, "padded")
    assert (check.layout, check.reason) == ("padded", "model.attention: padded was asked for")


def test_losses_that_are_not_numbers_prove_nothing():
    model = tiny.model()
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    check = check_layout(model, EXAMPLES, CPU, torch.float32, "auto")
    assert check.layout == "padded" and "by nan nats" in check.reason


def test_bfloat16_has_its_own_tolerance():
    check = check_layout(tiny.model(), EXAMPLES, CPU, torch.bfloat16, "flat")
    assert check.layout == "flat"
    assert check_layout(leaky(), EXAMPLES, CPU, torch.bfloat16, "auto").layout == "padded"


def test_it_draws_no_random_numbers_and_changes_no_weight():
    model = tiny.model("gpt2")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    check_layout(model, EXAMPLES, CPU, torch.float32, "auto")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())
