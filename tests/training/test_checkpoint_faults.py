"""What can happen to a checkpoint: damage, a kill at any point, a full disk."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sft.errors import CheckpointError
from sft.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_newest,
    save_checkpoint,
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


# --- damage --------------------------------------------------------------------------------


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def damages(data: bytes) -> Iterator[bytes | None]:
    yield None  # missing
    yield b""
    yield data[: len(data) // 2]
    yield data[:-1]
    yield data + b"\0"
    yield data + b"\n"
    bits = len(data) * 8
    for bit in {0, 7, bits - 1, *random.Random(0).sample(range(bits), 60)}:
        yield flip(data, bit)


@pytest.mark.parametrize("name", FILES)
def test_every_damage_of_every_file_is_found_and_the_older_one_used(
    tmp_path: Path, name: str
) -> None:
    save(tmp_path, 10)
    file = save(tmp_path, 20) / name
    good = file.read_bytes()
    for damaged in damages(good):
        file.unlink()
        if damaged is not None:
            file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=name):
            verify_checkpoint(file.parent)
        told: list[str] = []
        assert is_step(load_newest(tmp_path, told.append), 10)
        assert len(told) == 1 and "step 20 is skipped" in told[0] and name in told[0]
        file.write_bytes(good)
    verify_checkpoint(file.parent)


def test_every_single_bit_of_the_manifest_counts(tmp_path: Path) -> None:
    file = save(tmp_path, 20) / "MANIFEST.json"
    good = file.read_bytes()
    for bit in range(len(good) * 8):
        file.write_bytes(flip(good, bit))
        with pytest.raises(CheckpointError):
            verify_checkpoint(file.parent)


def test_damage_is_told_with_expected_and_found(tmp_path: Path) -> None:
    path = save(tmp_path, 20)
    file = path / "model.safetensors"
    good = file.read_bytes()
    file.write_bytes(good[:-1])
    with pytest.raises(CheckpointError, match=rf"expects {len(good)} bytes, found {len(good) - 1}"):
        verify_checkpoint(path)
    bad = flip(good, 9)
    file.write_bytes(bad)
    sums = [hashlib.sha256(data).hexdigest() for data in (good, bad)]
    with pytest.raises(CheckpointError, match=f"expects SHA-256 {sums[0]}, found {sums[1]}"):
        verify_checkpoint(path)


def edit(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest.update(changes)


def add_file(name: str) -> Callable[[dict[str, Any]], None]:
    entry = {"size": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    return lambda manifest: manifest["files"].update({name: entry})


@pytest.mark.parametrize(
    "change",
    [
        edit(extra=1),
        edit(format=2),
        edit(step=21),
        edit(step=20.0),
        edit(step=True),
        edit(step=10**4000),
        edit(step=10**5000),
        edit(files={}),
        lambda manifest: manifest["files"]["state.json"].update(mode=1),
        lambda manifest: manifest["files"]["state.json"].update(size=1.5),
        lambda manifest: manifest["files"].pop("state.json"),
        lambda manifest: manifest["files"].pop("model.safetensors"),
        lambda manifest: manifest.pop("format"),
        add_file("none.safetensors"),
        add_file("../outside"),
        add_file("/etc/hostname"),
        add_file("..\\outside"),
        add_file(".hidden"),
        add_file(""),
        add_file("x" * 300),
        add_file("new\nline"),
    ],
)
def test_a_manifest_with_other_keys_or_names_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    (tmp_path / "outside").touch()
    path = save(tmp_path, 20)
    manifest = json.loads((path / "MANIFEST.json").read_text())
    change(manifest)
    old_limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    text = json.dumps(manifest, indent=2) + "\n"
    sys.set_int_max_str_digits(old_limit)
    (path / "MANIFEST.json").write_text(text)
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


def test_links_and_other_entries_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 20)
    moved = tmp_path / "elsewhere"
    path.rename(moved)
    path.symlink_to(moved)
    with pytest.raises(CheckpointError, match="found a symbolic link"):
        load_checkpoint(path)
    path.unlink()
    moved.rename(path)
    for name in FILES:
        target = tmp_path / name
        (path / name).rename(target)
        (path / name).symlink_to(target)
        with pytest.raises(CheckpointError, match=f"{name}: expected a regular file"):
            load_checkpoint(path)
        (path / name).unlink()
        os.mkfifo(path / name)  # must not be opened: that would wait for ever
        with pytest.raises(CheckpointError, match=f"{name}: expected a regular file"):
            load_checkpoint(path)
        (path / name).unlink()
        target.rename(path / name)
    (path / ".DS_Store").touch()
    verify_checkpoint(path)
    (path / "weights.pkl").touch()
    with pytest.raises(CheckpointError, match=r"weights\.pkl: not expected by MANIFEST"):
        load_checkpoint(path)


def test_a_checkpoint_under_another_name_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 20)
    for name in ("step-000030", "step-0000020", "best"):
        path = path.rename(tmp_path / name)
        with pytest.raises(CheckpointError, match=f"expected {name}, found step 20"):
            verify_checkpoint(path)
    for path in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(CheckpointError):
            verify_checkpoint(path)
        (tmp_path / "file").touch()


def test_all_bad_is_an_error_and_never_a_fresh_start(tmp_path: Path) -> None:
    for step in (10, 20):
        (save(tmp_path, step) / "state.json").write_text("{}")
    told: list[str] = []
    with pytest.raises(CheckpointError, match="never restarts from zero by itself"):
        load_newest(tmp_path, told.append)
    assert [sentence.split(" is skipped")[0][-2:] for sentence in told] == ["20", "10"]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One random edit of one random kind."""
    at, span = rng.randrange(len(data)), rng.randrange(1, 9)
    words = [b"null", b"[]", b"{}", b"-1", b"1e999", b"NaN", b'"\\ud800"', b"\xff", b"[" * 9999]
    new = rng.choice([b"", rng.randbytes(span), rng.choice(words), data[at : at + span] * 2])
    return data[:at] + new + data[at + rng.choice([0, span]) :]


