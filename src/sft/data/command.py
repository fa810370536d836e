"""`sft convert`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click


@click.command()
@click.argument("source")
@click.option(
    "--to",
    "shape",
    required=True,
    help="messages, sharegpt, alpaca, prompt_completion or text.",
)
@click.option("--out", required=True, type=click.Path(), help=".jsonl, .json, .csv or .parquet.")
@click.option("--from", "format_name", default="auto", show_default=True, help="Shape of SOURCE.")
@click.option(
    "--columns",
    multiple=True,
    metavar="OURS=THEIRS",
    help="Which column of SOURCE is which of ours; repeatable.",
)
@click.option(
    "--on-bad-row",
    type=click.Choice(["error", "skip"]),
    default="error",
    show_default=True,
    help="What to do about rows that cannot be read or written.",
)
@click.option("--max-rows", type=click.IntRange(1), help="Read at most so many rows.")
@click.option("--force", is_flag=True, help="Write over a file that is there already.")
def convert(
    source: str, shape: str, out: str, columns: Sequence[str], on_bad_row: str, **flags: Any
) -> None:
    """Write the rows of SOURCE, a file, folder or data set id, in another shape.

    What the other shape has no place for is an error that names the row, never left out.
    """
    from sft.config import SourceConfig
    from sft.data.rows.convert import column_map
    from sft.data.rows.convert import convert as run
    from sft.texts.safe import printable

    options = {"format": flags["format_name"], "max_rows": flags["max_rows"]}
    rows = SourceConfig.model_validate({"path": source, "columns": column_map(columns), **options})
    done = run(rows, shape, out, on_bad_row=on_bad_row, force=flags["force"])  # type: ignore[arg-type]
    click.echo(printable(done.account()))
