"""Does training on the new rows help? Two runs that differ in them alone, and one test.

Both take the same number of steps and the same evaluations. Nothing ends one of them early.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sft.augment.run import Files
from sft.config import Config, SourceConfig, read_config, with_values
from sft.disk import sync_path, write_json
from sft.errors import ConfigError
from sft.guards.judge import GUARDS
from sft.runs.run_dir import RunDir

LEVEL = 0.05  # one-sided
PROBE = "val"


class Compared(Protocol):
    """What a comparison of two runs tells (`sft.runs.compare.Comparison`)."""

    @property
    def n(self) -> int: ...  # noqa: D102
    @property
    def loss_a(self) -> float: ...  # noqa: D102
    @property
    def loss_b(self) -> float: ...  # noqa: D102
    @property
    def difference(self) -> float: ...  # noqa: D102
    @property
    def interval(self) -> tuple[float, float]: ...  # noqa: D102
    @property
    def p_better(self) -> float: ...  # noqa: D102
    @property
    def step_a(self) -> int: ...  # noqa: D102
    @property
    def step_b(self) -> int: ...  # noqa: D102
    @property
    def least_seen(self) -> float | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Acceptance:
    """`accepted`: validation loss is lower with the new rows, one-sided p below 0.05."""

    accepted: bool
    plain: Path
    augmented: Path
    compared: Compared
    file: Path

    def sentence(self) -> str:
        """The verdict in one line."""
        found = self.compared
        size = f"{found.difference:+.4f} nats per token on {found.n} validation rows"
        verdict = "accepted" if self.accepted else "not accepted"
        return f"{verdict}: {size} (one-sided p = {found.p_better:.2g}); {self.file}"


def check_accept(config: Config, sources: Sequence[SourceConfig]) -> None:
    """Raise `ConfigError` unless `config` trains on all that is augmented.

    New rows whose parents are not there would be split like any row, and change validation.
    """
    trained = [_place(source) for source in config.data.train]
    for source in sources:
        if not any(_place(source).is_relative_to(place) for place in trained):
            named = ", ".join(s.path for s in config.data.train) or "nothing"
            raise ConfigError(
                f"--accept: the config trains on {named}, and not on {source.path}, which is to be "
                "augmented; give the config itself in its place, or add the file to data.train"
            )


def _place(source: SourceConfig) -> Path:
    return Path(source.path).expanduser().resolve()


def accept(
    config: Config,
    files: Files,
    run_folder: Path,
    train: Callable[[Config], Any],
    compare: Callable[[Path, Path, str], Compared],
) -> Acceptance:
    """Train without and with the new rows, compare, and keep the file or set it aside.

    Run folders are `run_folder` with -plain and -augmented behind it. `train` is `sft.train.train`
    and `compare` is `sft.runs.compare.compare`, which this layer may not import.

    Raises:
        SFTError: a run fails, or the two cannot be compared; the file stays where it is.
    """
    plain_dir = run_folder.with_name(run_folder.name + "-plain")
    augmented_dir = run_folder.with_name(run_folder.name + "-augmented")
    out = files.out.resolve()
    own = [source for source in config.data.train if _place(source) != out]
    plain = with_values(
        config,
        {
            **_undisturbed(config),
            "data.train": [source.model_dump() for source in own],
            "run.dir": str(plain_dir),
        },
    )
    train(plain)
    saved = read_config(RunDir(plain_dir).config)
    train(
        with_values(
            plain,
            {
                "data.train": [
                    s.model_dump() for s in (*own, SourceConfig.model_validate(str(files.out)))
                ],
                "run.dir": str(augmented_dir),
                "optim.max_steps": int(saved["num_steps"]),
                "eval.every": int(saved["config"]["eval"]["every"]),
            },
        )
    )
    found = compare(plain_dir, augmented_dir, PROBE)
    accepted = found.p_better < LEVEL
    return _record(
        Acceptance(
            accepted,
            plain_dir,
            augmented_dir,
            found,
            files.out if accepted else files.rejected,
        ),
        files,
    )


def _undisturbed(config: Config) -> dict[str, Any]:
    """No guard and no plateau ends one of the runs, and nothing but steps is chosen."""
    acting = [name for name in GUARDS if getattr(config.guards, name, "off") != "off"]
    quiet: dict[str, Any] = {f"guards.{name}": "warn" for name in acting}
    return {**quiet, "eval.early_stopping": "off", "guards.blend": "off"}


def _record(found: Acceptance, files: Files) -> Acceptance:
    """The figures into the summary; the file moves when it is not accepted."""
    summary = json.loads(files.summary.read_text(encoding="utf-8"))
    figures = found.compared
    summary["accepted"] = found.accepted
    summary["acceptance"] = {
        "probe": PROBE,
        "rows": figures.n,
        "loss_plain": figures.loss_a,
        "loss_augmented": figures.loss_b,
        "difference": figures.difference,
        "interval": list(figures.interval),
        "p_one_sided": figures.p_better,
        "level": LEVEL,
        "least_seen": figures.least_seen,
        "step_plain": figures.step_a,
        "step_augmented": figures.step_b,
        "runs": [str(found.plain), str(found.augmented)],
    }
    write_json(files.summary, summary)
    if not found.accepted:
        os.replace(files.out, files.rejected)
        sync_path(files.out.parent)
    return found
