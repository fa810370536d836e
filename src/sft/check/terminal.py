"""`sft check`: what a run would train on, before it does: account, lengths, masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

from sft.config import Config
from sft.data.tokenize import IGNORE_INDEX, Example
from sft.errors import ConfigError, did_you_mean
from sft.setup import Tokens, build_batches, prepare_data
from sft.trackers.console import BARS, Console, printable

NUM_REASONS = 8
TRAINED, PARTLY, MASKED = "bold green", "yellow", "bright_black"


def check(config: Config, rows: int, row: str | None, out: RichConsole, show: Console) -> None:
    """Print the account, the lengths, the facts of the template, and `rows` coloured rows.

    `row` is the id of one row to show instead (`file:line`, or its end).
    """
    tokens = prepare_data(config, show)
    out.print(_account(tokens))
    out.print(_lengths(tokens.data.train, int(tokens.resolver.config.data.max_seq_len)))
    out.print(_plan(tokens))
    for note in (*tokens.data.notes, *tokens.held_out.notes):
        out.print(Text(f"note: {printable(note)}", style="yellow"))
    chosen = [_find(tokens, row)] if row else tokens.data.train[:rows]
    out.print(Text.assemble("\nTokens: ", ("trained", TRAINED), ", ", ("shown only", MASKED)))
    for example in chosen:
        out.print(token_view(example, tokens.tokenizer.tokenizer), soft_wrap=True)


def _account(tokens: Tokens) -> Table:
    data = tokens.data
    table = Table(title=f"{data.num_rows:,} rows read", title_justify="left")
    for column, justify in (("rows", "right"), ("became", "left"), ("why, and where", "left")):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for status, count in data.counts().items():
        if not count:
            continue
        reasons: dict[str, list[str]] = {}
        for fate in data.fates:
            if fate.status == status and fate.reason:
                reasons.setdefault(_kind(fate.reason), []).append(str(fate.origin))
        lines = [
            f"{len(places):,} x {reason} ({', '.join(places[:3])}{', ...' * (len(places) > 3)})"
            for reason, places in sorted(reasons.items(), key=lambda kv: -len(kv[1]))
        ][:NUM_REASONS]
        # Text, because a str is markup, and a file may be named `data[/x].jsonl`.
        table.add_row(f"{count:,}", status, Text(printable("\n".join(lines))))
    return table


def _kind(reason: str) -> str:
    """Reasons that differ in their numbers only are one kind."""
    head, comma, tail = reason.partition(",")
    return f"too long:{tail}" if comma and head.endswith(" tokens") else reason


def _lengths(examples: Sequence[Example], max_seq_len: int) -> Table:
    lengths = np.array([e.num_tokens for e in examples])
    trained = np.array([e.num_trained for e in examples])
    table = Table(title="Tokens per example", title_justify="left")
    names = ("", "min", "median", "95 %", "max", "sum", "distribution")
    for name in names:
        table.add_column(name, justify="left" if name in ("", "distribution") else "right")
    for name, values in (("all", lengths), ("trained", trained)):
        counts, _ = np.histogram(values, bins=24, range=(0, max(int(lengths.max()), 1)))
        bars = "".join(BARS[round(7 * c / max(counts.max(), 1))] if c else " " for c in counts)
        quantiles = [int(np.quantile(values, q)) for q in (0, 0.5, 0.95, 1)]
        table.add_row(name, *(f"{q:,}" for q in quantiles), f"{values.sum():,}", f"|{bars}|")
    share = trained.sum() / lengths.sum()
    table.caption = (
        f"{share:.0%} of the tokens are trained; data.max_seq_len is {max_seq_len:,}; "
        f"the distribution runs from 0 to {lengths.max():,} tokens"
    )
    return table


def _plan(tokens: Tokens) -> Table:
    config, facts = tokens.resolver.config, tokens.template.facts
    batches = build_batches(config, tokens.data, tokens.held_out)
    num_steps = batches.num_steps(config.optim.epochs, config.optim.max_steps)
    tools = (
        "the template"
        if facts.tools_by == "template"
        else ("text in the messages, because the template ignores them")
    )
    rows = {
        "chat template": f"{tokens.tokenizer.template_source}, sha256 {facts.sha256[:12]}",
        "generation prompt": repr(facts.generation_prompt),
        "stop token": f"{facts.stop_token!r} ({facts.stop_id}), trained at the end of every turn",
        "BOS": "one, at the start" if facts.leading_bos else "none, as when serving",
        "tools": f"shown by {tools}",
        "mask methods": "prefix differences, and "
        + ("generation markers" if facts.has_generation_markers else "message spans"),
        "steps": f"{num_steps:,} of {config.batch.examples} examples, "
        f"{num_steps * config.batch.examples / batches.epoch_size:.2f} epochs",
        "validation": f"{len(tokens.data.val):,} examples",
    }
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(printable(value)))
    return table


def _find(tokens: Tokens, row: str) -> Example:
    examples = [*tokens.data.train, *tokens.data.val]
    for example in examples:
        if example.id == row or example.id.endswith(f":{row}") or example.id.endswith(f"/{row}"):
            return example
    known = [example.id for example in examples[:1000]]
    raise ConfigError(f"--row {row}: no such example.{did_you_mean(row, known)}")


def token_view(example: Example, tokenizer: Any) -> Text:
    """The text of an example: trained tokens green, masked ones grey, special tokens visible.

    A token's colour is that of its own prediction: green when the model learns to write it.
    """
    text = Text().append(
        f"\n{printable(example.id)}  {example.num_tokens} tokens, {example.num_trained} trained\n",
        style="bold",  # of the heading only
    )
    weights = np.append(np.float32(0), example.weights[:-1])
    targets = np.append(IGNORE_INDEX, example.labels[:-1])
    pieces: list[tuple[list[int], str]] = []
    for token, weight, target in zip(example.input_ids, weights, targets, strict=True):
        style = MASKED if target == IGNORE_INDEX else TRAINED if weight == 1 else PARTLY
        if pieces and pieces[-1][1] == style:
            pieces[-1][0].append(int(token))
        else:
            pieces.append(([int(token)], style))
    for ids, style in pieces:
        text.append(printable(tokenizer.decode(ids, clean_up_tokenization_spaces=False)), style)
    return text
