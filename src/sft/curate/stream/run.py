"""`curate`: read once, decide, read again and write; killed anywhere, it goes on from there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from sft.curate.benchmarks import benchmark_texts
from sft.curate.stream import near, openers, toward, vectors, whole
from sft.curate.stream.decision import Decision, Mask, load, save
from sft.curate.stream.feature_pass import PART as FEATURES
from sft.curate.stream.feature_pass import Progress, feature_pass
from sft.curate.stream.features import Wanted
from sft.curate.stream.options import CurateConfig
from sft.curate.stream.row_steps import RowRules
from sft.curate.stream.rows import CHUNK_ROWS, Source, open_sources
from sft.curate.stream.store import Store
from sft.curate.stream.summary import Summary, publish, summarise, summary_path
from sft.curate.stream.write import OUT, Plan, write_rows
from sft.curate.stream.write import PART as WRITE
from sft.data.rows.files import sha256_of
from sft.errors import ConfigError, DataError

PACKAGES = ("sft", "numpy", "scipy", "scikit-learn")

Step = Callable[[Mask], Decision]


def curate(
    config: CurateConfig,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
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
    row_checks, whole_checks = whole.split_checks(config.drop)
    sources = open_sources(config.sources())
    if any(Path(source.path).resolve() == out.resolve() for source in sources):
        raise ConfigError(f"--out {out}: is one of the files that are read; give it another name")
    files = [source.path for source in sources]
    others = [*config.decontaminate, *([config.toward] if config.toward else [])]
    for path in others:
        if not Path(path).is_file():
            raise ConfigError(f"{path}: no such file, or not a file")
    inputs = {path: sha256_of(Path(path)) for path in [*files, *others]}
    fingerprint = {
        "parameters": json.loads(json.dumps(config.parameters())),
        "inputs": inputs,
        "versions": {name: version(name) for name in PACKAGES},
    }
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
        if reason and note:
            note(f"{work} is of another run ({reason}), so this one starts from the beginning")
        wanted = Wanted(tuple(sources), _rules(config, row_checks), **_features(config))
        run = _Run(config, sources, store, wanted, progress or (lambda *_: None), chunk_rows)
        return run.all(whole_checks, out)
    finally:
        lock.release()
        Path(f"{out}.lock").unlink(missing_ok=True)


def _rules(config: CurateConfig, checks: list[str]) -> RowRules:
    return RowRules(
        min_words=config.min_answer_words,
        max_words=config.max_answer_words,
        quality=config.quality,
        checks=tuple(checks),
        benchmarks={
            path: benchmark_texts(path, "--decontaminate") for path in config.decontaminate
        },
    )


def _features(config: CurateConfig) -> dict[str, bool]:
    capped = config.cap_openers is not None
    return {
        "exact": config.dedupe != "none",
        "near": config.dedupe == "near",
        "openers": capped and config.openers == "drop",
        "heads": capped and config.openers == "strip",
        "terms": bool(config.balance or config.select or config.toward),
    }


class _Run:
    def __init__(
        self,
        config: CurateConfig,
        sources: list[Source],
        store: Store,
        wanted: Wanted,
        progress: Progress,
        size: int,
    ) -> None:
        self._config = config
        self._sources = sources
        self._store = store
        self._wanted = wanted
        self._progress = progress
        self._size = size
        self._started = time.monotonic()
        self._alive: Mask = np.zeros(0, dtype=bool)
        self._dropped: dict[str, Decision] = {}
        self._notes: dict[str, Any] = {}

    def all(self, whole_checks: list[str], out: Path) -> Summary:
        """Both passes and what is between them."""
        config, store = self._config, self._store
        if store.part(WRITE)["done"] and out.exists() and not store.path(OUT).exists():
            store.remove()  # which was all that was left to do
            return Summary(json.loads(summary_path(out).read_text(encoding="utf-8")))
        feature_pass(store, self._wanted, config.engine, config.workers, self._size, self._progress)
        self._alive = store.load("alive", bool)
        self._refuse_nothing()
        for name, step in self._steps(whole_checks).items():
            self._decide(name, step)
            self._refuse_nothing()
        edited = None
        if config.cap_openers is not None and config.openers == "strip":
            share = config.cap_openers
            edited = self._remembered(
                "strip",
                lambda alive: openers.strip_openers(store, alive, share, self._progress),
            )
        weights = self._weights()
        plan = Plan(self._sources, self._dropped, edited, weights)
        seconds = self._spent()
        if config.dry_run:
            edits = len(edited.rows) if edited else 0
            summary = summarise(store, plan, self._wanted.rules, edits, self._notes, seconds)
            store.remove()
            return summary
        write_rows(store, plan, self._size, self._progress)
        changed = store.part(WRITE)["changed"]
        summary = summarise(
            store, plan, self._wanted.rules, changed, self._notes, self._spent(), out
        )
        publish(store, summary, out)
        return summary

    def _steps(self, whole_checks: list[str]) -> dict[str, Step]:
        """The steps that compare rows, in their order."""
        config, store, progress = self._config, self._store, self._progress
        steps: dict[str, Step] = {}
        for name in whole_checks:
            steps[name] = lambda alive, name=name: whole.whole_check(name, self._sources, alive)  # type: ignore[misc]
        if config.dedupe != "none":
            steps["exact_duplicates"] = lambda alive: near.exact(store, alive, progress)
        if config.dedupe == "near":
            steps["near_duplicates"] = lambda alive: near.near(store, alive, progress)
        if (share := config.cap_openers) is not None and config.openers == "drop":
            steps["openers"] = lambda alive: openers.drop_openers(store, alive, share)
        if (clusters := config.balance) is not None:
            steps["balance"] = lambda alive: vectors.balance(
                store, alive, clusters, config.seed, progress
            )
        k = config.select
        if k is not None and config.toward and config.mode == "select":
            usage = toward.read_usage(config.toward)
            steps["toward"] = lambda alive: toward.draw(store, alive, usage, k, config.seed)
        elif k is not None:
            steps["select"] = lambda alive: vectors.select_diverse(
                store, alive, k, config.seed, progress
            )
        return steps

    def _decide(self, name: str, step: Step) -> None:
        decision = self._remembered(name, step)
        self._alive[decision.rows] = False
        self._dropped[name] = decision
        if "effective" in decision.notes:
            self._notes["effective_rows"] = decision.notes["effective"]

    def _remembered(self, name: str, step: Step) -> Decision:
        """The step's decision, made now or before this run was interrupted."""
        decision = load(self._store, name)
        if decision is None:
            self._progress(f"{name.replace('_', ' ')}", 0, 0)
            decision = step(self._alive)
            self._spent()
            save(self._store, name, decision)
        return decision

    def _weights(self) -> Any:
        config = self._config
        if not config.toward or config.mode != "weight":
            return None
        usage = toward.read_usage(config.toward)
        weights, effective = toward.weigh(self._store, self._alive, usage, config.seed)
        self._notes["effective_rows"] = effective
        return weights

    def _spent(self) -> float:
        """Seconds of this and the interrupted runs before it."""
        now = time.monotonic()
        seconds: float = self._store.state.get("seconds", 0.0) + now - self._started
        self._started = now
        self._store.state["seconds"] = seconds
        return seconds

    def _refuse_nothing(self) -> None:
        """Raise `DataError` when no row is left."""
        if self._alive.any():
            return
        counts = {name: len(decision.rows) for name, decision in self._dropped.items()}
        read = self._store.part(FEATURES)["rows"]
        counts = {"dropped while reading": read - sum(counts.values()), **counts}
        account = "\n".join(f"  {count:>8,}  {name}" for name, count in counts.items())
        raise DataError(f"no row is left:\n{account}\nNothing was written")
