from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from sft.config.differences import differences
from sft.errors import DiskError
from sft.training.checkpoint import (
    Checkpoint,
    discard_after,
    find_checkpoints,
    load_checkpoint,
    load_newest,
    prune,
    save_checkpoint,
    sweep,
    verify_checkpoint,
)

FILES = ["MANIFEST.json", "model.safetensors", "optimizer.safetensors", "state.json"]


def tensors(seed: float) -> dict[str, dict[str, torch.Tensor]]:
    return {
        "model": {"weight": torch.full((5, 3), seed), "bias": torch.arange(4) + int(seed)},
        "optimizer": {"weight.exp_avg": torch.full((5, 3), seed / 3, dtype=torch.bfloat16)},
    }


def save(folder: Path, step: int) -> Path:
    return save_checkpoint(folder, step, tensors(step), {"step": step, "epoch": step / 7})


def is_step(checkpoint: Checkpoint | None, step: int) -> bool:
    """Whether it is, to the bit, what `save(folder, step)` was given."""
    if checkpoint is None or checkpoint.step != step:
        return False
    expected = tensors(step)
    assert checkpoint.state == {"step": step, "epoch": step / 7}
    assert {k: set(v) for k, v in checkpoint.tensors.items()} == {
        k: set(v) for k, v in expected.items()
    }
    for name, group in expected.items():
        for key, tensor in group.items():
            assert torch.equal(checkpoint.tensors[name][key], tensor)
            assert checkpoint.tensors[name][key].dtype == tensor.dtype
    return True


def unexpected(sentence: str) -> None:
    raise AssertionError(sentence)


