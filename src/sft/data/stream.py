"""Data sets that are read as they arrive and never held: only their tokens are kept, on disk.

    first rows of each source --> validation rows, and a sample for what is examined as text
    the rest, chunk by chunk  --> without rows like a validation row --> tokens --> token store

A source is read only as far as `optim.max_steps` steps need. The store is an entry of the token
cache, so that a resumed run reads the first rows only, and trains on the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any

from sft.config import DataConfig, SourceConfig
from sft.data.account import DataSet, Progress, nothing_left, token_notes
from sft.data.parallel import TokenOptions, num_workers, tokenize_chunks, tokenize_rows
from sft.data.repeats import HeldOut, leaks, prompt_key
from sft.data.rows.conversation import Conversation, Origin
from sft.data.rows.files import sha256_of
from sft.data.rows.formats import check_config
from sft.data.rows.formats.own import code_of
from sft.data.rows.problems import BadRows
from sft.data.rows.read import Tally, read_conversations, read_source
from sft.data.rows.sources import local_files
from sft.data.splits import Split, num_val, split_off
from sft.data.template.chat_template import ChatTemplate
from sft.data.token_cache import TokenCache, rows_fingerprint
from sft.data.token_store import NotStorable, StoreDamaged, StoreWriter, TokenStore
from sft.data.tokenize import RowFate, Tokenized
from sft.disk import disk_errors, remove_path
from sft.errors import ConfigError, DataError

SAMPLE_ROWS = 2_048  # kept as text
CHUNK_ROWS = 1_024
# Rows read beyond those needed, for those that turn out bad, too long, or like a validation row.
MARGIN, MARGIN_ROWS = 0.05, 200

HELD_OUT = "its prompt, or nearly all of its text, is a validation row's"


def is_streamed(config: DataConfig, num_examples: int | None) -> bool:
    """Are the rows to train on streamed? `num_examples` are those the run will see, if known.

    Raises:
        ConfigError: it is not known how far to read a source.
    """
    streams = [source for source in config.train if source.streaming]
    if num_examples is not None:
        return bool(streams)
    for source in streams:
        if source.max_rows is None:
            raise ConfigError(
                f"data.train: {source.path} is a stream, which has no length; say how far to read "
                "it with --set optim.max_steps=1000, or with max_rows for the source"
            )
    return False


@dataclass(slots=True)
class _Reading:
    """The sources being read, each to its limit, and what is noted on the way."""

    config: DataConfig
    limits: list[int | None]
    report: BadRows
    tally: Tally = field(default_factory=Tally)
    files: dict[str, str] = field(default_factory=dict)
    num_rows: int = 0  # good ones

    def source(self, index: int) -> Iterator[Conversation]:
        """The rows of one source."""
        source = self.config.train[index].model_copy(update={"max_rows": self.limits[index]})
        check_config(source)
        for row in read_source(source, index, self.report, self.files, self.tally):
            if row.weight != 1:
                raise DataError(
                    f"{row.origin}: has a row_weight, which needs all rows at hand: leave "
                    "`streaming` out, or the column"
                )
            self.num_rows += 1
            yield row


@dataclass
class _Window:
    """The rows to train on, in order: first rows and the rest, none of them like one of `val`."""

    sources: list[Iterator[Conversation]]
    split: Split
    near: bool  # are near-duplicates left out, and not only equal prompts?
    dropped: list[RowFate] = field(default_factory=list)
    num_rows: int = 0

    @cached_property
    def held_out(self) -> tuple[set[str], HeldOut]:
        """The prompts of validation, and its rows to compare with."""
        return {prompt_key(row) for row in self.split.val}, HeldOut(self.split.val)

    def __iter__(self) -> Iterator[Conversation]:
        for index, source in enumerate(self.sources):
            rows = [row for row in self.split.train if row.source == index]
            while True:
                self.num_rows += len(rows)
                yield from rows
                chunk = list(islice(source, CHUNK_ROWS))
                if not chunk:
                    break
                rows = self.kept(chunk)

    def kept(self, rows: Sequence[Conversation]) -> list[Conversation]:
        """`rows` without those like a row of validation, and those augmented from one."""
        prompts, known = self.held_out
        compare = known.like if self.near else known.same_question
        like = {row.origin for row in rows if row.parent in prompts or compare(row)}
        self.dropped += [RowFate(r.origin, "dropped", HELD_OUT) for r in rows if r.origin in like]
        return [row for row in rows if row.origin not in like]


def load_stream(
    config: DataConfig,
    template: ChatTemplate,
    seed: int,
    progress: Progress,
    cache: TokenCache | None,
    num_examples: int,
) -> DataSet:
    """As `load_data`, of as many rows as a run over `num_examples` needs, in bounded memory.

    Raises:
        ConfigError: a setting needs all rows at once, or there is no cache to keep tokens in.
        DataError, TemplateError: with file, line and count.
    """
    cache = _refuse(config, cache)
    num_wanted = 0 if config.val else num_val(num_examples, config.val_fraction)
    limits = _limits(config.train, num_examples, num_wanted)
    reading = _Reading(config, limits, BadRows(config.on_bad_row))
    sources = [reading.source(index) for index in range(len(config.train))]
    progress("reading the first rows", 0, 0)
    each = math.ceil(max(SAMPLE_ROWS, 4 * num_wanted) / len(sources))
    first = [row for source in sources for row in islice(source, each)]
    reading.report.raise_if_any(reading.num_rows + reading.report.count)
    split = _split(config, first, num_wanted, seed)
    # Where near-duplicates could not be kept apart among the first rows they cannot be later.
    near = bool(config.val) or not leaks(split.train, split.val)
    window = _Window(sources, split, near)
    if config.val:
        split.train[:] = window.kept(split.train)
    options = TokenOptions(int(config.max_seq_len), config.overflow, config.prompt_weight)
    val_bad = BadRows(config.on_bad_row)
    val = tokenize_rows(
        split.val, template, val_bad, replace(options, prompt_weight=0.0), workers=1
    )
    val_bad.raise_if_any(len(split.val))
    spool = _Spool(config, template, options, cache, progress)
    store = spool.store(window, reading, _identity(reading, [*first, *split.val], seed))
    meta = store.meta
    fates = [RowFate(Origin(f, line), status, why) for f, line, status, why in meta["fates"]]
    fates += [RowFate(row.origin, "bad", row.reason) for row in val_bad.rows]
    fates += val.fates
    fates += [RowFate(name, "dropped", reason) for name, reason in split.changed.items()]
    listed = {fate.origin for fate in fates}
    fates += [RowFate(row.origin, "val") for row in split.val if row.origin not in listed]
    num_val_rows = len(split.val) if config.val else 0
    return DataSet(
        train=store.examples(),
        val=val.examples,
        fates=sorted(fates, key=lambda fate: (fate.origin.source, fate.origin.line)),
        num_rows=meta["num_rows"] + num_val_rows,
        num_bad=meta["num_bad"] + val_bad.count,
        files=meta["files"],
        notes=[*split.notes, *_notes(store, num_examples, val.examples == [])],
        split=split,
        num_unlisted=meta["num_used"],
        sampled=len(split.train) / max(1, meta["num_train"]),
        remarks=cache.remarks,
    )


def _refuse(config: DataConfig, cache: TokenCache | None) -> TokenCache:
    """Raise for a setting that streaming cannot keep."""
    whole = {
        "data.deduplicate": config.deduplicate,
        "data.openers": config.openers != "keep",
        "data.select_rows": config.select_rows is not None,
        "data.usage_weighting": config.usage_weighting,
    }
    for name, is_set in whole.items():
        if is_set:
            raise ConfigError(
                f"{name}: compares all rows with each other, and a stream is never held as a "
                "whole; leave it out, or set streaming: false for the sources"
            )
    if cache is None:
        raise ConfigError("data.cache: off, but a stream is kept there as tokens; give a folder")
    return cache


def _limits(
    sources: Sequence[SourceConfig], num_examples: int, num_wanted: int
) -> list[int | None]:
    """Rows to read of each source; None: all. Streams share what is needed evenly."""
    num_streams = sum(source.streaming for source in sources)
    needed = math.ceil((num_examples * (1 + MARGIN) + num_wanted) / num_streams) + MARGIN_ROWS
    return [
        min(needed, source.max_rows or needed) if source.streaming else source.max_rows
        for source in sources
    ]


def _split(config: DataConfig, first: list[Conversation], num_wanted: int, seed: int) -> Split:
    if config.val:
        held_out = read_conversations(config.val, config.on_bad_row)
        return Split(first, held_out.conversations, [], notes=held_out.notes)
    fraction = min(num_wanted / max(1, len(first)), 0.2)
    return split_off(first, fraction, seed)


def _identity(reading: _Reading, rows: Sequence[Conversation], seed: int) -> str:
    """Digest of what the rows will be: the files or revisions, how they are read, the first rows.

    Fills `reading.files` with those not begun yet.
    """
    for source in reading.config.train:
        for path in local_files(source.path, texts=source.format == "text"):
            reading.files.setdefault(str(path), sha256_of(path))
        reading.files.update(code_of(source.format))
    config = reading.config
    parts = [
        rows_fingerprint(rows),
        [source.model_dump(mode="json") for source in config.train],
        reading.files,
        reading.limits,
        [seed, str(config.val_fraction), config.on_bad_row],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Spool:
    """Makes the token store of a stream, or finds it."""

    config: DataConfig
    template: ChatTemplate
    options: TokenOptions
    cache: TokenCache
    progress: Progress

    def store(self, window: _Window, reading: _Reading, identity: str) -> TokenStore:
        """The examples of `window`, and in its `meta` the account of them.

        Raises:
            DataError: a row cannot be used, or none can.
            DiskError: the tokens cannot be written.
        """
        cache = self.cache
        parts = cache.parts(identity, self.template, self.options)
        folder = cache.entry(parts)
        if folder.exists():
            try:
                store = TokenStore(folder)
            except StoreDamaged as error:
                cache.damaged(folder, error)
            else:
                cache.hit(folder, parts, reading.files)
                return store
        else:
            cache.miss(parts, reading.files)
        with disk_errors(folder):
            writer = cache.writer(folder)
            try:
                account = self._written(writer, window, reading)
                meta = {**account, "parts": parts, "files": reading.files}
                cache.publish(writer, folder, meta)
            except NotStorable as error:
                raise DataError(f"{error}: brings labels of its own, so not to stream") from None
            finally:
                remove_path(writer.folder)
            return TokenStore(folder)

    def _written(self, writer: StoreWriter, window: _Window, reading: _Reading) -> dict[str, Any]:
        config, bad = self.config, BadRows(self.config.on_bad_row)
        expected = sum(filter(None, reading.limits))
        fates: list[RowFate] = []
        specials = split = done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            if done % 50 == 0:
                self.progress("tokenising the stream", done, max(expected, done + 1))

        workers = num_workers(config.workers, expected)
        for part in tokenize_chunks(
            window, self.template, bad, self.options, workers=workers, progress=advance
        ):
            writer.add(part.examples)
            fates += part.fates
            specials += part.num_text_specials
            split += part.num_split
        reading.report.raise_if_any(reading.num_rows + reading.report.count)
        bad.raise_if_any(window.num_rows)
        if not writer.num_examples:
            nothing = Tokenized([], fates, specials, split)
            raise DataError(nothing_left(nothing, bad, self.options.max_seq_len))
        used = window.num_rows - len(fates) - bad.count
        fates += window.dropped
        fates += [RowFate(r.origin, "bad", r.reason) for r in (*reading.report.rows, *bad.rows)]
        return {
            "fates": [[f.origin.source, f.origin.line, f.status, f.reason] for f in fates],
            "num_rows": reading.num_rows + reading.report.count,
            "num_bad": reading.report.count + bad.count,
            "num_used": used,
            "num_train": window.num_rows,
            "notes": [*reading.tally.notes(), *token_notes(specials, split)],
        }


def _notes(store: TokenStore, num_examples: int, no_val: bool) -> list[str]:
    meta, num = store.meta, store.meta["num_examples"]
    notes = [
        f"streaming: {meta['num_rows']:,} rows were read for the {num_examples:,} examples of "
        f"optim.max_steps, and are kept as {meta['num_tokens']:,} tokens on disk; used rows are "
        "not listed one by one, and what is examined as text is the first of them"
    ]
    if num < num_examples:
        notes.append(
            f"streaming: there are {num:,} examples, so each is seen {num_examples / num:.1f} times"
        )
    notes += meta["notes"]
    return [*notes, *(["no validation: no rows are split off for it"] if no_val else [])]
