"""What a setting names, in one table or outside the package: `adamw`, `./mine.py:Lion`, `lion`.

    registered name   a line of the table that the caller hands in
    path.py:name      `name` in a Python file of the user's, relative to the current folder
    entry point       a name that an installed package declares in the group, such as `sft.losses`

Naming a file is asking for its code to be run, as `python path.py` would.
"""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeVar

from sft.errors import ConfigError, SFTError, did_you_mean

T = TypeVar("T")

_loaded: dict[tuple[Path, str], ModuleType] = {}  # (file, sha256) -> the module it gave


def load_named(spec: str, group: str, kinds: Mapping[str, T]) -> T:
    """What `spec` stands for: a name in `kinds`, `path.py:name`, or an entry point of `group`.

    A value of `kinds` that is the text `module:attribute` is imported only here, so that a table
    can stand in a module that must not load what it lists.

    Raises:
        ConfigError: nothing has this name, or its file or package cannot be imported.
    """
    loaded: T
    if spec in kinds:
        loaded = kinds[spec]
        if isinstance(loaded, str):
            loaded = EntryPoint(spec, loaded, group).load()
        return loaded
    check_named(spec, group, kinds)
    if path := _path(spec):
        loaded = _from_file(spec, path)
        return loaded
    entry = next(iter(entry_points(group=group, name=spec)))
    try:
        loaded = entry.load()
    except Exception as error:
        raise ConfigError(
            f"'{spec}': the entry point {entry.value} of {group} cannot be loaded "
            f"({type(error).__name__}: {error})"
        ) from None
    return loaded


def check_named(spec: str, group: str, kinds: Mapping[str, object]) -> None:
    """Raise `ConfigError`, with the nearest name, unless `spec` can stand for something.

    Runs nothing of the user's, and does not open their file: a run can be read where it is not.
    """
    if spec in kinds or _path(spec) or _entry(spec, group):
        return
    names = [*kinds, *(entry.name for entry in entry_points(group=group))]
    raise ConfigError(
        f"'{spec}' is not one of {', '.join(sorted(names))}.{did_you_mean(spec, names)} "
        f"Your own: path.py:name, or an entry point of the group {group}"
    )


def fingerprint_of(spec: str, group: str, kinds: Mapping[str, object]) -> str | None:
    """What changes when the code behind `spec` does: None for a registered name.

    Of a file its SHA-256, of an entry point `package version`.
    """
    if spec in kinds:
        return None
    if path := _path(spec):
        return hashlib.sha256(_read(spec, path)).hexdigest()
    entry = _entry(spec, group)
    return f"{entry.dist.name} {entry.dist.version}" if entry and entry.dist else None


def _path(spec: str) -> Path | None:
    """The file of `path.py:name`; None where `spec` is not of that form."""
    path, _, name = spec.rpartition(":")
    return Path(path).expanduser() if path.endswith(".py") and name else None


def _entry(spec: str, group: str) -> EntryPoint | None:
    return next(iter(entry_points(group=group, name=spec)), None)


def _read(spec: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        near = did_you_mean(path.name, (file.name for file in path.parent.glob("*.py")))
        raise ConfigError(f"'{spec}': {path} cannot be read: {error.strerror}.{near}") from None


def _from_file(spec: str, path: Path) -> Any:
    source, name = _read(spec, path), spec.rpartition(":")[2]
    key = path.resolve(), hashlib.sha256(source).hexdigest()
    if key not in _loaded:
        _loaded[key] = _run(spec, path, source, f"sft_plugin_{path.stem}_{key[1][:12]}")
    module = _loaded[key]
    if not hasattr(module, name):
        known = [each for each in vars(module) if not each.startswith("_")]
        raise ConfigError(f"'{spec}': {path} defines no '{name}'.{did_you_mean(name, known)}")
    return getattr(module, name)


class _Loader(SourceFileLoader):
    """Runs the bytes that were hashed, and not Python's cache of compiled files."""

    source: bytes

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.source, self.path)


def _run(spec: str, path: Path, source: bytes, module_name: str) -> ModuleType:
    """The module that `source` gives; a mistake in it names its line, without a traceback."""
    loader = _Loader(module_name, str(path))
    loader.source = source
    module_spec = spec_from_file_location(module_name, path, loader=loader)
    assert module_spec is not None
    module = module_from_spec(module_spec)
    sys.modules[module_name] = module  # where dataclasses and pickle look classes up
    sys.path.insert(0, str(path.parent.resolve()))  # modules beside it can be imported by it
    try:
        loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        if isinstance(error, SFTError):
            raise
        raise ConfigError(
            f"'{spec}': {path}:{_line(error, path)}: {type(error).__name__}: {error}"
        ) from None
    finally:
        sys.path.pop(0)
    return module


def _line(error: Exception, path: Path) -> int:
    """The line of `path` at which it went wrong."""
    if isinstance(error, SyntaxError):
        return error.lineno or 0
    frames = traceback.extract_tb(error.__traceback__)
    return [0, *(frame.lineno or 0 for frame in frames if frame.filename == str(path))][-1]
