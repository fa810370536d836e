"""The data stages in order: read, split, render and mask, tokenise; with every row accounted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from sft.config import DataConfig
from sft.data.account import DataSet, Progress, data_set, nothing_left
from sft.data.parallel import TokenOptions, num_workers, tokenize_rows
from sft.data.rows.conversation import Conversation, Origin
from sft.data.rows.problems import BadRows
from sft.data.rows.read import read_conversations
from sft.data.splits import Split, given, split_off
from sft.data.stream import is_streamed, load_stream
from sft.data.template.chat_template import ChatTemplate
from sft.data.token_cache import CACHED_FROM, TokenCache
from sft.data.tokenize import Tokenized
from sft.errors import DataError

# Rows and validation rows to the rows to train on, and the origin and reason of each that was
# changed or left out.
ChooseRows = Callable[
    [Sequence[Conversation], Sequence[Conversation]],
    tuple[list[Conversation], list[tuple[Origin, str]]],
]


def load_data(
    config: DataConfig,
    template: ChatTemplate,
    seed: int,
    progress: Progress = lambda _what, _done, _total: None,
    choose_rows: ChooseRows | None = None,
    *,
    cache: TokenCache | None = None,
    num_examples: int | None = None,
) -> DataSet:
    """Read everything `config` names and make examples of it; its `max_seq_len` is a number.

    `choose_rows` may change the rows to train on, or leave some out, once they are split.
    `num_examples` are those that the run will see, if that is given: streams are read so far.

    Raises:
        ConfigError, DataError, TemplateError: with file, line and count.
    """
    if is_streamed(config, num_examples):
        return load_stream(config, template, seed, progress, cache, num_examples or 0)
    progress("reading", 0, 0)
    loaded = read_conversations(config.train, config.on_bad_row)
    loaded_val = read_conversations(config.val, config.on_bad_row) if config.val else None
    if loaded_val:
        split = given(loaded.conversations, loaded_val.conversations)
    else:
        split = split_off(loaded.conversations, config.val_fraction, seed)
    if choose_rows:
        chosen, changed = choose_rows(split.train, split.val)
        split = replace(split, train=chosen, changed={**split.changed, **dict(changed)})
    bad = BadRows(config.on_bad_row)
    files = loaded.files | (loaded_val.files if loaded_val else {})
    side = _Sides(config, template, bad, files, cache, _Advance(progress, split))
    train = side.tokenized(split.train, config.prompt_weight)
    val = side.tokenized(split.val, 0.0)  # validation measures answers, whatever is trained
    bad.raise_if_any(len(split.train) + len(split.val))
    if not train.examples:
        raise DataError(nothing_left(train, bad, int(config.max_seq_len)))
    return replace(data_set(loaded, loaded_val, split, train, val, bad), remarks=side.remarks)


class _Advance:
    """Tells how many rows have been tokenised, now and then."""

    def __init__(self, progress: Progress, split: Split) -> None:
        self._progress = progress
        self._total = len(split.train) + len(split.val)
        self._done = 0

    def __call__(self, rows: int = 1) -> None:
        """`rows` more are done."""
        before, self._done = self._done, self._done + rows
        if before // 50 < self._done // 50 or self._done == self._total:
            self._progress("tokenising", self._done, self._total)


@dataclass(frozen=True, slots=True)
class _Sides:
    """Tokenises both sides of a split; large ones with several processes, and from the cache."""

    config: DataConfig
    template: ChatTemplate
    bad: BadRows
    files: dict[str, str]
    cache: TokenCache | None
    advance: _Advance
    remarks: list[str] = field(default_factory=list)

    def tokenized(self, rows: Sequence[Conversation], prompt_weight: float) -> Tokenized:
        """The examples of `rows`; bad ones go to `bad`."""
        config = self.config
        options = TokenOptions(int(config.max_seq_len), config.overflow, prompt_weight)
        is_made = False

        def make() -> Tokenized:
            nonlocal is_made
            is_made = True
            return tokenize_rows(
                rows,
                self.template,
                self.bad,
                options,
                workers=num_workers(config.workers, len(rows)),
                progress=self.advance,
                remark=self.remarks.append,
            )

        # A folder that was asked for by name is used whatever the size.
        wanted = CACHED_FROM if config.cache == "auto" else 1
        if self.cache is None or len(rows) < wanted:
            return make()
        tokenized = self.cache.tokenized(rows, self.template, self.bad, options, self.files, make)
        self.remarks.extend(self.cache.remarks)
        self.cache.remarks.clear()
        if not is_made:
            self.advance(len(rows))
        return tokenized
