"""Checkpoints that are whole and verified, or not seen.

A checkpoint is written into `.tmp-<step>-<random>/`, every file is synced, `MANIFEST.json`
with the size and SHA-256 of each comes last, and one rename to `step-000120/` makes it
visible. A kill at any point leaves the earlier checkpoints as they were. Nothing here
reads or writes a pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sft.disk import TMP_PREFIX, disk_errors, remove_path, sync_path, write_synced
from sft.errors import CheckpointError

MANIFEST = "MANIFEST.json"
STATE = "state.json"
TENSORS_SUFFIX = ".safetensors"

_STEP_NAME = re.compile(r"step-([0-9]{6,18})")
_REPLACED_PREFIX = ".replaced-"
_MAX_MANIFEST_BYTES = 1_000_000
_REPAIR = "it is not used; restore the file, or move this checkpoint away"

# No separator and no leading dot, so a manifest cannot point outside its own folder.
_FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=200)]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    format: Literal[1] = 1
    step: int = Field(ge=0)
    files: dict[_FileName, _File]

    def text(self) -> str:
        return self.model_dump_json(indent=2) + "\n"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded checkpoint: what `save_checkpoint` was given, on the CPU."""

    step: int
    path: Path
    tensors: dict[str, dict[str, torch.Tensor]]
    state: dict[str, Any]


def save_checkpoint(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, torch.Tensor]],
    state: Mapping[str, Any],
) -> Path:
    """Save the complete state after `step` as `folder/step-000120` and return that path.

    `tensors` is file name (without suffix) to named tensors; `state` is JSON with text keys.
    On a full disk nothing is left behind, earlier checkpoints are untouched, and `DiskError`
    says how much was needed.
    """
    _check_text_keys(state)
    final = folder / f"step-{step:06d}"
    temporary = folder / f"{TMP_PREFIX}{step:06d}-{secrets.token_hex(4)}"
    needed = sum(t.numel() * t.element_size() for group in tensors.values() for t in group.values())
    with disk_errors(folder, f"the checkpoint of step {step} was not saved", needed):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            temporary.mkdir()
            _write_files(temporary, step, tensors, state)
            if os.path.lexists(final):
                _replace(final, temporary)
            else:
                os.rename(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_path(folder)
        sync_path(folder.parent)
    with disk_errors(folder, "a replaced checkpoint cannot be deleted"):
        _remove(folder / (_REPLACED_PREFIX + final.name))
    return final


def find_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """All `(step, path)` in order of step, whole or not."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read ({error.strerror})") from None
    matches = [match for name in names if (match := _STEP_NAME.fullmatch(name))]
    return sorted((int(match[1]), folder / match[0]) for match in matches)


def load_checkpoint(path: Path) -> Checkpoint:
    """Verify a checkpoint and read it."""
    manifest = verify_checkpoint(path)
    try:
        # Cloned: the tensors of `load_file` are a view of the file, and would keep its disk
        # space in use after the checkpoint is deleted.
        tensors = {
            name.removesuffix(TENSORS_SUFFIX): {
                key: tensor.clone() for key, tensor in load_file(path / name).items()
            }
            for name in manifest.files
            if name.endswith(TENSORS_SUFFIX)
        }
        state = json.loads((path / STATE).read_bytes())
    except (OSError, ValueError, RecursionError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); {_REPAIR}") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path / STATE}: expected an object, found {state!r:.60}; {_REPAIR}")
    return Checkpoint(manifest.step, path, tensors, state)


def load_newest(folder: Path, on_skip: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint; None when there is none at all.

    Each newer one that is damaged is told to `on_skip` in a sentence. A writer calls `sweep`
    first, and `discard_after` next.
    """
    checkpoints = find_checkpoints(folder)
    for step, path in reversed(checkpoints):
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            on_skip(f"The checkpoint of step {step} is skipped: {error}")
    if not checkpoints:
        return None
    raise CheckpointError(
        f"{folder}: none of the {len(checkpoints)} checkpoints is whole. Training never restarts "
        "from zero by itself; restore one, or move the folder away, or choose another --run"
    )


def prune(folder: Path, keep: int, protect: Collection[int] = ()) -> None:
    """Delete old checkpoints, but never the newest `keep` whole ones nor the steps in `protect`.

    Whole means here: a manifest, and all its files in the right size. Contents are not read
    again. Nothing is deleted while the newest checkpoint is not whole.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, not {keep}")
    checkpoints = find_checkpoints(folder)
    whole = [(step, path) for step, path in checkpoints if _looks_whole(path)]
    if not whole or whole[-1] != checkpoints[-1]:
        return
    oldest_kept = whole[-keep:][0][0]
    with disk_errors(folder, "an old checkpoint cannot be deleted"):
        for step, path in checkpoints:
            if step < oldest_kept and step not in protect:
                _remove(path)


def discard_after(folder: Path, step: int) -> list[Path]:
    """Set aside the checkpoints of steps after `step`, which is being resumed from.

    They are damaged, or belong to a course that is being left; a later resume must not
    take them for the newest. They are renamed to `discarded-step-...`, never deleted.
    """
    moved = []
    with disk_errors(folder):
        for number, path in find_checkpoints(folder):
            if number > step:
                target = folder / f"discarded-{path.name}-{secrets.token_hex(4)}"
                os.rename(path, target)
                moved.append(target)
        if moved:
            sync_path(folder)
    return moved


def sweep(folder: Path) -> None:
    """Finish or undo what a killed process left. Only for the holder of the run's lock."""
    if not folder.is_dir():
        return
    with disk_errors(folder):
        for path in sorted(folder.iterdir()):
            if path.name.startswith(TMP_PREFIX):
                _remove(path)
            elif path.name.startswith(_REPLACED_PREFIX):
                final = folder / path.name.removeprefix(_REPLACED_PREFIX)
                if os.path.lexists(final):
                    _remove(path)
                else:  # killed between the two renames of `_replace`
                    os.rename(path, final)


def _check_text_keys(tree: Any) -> None:
    """JSON would turn the key 1 into "1" without a word, and the resume would not be exact."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            if not isinstance(key, str):
                raise TypeError(f"checkpoint state: the key {key!r} is not text")
            _check_text_keys(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            _check_text_keys(value)


def _write_files(
    temporary: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, torch.Tensor]],
    state: Mapping[str, Any],
) -> None:
    """Write and sync all files; the manifest is the last."""
    # NaN and infinity are allowed here, unlike in files others read: Python reads them back.
    write_synced(temporary / STATE, json.dumps(state, indent=2) + "\n")
    mode = stat.S_IMODE((temporary / STATE).stat().st_mode)
    for name, group in tensors.items():
        path = temporary / (name + TENSORS_SUFFIX)
        with _safetensors_errors():
            save_file(_separate(group), path)
        os.chmod(path, mode)  # safetensors lets only the owner read; the umask decides here
        sync_path(path)
    files = {path.name: _describe(path) for path in sorted(temporary.iterdir())}
    write_synced(temporary / MANIFEST, _Manifest(step=step, files=files).text())
    sync_path(temporary)


def _separate(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What safetensors takes: dense CPU tensors, none sharing memory (tied weights do)."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage().data_ptr()
        result[name] = plain.clone() if storage in seen else plain
        seen.add(storage)
    return result


@contextmanager
def _safetensors_errors() -> Iterator[None]:
    """Its errors carry the number of the system's error in their text only."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"(?:os error|code:) (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def _describe(path: Path) -> _File:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return _File(size=os.fstat(file.fileno()).st_size, sha256=digest)


def _replace(final: Path, temporary: Path) -> None:
    """Put `temporary` in the place of `final`; `sweep` undoes a kill between the renames."""
    aside = final.with_name(_REPLACED_PREFIX + final.name)
    _remove(aside)
    os.rename(final, aside)
    os.rename(temporary, final)


def _remove(path: Path) -> None:
    """Delete; renamed first, so a kill leaves no half checkpoint under its own name."""
    if not os.path.lexists(path):
        return
    doomed = path
    if not path.name.startswith(TMP_PREFIX):
        doomed = path.with_name(f"{TMP_PREFIX}{secrets.token_hex(4)}-{path.name}")
        os.rename(path, doomed)
    remove_path(doomed)


def verify_checkpoint(path: Path) -> _Manifest:
    """Its manifest; raises `CheckpointError` unless every byte is as it was saved."""
    try:
        manifest = _read_manifest(path)
        for name, saved in manifest.files.items():
            _check_size(path / name, saved.size)
            now = _describe(path / name)
            if now != saved:
                raise CheckpointError(
                    f"{path / name}: {MANIFEST} expects SHA-256 {saved.sha256}, found "
                    f"{now.sha256}; one of the two changed after it was saved; {_REPAIR}"
                )
        return manifest
    except FileNotFoundError as error:
        missing = f"{error.filename}: {MANIFEST} or a file it expects is missing"
        raise CheckpointError(f"{missing}; {_REPAIR}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); {_REPAIR}") from None


def _looks_whole(path: Path) -> bool:
    try:
        for name, saved in _read_manifest(path).files.items():
            _check_size(path / name, saved.size)
    except (CheckpointError, OSError):
        return False
    return True


def _check_size(path: Path, expected: int) -> None:
    size = _size(path)
    if size != expected:
        raise CheckpointError(
            f"{path}: {MANIFEST} expects {expected} bytes, found {size}; {_REPAIR}"
        )


def _size(path: Path) -> int:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path}: expected a regular file, found another kind; {_REPAIR}")
    return status.st_size


