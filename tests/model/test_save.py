"""What is saved is what was trained, for anyone who loads it; or it is not there at all."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from sft.config import MethodConfig
from sft.data.tokenize import Example
from sft.errors import DiskError
from sft.model.attention import FLAT
from sft.model.forward import Forward
from sft.model.lora import prepare_method, trained_parameters
from sft.model.save import save_model, verify_model
from sft.probes.val_loss import score_examples
from tolerance import assert_rounded, terms

IDS = torch.arange(380, 400)[None]
VARIANTS = {"plain": {}, "rslora": {"rslora": True}, "dora": {"dora": True}}


def example(row: int, length: int) -> Example:
    ids = np.random.default_rng(row).integers(5, 400, length)
    labels = np.append(ids[1:], -100)
    return Example(f"row:{row}", None, 0, ids, labels, (labels >= 0).astype(np.float32), 0)


EXAMPLES = [example(row, 20 - 2 * row) for row in range(6)]


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def trained(kind: str = "llama", new_tokens: list[int] | None = None, **lora):
    """A model and what `prepare_method` returned; adapters, if any, as after training."""
    model = tiny.model(kind)
    if not lora:
        return model, model
    method = MethodConfig(kind="lora", lora_rank=4, **lora)
    wrapper = prepare_method(model, method, new_tokens or [])
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in trained_parameters(model).items():
            if "lora_magnitude" not in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model, wrapper


def save(folder: Path, wrapper, *, is_lora: bool, dtype=torch.float32, tokenizer=None):
    return save_model(
        wrapper,
        tokenizer or tiny.tokenizer(),
        folder / "model",
        folder / "adapter",
        is_lora=is_lora,
        dtype=dtype,
        card="# A card, with ü\n",
    )


def losses(model) -> dict[str, float]:
    return {score.id: score.nll for score in score_examples(Forward(model), EXAMPLES, 50)}


def entries(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


# --- saving --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(tiny.CONFIGS))
def test_a_full_model_loads_in_plain_transformers_with_the_same_logits(tmp_path, kind):
    model, wrapper = trained(kind)
    wanted = logits(model)
    losses(model)  # switches the flat attention on, as training does
    assert model.config._attn_implementation == FLAT
    returned = save(tmp_path, wrapper, is_lora=False)
    assert entries(tmp_path) == ["model"]
    assert_rounded(logits(returned), wanted, terms(model))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert_rounded(logits(loaded), wanted, terms(model))
    assert "sft" not in (tmp_path / "model" / "config.json").read_text()


def test_tokenizer_template_and_card_are_with_it(tmp_path):
    _, wrapper = trained()
    save(tmp_path, wrapper, is_lora=False)
    loaded = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert loaded.chat_template == tiny.CHATML
    text = "The capital <|im_end|>"
    assert loaded(text).input_ids == tiny.tokenizer()(text).input_ids
    assert (tmp_path / "model" / "README.md").read_text("utf-8") == "# A card, with ü\n"
    assert not list((tmp_path / "model").glob("*.bin"))


@pytest.mark.parametrize("variant", sorted(VARIANTS))
@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
def test_a_lora_model_is_saved_merged_and_its_adapter_beside_it(tmp_path, kind, variant):
    base = tiny.save(tmp_path / "base", kind)
    model, wrapper = trained(kind, **VARIANTS[variant], lora_alpha=8.0)
    wanted = logits(model)
    save(tmp_path, wrapper, is_lora=True)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert_rounded(logits(loaded), wanted, terms(model))
    plain = AutoModelForCausalLM.from_pretrained(base)
    assert (logits(plain) - wanted).abs().max() > 0.1
    adapted = PeftModel.from_pretrained(plain, tmp_path / "adapter")
    assert_rounded(logits(adapted), wanted, terms(model))
    assert entries(tmp_path) == ["adapter", "base", "model"]


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_an_adapter_with_new_tokens_loads_with_peft(tmp_path, kind):
    base = tiny.save(tmp_path / "base", kind)
    model, wrapper = trained(kind, [398, 399], lora_alpha=8.0)
    wanted = logits(model)
    save(tmp_path, wrapper, is_lora=True)
    plain = AutoModelForCausalLM.from_pretrained(base)
    adapted = PeftModel.from_pretrained(plain, tmp_path / "adapter")
    assert_rounded(logits(adapted), wanted, terms(model))
    size = sum(p.numel() for n, p in trained_parameters(adapted).items())
    assert size < 0.2 * tiny.model(kind).num_parameters()


@pytest.mark.parametrize("kind", ["llama", "mistral"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_saved_in_the_dtype_of_the_base_and_tied_ones_once(tmp_path, kind, dtype):
    _, wrapper = trained(kind)
    before = {name: p.detach().clone() for name, p in wrapper.named_parameters()}
    save(tmp_path, wrapper, is_lora=False, dtype=dtype)
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {dtype}
    assert ("lm_head.weight" in weights) == (kind == "mistral")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert loaded.dtype == loaded.config.dtype == dtype
    for name, parameter in before.items():
        assert torch.equal(loaded.get_parameter(name), parameter.to(dtype))


def test_whole_numbers_stay_whole(tmp_path):
    """A buffer such as a count must not be rounded to the dtype of the weights."""
    model, _ = trained()
    model.register_buffer("count", torch.tensor([16_777_217]))
    save(tmp_path, model, is_lora=False, dtype=torch.bfloat16)
    saved = load_file(tmp_path / "model" / "model.safetensors")["count"]
    assert saved.dtype == torch.int64 and saved.item() == 16_777_217


# --- all or nothing ------------------------------------------------------------------------


class Stop:
    """A tokenizer that is saved after the weights, and never gets there."""

    def __init__(self, act) -> None:
        self.save_pretrained = lambda folder: act()


def test_killed_half_way_leaves_no_model(tmp_path):
    _, wrapper = trained()
    child = os.fork()
    if not child:
        try:
            save(
                tmp_path,
                wrapper,
                is_lora=False,
                tokenizer=Stop(lambda: os.kill(os.getpid(), signal.SIGKILL)),
            )
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    (left,) = entries(tmp_path)
    assert left.startswith(".tmp-")
    assert (tmp_path / left / "model.safetensors").exists()  # it was under way
    save(tmp_path, wrapper, is_lora=False)  # and nothing of it is in the way
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.equal(logits(loaded), logits(wrapper))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_stopped_half_way_keeps_the_model_of_before_and_cleans_up(tmp_path, error):
    _, wrapper = trained()
    save(tmp_path, wrapper, is_lora=False)
    before = (tmp_path / "model" / "model.safetensors").read_bytes()

    def fail():
        raise error

    with pytest.raises(error):
        save(tmp_path, tiny.model(seed=5), is_lora=False, tokenizer=Stop(fail))
    assert entries(tmp_path) == ["model"]
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
    save(tmp_path, tiny.model(seed=5), is_lora=False)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() != before


def test_a_full_disk_is_an_error_that_says_so(tmp_path):
    def fail():
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskError, match="model"):
        save(tmp_path, tiny.model(), is_lora=False, tokenizer=Stop(fail))
    assert entries(tmp_path) == []


# --- proving it ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proven(tmp_path_factory):
    """A saved model, and the losses it had in training."""
    folder = tmp_path_factory.mktemp("proven")
    model, wrapper = trained()
    expected = losses(model)
    save(folder, wrapper, is_lora=False)
    return folder / "model", expected


def verify(folder: Path, expected: dict[str, float], size: int = 1, dtype=torch.float32) -> str:
    return verify_model(folder, EXAMPLES, expected, size, dtype)


def test_a_saved_model_is_equal(proven):
    text = verify(*proven)
    assert text.startswith("equal: loaded by plain transformers, the loss of 4 validation rows ")
    assert float(text.split("at most ")[1].split()[0]) < 1e-4


@pytest.mark.parametrize("variant", ["plain", "dora"])
def test_a_merged_model_is_equal_to_the_adapted_one(tmp_path, variant):
    model, wrapper = trained("gpt2", **VARIANTS[variant], lora_alpha=8.0)
    expected = losses(model)
    save(tmp_path, wrapper, is_lora=True)
    assert verify(tmp_path / "model", expected).startswith("equal: ")


def test_a_rounded_model_is_equal_within_the_rounding(tmp_path):
    model, wrapper = trained("mistral")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)  # less extreme than the tiny models are
    expected = losses(model)
    save(tmp_path, wrapper, is_lora=False, dtype=torch.bfloat16)
    assert verify(tmp_path / "model", expected, dtype=torch.bfloat16).startswith("equal: ")


@pytest.mark.parametrize("value", [0.3, float("nan"), float("inf")])
def test_one_weight_that_changed_on_disk_is_different(proven, tmp_path, value):
    folder, expected = proven
    shutil.copytree(folder, tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"][3] += value
    save_file(weights, path, metadata={"format": "pt"})
    assert verify(tmp_path / "model", expected).startswith("DIFFERENT: ")


def test_a_row_that_differs_among_equal_ones_is_different(proven):
    folder, expected = proven
    shortest = EXAMPLES[-1].id
    assert verify(folder, {**expected, shortest: expected[shortest] + 1}).startswith("DIFFERENT")
    longest = EXAMPLES[0].id  # not among the four that are looked at
    assert verify(folder, {**expected, longest: 0.0}).startswith("equal")


def test_it_says_when_it_did_not_eval(proven):
    folder, expected = proven
    for text in (verify(folder, {}), verify(folder, expected, size=3_000_000_000)):
        assert text.startswith("not verified (")
