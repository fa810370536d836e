"""A name or folder to model and tokenizer; the only file that knows where weights come from."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from sft.config import ModelConfig
from sft.errors import ConfigError, did_you_mean

NAMED_TEMPLATES = ("chatml", "plain")


@dataclass(frozen=True, slots=True)
class TokenizerInfo:
    """A tokenizer that has a chat template, where that came from, and tokens it was given."""

    tokenizer: Any
    template_source: str
    new_tokens: tuple[str, ...]


def model_folder(config: ModelConfig, progress: Callable[[str], None] = lambda _phase: None) -> str:
    """The folder or hub id that `model.name` stands for; `starter` is made on first use.

    Raises:
        ConfigError: a local folder without a model in it.
    """
    if config.name == "starter":
        from sft.model.starter import starter_folder

        return str(starter_folder(progress))
    path = Path(config.name)
    if not path.exists():
        return config.name
    if path.is_file():
        raise ConfigError(f"model.name: {path} is a file; give the folder that holds config.json")
    if not (path / "config.json").is_file():
        raise ConfigError(f"model.name: {path} holds no config.json, so it is no model folder")
    if not any(path.glob("*.safetensors")):
        other = sorted(path.glob("*.bin")) + sorted(path.glob("*.pt"))
        hint = (
            f" It holds {other[0].name}, a pickle, which sft does not open: convert it to "
            "safetensors first."
            if other
            else " Only its configuration is there."
        )
        raise ConfigError(f"model.name: {path} holds no weights (*.safetensors).{hint}")
    return str(path)


def load_tokenizer(config: ModelConfig, folder: str, method_kind: str) -> TokenizerInfo:
    """The tokenizer, with a chat template: its own, a named one, or a file's.

    Raises:
        ConfigError: the model or the template cannot be read.
    """
    tokenizer = _from_hub(
        config, lambda: AutoTokenizer.from_pretrained(folder, **_hub_options(config))
    )
    choice = config.template
    if choice == "auto":
        if tokenizer.chat_template:
            return TokenizerInfo(tokenizer, "the model's tokenizer", ())
        choice = "chatml" if method_kind == "full" else "plain"
        source = f"{choice}, because the model has none"
    else:
        source = choice
    text = _template_text(choice)
    bos = tokenizer.bos_token_id
    if choice in NAMED_TEMPLATES and bos is not None and tokenizer("")["input_ids"][:1] == [bos]:
        text = "{{- bos_token -}}" + text  # the model was pre-trained with one at the start
    tokenizer.chat_template = text
    new_tokens: tuple[str, ...] = ()
    if choice == "chatml":
        vocabulary = tokenizer.get_vocab()
        new_tokens = tuple(t for t in ("<|im_start|>", "<|im_end|>") if t not in vocabulary)
        tokenizer.add_special_tokens(
            {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]},
            replace_extra_special_tokens=False,
        )
    return TokenizerInfo(tokenizer, source, new_tokens)


def _template_text(choice: str) -> str:
    if choice in NAMED_TEMPLATES:
        file = resources.files("sft.data.template") / f"{choice}.jinja"
        return file.read_text(encoding="utf-8")
    path = Path(choice)
    if not path.is_file():
        raise ConfigError(
            f"model.template: '{choice}' is neither a file nor one of auto, "
            f"{', '.join(NAMED_TEMPLATES)}.{did_you_mean(choice, NAMED_TEMPLATES)}"
        )
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"model.template: {path}: cannot be read as UTF-8 text ({error})"
        ) from None


def load_model(
    config: ModelConfig, folder: str, tokenizer: TokenizerInfo, *, dtype: torch.dtype
) -> PreTrainedModel:
    """The model with weights in `dtype`, resized when the tokenizer got new tokens.

    Raises:
        ConfigError: there is no such model, or it is not a causal language model.
    """
    _quiet()
    loaded: tuple[PreTrainedModel, dict[str, Any]] = _from_hub(
        config,
        lambda: AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **_hub_options(config),
        ),
    )
    model, info = loaded
    # Transformers fills these with random numbers and goes on.
    broken = sorted({*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])})
    if broken:
        raise ConfigError(
            f"model.name: '{config.name}' has no weights, or weights of another shape, for "
            f"{len(broken)} parameters of its architecture, such as {broken[0]}"
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer.tokenizer) > rows:
        # New rows start at the mean of the old ones, so that no logit sticks out at step 0.
        model.resize_token_embeddings(len(tokenizer.tokenizer), mean_resizing=False)
        for weight in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
            with torch.no_grad():
                weight[rows:] = weight[:rows].mean(0)
    return model


def stop_ids(model: PreTrainedModel, tokenizer: Any, *trained: int) -> list[int]:
    """Ids generation must stop on: the trained ones, the model's own, and the tokenizer's.

    In this order. `trained` end an answer and, where that differs, a tool call.
    """
    ids = list(trained)
    for given in (model.generation_config.eos_token_id, tokenizer.eos_token_id):
        ids += given if isinstance(given, list) else [] if given is None else [given]
    return list(dict.fromkeys(ids))


def set_stop_ids(model: PreTrainedModel, tokenizer: Any, ids: list[int]) -> None:
    """Write `ids` into `generation_config`, so that the saved model stops by itself."""
    model.generation_config.eos_token_id = ids if len(ids) > 1 else ids[0]
    if model.generation_config.pad_token_id is None:
        pad = tokenizer.pad_token_id
        model.generation_config.pad_token_id = ids[0] if pad is None else pad


def load_config(config: ModelConfig, folder: str) -> Any:
    """The architecture's `config.json`."""
    return _from_hub(config, lambda: AutoConfig.from_pretrained(folder, **_hub_options(config)))


def weights_dtype(config: ModelConfig, folder: str) -> torch.dtype:
    """The dtype the model's weights are stored in, which it is saved in again."""
    dtype = getattr(load_config(config, folder), "dtype", None)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def fingerprint(model: PreTrainedModel) -> str:
    """sha256 over up to 1,024 evenly spaced values of every parameter, and their shapes."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        values = parameter.detach().flatten()
        sample = values[:: -(-len(values) // 1024)].float().cpu().numpy()
        digest.update(json.dumps([name, list(parameter.shape)]).encode())
        digest.update(sample.tobytes())
    return digest.hexdigest()


def _hub_options(config: ModelConfig) -> dict[str, Any]:
    return {"revision": config.revision, "trust_remote_code": config.trust_remote_code}


def _from_hub(config: ModelConfig, load: Callable[[], Any]) -> Any:
    """Run `load`, turning what goes wrong with a model's files into one sentence."""
    try:
        return load()
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        near = (
            [path.name for path in Path(config.name).parent.glob("*/")]
            if "/" in config.name and not Path(config.name).exists()
            else []
        )
        raise ConfigError(
            f"model.name: '{config.name}' cannot be loaded from a folder or the hub: {first}"
            f"{did_you_mean(Path(config.name).name, [*near, 'starter'])}"
        ) from None


def _quiet() -> None:
    """One progress display is ours; transformers' own bars would break into it."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    # peft still calls what transformers is about to rename; users can do nothing about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
