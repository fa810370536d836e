"""`curate`: read once, decide, read again and write; passes that are finished are not repeated."""

from __future__ import annotations

import json
import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from sft.curate.diverse_rows import Progress
from sft.curate.stream import steps
from sft.curate.stream.features import feature_pass
from sft.curate.stream.options import CurateConfig
from sft.curate.stream.row_rules import corpus_check, rule_names, split_checks
from sft.curate.stream.rows import CHUNK_ROWS, Source, open_sources
from sft.curate.stream.store import Mask, RowChanges, Store
from sft.curate.stream.write import LEDGER, OUT, Writer, fates, write_rows
from sft.curate.stream.write import PASS as WRITE
from sft.curate.usage_weights import effective_rows
from sft.data.rows.files import sha256_of
from sft.disk import disk_errors, peak_memory_bytes
from sft.errors import ConfigError, DataError

PACKAGES = ("sft", "numpy", "scipy", "scikit-learn")

Step = Callable[[Mask], RowChanges]
# `FILE.summary.json`: `steps` has, for each step in its order, how many rows it dropped and changed
# and how many are left after it; `rows_read` less all that were dropped is `rows_written`.
Summary = dict[str, Any]


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
    split_checks(config.drop)
    sources = open_sources(config.sources())
    if any(Path(source.path).resolve() == out.resolve() for source in sources):
        raise ConfigError(f"--out {out}: is one of the files that are read; give it another name")
    fingerprint = _fingerprint(config, sources)
    work = Path(f"{out}.dry.work" if config.dry_run else f"{out}.work")
    if out.exists() and not work.exists() and not config.dry_run:
        return _made_before(out, fingerprint)
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
        return _run(config, store, sources, out, chunk_rows, progress)
    finally:
        lock.release()
        Path(f"{out}.lock").unlink(missing_ok=True)


def ledger_path(out: Path) -> Path:
    """`FILE.ledger.jsonl` for `FILE.jsonl`."""
    return out.with_name(f"{out.stem}.ledger.jsonl")


def summary_path(out: Path) -> Path:
    """`FILE.summary.json` for `FILE.jsonl`."""
    return out.with_name(f"{out.stem}.summary.json")


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


def _made_before(out: Path, fingerprint: Mapping[str, Any]) -> Summary:
    """The summary of `out`, if that was made with the same; else `ConfigError`."""
    path = summary_path(out)
    if path.is_file():
        record = json.loads(path.read_text(encoding="utf-8"))
        if all(record.get(name) == value for name, value in fingerprint.items()):
            return {**record, "again": True}
    raise ConfigError(
        f"{out}: exists, and was not made from these rows with these options. Delete it, or "
        "give another --out"
    )


def _run(
    config: CurateConfig,
    store: Store,
    sources: list[Source],
    out: Path,
    chunk_rows: int,
    progress: Progress,
) -> Summary:
    """Both passes and the steps between them."""
    started = time.monotonic()
    if store.finished(WRITE) and out.exists() and not store.path(OUT).exists():
        store.remove()  # which was all that was left to do
        return dict(json.loads(summary_path(out).read_text(encoding="utf-8")))
    feature_pass(store, config, sources, chunk_rows, progress)

    def result(name: str, step: Step) -> RowChanges:
        """The step's result, of now or of before this run was interrupted."""
        changes = RowChanges.load(store, name)
        if changes is None:
            progress(name.replace("_", " "), 0, 0)
            changes = step(alive)
            changes.save(store, name)
        return changes

    alive: Mask = store.load("alive", bool)
    dropped: dict[str, RowChanges] = {}
    notes: dict[str, Any] = {}
    _refuse_nothing(alive, dropped)
    for name, step in _steps(config, store, sources, progress).items():
        dropped[name] = result(name, step)
        alive[dropped[name].rows] = False
        if "effective" in dropped[name].notes:
            notes["effective_rows"] = dropped[name].notes["effective"]
        _refuse_nothing(alive, dropped)
    edited: RowChanges | None = None
    weights: NDArray[np.float64] | None = None
    if (share := config.cap_openers) is not None and config.openers == "strip":
        edited = result("strip", lambda rows: steps.strip_openers(store, rows, share, progress))
    if config.toward and config.mode == "weight":
        weights = steps.weigh(store, alive, steps.read_usage(config.toward))
        notes["effective_rows"] = effective_rows(weights)
    num_edited = len(edited.rows) if edited else 0
    if not config.dry_run:
        writer = Writer(store, sources, dropped, edited, weights)
        num_edited = write_rows(store, writer, chunk_rows, progress)
    notes["seconds"] = round(time.monotonic() - started, 2)
    summary = {
        **_counts(config, store, dropped, num_edited if edited else None),
        **store.state["fingerprint"],
        **notes,
        "peak_memory_bytes": peak_memory_bytes(),
        "peak_memory_bytes_of_a_worker": peak_memory_bytes(resource.RUSAGE_CHILDREN),
    }
    if config.dry_run:
        store.remove()
        return {**summary, "rows_written": 0}
    summary["output"] = {"path": str(out), "sha256": sha256_of(store.path(OUT))}
    _publish(store, summary, out)
    return summary


