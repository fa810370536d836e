"""Adapters that train alone, merge exactly, and teach new tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PhiConfig

import tiny
from sft.config import MethodConfig, OptimConfig
from sft.data.packing import pack
from sft.data.tokenize import Example
from sft.errors import ConfigError
from sft.model.forward import Forward
from sft.model.lora import merge, prepare_method, trained_parameters
from sft.model.save import save_model
from sft.model.self_check import check_layout
from sft.training.optimizers import build_optimizer
from sft.training.step import train_step
from tolerance import assert_rounded, rounded, terms

IDS = torch.arange(380, 400)[None]
NEW = [398, 399]
VARIANTS = {"plain": {}, "rslora": {"rslora": True}, "dora": {"dora": True}}
TIED = {"llama": True, "gpt2": True, "gemma2": True, "mistral": False, "qwen3": False}


def lora(**values) -> MethodConfig:
    return MethodConfig(**{"kind": "lora", "lora_rank": 4, "lora_alpha": 8.0, **values})


def example(row: int, length: int = 24) -> Example:
    """Rows in which the new tokens are read and predicted, as chat markers are."""
    ids = np.random.default_rng(row).integers(5, 398, length)
    ids[::5], ids[3::5] = NEW
    labels = np.append(ids[1:], -100)
    labels[:4] = -100
    return Example(f"row:{row}", None, 0, ids, labels, (labels >= 0).astype(np.float32), 0)


EXAMPLES = [example(row, 12 + 5 * row) for row in range(3)]


def disturb(model) -> None:
    """Adapters as after training; at first their product is zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in trained_parameters(model).items():
            if "lora_A" in name or "lora_B" in name:
                parameter.normal_(0, 0.2)
            elif "lora_magnitude" in name:
                parameter.mul_(1 + 0.2 * torch.rand_like(parameter))
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def train(model, num_steps: int = 2) -> None:
    """One step cannot move A, because B is zero; the second does."""
    parameters = trained_parameters(model)
    optimizer = build_optimizer(parameters, OptimConfig(), 1.0)
    for step in range(1, num_steps + 1):
        train_step(
            Forward(model),
            optimizer,
            parameters,
            [pack(EXAMPLES)],
            step=step,
            learning_rate=0.02,
            max_grad_norm=1.0,
        )


# --- adapters ------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", sorted(VARIANTS))
@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
def test_merged_is_unmerged(kind, variant):
    model = tiny.model(kind)
    base = logits(model)
    trained = prepare_method(model, lora(**VARIANTS[variant]))
    assert_rounded(logits(model), base, terms(model))  # nothing yet
    disturb(model)
    wanted = logits(model)
    assert (wanted - base).abs().max() > 0.1
    merged = merge(trained)
    assert type(merged) is type(model)
    assert not [name for name, _ in merged.named_modules() if "lora" in name]
    assert_rounded(logits(merged), wanted, terms(merged))


@pytest.mark.parametrize(("rslora", "scale"), [(False, 8 / 4), (True, 8 / math.sqrt(4))])
def test_the_update_is_scaled_by_alpha_over_rank(rslora, scale):
    model = tiny.model()
    trained = prepare_method(model, lora(rslora=rslora))
    disturb(model)
    layer = model.model.layers[0].self_attn.q_proj
    base = layer.base_layer.weight.detach().clone()
    update = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    assert update.shape == (32, 32) and layer.lora_A["default"].weight.shape[0] == 4
    merged = merge(trained).model.layers[0].self_attn.q_proj.weight
    assert_rounded(merged, base + scale * update, 4)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_step_changes_adapters_and_nothing_else(kind, variant):
    model = tiny.model(kind)
    prepare_method(model, lora(**VARIANTS[variant]))
    assert all("lora_" in name for name in trained_parameters(model))
    magnitudes = [name for name in trained_parameters(model) if "magnitude" in name]
    assert bool(magnitudes) == (variant == "dora")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == ("lora_" not in name), name


def test_all_linear_is_every_matrix_but_the_head():
    model = tiny.model("llama")
    prepare_method(model, lora())
    wrapped = {name.split(".lora_")[0] for name in trained_parameters(model)}
    leaves = {name.rsplit(".", 1)[-1] for name in wrapped}
    assert leaves == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert len(wrapped) == 2 * 7


def test_gpt2_matrices_are_transposed_and_still_found():
    model = tiny.model("gpt2")
    prepare_method(model, lora())
    leaves = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in trained_parameters(model)}
    assert leaves == {"c_attn", "c_proj", "c_fc"}


