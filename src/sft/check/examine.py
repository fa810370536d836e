"""Everything `sft check` looks at, put together into one `CheckReport`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sft.check.rehearsal import rehearse
from sft.check.report import CheckReport, RowView
from sft.check.row_findings import row_findings
from sft.check.suspicious import Suspicious, find_suspicious
from sft.check.views import facts_of, row_view
from sft.config import Config, with_values
from sft.curate.checks import CHECKS, run_checks
from sft.curate.checks.diversity import diversity
from sft.curate.checks.leaks import read_benchmarks
from sft.curate.corpus import Corpus
from sft.curate.finding import DataFinding, worst_first
from sft.curate.preflight import usage_part
from sft.data.account import account
from sft.data.lengths import lengths
from sft.data.rows.conversation import Conversation
from sft.data.tokenize import Example
from sft.errors import ConfigError, did_you_mean
from sft.runs.account import account_lines
from sft.terminal.console import Console
from sft.texts.near_duplicates import effective_size
from sft.training.setup import build_batches
from sft.training.tokens import Tokens, prepare_data

NUM_PLACES = 3  # of a line of the account
# Rows on the page besides those that findings name.
NUM_VIEWS, MAX_VIEWS = 100, 500
# Share of usage prompts unlike all training prompts from which on it is worth a warning: a tenth
# is what the p values of conformal coverage call uncovered by chance.
UNCOVERED = 0.2
MANY_REPEATS = 4.0


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What to look at besides the rows themselves.

    `rows`: how many to show; `row` and `search` choose them by place or by text. `benchmarks`:
    files of texts that must not be trained on. `rehearse`: run the longest micro-batch. `score`:
    how many rows to score with the base model. `page`: also the rows that a page shows.
    """

    rows: int = 3
    row: str | None = None
    search: str | None = None
    benchmarks: Sequence[str] = ()
    rehearse: bool = False
    score: int = 0
    page: bool = False


def examine(config: Config, options: CheckOptions, console: Console) -> CheckReport:
    """Read, tokenise and examine what `config` names.

    Rows that cannot be used are findings here, not errors, whatever `data.on_bad_row` says.

    Raises:
        ConfigError, DataError, TemplateError: nothing can be examined.
    """
    benchmarks = read_benchmarks(options.benchmarks)
    tokens = prepare_data(with_values(config, {"data.on_bad_row": "skip"}), console)
    data, resolved = tokens.data, tokens.resolver.config
    console.progress("examining the rows")
    corpus = _corpus(tokens, benchmarks)
    batches = build_batches(resolved, data, tokens.held_out)
    num_steps = batches.num_steps(config.optim.epochs, config.optim.max_steps)
    visits = num_steps * config.batch.examples
    usage = usage_part(corpus.train, corpus.usage, {}) if corpus.usage else None
    spread, topics, spread_findings = diversity(corpus)
    findings = worst_first(
        [
            *row_findings(data, config.data.on_bad_row),
            *run_checks(corpus, _counting(console)),
            *spread_findings,
            *_coverage_finding(usage),
            *_repeats(round(visits * data.sampled), corpus),
        ]
    )
    estimate = rehearse(tokens, num_steps, console) if options.rehearse else {}
    suspicious = find_suspicious(tokens, options.score, console) if options.score else None
    plan = {
        "steps": f"{num_steps:,} of {config.batch.examples} examples, "
        f"{visits / max(1, len(data.train)):.2f} times each row",
        "validation": f"{len(data.val):,} rows" if data.val else "none",
    }
    shares = batches.shares(config.data.train, visits)
    sources = {f"source {share.name}": share.figures() for share in shares}
    return CheckReport(
        title=", ".join(source.path for source in config.data.train),
        num_rows=data.num_rows,
        account=account_lines(account(data), NUM_PLACES),
        findings=tuple(findings),
        lengths=lengths(data.train, int(resolved.data.max_seq_len)),
        facts={**facts_of(tokens.template, tokens.tokenizer), **plan, **sources},
        estimate=estimate,
        diversity=spread,
        topics=tuple(topics),
        usage=usage,
        suspicious=None if suspicious is None else tuple(map(asdict, suspicious)),
        views=_views(tokens, options, findings),
        checks=tuple(name for name in CHECKS if benchmarks or name != "contamination"),
        notes=(
            *data.remarks,
            *data.notes,
            *tokens.held_out.notes,
            *_not_measured(options, usage, suspicious),
        ),
    )


