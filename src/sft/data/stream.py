"""Data sets that are read as they arrive and never held: only their tokens are kept, on disk.

    first rows of each source --> validation rows, and a sample for what is examined as text
    the rest, row by row      --> without rows like a validation row --> tokens --> token store

A source is read only as far as `optim.max_steps` steps need. The store is an entry of the token
cache, so that a resumed run reads the first rows only, and trains on the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

from sft.config import DataConfig, SourceConfig
from sft.data.account import DataSet, Progress, nothing_left, token_notes
from sft.data.parallel import TokenOptions, num_workers, tokenize_chunks
from sft.data.repeats import HeldOut, leaks, prompt_key
from sft.data.rows.conversation import Conversation
from sft.data.rows.files import sha256_of
from sft.data.rows.formats import check_config
from sft.data.rows.formats.own import code_of
from sft.data.rows.problems import BadRows
from sft.data.rows.read import Tally, read_conversations, read_source
from sft.data.rows.sources import local_files
from sft.data.splits import Split, num_val, split_off
from sft.data.template.chat_template import ChatTemplate
from sft.data.token_cache import TokenCache, fates_of, fates_record, rows_fingerprint
from sft.data.token_store import NotStorable, TokenStore
from sft.data.tokenize import Example, RowFate, Tokenized, tokenize
from sft.disk import disk_errors
from sft.errors import ConfigError, DataError

SAMPLE_ROWS = 2_048  # kept as text
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
    num_good: int = 0
    num_train: int = 0
    dropped: list[RowFate] = field(default_factory=list)

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
            self.num_good += 1
            yield row

    def kept(
        self, rows: Iterable[Conversation], held_out: Callable[[Conversation], bool]
    ) -> Iterator[Conversation]:
        """`rows` without those like a row of validation, and those augmented from one."""
        for row in rows:
            if held_out(row):
                self.dropped.append(RowFate(row.origin, "dropped", HELD_OUT))
            else:
                yield row

    def train_rows(
        self,
        first: Sequence[Conversation],
        sources: Sequence[Iterator[Conversation]],
        held_out: Callable[[Conversation], bool],
    ) -> Iterator[Conversation]:
        """The rows to train on, in order: the first rows of each source and the rest."""
        for index, source in enumerate(sources):
            own = (row for row in first if row.source == index)
            for row in chain(own, self.kept(source, held_out)):
                self.num_train += 1
                yield row

    @property
    def num_read(self) -> int:
        """Rows so far, bad ones included."""
        return self.num_good + self.report.count


def _like(val: Sequence[Conversation], near: bool) -> Callable[[Conversation], bool]:
    """Whether a row repeats one of `val`: `near` too, or only by its prompt."""
    prompts, known = {prompt_key(row) for row in val}, HeldOut(val)
    compare = known.like if near else known.same_question
    return lambda row: row.parent in prompts or bool(compare(row))


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
    reading.report.raise_if_any(reading.num_read)
    split = _split(config, first, num_wanted, seed)
    # Where near-duplicates could not be kept apart among the first rows they cannot be later.
    held_out = _like(split.val, near=bool(config.val) or not leaks(split.train, split.val))
    if config.val:
        split.train[:] = reading.kept(split.train, held_out)
    options = TokenOptions(int(config.max_seq_len), config.overflow, config.prompt_weight)
    val_bad = BadRows(config.on_bad_row)
    val = tokenize(
        split.val, template, val_bad, max_seq_len=options.max_seq_len, overflow=config.overflow
    )
    val_bad.raise_if_any(len(split.val))
    parts = cache.parts(_identity(reading, [*first, *split.val], seed), template, options)
    store = cache.find(parts, reading.files)
    if store is None:
        rows = reading.train_rows(split.train, sources, held_out)
        spool = _Spool(reading, options, progress, BadRows(config.on_bad_row))
        store = _saved(cache, parts, spool, spool.chunks(rows, template))
    meta = store.meta
    num_val_rows = len(split.val) if config.val else 0
    return DataSet(
        train=store.examples(),
        val=val.examples,
        fates=_fates(meta["fates"], split, [*val.fates, *_bad(val_bad)]),
        num_rows=meta["num_rows"] + num_val_rows,
        num_bad=meta["num_bad"] + val_bad.count,
        files=meta["files"],
        notes=[*split.notes, *_notes(store, num_examples, val.examples == [])],
        split=split,
        num_unlisted=meta["num_used"],
        sampled=len(split.train) / max(1, meta["num_train"]),
        remarks=cache.remarks,
    )


def _fates(record: Sequence[Any], split: Split, val: Sequence[RowFate]) -> list[RowFate]:
    """Of the rows of the store by its `record`, and of validation, of which `val` are not used."""
    fates = [*fates_of(record), *val]
    fates += [RowFate(name, "dropped", reason) for name, reason in split.changed.items()]
    listed = {fate.origin for fate in fates}
    fates += [RowFate(row.origin, "val") for row in split.val if row.origin not in listed]
    return sorted(fates, key=lambda fate: (fate.origin.source, fate.origin.line))


def _bad(rows: BadRows) -> list[RowFate]:
    return [RowFate(row.origin, "bad", row.reason) for row in rows.rows]


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


@dataclass(slots=True)
class _Spool:
    """The examples of a stream, and the account of them, without keeping them."""

    reading: _Reading
    options: TokenOptions
    progress: Progress
    bad: BadRows
    done: Tokenized = field(default_factory=Tokenized)  # all but the examples
    num_examples: int = 0

    def chunks(
        self, rows: Iterable[Conversation], template: ChatTemplate
    ) -> Iterator[list[Example]]:
        """The examples of `rows`; raises `DataError` when a row cannot be used, or none can."""
        reading, config = self.reading, self.reading.config
        expected, num_rows = sum(filter(None, reading.limits)), 0

        def advance(num: int) -> None:
            nonlocal num_rows
            num_rows += num
            self.progress("tokenising the stream", num_rows, max(expected, num_rows + 1))

        workers = num_workers(config.workers, expected)
        for part in tokenize_chunks(
            rows, template, self.bad, self.options, workers=workers, progress=advance
        ):
            self.num_examples += len(part.examples)
            self.done.extend(replace(part, examples=[]))
            yield part.examples
        reading.report.raise_if_any(reading.num_read)
        self.bad.raise_if_any(reading.num_train)
        if not self.num_examples:
            raise DataError(nothing_left(self.done, self.bad, self.options.max_seq_len))

    def record(self) -> dict[str, Any]:
        """What is remembered beside the tokens, once all rows are read."""
        reading, done = self.reading, self.done
        bad = [*_bad(reading.report), *_bad(self.bad)]
        return {
            "fates": fates_record([*done.fates, *reading.dropped, *bad]),
            "num_rows": reading.num_read,
            "num_bad": reading.report.count + self.bad.count,
            "num_used": reading.num_train - len(done.fates) - self.bad.count,
            "num_train": reading.num_train,
            "notes": [
                *reading.tally.notes(),
                *token_notes(done.num_text_specials, done.num_split),
            ],
        }


def _saved(
    cache: TokenCache, parts: Mapping[str, str], spool: _Spool, chunks: Iterator[list[Example]]
) -> TokenStore:
    with disk_errors(cache.folder):
        try:
            return cache.save(parts, spool.reading.files, chunks, spool.record)
        except NotStorable as error:
            raise DataError(f"{error}: brings labels of its own, so not to stream") from None


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
