"""`curate`: read once, decide, read again and write; passes that are finished are not repeated."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sft.curate.benchmarks import benchmark_texts, held_out_rows
from sft.curate.stream import near, openers, prompt_steps
from sft.curate.stream.corpus_checks import drop_found, split_checks
from sft.curate.stream.feature_pass import Progress, feature_pass
from sft.curate.stream.features import Wanted
from sft.curate.stream.options import CurateConfig
from sft.curate.stream.row_changes import Mask, RowChanges
from sft.curate.stream.row_steps import RowRules
from sft.curate.stream.rows import CHUNK_ROWS, Source, open_sources
from sft.curate.stream.store import Store
from sft.curate.stream.summary import Summary, publish, summarise, summary_path
from sft.curate.stream.write import OUT, Plan, write_rows
from sft.curate.stream.write import PASS as WRITE
from sft.curate.usage_weights import effective_rows
from sft.data.rows.files import sha256_of
from sft.errors import ConfigError, DataError

PACKAGES = ("sft", "numpy", "scipy", "scikit-learn")

Step = Callable[[Mask], RowChanges]


def curate(
    config: CurateConfig,
    progress: Progress = lambda *_: None,
    note: Callable[[str], None] = lambda _: None,
    chunk_rows: int = CHUNK_ROWS,
) -> Summary:
    """Write the new file, its ledger and its summary; with `dry_run`, only the summary returns.

    Works in `OUT.work/`, which is deleted at the end. Neither the number of processes, nor the
    engine, `chunk_rows`, nor being killed and started again changes a byte of file and ledger.

    Raises:
        ConfigError: an option does not fit, the file exists already, or another process writes it.
        DataError: the data cannot be read, or no row is left.
    """
    out = Path(config.out)
    row_checks, corpus_checks = split_checks(config.drop)
    sources = open_sources(config.sources())
    if any(Path(source.path).resolve() == out.resolve() for source in sources):
        raise ConfigError(f"--out {out}: is one of the files that are read; give it another name")
    fingerprint = _fingerprint(config, sources)
    work = Path(f"{out}.dry.work" if config.dry_run else f"{out}.work")
    done = None if config.dry_run else Summary.read(out, fingerprint, work.exists())
    if done:
        return done
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{out}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"{out}: another sft curate is writing it") from None
    try:
        store = Store(work)
        reason = store.open(fingerprint)
        if reason and out.exists() and not config.dry_run:
            raise ConfigError(f"{out}: exists, and was made by another run; delete it first")
        if reason:
            note(f"{work} is of another run ({reason}), so this one starts from the beginning")
        wanted = _wanted(config, sources, row_checks)
        return _Run(config, store, wanted, progress, chunk_rows).run(corpus_checks, out)
    finally:
        lock.release()
        Path(f"{out}.lock").unlink(missing_ok=True)


def _fingerprint(config: CurateConfig, sources: list[Source]) -> dict[str, Any]:
    """All that decides the result: options, the bytes of the files, and versions."""
    others = [*config.decontaminate, *([config.toward] if config.toward else [])]
    for path in others:
        if not Path(path).is_file():
            raise ConfigError(f"{path}: no such file, or not a file")
    paths = [*(source.path for source in sources), *others]
    return {
        "parameters": json.loads(json.dumps(config.parameters())),
        "inputs": {path: sha256_of(Path(path)) for path in paths},
        "versions": {name: version(name) for name in PACKAGES},
    }


def _wanted(config: CurateConfig, sources: list[Source], row_checks: list[str]) -> Wanted:
    """What pass 1 is to find out."""
    capped = config.cap_openers is not None
    flag = "--decontaminate"
    rules = RowRules(
        min_words=config.min_answer_words,
        max_words=config.max_answer_words,
        quality=config.quality,
        checks=tuple(row_checks),
        benchmarks={path: benchmark_texts(path, flag) for path in config.decontaminate},
        held_out=[row for path in config.decontaminate for row in held_out_rows(path)],
    )
    return Wanted(
        tuple(sources),
        rules,
        exact=config.dedupe != "none",
        near=config.dedupe == "near",
        openers=capped and config.openers == "drop",
        heads=capped and config.openers == "strip",
        terms=bool(config.balance or config.select or config.toward),
    )


class _Run:
    """Both passes and the steps between them."""

    def __init__(
        self, config: CurateConfig, store: Store, wanted: Wanted, progress: Progress, size: int
    ) -> None:
        self._config = config
        self._store = store
        self._wanted = wanted
        self._progress = progress
        self._size = size

    def run(self, corpus_checks: list[str], out: Path) -> Summary:
        config, store, progress = self._config, self._store, self._progress
        started = time.monotonic()
        if store.finished(WRITE) and out.exists() and not store.path(OUT).exists():
            store.remove()  # which was all that was left to do
            return Summary(json.loads(summary_path(out).read_text(encoding="utf-8")))
        read = feature_pass(
            store, self._wanted, config.engine, config.workers, self._size, progress
        )
        alive: Mask = store.load("alive", bool)
        dropped: dict[str, RowChanges] = {}
        notes: dict[str, Any] = {}
        _refuse_nothing(alive, read, dropped)
        for name, step in self._steps(corpus_checks).items():
            dropped[name] = result = self._result(name, step, alive)
            alive[result.rows] = False
            if "effective" in result.notes:
                notes["effective_rows"] = result.notes["effective"]
            _refuse_nothing(alive, read, dropped)
        edited = weights = None
        if (share := config.cap_openers) is not None and config.openers == "strip":
            edited = self._result(
                "strip", lambda rows: openers.strip_openers(store, rows, share, progress), alive
            )
        if config.toward and config.mode == "weight":
            weights = prompt_steps.weigh(store, alive, prompt_steps.read_usage(config.toward))
            notes["effective_rows"] = effective_rows(weights)
        plan = Plan(self._wanted.sources, dropped, edited, weights)
        if config.dry_run:
            num_edited = len(edited.rows) if edited else 0
        else:
            num_edited = write_rows(store, plan, self._size, progress)
        notes["seconds"] = round(time.monotonic() - started, 2)
        summary = summarise(
            store, plan, self._wanted.rules, num_edited, notes, None if config.dry_run else out
        )
        if config.dry_run:
            store.remove()
        else:
            publish(store, summary, out)
        return summary

    def _result(self, name: str, step: Step, alive: Mask) -> RowChanges:
        """The step's result, of now or of before this run was interrupted."""
        result = RowChanges.load(self._store, name)
        if result is None:
            self._progress(name.replace("_", " "), 0, 0)
            result = step(alive)
            result.save(self._store, name)
        return result

    def _steps(self, corpus_checks: list[str]) -> dict[str, Step]:
        """The steps that compare rows, in their order."""
        config, store, progress = self._config, self._store, self._progress
        steps: dict[str, Step] = {}
        for name in corpus_checks:
            steps[name] = lambda alive, name=name: drop_found(name, self._wanted.sources, alive)  # type: ignore[misc]
        if config.dedupe != "none":
            steps["exact_duplicates"] = lambda alive: near.exact(store, alive, progress)
        if config.dedupe == "near":
            steps["near_duplicates"] = lambda alive: near.near(store, alive, progress)
        if (share := config.cap_openers) is not None and config.openers == "drop":
            steps["openers"] = lambda alive: openers.drop_openers(store, alive, share)
        if (clusters := config.balance) is not None:
            steps["balance"] = lambda alive: prompt_steps.balance(
                store, alive, clusters, config.seed, progress
            )
        k = config.select
        if k is not None and config.toward and config.mode == "select":
            usage = prompt_steps.read_usage(config.toward)
            steps["toward"] = lambda alive: prompt_steps.draw(store, alive, usage, k, config.seed)
        elif k is not None:
            steps["select"] = lambda alive: prompt_steps.select_diverse(
                store, alive, k, config.seed, progress
            )
        return steps


def _refuse_nothing(alive: Mask, read: int, dropped: dict[str, RowChanges]) -> None:
    """Raise `DataError` when no row is left."""
    if alive.any():
        return
    counts = {name: len(result.rows) for name, result in dropped.items()}
    counts = {"dropped while reading": read - sum(counts.values()), **counts}
    account = "\n".join(f"  {count:>8,}  {name}" for name, count in counts.items())
    raise DataError(f"no row is left:\n{account}\nNothing was written")
