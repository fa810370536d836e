"""The data as the model will see it: what is known of a run before any weight is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from sft.config import Config
from sft.config.resolve import Resolver
from sft.curate.remedies import choose_rows
from sft.data.account import DataSet
from sft.data.dataset import load_data
from sft.data.held_out import HeldOut, load_held_out
from sft.data.template.chat_template import ChatTemplate
from sft.data.token_cache import TokenCache
from sft.model import load
from sft.model.load import TokenizerInfo
from sft.model.starter import cache_folder
from sft.terminal.console import Console


@dataclass(frozen=True, slots=True)
class Tokens:
    """What is known before any weight is loaded: the data as the model will see it."""

    resolver: Resolver
    folder: str
    tokenizer: TokenizerInfo
    template: ChatTemplate
    data: DataSet
    held_out: HeldOut

    @property
    def config(self) -> Config:
        """The config with every `auto` decided that has been so far."""
        return self.resolver.config


def prepare_data(
    config: Config, show: Console, stopped: Callable[[], None] = lambda: None
) -> Tokens:
    """Tokenizer, template and examples; `sft check` needs no more."""
    resolver = Resolver(config)
    folder = load.model_folder(config.model, show.progress)
    model_config = load.load_config(config.model, folder)
    resolver.lengths(getattr(model_config.get_text_config(), "max_position_embeddings", None))
    resolver.method()
    tokenizer = load.load_tokenizer(config.model, folder, config.method.kind)
    template = ChatTemplate(tokenizer.tokenizer, config.data.tools)

    def progress(what: str, done: int, total: int) -> None:
        stopped()
        show.progress(what, done, total)

    rows = resolver.config.data
    notes: list[str] = []
    choose = partial(choose_rows, config=rows, seed=config.run.seed, note=notes.append)
    cache = TokenCache.of(rows.cache, cache_folder() / "tokens", tokenizer.tokenizer)
    seed, num_examples = config.run.seed, config.num_examples
    data = load_data(rows, template, seed, progress, choose, cache=cache, num_examples=num_examples)
    data = replace(data, notes=[*data.notes, *notes])
    held_out = load_held_out(resolver.config.data, template)
    return Tokens(resolver, folder, tokenizer, template, data, held_out)