def test_dropout_is_in_training_only():
    model = tiny.model()
    prepare_method(model, lora(lora_dropout=0.5))
    disturb(model)
    forward = Forward(model)
    assert len({float(forward.loss(pack(EXAMPLES)).nll) for _ in range(3)}) == 3
    assert torch.equal(forward.scores(pack(EXAMPLES))[0], forward.scores(pack(EXAMPLES))[0])


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("layout", ["flat", "padded"])
def test_adapters_get_the_gradient_of_transformers_own_loss(layout, checkpointing):
    model, reference = tiny.model("mistral-window"), tiny.model("mistral-window")
    prepare_method(model, lora(activation_checkpointing=checkpointing))
    prepare_method(reference, lora())
    disturb(model)
    disturb(reference)
    assert_loss_and_gradients(model, reference, layout)


# --- what is targeted ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "modules"),
    [
        ("q_proj", 2),
        (["q_proj", "v_proj"], 4),
        (["layers.1.mlp.up_proj"], 1),
        (["model.layers.0.self_attn.k_proj", "down_proj"], 3),
    ],
)
def test_targets_are_names_or_ends_of_names(targets, modules):
    model = tiny.model()
    prepare_method(model, lora(target_modules=targets))
    assert len(trained_parameters(model)) == 2 * modules


@pytest.mark.parametrize("targets", ["q_prj", ["q_prj"], ["v_proj", "q_prj"]])
def test_a_target_that_is_not_there_is_an_error_with_the_nearest_name(targets):
    with pytest.raises(ConfigError, match=r"no module 'q_prj'\. Did you mean 'q_proj'\?"):
        prepare_method(tiny.model(), lora(target_modules=targets))


def test_a_target_that_is_there_only_in_part_is_an_error():
    with pytest.raises(ConfigError, match=r"no module 'mlp.k_proj'"):
        prepare_method(tiny.model(), lora(target_modules=["q_proj", "mlp.k_proj"]))


def test_a_target_that_cannot_have_an_adapter_is_an_error():
    with pytest.raises(ConfigError, match=r"^method\.target_modules: "):
        prepare_method(tiny.model(), lora(target_modules=["input_layernorm"]))


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_a_tied_head_is_no_target(target):
    """Merged into the one weight, the update would reach both of its uses."""
    with pytest.raises(ConfigError, match=f"'{target}' cannot have LoRA matrices"):
        prepare_method(tiny.model("llama"), lora(target_modules=["q_proj", target]))


def test_an_untied_head_is_a_target_and_merges():
    model = tiny.model("mistral")
    trained = prepare_method(model, lora(target_modules=["q_proj", "lm_head"]))
    disturb(model)
    wanted, sums = logits(model), Forward(model).loss(pack(EXAMPLES))
    sums.objective.backward()
    assert all(p.grad.norm() > 0 for p in trained_parameters(model).values())
    plain = merge(trained)
    assert float(Forward(plain).loss(pack(EXAMPLES)).nll) == rounded(float(sums.nll), terms(plain))
    plain.set_attn_implementation("sdpa")
    assert_rounded(logits(plain), wanted, terms(plain))


# --- frozen --------------------------------------------------------------------------------


def test_patterns_choose_what_is_trained():
    model = tiny.model()
    patterns = [r"layers\.1\.mlp", r"^model\.norm"]
    assert prepare_method(model, MethodConfig(kind="frozen", trainable=patterns)) is model
    chosen = {f"model.layers.1.mlp.{n}_proj.weight" for n in ("gate", "up", "down")}
    assert set(trained_parameters(model)) == chosen | {"model.norm.weight"}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in trained_parameters(model))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("model.norm.wieght", r"'model.norm.wieght' matches no parameter\. Did you mean 'model\.n"),
        ("nothing at all", r"matches no parameter\. The names look like model\.embed_tokens"),
        ("layers.(", r"'layers\.\(' is not a pattern"),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error(pattern, message):
    with pytest.raises(ConfigError, match=message):
        method = MethodConfig(kind="frozen", trainable=["norm", pattern])
        prepare_method(tiny.model(), method)


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_frozen_trains_embedding_and_head_when_there_are_new_tokens(kind):
    model = tiny.model(kind)
    prepare_method(model, MethodConfig(kind="frozen", trainable=["model.norm"]), NEW)
    head = set() if TIED[kind] else {"lm_head.weight"}
    expected = {"model.norm.weight", "model.embed_tokens.weight"} | head
    assert set(trained_parameters(model)) == expected


def test_full_trains_all():
    model = tiny.model()
    assert prepare_method(model, MethodConfig()) is model
    assert len(trained_parameters(model)) == len(list(model.parameters()))


# --- new tokens ----------------------------------------------------------------------------


