"""Does training on the new rows help? Two runs that differ in them alone, and one test.

Both take the same number of steps and the same evaluations. Nothing ends one of them early.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sft.augment.run import Files
from sft.config import Config, SourceConfig, read_config, with_values
from sft.disk import sync_path, write_json
from sft.errors import ConfigError
from sft.guards.judge import GUARDS
from sft.runs.compare import Comparison, compare
from sft.runs.run_dir import RunDir

LEVEL = 0.05  # one-sided
PROBE = "val"


def check_accept(config: Config, sources: Sequence[SourceConfig]) -> None:
    """Raise `ConfigError` unless `config` trains on all that is augmented.

    New rows whose parents are not there would be split like any row, and change validation.
    """
    trained = [_path(source) for source in config.data.train]
    for source in sources:
        if not any(_path(source).is_relative_to(path) for path in trained):
            named = ", ".join(s.path for s in config.data.train) or "nothing"
            raise ConfigError(
                f"--accept: the config trains on {named}, and not on {source.path}, which is to be "
                "augmented; give the config itself in its place, or add the file to data.train"
            )


def _path(source: SourceConfig) -> Path:
    return Path(source.path).expanduser().resolve()


def accept(
    config: Config,
    files: Files,
    run_folder: Path,
    train: Callable[[Config], Any],
) -> tuple[bool, str]:
    """Train without and with the new rows, compare, and keep the file or set it aside.

    Returns whether validation loss is lower with the new rows, and that in a sentence. Run folders
    are `run_folder` with -plain and -augmented behind it. `train` is `sft.train.train`, which this
    layer may not import.

    Raises:
        SFTError: a run fails, or the two cannot be compared; the file stays where it is.
    """
    plain_dir = run_folder.with_name(run_folder.name + "-plain")
    augmented_dir = run_folder.with_name(run_folder.name + "-augmented")
    out = files.out.resolve()
    own = [source for source in config.data.train if _path(source) != out]
    # No guard and no plateau ends one of the runs, and nothing but steps is chosen.
    acting = [name for name in GUARDS if getattr(config.guards, name, "off") != "off"]
    quiet: dict[str, Any] = {f"guards.{name}": "warn" for name in acting}
    quiet |= {"eval.early_stopping": "off", "guards.blend": "off"}
    plain = with_values(config, {**quiet, **_trains_on(own, plain_dir)})
    train(plain)
    saved = read_config(RunDir(plain_dir).config)
    both = [*own, SourceConfig.model_validate(str(files.out))]
    same_plan = {
        "optim.max_steps": int(saved["num_steps"]),
        "eval.every": int(saved["config"]["eval"]["every"]),
    }
    train(with_values(plain, {**_trains_on(both, augmented_dir), **same_plan}))
    comparison = compare(plain_dir, augmented_dir, PROBE)
    accepted = comparison.p_better < LEVEL
    _record(comparison, accepted, files)
    size = f"{comparison.difference:+.4f} nats per token on {comparison.n} validation rows"
    verdict = f"accepted: {size} (one-sided p = {comparison.p_better:.2g})"
    return accepted, verdict if accepted else f"not {verdict}"


def _trains_on(sources: Sequence[SourceConfig], run_dir: Path) -> dict[str, Any]:
    return {
        "data.train": [source.model_dump() for source in sources],
        "run.dir": str(run_dir),
    }


def _record(result: Comparison, accepted: bool, files: Files) -> None:
    """The figures into the summary; the file moves when it is not accepted."""
    summary = json.loads(files.summary.read_text(encoding="utf-8"))
    summary["accepted"] = accepted
    summary["acceptance"] = {
        "probe": PROBE,
        "rows": result.n,
        "loss_plain": result.loss_a,
        "loss_augmented": result.loss_b,
        "difference": result.difference,
        "interval": list(result.interval),
        "p_one_sided": result.p_better,
        "level": LEVEL,
        "mde": result.mde,
        "step_plain": result.step_a,
        "step_augmented": result.step_b,
        "runs": [result.run_a, result.run_b],
    }
    write_json(files.summary, summary)
    if not accepted:
        os.replace(files.out, files.rejected)
        sync_path(files.out.parent)