def _read_manifest(path: Path) -> _Manifest:
    """Read and check the manifest, and that the folder holds its files and no others."""
    if path.is_symlink():
        raise CheckpointError(f"{path}: expected a folder, found a symbolic link; {_REPAIR}")
    file = path / MANIFEST
    if _size(file) > _MAX_MANIFEST_BYTES:
        raise CheckpointError(f"{file}: expected at most {_MAX_MANIFEST_BYTES} bytes; {_REPAIR}")
    data = file.read_bytes()
    try:
        manifest = _Manifest.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise CheckpointError(f"{file}: {where}: {problem['msg']}; {_REPAIR}") from None
    # A changed byte that still reads the same, such as a lost newline, is a changed byte.
    if manifest.text().encode() != data or STATE not in manifest.files:
        raise CheckpointError(f"{file}: expected a manifest as sft writes it; {_REPAIR}")
    if path.name != f"step-{manifest.step:06d}":
        raise CheckpointError(
            f"{file}: expected {path.name}, found step {manifest.step}; {_REPAIR}"
        )
    # Hidden files are left there by desktops and network file systems.
    names = {name for name in os.listdir(path) if not name.startswith(".")}
    for extra in sorted(names - {MANIFEST, *manifest.files}):
        raise CheckpointError(f"{path / extra}: not expected by {MANIFEST}; {_REPAIR}")
    return manifest
