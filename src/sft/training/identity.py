"""What a run is, as `config.yaml` says, and whether it is the run that is asked for."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from typing import Any

import torch
import transformers

from sft.config import Config, dump_yaml, parse_yaml
from sft.config.differences import differences
from sft.config.guard_section import GUARD_GROUP
from sft.config.optim_section import NAMED
from sft.config.plugins import fingerprint_of
from sft.data.tokenize import fingerprint as data_fingerprint
from sft.disk import write_text
from sft.errors import CheckpointError, ConfigError
from sft.runs.history import own_guards
from sft.runs.run_dir import RunDir
from sft.terminal.console import Console
from sft.training.tokens import Tokens

# What changes no result: where the folder is, who tokenises, what is kept where, who is told.
_IGNORED: Mapping[str, tuple[str, ...]] = {"run": ("dir",), "data": ("workers", "cache")}
_IGNORED_SECTIONS = ("trackers", "alerts")


def own_code(config: Config) -> dict[str, str]:
    """What changes when code of the user's does that a setting names: SHA-256 by file.

    Of an entry point it is the package and its version, by name.
    """
    own_guards(config)  # a wrong name is refused here, before anything is written
    named: list[tuple[str, str, Mapping[str, object]]]
    named = [(guard.guard, GUARD_GROUP, {}) for guard in config.guards.custom]
    values = config.model_dump(include={"optim"})
    for setting, (group, table) in NAMED.items():
        section, _, key = setting.partition(".")
        named.append((values[section][key], group, table))
    marks = {spec: fingerprint_of(spec, group, table) for spec, group, table in named}
    return {
        spec.rpartition(":")[0] or spec: mark for spec, mark in marks.items() if mark is not None
    }


def write_identity(run: RunDir, now: Mapping[str, Any]) -> None:
    """`config.yaml` of a new run."""
    if not run.config.exists():
        write_text(run.config, dump_yaml(dict(now)))


def check_same_run(run: RunDir, now: Mapping[str, Any], show: Console) -> None:
    """Compare with the identity of the run in the folder, if there is one.

    Raises:
        CheckpointError: config, data, template, model or code are not those of the run.
    """
    if not run.config.exists():
        return
    saved = saved_identity(run)
    changed = [
        line
        for part in ("config", "fingerprint")
        for line in differences(without_place(saved.get(part, {})), without_place(now[part]))
    ]
    if changed:
        raise CheckpointError(
            f"{run.path}: this run was started with something else:\n  "
            + "\n  ".join(changed)
            + "\nUse what it was started with to resume it, or choose another --run"
        )
    for line in differences(saved.get("versions", {}), now["versions"]):
        show.note(f"note: {line}; the result may differ in the last digits", level="warning")


def check_finished(run: RunDir, config: Config) -> None:
    """Compare `config`, and the files it was trained on, with a run that is finished.

    Raises:
        CheckpointError: it was started with another config.
    """
    identity = saved_identity(run)
    saved, files = identity["config"], identity.get("fingerprint", {}).get("files", {})
    asked = _with_chosen(config.model_dump(mode="json"), saved, identity.get("reasons", {}))
    changed = differences(without_place(saved), without_place(asked))
    changed += differences(files, _files_now(files))
    if changed:
        raise CheckpointError(
            f"{run.path}: holds a finished run of something else:\n  "
            + "\n  ".join(changed)
            + "\nNothing was changed; choose another --run"
        )


def _files_now(files: Mapping[str, str]) -> dict[str, str]:
    """The SHA-256 the data files have now; what is no local file (any more) keeps its own."""
    now = dict(files)
    for path in filter(os.path.isfile, files):
        with open(path, "rb") as file:
            now[path] = hashlib.file_digest(file, "sha256").hexdigest()
    return now


def _with_chosen(
    asked: dict[str, Any], saved: dict[str, Any], reasons: Mapping[str, str]
) -> dict[str, Any]:
    """`asked` with the value of the finished run wherever both leave the choice (`auto`)."""
    return {
        section: {
            key: saved.get(section, {}).get(key)
            if value == "auto" and f"{section}.{key}" in reasons
            else value
            for key, value in values.items()
        }
        for section, values in asked.items()
    }


def identity(tokens: Tokens, base_fingerprint: str, num_steps: int) -> dict[str, Any]:
    """What must not change when a run is continued, and what explains it."""
    resolver = tokens.resolver
    return {
        "config": resolver.config.model_dump(mode="json"),
        "reasons": resolver.reasons,
        "sources": dict(resolver.config.sources),
        "num_steps": num_steps,
        "fingerprint": {
            "train": data_fingerprint(tokens.data.train),
            "val": data_fingerprint(tokens.data.val),
            "files": {**tokens.data.files, **tokens.held_out.files, **own_code(resolver.config)},
            "usage": data_fingerprint(tokens.held_out.usage),
            "test": data_fingerprint(tokens.held_out.test),
            "template": tokens.template.facts.sha256,
            "model": base_fingerprint,
        },
        "template": {
            "source": tokens.tokenizer.template_source,
            "stop_token": tokens.template.facts.stop_token,
            "tools_by": tokens.template.facts.tools_by,
        },
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
            "threads": torch.get_num_threads(),
        },
    }


def saved_identity(run: RunDir) -> dict[str, Any]:
    """What `config.yaml` in the run folder says.

    Raises:
        CheckpointError: it is gone, or not as it was written.
    """
    try:
        saved = parse_yaml(run.config.read_text(encoding="utf-8"), str(run.config))
        if isinstance(saved, dict) and isinstance(saved.get("config"), dict):
            return saved
        problem = f"{run.config}: expected `config:` and more, found {saved!r:.60}"
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        problem = str(error)
    raise CheckpointError(f"{problem}; restore the file, or choose another --run")


def without_place(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without what changes no result; whether a run is resumed does not depend on it."""
    return {
        section: {k: v for k, v in values.items() if k not in _IGNORED.get(section, ())}
        if isinstance(values, Mapping)
        else values
        for section, values in tree.items()
        if section not in _IGNORED_SECTIONS
    }
