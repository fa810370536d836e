"""Everything `sft check` looks at, put together into one `CheckReport`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sft.check.account import account_lines, row_findings
from sft.check.rehearsal import rehearse
from sft.check.report import CheckReport, RowView
from sft.check.suspicious import Suspicious, find_suspicious
from sft.check.views import facts_of, row_view
from sft.config import Config, with_values
from sft.curate.benchmarks import read_benchmarks
from sft.curate.checks import CHECKS, run_checks
from sft.curate.checks.diversity import diversity
from sft.curate.corpus import Corpus
from sft.curate.finding import SEVERITIES, DataFinding
from sft.curate.preflight import usage_part
from sft.data.lengths import lengths
from sft.data.rows.conversation import Conversation
from sft.data.tokenize import Example
from sft.errors import ConfigError, did_you_mean
from sft.terminal.console import Console
from sft.texts.near_duplicates import effective_size
from sft.training.setup import Tokens, build_batches, prepare_data

# Rows on the page besides those that findings name.
NUM_VIEWS, MAX_VIEWS = 100, 500
# Share of usage prompts unlike all training prompts from which on it is worth a warning: a tenth
# is what the p values of conformal coverage call uncovered by chance.
UNCOVERED = 0.2
MANY_REPEATS = 4.0


@dataclass(frozen=True, slots=True)
class Wishes:
    """What to look at besides the rows themselves.

    `rows`: how many to show; `row` and `search` choose them by place or by text. `benchmarks`:
    files of texts that must not be trained on. `rehearse`: run the longest micro-batch. `score`:
    how many rows to score with the base model. `every_view`: also rows for the page.
    """

    rows: int = 3
    row: str | None = None
    search: str | None = None
    benchmarks: Sequence[str] = ()
    rehearse: bool = False
    score: int = 0
    every_view: bool = False


def examine(config: Config, wishes: Wishes, show: Console) -> CheckReport:
    """Read, tokenise and examine what `config` names.

    Rows that cannot be used are findings here, not errors, whatever `data.on_bad_row` says.

    Raises:
        ConfigError, DataError, TemplateError: nothing can be examined.
    """
    policy = config.data.on_bad_row
    benchmarks = read_benchmarks(wishes.benchmarks)
    tokens = prepare_data(with_values(config, {"data.on_bad_row": "skip"}), show)
    data = tokens.data
    show.progress("examining the rows")
    corpus = _corpus(tokens, benchmarks)
    batches = build_batches(tokens.resolver.config, data, tokens.held_out)
    num_steps = batches.num_steps(config.optim.epochs, config.optim.max_steps)
    visits = num_steps * config.batch.examples
    facts = {**facts_of(tokens.template, tokens.tokenizer), **_plan(tokens, num_steps, visits)}
    shares = batches.shares(config.data.train, visits)
    facts |= {f"source {share.name}": share.figures() for share in shares}
    usage = usage_part(corpus.train, corpus.usage, {}) if corpus.usage else None
    spread, topics, spread_findings = diversity(corpus)
    findings = [
        *row_findings(data, policy),
        *run_checks(corpus, _counting(show)),
        *spread_findings,
        *_coverage_finding(usage),
        *_repeats(round(visits * data.sampled), corpus),
    ]
    estimate = rehearse(tokens, num_steps, show) if wishes.rehearse else {}
    suspicious = find_suspicious(tokens, wishes.score, show) if wishes.score else None
    chosen = _views(tokens, wishes, findings)
    return CheckReport(
        title=", ".join(source.path for source in config.data.train),
        num_rows=data.num_rows,
        account=account_lines(data),
        findings=tuple(sorted(findings, key=_order)),
        lengths=lengths(data.train, int(tokens.resolver.config.data.max_seq_len)),
        facts=facts,
        estimate=estimate,
        diversity=spread,
        topics=tuple(topics),
        usage=usage,
        suspicious=None if suspicious is None else tuple(map(asdict, suspicious)),
        views=chosen,
        checks=tuple(name for name in CHECKS if benchmarks or name != "contamination"),
        notes=(
            *data.remarks,
            *data.notes,
            *tokens.held_out.notes,
            *_not_measured(wishes, usage, suspicious),
        ),
    )


def _counting(show: Console) -> Callable[[str], None]:
    """Tells how many checks have begun."""
    begun = itertools.count(1)
    return lambda _name: show.progress("checking", next(begun), len(CHECKS))


def _order(finding: DataFinding) -> tuple[int, int]:
    return SEVERITIES.index(finding.severity), -finding.count


def _corpus(tokens: Tokens, benchmarks: Mapping[str, Sequence[str]]) -> Corpus:
    """The rows that would be trained on, and all they are compared with.

    Rows of `data.val` that are left out as leaked are back in: that they leak is a finding.
    """
    split = tokens.data.split
    used = {example.origin for example in tokens.data.train}
    return Corpus(
        train=[row for row in split.train if row.origin in used],
        val=[*split.val, *split.leaked],
        usage=[prompt.conversation for prompt in tokens.held_out.prompts],
        test=tokens.held_out.test_rows,
        benchmarks=benchmarks,
        val_is_split_off=not tokens.resolver.config.data.val,
    )


def _plan(tokens: Tokens, num_steps: int, visits: int) -> dict[str, str]:
    config, data = tokens.resolver.config, tokens.data
    return {
        "steps": f"{num_steps:,} of {config.batch.examples} examples, "
        f"{visits / max(1, len(data.train)):.2f} times each row",
        "validation": f"{len(data.val):,} rows" if data.val else "none",
    }


def _coverage_finding(usage: Mapping[str, Any] | None) -> list[DataFinding]:
    if not usage or len(usage["uncovered"]) <= UNCOVERED * usage["n"]:
        return []
    missing = usage["uncovered"]
    groups = "; ".join(f"{g['label']} ({len(g['ids'])})" for g in usage["groups"][:3])
    return [
        DataFinding(
            check="usage_coverage",
            severity="warning",
            count=len(missing),
            rows=tuple(row["id"] for row in missing),
            message=f"{len(missing):,} of {usage['n']:,} usage prompts are unlike every training "
            f"prompt: {groups}",
            fix="add rows like these to data.train",
        )
    ]


def _repeats(visits: int, corpus: Corpus) -> list[DataFinding]:
    effective = effective_size(corpus.labels)
    if not effective or visits / effective <= MANY_REPEATS:
        return []
    return [
        DataFinding(
            check="repeats",
            severity="warning",
            count=0,
            rows=(),
            message=f"each of {effective:,.0f} distinct rows would be seen "
            f"{visits / effective:.1f} times; above about four, a model learns them by heart",
            fix="--set optim.epochs=3, or more rows",
        )
    ]


def _views(tokens: Tokens, wishes: Wishes, findings: Sequence[DataFinding]) -> tuple[RowView, ...]:
    rows = {row.origin: row for row in (*tokens.data.split.train, *tokens.data.split.val)}

    def view(example: Example) -> RowView:
        row = rows.get(example.origin)
        return row_view(example, tokens.tokenizer.tokenizer, tokens.template, row)

    return tuple(view(example) for example in _chosen(tokens, wishes, findings, rows))


def _chosen(
    tokens: Tokens,
    wishes: Wishes,
    findings: Sequence[DataFinding],
    rows: Mapping[Any, Conversation],
) -> list[Example]:
    examples = [*tokens.data.train, *tokens.data.val]
    if wishes.row:
        return [find_row(examples, wishes.row)]
    if wishes.search:
        wanted = wishes.search.lower()
        found = [e for e in examples if wanted in _text(rows[e.origin])]
        if not found:
            raise ConfigError(f"--search {wishes.search}: no row holds this text")
        return found[: max(wishes.rows, 1)]
    if not wishes.every_view:
        return examples[: wishes.rows]
    named = {place for finding in findings for place in finding.rows[:NUM_VIEWS]}
    first = [e for e in examples if str(e.origin) in named]
    return list({e.id: e for e in (*examples[:NUM_VIEWS], *first)}.values())[:MAX_VIEWS]


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
    wishes: Wishes, usage: Mapping[str, Any] | None, suspicious: Sequence[Suspicious] | None
) -> list[str]:
    """What was not looked at, and how it would be."""
    notes = []
    if usage is None:
        notes.append("usage coverage: not measured; give real prompts with --usage FILE")
    if not wishes.benchmarks:
        notes.append("contamination: not measured; name public tests with --benchmark FILE")
    if not wishes.rehearse:
        notes.append("time and memory: not measured; --rehearse tells them")
    if suspicious is None:
        how = "--score 200 scores rows with the base model"
        why = "no row has an answer after a prompt" if wishes.score else how
        notes.append(f"suspicious rows: not measured; {why}")
    return notes
