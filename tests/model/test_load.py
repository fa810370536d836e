"""From a name or folder to model and tokenizer; what is wrong with either is one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, GenerationConfig

import tiny
from sft.config import ModelConfig
from sft.errors import ConfigError
from sft.model.load import (
    fingerprint,
    load_config,
    load_model,
    load_tokenizer,
    model_folder,
    set_stop_ids,
    stop_ids,
    weights_dtype,
)

BARE = ["<pad>", "<s>", "</s>"]  # no chat markers


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy that may be broken."""
    return Path(shutil.copytree(saved, tmp_path / "llama"))


def load(name, template: str = "auto", kind: str = "full", dtype: torch.dtype = torch.float32):
    config = ModelConfig(name=str(name), template=template)
    path = model_folder(config)
    load_config(config, path)
    tokenizer = load_tokenizer(config, path, kind)
    return load_model(config, path, tokenizer, dtype=dtype), tokenizer


def problem(name, template: str = "auto") -> str:
    """The error of loading `name`, which is one line."""
    with pytest.raises(ConfigError) as error:
        load(name, template)
    text = str(error.value)
    assert "\n" not in text
    return text


def base_model(folder: Path, kind: str = "llama") -> tuple[Path, int]:
    """A model without template and chat markers, and as many rows as its tokenizer has."""
    tokenizer = tiny.tokenizer(None, BARE)
    model = tiny.model(kind)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, len(tokenizer)


# --- folders and names ---------------------------------------------------------------------


def test_a_good_folder_loads_as_it_was_saved(saved):
    model, tokenizer = load(saved)
    original = tiny.model().state_dict()
    assert all(torch.equal(value, original[name]) for name, value in model.state_dict().items())
    assert (tokenizer.template_source, tokenizer.new_tokens) == ("the model's tokenizer", ())
    assert tokenizer.tokenizer.chat_template == tiny.CHATML