@pytest.mark.parametrize("name", ["MANIFEST.json", "state.json", "model.safetensors"])
@pytest.mark.parametrize("signed", [False, True])
def test_garbage_is_a_checkpoint_error_and_nothing_else(
    tmp_path: Path, name: str, signed: bool
) -> None:
    """`signed`: the manifest is made to fit the garbage, so that it reaches the parser."""
    path = save(tmp_path, 20)
    good = (path / name).read_bytes()
    rng = random.Random(name)
    refused = 0
    for _ in range(200):
        garbage = mutate(good, rng)
        (path / name).write_bytes(garbage)
        if signed and name != "MANIFEST.json":
            sign(path)
        try:
            load_checkpoint(path)
        except CheckpointError:
            refused += 1
        else:
            assert signed or garbage == good
    assert refused > 20


def sign(path: Path) -> None:
    """Make the manifest fit the files that are there."""
    manifest = json.loads((path / "MANIFEST.json").read_text())
    for name in sorted({*os.listdir(path)} & {*manifest["files"]}):
        data = (path / name).read_bytes()
        entry = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        manifest["files"][name] = entry
    for name in {*manifest["files"]} - {*os.listdir(path)}:
        del manifest["files"][name]
    (path / "MANIFEST.json").write_text(json.dumps(manifest, indent=2) + "\n")


@pytest.mark.parametrize("state", [b"", b"[]", b'"x"', b"3", b"\xff", b"[" * 100_000])
def test_a_signed_state_of_another_kind_is_refused(tmp_path: Path, state: bytes) -> None:
    path = save(tmp_path, 20)
    sign(path)
    verify_checkpoint(path)
    (path / "state.json").write_bytes(state)
    sign(path)
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    (path / "state.json").unlink()
    sign(path)
    with pytest.raises(CheckpointError):
        verify_checkpoint(path)


# --- a process that is killed ---------------------------------------------------------------

KILLS = """
import os, resource, shutil, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_checkpoint_faults as t
from sft.training.checkpoint import discard_after, find_checkpoints, load_newest, prune, sweep

CHANGES = {"mkdir", "open", "write", "flush", "fsync", "rename", "unlink", "rmdir", "chmod",
           "close", "serialize_file"}
folder = Path(sys.argv[1]) / "checkpoints"
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)

def killed_at(n, action):
    '''Kill at the n-th call that may change the disk, whoever makes it.'''
    count = 0
    def hook(frame, event, function):
        nonlocal count
        if event == "c_call" and function.__name__ in CHANGES:
            count += 1
            if count == n:
                os.kill(os.getpid(), signal.SIGKILL)
    def work():
        sys.setprofile(hook)
        action()
        sys.setprofile(None)
    return child(work)

def torn_at(n, action):
    '''Kill inside the write of the n-th byte of any file: the file is left cut there.'''
    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n, n))
        action()
    return child(work)

def prepare(steps):
    shutil.rmtree(folder, ignore_errors=True)
    for step in steps:
        t.save(folder, step)

def check(allowed):
    # Before the sweep too, a reader sees a whole checkpoint or none.
    for _, path in find_checkpoints(folder):
        t.verify_checkpoint(path)
    if folder.exists():
        killed_at(1 + len(os.listdir(folder)), lambda: sweep(folder))  # a second fault
    sweep(folder)
    assert not any(name.startswith(".") for name in os.listdir(folder)), os.listdir(folder)
    newest = load_newest(folder, t.unexpected)
    assert (newest.step if newest else None) in allowed, (newest, allowed)
    if newest:
        assert t.is_step(newest, newest.step)

CASES = [
    ("first save", [], lambda: t.save(folder, 10), {None, 10}),
    ("save", [10], lambda: t.save(folder, 20), {10, 20}),
    ("save again", [20], lambda: t.save(folder, 20), {20}),
    ("prune", [10, 20, 30], lambda: prune(folder, 1), {30}),
    ("discard", [10, 20, 30], lambda: discard_after(folder, 10), {10, 20, 30}),
]
for name, steps, action, allowed in CASES:
    points = {}
    for how in (killed_at, torn_at) if "save" in name else (killed_at,):
        n = 0 if how is torn_at else 1
        while True:
            prepare(steps)
            fired = how(n, action)
            folder.mkdir(parents=True, exist_ok=True)
            check(allowed if fired else {max(allowed - {None}) if name != "discard" else 10})
            if not fired:
                break
            points[how.__name__] = points.get(how.__name__, 0) + 1
            n += 1 if how is killed_at else 61
    print(name, points.get("killed_at", 0), points.get("torn_at", 0), sep=",")
"""


def test_kill_9_at_every_point_leaves_whole_checkpoints_only(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    points = {
        name: (int(killed), int(torn))
        for name, killed, torn in (line.split(",") for line in result.stdout.splitlines())
    }
    print(points)
    # So many kills fired; fewer would mean that the injection no longer reaches the writes.
    assert points["first save"] >= (30, 6) and points["save"] >= (30, 6)
    assert points["save again"] > points["save"]
    assert points["prune"][0] >= 8 and points["discard"][0] >= 3