def assert_loss_and_gradients(model, reference, layout: str) -> None:
    """Those of `reference`, by transformers' own forward with labels, one example at a time."""
    total = 0.0
    for one in EXAMPLES:
        ids = torch.from_numpy(one.input_ids)[None]
        labels = torch.full_like(ids, -100)
        labels[0, 1:] = torch.from_numpy(one.labels)[:-1]
        loss = reference(input_ids=ids, labels=labels).loss * one.num_trained
        loss.backward()
        total += loss.item()
    sums = Forward(model, layout=layout).loss(pack(EXAMPLES))
    sums.objective.backward()
    assert float(sums.nll) == pytest.approx(total, rel=1e-5)
    wanted = trained_parameters(reference)
    assert set(wanted) == set(trained_parameters(model))
    for name, parameter in trained_parameters(model).items():
        gradient = wanted[name].grad
        assert gradient.norm() > 0
        assert (parameter.grad - gradient).norm() <= 1e-4 * gradient.norm(), name


@pytest.mark.parametrize("layout", ["flat", "padded"])
@pytest.mark.parametrize("kind", sorted(TIED))
def test_new_tokens_have_the_gradient_of_transformers_own_loss(kind, layout):
    model, reference = tiny.model(kind), tiny.model(kind)
    for made in (model, reference):
        prepare_method(made, lora(), NEW)
        disturb(made)
    assert_loss_and_gradients(model, reference, layout)


@pytest.mark.parametrize("kind", sorted(set(TIED) - {"gemma2"}))  # its logits are capped
def test_new_tokens_are_trained_where_they_are_read_and_where_they_are_written(kind):
    model = tiny.model(kind)
    prepare_method(model, lora(), NEW)
    rows = [p for name, p in trained_parameters(model).items() if "lora_" not in name]
    assert [tuple(p.shape) for p in rows] == [(2, 32)] * (1 if TIED[kind] else 2)
    with torch.no_grad():  # as after a resize: both new rows are the same
        for parameter in rows:
            parameter[1] = parameter[0]
    forward = Forward(model)
    before = forward.scores(pack(EXAMPLES))[0]
    train(model, 40)
    after = forward.scores(pack(EXAMPLES))[0]
    labels = torch.cat([torch.from_numpy(e.labels[e.labels >= 0]) for e in EXAMPLES])
    for token in NEW:  # both can be told apart, and are predicted
        assert after[labels == token].mean() < 0.3 < math.log(2) < before[labels == token].mean()


@pytest.mark.parametrize("kind", sorted(TIED))
def test_only_the_new_rows_of_the_embedding_change_and_they_survive_saving(kind, tmp_path):
    model = tiny.model(kind)
    embedding = model.get_input_embeddings().weight.detach().clone()
    head = model.get_output_embeddings().weight.detach().clone()
    trained = prepare_method(model, lora(), NEW)
    train(model)
    expected = Forward(model).scores(pack(EXAMPLES))[0]
    save_model(
        trained,
        tiny.tokenizer(),
        tmp_path / "model",
        tmp_path / "adapter",
        is_lora=True,
        dtype=torch.float32,
        card="",
    )
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    for before, after in (
        (embedding, loaded.get_input_embeddings().weight),
        (head, loaded.get_output_embeddings().weight),
    ):
        changed = (before != after).any(1).nonzero().flatten().tolist()
        assert changed == NEW
    found = Forward(loaded, layout="padded").scores(pack(EXAMPLES))[0]
    assert_rounded(found, expected, terms(loaded))


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_new_tokens_are_flat_and_checkpointed_too(kind):
    plain, checkpointed = tiny.model(kind), tiny.model(kind)
    prepare_method(plain, lora(), NEW)
    prepare_method(checkpointed, lora(activation_checkpointing=True), NEW)
    for model in (plain, checkpointed):
        disturb(model)
        check = check_layout(model, EXAMPLES, torch.device("cpu"), torch.float32, "flat")
        assert check.layout == "flat"
        Forward(model).loss(pack(EXAMPLES)).objective.backward()
    for name, parameter in trained_parameters(plain).items():
        assert torch.equal(parameter.grad, trained_parameters(checkpointed)[name].grad), name


def test_new_tokens_of_a_head_with_a_bias_are_refused():
    """Peft would run that head without its bias."""
    config = PhiConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        vocab_size=400,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(ConfigError, match=r"head has a bias.*model\.template=plain"):
        prepare_method(model, lora(), NEW)
    prepare_method(model, lora())


def test_an_adapter_and_new_rows_on_one_matrix_are_refused():
    with pytest.raises(ConfigError, match="'lm_head' cannot have LoRA matrices: its rows for the"):
        prepare_method(tiny.model("mistral"), lora(target_modules=["q_proj", "lm_head"]), NEW)
