"""The data stages in order: read, split, render and mask, tokenise; with every row accounted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from sft.config import DataConfig
from sft.data.account import DataSet, Progress, data_set, nothing_left
from sft.data.parallel import TokenOptions, num_workers, tokenize_chunks
from sft.data.rows.conversation import Conversation, Origin
from sft.data.rows.problems import BadRows
from sft.data.rows.read import read_conversations
from sft.data.splits import given, split_off
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
    side = _Sides(config, template, bad, files, cache, progress, len(split.train) + len(split.val))
    train = side.tokenized(split.train, config.prompt_weight)
    val = side.tokenized(split.val, 0.0)  # validation measures answers, whatever is trained
    bad.raise_if_any(side.total)
    if not train.examples:
        raise DataError(nothing_left(train, bad, int(config.max_seq_len)))
    return replace(data_set(loaded, loaded_val, split, train, val, bad), remarks=side.remarks)


@dataclass(slots=True)
class _Sides:
    """Tokenises both sides of a split; large ones with several processes, and from the cache."""

    config: DataConfig
    template: ChatTemplate
    bad: BadRows
    files: dict[str, str]
    cache: TokenCache | None
    progress: Progress
    total: int  # rows
    done: int = 0
    remarks: list[str] = field(default_factory=list)

    def tokenized(self, rows: Sequence[Conversation], prompt_weight: float) -> Tokenized:
        """The examples of `rows`; bad ones go to `bad`."""
        config, end = self.config, self.done + len(rows)
        options = TokenOptions(int(config.max_seq_len), config.overflow, prompt_weight)

        def make() -> Tokenized:
            whole = Tokenized()
            for part in tokenize_chunks(
                rows,
                self.template,
                self.bad,
                options,
                workers=num_workers(config.workers, len(rows)),
                progress=self._advance,
                remark=self.remarks.append,
            ):
                whole.extend(part)
            return whole

        # A folder that was asked for by name is used whatever the size.
        wanted = CACHED_FROM if config.cache == "auto" else 1
        if self.cache is None or len(rows) < wanted:
            return make()
        self.cache.remarks = self.remarks
        tokenized = self.cache.tokenized(rows, self.template, self.bad, options, self.files, make)
        self._advance(end - self.done)
        return tokenized

    def _advance(self, num_rows: int) -> None:
        if num_rows:
            self.done += num_rows
            self.progress("tokenising", self.done, self.total)