def entries(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


# --- saving and loading --------------------------------------------------------------------


def test_round_trip(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    assert load_newest(folder, unexpected) is None
    path = save(folder, 120)
    assert path == folder / "step-000120"
    assert entries(folder) == ["step-000120"]
    assert entries(path) == FILES
    verify_checkpoint(path)
    assert is_step(load_checkpoint(path), 120)
    assert is_step(load_newest(folder, unexpected), 120)


def test_the_manifest_is_readable_with_other_tools(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    manifest = json.loads((path / "MANIFEST.json").read_text())
    assert manifest["format"] == 1 and manifest["step"] == 3
    assert sorted(manifest["files"]) == FILES[1:]
    for name, entry in manifest["files"].items():
        data = (path / name).read_bytes()
        assert entry == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_tensors_of_every_kind(tmp_path: Path) -> None:
    base = torch.randn(6, 4)
    group = {
        "transposed": base.T,
        "strided": base[::2, 1:3],
        "tied": base,
        "tied again": base,
        "view": base.view(-1)[3:9],
        "parameter": torch.nn.Parameter(base * 2),
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 3),
        "empty too": torch.zeros(0),
        "nan": torch.tensor([float("nan"), float("-inf")]),
        "rng": torch.get_rng_state(),
        "bf16": base.bfloat16(),
        "int64": torch.tensor([2**62]),
        "bool": torch.tensor([True, False]),
    }
    path = save_checkpoint(tmp_path, 1, {"model": group, "nothing": {}}, {})
    loaded = load_checkpoint(path).tensors
    assert loaded["nothing"] == {} and set(loaded["model"]) == set(group)
    for name, tensor in group.items():
        assert torch.equal(loaded["model"][name].nan_to_num(), tensor.detach().nan_to_num()), name
        assert loaded["model"][name].dtype == tensor.dtype


def test_state_comes_back_exactly(tmp_path: Path) -> None:
    state: dict[str, Any] = {
        "float": 0.1 + 0.2,
        "tiny": 5e-324,
        "large": 2**200,
        "best": float("inf"),
        "text": "ü\u2028\ud800\0",
        "none": None,
        "nested": {"list": [1, [2.0, True]], "empty": {}},
    }
    assert load_checkpoint(save_checkpoint(tmp_path, 1, {}, state)).state == state
    for bad in ({"a": [{1: "x"}]}, {"a": {None: 1}}):
        with pytest.raises(TypeError, match="is not text"):
            save_checkpoint(tmp_path, 2, {}, bad)
    assert entries(tmp_path) == ["step-000001"]


def test_loaded_tensors_outlive_the_files(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(save(tmp_path, 5))
    maps = Path("/proc/self/maps").read_text()
    assert str(tmp_path) not in maps  # else a pruned checkpoint would keep its disk space
    for file in checkpoint.path.iterdir():
        file.write_bytes(b"")
    assert is_step(checkpoint, 5)


def test_files_have_the_mode_the_umask_gives(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        path = save(tmp_path, 1)
    finally:
        os.umask(old)
    assert {oct(file.stat().st_mode & 0o777) for file in path.iterdir()} == {"0o640"}


def test_everything_is_synced_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        calls.append("temporary" if path.name.startswith(".tmp-") else path.name)
        fsync(descriptor)

    def noted_rename(source: Path, target: Path) -> None:
        calls.append(f"rename to {target.name}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    save(tmp_path / "checkpoints", 1)
    assert sorted(calls[:3]) == FILES[1:]
    assert calls[3:] == [
        "MANIFEST.json",
        "temporary",
        "rename to step-000001",
        "checkpoints",
        tmp_path.name,
    ]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 7, {"model": {"old": torch.zeros(1)}}, {"old": True})
    save(tmp_path, 7)
    assert entries(tmp_path) == ["step-000007"]
    assert is_step(load_newest(tmp_path, unexpected), 7)


def test_order_is_by_step_never_by_time(tmp_path: Path) -> None:
    for step in (1_000_000, 999_999, 20):
        os.utime(save(tmp_path, step), (step, 2e9 - step))
    (tmp_path / "step-7").mkdir()
    (tmp_path / "step-000007-copy").mkdir()
    assert [step for step, _ in find_checkpoints(tmp_path)] == [20, 999_999, 1_000_000]
    assert is_step(load_newest(tmp_path, unexpected), 1_000_000)


# --- a full disk ----------------------------------------------------------------------------


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_fails_anywhere_leaves_the_older_checkpoints(tmp_path: Path) -> None:
    save(tmp_path, 10)
    largest = max(file.stat().st_size for file in save(tmp_path, 20).iterdir())
    for step in (20, 30):
        for limit in range(0, largest, 23):
            with (
                file_size_limit(limit),
                pytest.raises(
                    DiskError, match=rf"checkpoint of step {step} was not saved: .*limit"
                ),
            ):
                save(tmp_path, step)
            assert entries(tmp_path) == ["step-000010", "step-000020"]
            assert is_step(load_newest(tmp_path, unexpected), 20)
    with file_size_limit(largest):
        save(tmp_path, 30)
    assert is_step(load_newest(tmp_path, unexpected), 30)


def test_a_full_disk_is_told_with_bytes_needed_and_free(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    options = ["-t", "tmpfs", "-o", "size=128k", "tmpfs", str(mount)]
    command = shutil.which("mount")
    if command is None or subprocess.run([command, *options], check=False).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        folder = mount / "checkpoints"
        save(folder, 10)
        for size in range(20_000, 40_000, 4_000):
            big = {"model": {"weight": torch.zeros(size)}, "more": {"weight": torch.zeros(size)}}
            told = (
                r"the disk is full \(\d+\.\d kB are needed, \d+\.\d kB are free\); "
                "free some space"
            )
            with pytest.raises(DiskError, match=told):
                save_checkpoint(folder, 20, big, {})
            assert entries(folder) == ["step-000010"]
        save(folder, 20)
        assert is_step(load_newest(folder, unexpected), 20)
    finally:
        subprocess.run(["umount", str(mount)], check=True)


# --- which ones stay ------------------------------------------------------------------------


def steps(folder: Path) -> list[int]:
    return [step for step, _ in find_checkpoints(folder)]


def test_prune_keeps_the_newest_and_the_protected(tmp_path: Path) -> None:
    for step in range(1, 7):
        os.utime(save(tmp_path, step), (9e8, 2e9 - step * 1e6))
    prune(tmp_path, 2, {2, 99})
    assert steps(tmp_path) == [2, 5, 6]
    prune(tmp_path, 5)
    assert steps(tmp_path) == [2, 5, 6]
    with pytest.raises(ValueError):
        prune(tmp_path, 0)
    prune(tmp_path / "none", 1)
    assert entries(tmp_path) == ["step-000002", "step-000005", "step-000006"]


def test_prune_deletes_nothing_while_the_newest_is_not_whole(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    file = tmp_path / "step-000003" / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    prune(tmp_path, 1)
    (tmp_path / "step-000003" / "MANIFEST.json").rename(tmp_path / "manifest")
    prune(tmp_path, 1)
    assert steps(tmp_path) == [1, 2, 3]


def test_prune_does_not_count_a_broken_one_as_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    (tmp_path / "step-000003" / "MANIFEST.json").unlink()
    prune(tmp_path, 2)
    assert steps(tmp_path) == [2, 3, 4]


def test_prune_deletes_a_link_and_not_what_it_leads_to(tmp_path: Path) -> None:
    elsewhere = save(tmp_path / "other", 1)
    folder = tmp_path / "checkpoints"
    save(folder, 2)
    (folder / "step-000001").symlink_to(elsewhere)
    prune(folder, 1)
    assert entries(folder) == ["step-000002"]
    assert is_step(load_checkpoint(elsewhere), 1)


def test_discard_after_sets_later_steps_aside(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    moved = discard_after(tmp_path, 1)
    assert [path.name[:-9] for path in moved] == [f"discarded-step-00000{n}" for n in (2, 3)]
    assert all((path / "MANIFEST.json").is_file() for path in moved)
    assert is_step(load_newest(tmp_path, unexpected), 1)
    assert discard_after(tmp_path, 1) == []


def test_sweep_removes_the_unfinished_and_nothing_else(tmp_path: Path) -> None:
    sweep(tmp_path / "none")
    save(tmp_path, 1)
    (tmp_path / ".tmp-000002-abcd").mkdir()
    (tmp_path / ".tmp-000002-abcd" / "state.json").touch()
    (tmp_path / ".tmp-file").touch()
    (tmp_path / "notes.txt").touch()
    sweep(tmp_path)
    assert entries(tmp_path) == ["notes.txt", "step-000001"]


# --- what changed ---------------------------------------------------------------------------


def test_differences_name_each_field() -> None:
    saved = {
        "optim": {"learning_rate": 2e-05, "name": "adamw", "max_steps": None},
        "data": {"train": [{"path": "a.jsonl"}, {"path": "b.jsonl"}], "rows": 64, "columns": {}},
        "gone": 1,
    }
    now = {
        "optim": {"learning_rate": 0.0001, "name": "adamw", "max_steps": 5},
        "data": {"train": ({"path": "a.jsonl"},), "rows": 72, "columns": {}},
        "new": {"x": "y"},
    }
    assert differences(saved, now) == [
        "optim.learning_rate: was 2e-05, now 0.0001",
        "optim.max_steps: was None, now 5",
        "data.train.1.path: was 'b.jsonl', now absent",
        "data.rows: was 64, now 72",
        "gone: was 1, now absent",
        "new.x: was absent, now 'y'",
    ]


def test_differences_of_equal_trees_are_none() -> None:
    tree = {"a": [1, 2.0, {"b": float("nan")}], "c": {}, "d": None, "e": []}
    assert differences(tree, json.loads(json.dumps(tree))) == []
    assert differences({}, {}) == []
    assert differences({"a": (1, 2)}, {"a": [1, 2]}) == []


def test_differences_see_a_kind_that_changed() -> None:
    assert differences({"a": []}, {"a": {}}) == ["a: was [], now {}"]
    assert differences({"a": "1"}, {"a": 1}) == ["a: was '1', now 1"]
    assert differences({"a": "x" * 500}, {"a": "x" * 499 + "y"}) == [
        f"a: was '{'x' * 37}...{'x' * 37}', now '{'x' * 37}...{'x' * 36}y'"
    ]