def _steps(
    config: CurateConfig, store: Store, sources: list[Source], progress: Progress
) -> dict[str, Step]:
    """The steps that compare rows, in their order."""
    asked: dict[str, Step] = {}
    for name in split_checks(config.drop)[1]:
        asked[name] = partial(corpus_check, name, sources)
    if config.dedupe != "none":
        asked["exact_duplicates"] = lambda alive: steps.exact_duplicates(store, alive)
    if config.dedupe == "near":
        asked["near_duplicates"] = lambda alive: steps.near_duplicates(store, alive, progress)
    if (share := config.cap_openers) is not None and config.openers == "drop":
        asked["openers"] = lambda alive: steps.drop_openers(store, alive, share)
    if (clusters := config.balance) is not None:
        asked["balance"] = lambda alive: steps.balance(
            store, alive, clusters, config.seed, progress
        )
    k = config.select
    if k is not None and config.toward and config.mode == "select":
        usage = steps.read_usage(config.toward)
        asked["toward"] = lambda alive: steps.draw(store, alive, usage, k, config.seed)
    elif k is not None:
        asked["select"] = lambda alive: steps.select_diverse(store, alive, k, config.seed, progress)
    return asked


def _refuse_nothing(alive: Mask, dropped: dict[str, RowChanges]) -> None:
    """Raise `DataError` when no row is left."""
    if alive.any():
        return
    counts = {name: len(changes.rows) for name, changes in dropped.items()}
    counts = {"dropped while reading": len(alive) - sum(counts.values()), **counts}
    account = "\n".join(f"  {count:>8,}  {name}" for name, count in counts.items())
    raise DataError(f"no row is left:\n{account}\nNothing was written")


def _counts(
    config: CurateConfig, store: Store, dropped: Mapping[str, RowChanges], edited: int | None
) -> Summary:
    """How many rows were read, and what each step did; `edited` is None where none was asked."""
    left = read = len(store.load("alive", bool))
    at_once = Counter(rule for rule, _ in fates(store))
    counts = {name: at_once[name] for name in ("unreadable", *rule_names(config))}
    counts |= {name: len(changes.rows) for name, changes in dropped.items()}
    steps_of_rows = []
    for name, number in counts.items():
        left -= number
        steps_of_rows.append({"step": name, "dropped": number, "changed": 0, "left": left})
    if edited is not None:
        steps_of_rows.append({"step": "openers", "dropped": 0, "changed": edited, "left": left})
    rows = {"rows_read": read, "rows_written": left, "rows_left": left}
    return {**rows, "rows_changed": edited or 0, "steps": steps_of_rows}


def _publish(store: Store, summary: Summary, out: Path) -> None:
    """Put summary, ledger and, last, the new file into their places, and delete the work folder."""
    with disk_errors(out.parent):
        new = store.path("summary")
        new.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", "utf-8")
        targets = {"summary": summary_path(out), LEDGER: ledger_path(out), OUT: out}
        for name, target in targets.items():
            if store.path(name).exists():
                with store.path(name).open("rb") as file:
                    os.fsync(file.fileno())
                os.replace(store.path(name), target)
    store.remove()