def _counting(console: Console) -> Callable[[str], None]:
    """Shows how many checks have begun."""
    begun = itertools.count(1)
    return lambda _name: console.progress("checking", next(begun), len(CHECKS))


def _corpus(tokens: Tokens, benchmarks: Mapping[str, Sequence[str]]) -> Corpus:
    """The rows that would be trained on, and all they are compared with.

    Rows of `data.val` that are left out as leaked are back in: that they leak is a finding.
    """
    split = tokens.data.split
    used = {example.origin for example in tokens.data.train}
    return Corpus(
        train=[row for row in split.train if row.origin in used],
        val=[*split.val, *split.leaked],
        usage=tokens.held_out.prompts,
        test=tokens.held_out.test_rows,
        benchmarks=benchmarks,
        val_is_split_off=not tokens.resolver.config.data.val,
    )


def _coverage_finding(usage: Mapping[str, Any] | None) -> list[DataFinding]:
    if not usage or len(usage["uncovered"]) <= UNCOVERED * usage["n"]:
        return []
    places = tuple(row["id"] for row in usage["uncovered"])
    groups = "; ".join(f"{g['label']} ({len(g['ids'])})" for g in usage["groups"][:3])
    message = (
        f"{len(places):,} of {usage['n']:,} usage prompts are unlike every training prompt: "
        f"{groups}"
    )
    fix = "add rows like these to data.train"
    return [DataFinding("usage_coverage", "warning", len(places), places, message, fix)]


def _repeats(visits: int, corpus: Corpus) -> list[DataFinding]:
    effective = effective_size(corpus.labels)
    if not effective or visits / effective <= MANY_REPEATS:
        return []
    message = (
        f"each of {effective:,.0f} distinct rows would be seen {visits / effective:.1f} times; "
        "above about four, a model learns them by heart"
    )
    return [DataFinding("repeats", "warning", 0, (), message, "--set optim.epochs=3, or more rows")]


def _views(
    tokens: Tokens, options: CheckOptions, findings: Sequence[DataFinding]
) -> tuple[RowView, ...]:
    rows = {row.origin: row for row in (*tokens.data.split.train, *tokens.data.split.val)}
    tokenizer, template = tokens.tokenizer.tokenizer, tokens.template
    return tuple(
        row_view(example, tokenizer, template, rows.get(example.origin))
        for example in _chosen_examples(tokens, options, findings, rows)
    )


def _chosen_examples(
    tokens: Tokens,
    options: CheckOptions,
    findings: Sequence[DataFinding],
    rows: Mapping[Any, Conversation],
) -> list[Example]:
    examples = [*tokens.data.train, *tokens.data.val]
    if options.row:
        return [find_row(examples, options.row)]
    if options.search:
        wanted = options.search.lower()
        matching = [e for e in examples if wanted in _text(rows[e.origin])]
        if not matching:
            raise ConfigError(f"--search {options.search}: no row holds this text")
        return matching[: max(options.rows, 1)]
    if not options.page:
        return examples[: options.rows]
    places = {place for finding in findings for place in finding.rows[:NUM_VIEWS]}
    named = [e for e in examples if str(e.origin) in places]
    return list({e.id: e for e in (*examples[:NUM_VIEWS], *named)}.values())[:MAX_VIEWS]


def _text(row: Conversation) -> str:
    return "\n".join(message.content for message in row.messages).lower()


def find_row(examples: Sequence[Example], row: str) -> Example:
    """The example called `row`: `file:line`, or an end of it.

    Raises:
        ConfigError: there is none.
    """
    for example in examples:
        if example.id == row or example.id.endswith((f":{row}", f"/{row}")):
            return example
    known = [example.id for example in examples[:1000]]
    raise ConfigError(f"--row {row}: no such example.{did_you_mean(row, known)}")


def _not_measured(
    options: CheckOptions, usage: Mapping[str, Any] | None, suspicious: Sequence[Suspicious] | None
) -> list[str]:
    """What was not looked at, and how it would be."""
    notes = []
    if usage is None:
        notes.append("usage coverage: not measured; give real prompts with --usage FILE")
    if not options.benchmarks:
        notes.append("contamination: not measured; name public tests with --benchmark FILE")
    if not options.rehearse:
        notes.append("time and memory: not measured; --rehearse tells them")
    if suspicious is None:
        how = "--score 200 scores rows with the base model"
        why = "no row has an answer after a prompt" if options.score else how
        notes.append(f"suspicious rows: not measured; {why}")
    return notes
