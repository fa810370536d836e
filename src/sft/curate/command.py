"""`sft curate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table


@click.command()
@click.argument("data", nargs=-1, metavar="DATA...")
@click.option("--out", type=click.Path(dir_okay=False), help="The new file, FILE.jsonl.")
@click.option("--config", type=click.Path(), help="YAML file with the same options; flags win.")
@click.option("--format", help="Shape of the rows; recognised when it is not given.")
@click.option("--columns", multiple=True, metavar="OURS=THEIRS", help="Column map; repeatable.")
@click.option("--min-answer-words", type=int, help="Drop rows with a shorter answer.")
@click.option("--max-answer-words", type=int, help="Drop rows with a longer answer.")
@click.option("--quality", is_flag=True, help="Drop answers that repeat themselves or are symbols.")
@click.option("--drop", metavar="CHECK,...", help="Drop what these checks of `sft check` find.")
@click.option(
    "--decontaminate", multiple=True, metavar="FILE", help="Drop rows that hold its texts."
)
@click.option("--dedupe", type=click.Choice(["none", "exact", "near"]), help="Copies to drop.")
@click.option("--cap-openers", type=float, metavar="SHARE", help="Answers that may open alike.")
@click.option("--openers", type=click.Choice(["drop", "strip"]), help="What happens to the others.")
@click.option("--balance", type=int, metavar="CLUSTERS", help="Cap clusters of prompts.")
@click.option("--toward", metavar="USAGE", help="Prefer rows that resemble these prompts.")
@click.option("--mode", type=click.Choice(["weight", "select"]), help="Of --toward.")
@click.option("--select", type=int, metavar="K", help="Keep K rows that differ most.")
@click.option("--seed", type=int, help="Seed of what depends on chance.")
@click.option("--workers", type=int, help="Processes that read rows.")
@click.option("--engine", type=click.Choice(["local", "ray"]), help="Where they run.")
@click.option("--dry-run", is_flag=True, help="Only say what would be dropped.")
def curate(data: Sequence[str], config: str | None, columns: Sequence[str], **flags: Any) -> None:
    """Write the rows of DATA that are worth training on into a new file.

    Every row that is dropped or edited stands in FILE.ledger.jsonl, with the reason. For data of
    any size: interrupted, the same command keeps what is finished. Steps run in the order above.
    """
    from rich.console import Console as RichConsole

    from sft.curate.stream.options import load_curate_config
    from sft.curate.stream.run import curate as run
    from sft.data.rows.convert import column_map
    from sft.terminal.console import Console
    from sft.texts.safe import printable

    switches = {name: flags.pop(name) or None for name in ("quality", "dry_run")}
    checks = flags.pop("drop")
    given = {
        "data": list(data) or None,
        "columns": column_map(columns) or None,
        "drop": [name.strip() for name in checks.split(",")] if checks else None,
        "decontaminate": list(flags.pop("decontaminate")) or None,
    }
    options = load_curate_config({**flags, **switches, **given}, config)
    with Console() as console:
        summary = run(options, console.progress, console.note)
    RichConsole(highlight=False).print(_steps(summary))
    for sentence in _sentences(summary):
        click.echo(printable(sentence))


def _steps(summary: Mapping[str, Any]) -> Table:
    from rich.table import Table

    table = Table(title=None, box=None, pad_edge=False)
    table.add_column("step")
    for name in ("dropped", "changed", "left"):
        table.add_column(name, justify="right")
    table.add_row("read", "", "", f"{summary['rows_read']:,}")
    for step in summary["steps"]:
        if step["step"] != "unreadable" or step["dropped"]:
            numbers = [f"{step[name]:,}" for name in ("dropped", "changed", "left")]
            table.add_row(step["step"].replace("_", " "), *numbers)
    return table


def _sentences(summary: Mapping[str, Any]) -> Iterator[str]:
    """What is printed below the table."""
    from sft.curate.stream.run import ledger_path

    if "effective_rows" in summary:
        yield f"weights: as much as {summary['effective_rows']:,.0f} rows of equal weight"
    if summary.get("again"):
        yield "made before from the same rows with the same options; nothing was done"
    seconds, memory = summary["seconds"], summary["peak_memory_bytes"] / 1e6
    rate = summary["rows_read"] / max(seconds, 1e-9)
    yield f"{seconds:,.1f} s, {rate:,.0f} rows/s, {memory:,.0f} MB at most"
    if "output" in summary:
        out = Path(summary["output"]["path"])
        yield f"{out}: {summary['rows_written']:,} rows; {ledger_path(out)} says why"
    else:
        yield "nothing was written (--dry-run)"