def test_weights_come_in_the_dtype_that_is_asked_for(saved):
    model, _ = load(saved, dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_a_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()
    assert problem(folder) == (
        f"model.name: {folder} holds no weights (*.safetensors). Only its configuration is there."
    )


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_a_folder_with_a_pickle_only(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    text = problem(folder)
    assert f"It holds {name}, a pickle, which sft does not open" in text


def test_a_folder_without_config(folder):
    (folder / "config.json").unlink()
    assert problem(folder).endswith("holds no config.json, so it is no model folder")


def test_a_file_instead_of_a_folder(folder):
    path = folder / "model.safetensors"
    assert problem(path).endswith(f"{path} is a file; give the folder that holds config.json")


def test_a_hub_name_that_is_not_there(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    text = problem("nobody/no-such-model")
    assert text.startswith("model.name: 'nobody/no-such-model' cannot be loaded from a folder or ")


def test_the_nearest_name_is_offered(monkeypatch, folder):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert problem("startr").endswith("Did you mean 'starter'?")
    assert problem(folder.parent / "lama").endswith("Did you mean 'llama'?")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model_type": "no-such-type"}'])
def test_a_config_that_cannot_be_read(folder, content):
    (folder / "config.json").write_text(content)
    text = problem(folder)
    assert text.startswith(f"model.name: '{folder}' cannot be loaded")
    assert "Did you mean" not in text  # it is there; another name will not help


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_config_that_the_tokenizer_meets_first(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_tokenizer(ModelConfig(name=str(folder)), str(folder), "full")


def test_an_architecture_that_does_not_write_text(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    assert "AutoModelForCausalLM" in problem(folder)


@pytest.mark.parametrize("content", ["", "{", "{}"])
def test_a_tokenizer_that_cannot_be_read(folder, content):
    (folder / "tokenizer.json").write_text(content)
    assert problem(folder).startswith(f"model.name: '{folder}' cannot be loaded")


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_weights_that_are_cut_off(folder, kept):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert problem(folder).startswith(f"model.name: '{folder}' cannot be loaded")


def rewrite(folder: Path, name: str, value: torch.Tensor | None) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    if value is not None:
        weights[name] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("value", [None, torch.zeros(3, 3)], ids=["missing", "other shape"])
def test_weights_that_are_not_all_there_are_never_made_up(folder, value):
    """Transformers would go on with random numbers in their place."""
    name = "model.layers.1.mlp.up_proj.weight"
    rewrite(folder, name, value)
    text = problem(folder)
    assert text.endswith(f"for 1 parameters of its architecture, such as {name}")


@pytest.mark.parametrize("kind", sorted(tiny.CONFIGS))
def test_every_architecture_is_complete_with_what_it_saves(tmp_path, kind):
    model, _ = load(tiny.save(tmp_path / "model", kind))
    assert fingerprint(model) == fingerprint(tiny.model(kind))


# --- templates -----------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "source"), [("full", "chatml"), ("lora", "plain")])
def test_a_base_model_gets_a_named_template(tmp_path, kind, source):
    folder, rows = base_model(tmp_path / "base")
    model, tokenizer = load(folder, kind=kind)
    assert tokenizer.template_source == f"{source}, because the model has none"
    assert ("<|im_start|>" in tokenizer.tokenizer.chat_template) == (source == "chatml")
    grown = 2 if source == "chatml" else 0
    assert len(tokenizer.new_tokens) == grown
    assert model.get_input_embeddings().weight.shape[0] == model.config.vocab_size == rows + grown


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
def test_chatml_adds_tokens_whose_rows_are_the_mean_of_the_old(tmp_path, kind):
    folder, rows = base_model(tmp_path / "base", kind)
    before = AutoModelForCausalLM.from_pretrained(folder)
    model, info = load(folder, "chatml")
    assert info.new_tokens == ("<|im_start|>", "<|im_end|>")
    assert info.tokenizer.convert_tokens_to_ids(list(info.new_tokens)) == [rows, rows + 1]
    assert info.tokenizer.encode("<|im_end|>", add_special_tokens=False) == [rows + 1]
    assert info.tokenizer.decode([rows + 1], skip_special_tokens=True) == ""
    for part in ("get_input_embeddings", "get_output_embeddings"):
        old, new = getattr(before, part)().weight, getattr(model, part)().weight
        assert torch.equal(new[:rows], old)
        torch.testing.assert_close(new[rows:], old.mean(0).expand(2, -1))
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied == before.config.tie_word_embeddings == (kind != "mistral")
    ids = torch.arange(5, 30)[None]
    old, new = (m.eval()(input_ids=ids).logits for m in (before, model))
    torch.testing.assert_close(new[..., :rows], old)
    assert (new[..., rows:] < new.max(-1, keepdim=True).values).all()  # none sticks out


def test_chatml_adds_nothing_that_is_there(saved):
    model, info = load(saved, "chatml")
    assert info.template_source == "chatml" and info.new_tokens == ()
    assert model.get_input_embeddings().weight.shape[0] == 400
    assert info.tokenizer.convert_tokens_to_ids("<|im_end|>") == 4


def test_room_in_the_embedding_is_used_and_not_grown(tmp_path):
    tiny.model().save_pretrained(tmp_path)  # 400 rows
    bare = tiny.tokenizer(None, BARE)
    bare.save_pretrained(tmp_path)
    assert len(bare) + 2 <= 400
    model, info = load(tmp_path, "chatml")
    assert len(info.new_tokens) == 2
    assert fingerprint(model) == fingerprint(tiny.model())


def test_a_template_from_a_file_and_plain(saved, tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text("{{ messages[0]['content'] }}ü", encoding="utf-8")
    _, info = load(saved, str(path))
    assert info.tokenizer.chat_template == "{{ messages[0]['content'] }}ü"
    assert (info.template_source, info.new_tokens) == (str(path), ())
    _, info = load(saved, "plain")
    assert info.template_source == "plain" and "<|im_start|>" not in info.tokenizer.chat_template


def test_a_template_that_is_not_there(saved):
    text = problem(saved, "chatm")
    assert text.startswith("model.template: 'chatm' is neither a file nor one of auto, chatml, pla")
    assert text.endswith("Did you mean 'chatml'?")


# --- stop ids ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "trained", "expected"),
    [
        (2, 4, [4, 2]),
        ([2, 7], 4, [4, 2, 7]),
        ([7, 4], 4, [4, 7, 2]),
        (None, 2, [2]),
        (2, 2, [2]),
    ],
)
def test_the_trained_stop_comes_first_and_is_saved(own, trained, expected, tmp_path):
    model, tokenizer = tiny.model(), tiny.tokenizer()  # </s> is 2
    model.generation_config.eos_token_id = own
    assert stop_ids(model, tokenizer, trained) == expected
    assert model.generation_config.eos_token_id == own  # asking changes nothing
    set_stop_ids(model, tokenizer, expected)
    assert stop_ids(model, tokenizer, trained) == expected
    model.save_pretrained(tmp_path)
    saved = GenerationConfig.from_pretrained(tmp_path)
    assert saved.eos_token_id == (expected if len(expected) > 1 else expected[0])
    assert saved.pad_token_id == 0


def test_a_tokenizer_without_end_and_padding():
    model, tokenizer = tiny.model("gpt2"), tiny.tokenizer()
    tokenizer.eos_token = tokenizer.pad_token = None
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = None
    assert stop_ids(model, tokenizer, 9) == [9]
    set_stop_ids(model, tokenizer, [9])
    assert model.generation_config.eos_token_id == model.generation_config.pad_token_id == 9


def test_generation_stops_at_the_trained_id():
    model, tokenizer = tiny.model().eval(), tiny.tokenizer()
    prompt = torch.tensor([[5, 9, 30]])
    free = model.generate(prompt, max_new_tokens=6, do_sample=False, eos_token_id=None)[0, 3:]
    set_stop_ids(model, tokenizer, stop_ids(model, tokenizer, int(free[2])))
    stopped = model.generate(prompt, max_new_tokens=6, do_sample=False)[0, 3:]
    assert stopped.tolist() == free[: free.tolist().index(int(free[2])) + 1].tolist()


# --- identity ------------------------------------------------------------------------------


def test_the_fingerprint_changes_with_any_parameter_and_with_nothing_else():
    model = tiny.model("gpt2")
    plain = fingerprint(model)
    assert fingerprint(tiny.model("gpt2")) == plain
    assert fingerprint(tiny.model("gpt2", seed=1)) != plain
    model.train()
    model.zero_grad()
    assert fingerprint(model) == plain
    seen = {plain}
    for parameter in model.parameters():
        old = parameter.data.flatten()[0].item()
        parameter.data.view(-1)[0] += 1e-3
        seen.add(fingerprint(model))
        parameter.data.view(-1)[0] = old
    assert len(seen) == 1 + len(list(model.parameters()))
    assert fingerprint(model) == plain


def test_the_fingerprint_sees_the_shape():
    parts = [torch.nn.Linear(6, 4, bias=False), torch.nn.Linear(4, 6, bias=False)]
    for part in parts:
        torch.nn.init.ones_(part.weight)
    assert fingerprint(parts[0]) != fingerprint(parts[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_dtype_of_the_files(tmp_path, dtype):
    tiny.model().to(dtype).save_pretrained(tmp_path)
    assert weights_dtype(ModelConfig(name=str(tmp_path)), str(tmp_path)) == dtype


def test_a_config_without_dtype_is_fp32(folder):
    config = json.loads((folder / "config.json").read_text())
    config.pop("dtype", None)
    (folder / "config.json").write_text(json.dumps(config))
    assert weights_dtype(ModelConfig(name=str(folder)), str(folder)) == torch.float32


@pytest.mark.parametrize("name", ["chatml", "plain"])
def test_a_named_template_begins_with_bos_where_the_model_is_used_to_it(tmp_path, name):
    tokenizer = tiny.tokenizer(None)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    tiny.model().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    _, info = load(tmp_path, name)
    ids = info.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, return_dict=False
    )
    assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id
