"""Commands of the data desk: what is wrong with the data, and how it is changed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from sft.cli.options import build_config, is_config_file, run_options


@click.command()
@click.argument("source", required=False, metavar="[CONFIG|DATA]")
@run_options
@click.option("--rows", type=click.IntRange(0), default=3, show_default=True, help="Rows to show.")
@click.option("--row", help="Show this row: file:line, or line.")
@click.option("--search", help="Show rows that hold this text.")
@click.option("--benchmark", "benchmarks", multiple=True, help="Texts not to train on; repeatable.")
@click.option(
    "--rehearse/--no-rehearse",
    default=None,
    help="Run one micro-batch, which tells time and memory  [default: with a config file]",
)
@click.option(
    "--score", type=click.IntRange(0), default=0, help="Rows to score with the base model."
)
@click.option(
    "--html",
    is_flag=False,
    flag_value="check.html",
    type=click.Path(dir_okay=False),
    help="Write a page too  [without a name: check.html]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as a JSON list only.")
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning", "never"]),
    default="error",
    show_default=True,
    help="Exit with code 3 if a finding is this severe or worse.",
)
def check(source: str | None, html: str | None, as_json: bool, fail_on: str, **flags: Any) -> None:
    """Tell what is wrong with the data, and what would be trained, before a single step.

    Reads every row as `sft train` would: its fate, its tokens, its copies, leaks and faults.
    """
    names = ("rows", "row", "search", "benchmarks", "rehearse", "score")
    wishes = {name: flags.pop(name) for name in names}
    built = build_config(source, flags)
    if wishes["rehearse"] is None:
        wishes["rehearse"] = is_config_file(source)
    from sft.check.command import check as run

    run(built, wishes, html=html, as_json=as_json, fail_on=fail_on)


@click.command()
@click.argument("data", nargs=-1, required=True, metavar="CONFIG|DATA...")
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="File of new rows.")
@click.option(
    "--way",
    "ways",
    required=True,
    help="One or more, with commas: template, system_prompt, case, whitespace, typos, paraphrase, "
    "self_answer.",
)
@click.option("--per-row", type=click.IntRange(1), default=1, help="New rows of each  [1]")
@click.option(
    "--share", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Rows to use  [1]"
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--templates", type=click.Path(), help="Wrappers, one a line, with {prompt} in it.")
@click.option("--system-prompts", type=click.Path(), help="One a line; (none) for none.")
@click.option("--endpoint", metavar="URL", help="OpenAI-compatible endpoint for paraphrases.")
@click.option("--endpoint-model", metavar="NAME", help="The model, as the endpoint calls it.")
@click.option("--endpoint-options", metavar="JSON", help="More for each request; null removes.")
@click.option("--api-key-env", metavar="NAME", help="Variable with the key  [OPENAI_API_KEY]")
@click.option("--price-per-million", metavar="IN,OUT", help="US dollars per million tokens.")
@click.option("--budget", type=click.FloatRange(0), help="Stop before spending more US dollars.")
@click.option("--requests-per-minute", type=click.FloatRange(0, min_open=True), help="At most.")
@click.option("--parallel", type=click.IntRange(1, 64), default=4, show_default=True)
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), default=60, help="Seconds  [60]"
)
@click.option("--own-model", metavar="starter|PATH|RUN", help="A model here that writes.")
@click.option("--dry-run", is_flag=True, help="Show counts and cost; ask and write nothing.")
@click.option(
    "--on-bad-row",
    type=click.Choice(["error", "skip"]),
    help="What to do about rows that cannot be used  [error, or what CONFIG says]",
)
@click.option(
    "--accept",
    "accept_config",
    type=click.Path(exists=True, dir_okay=False),
    metavar="CONFIG",
    help="Train without and with the new rows, and keep them only if validation improves.",
)
def augment(data: Sequence[str], out: str, accept_config: str | None, **flags: Any) -> None:
    """Make new training rows of DATA: other wordings, other noise, a model's own words.

    Train on both files; each new row stays on the side of the split where its parent is.
    """
    from sft.augment.command import augment as run
    from sft.augment.flags import wishes, writers
    from sft.config import SourceConfig, load_config, read_config
    from sft.trackers.console import Console

    sources, on_bad_row = [SourceConfig.model_validate(path) for path in data], "error"
    if len(data) == 1 and is_config_file(data[0]):
        config = load_config(read_config(data[0])).data
        sources, on_bad_row = config.train, config.on_bad_row
    on_bad_row = flags["on_bad_row"] or on_bad_row
    settings, models, dry_run = wishes(flags), writers(flags), flags["dry_run"]
    judged = load_config(read_config(accept_config)) if accept_config else None
    if judged:
        from sft.augment.accept import check_accept

        check_accept(judged, sources)
    with Console() as show:
        files = run(sources, out, settings, models, show, on_bad_row=on_bad_row, dry_run=dry_run)
    if dry_run:
        return
    if judged is None:
        click.echo(files.out)
        return
    from sft.augment.accept import accept
    from sft.compare import compare as compare_runs
    from sft.finish import run_folder
    from sft.train import train

    found = accept(judged, files, run_folder(judged), train, compare_runs)
    click.secho(found.sentence(), fg="green" if found.accepted else "yellow", err=True)
    click.echo(found.file)


@click.command()
@click.argument("run_a", type=click.Path())
@click.argument("run_b", type=click.Path())
@click.option(
    "--probe",
    type=click.Choice(["val", "usage", "test", "retain"]),
    default="val",
    show_default=True,
    help="The rows to compare on.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def compare(run_a: str, run_b: str, probe: str, as_json: bool) -> None:
    """Is RUN_B better than RUN_A? Each held-out row is compared with itself.

    Reads the records of two finished runs; needs neither the models nor torch.
    """
    from sft.compare import compare as run
    from sft.compare import show_comparison

    show_comparison(run(run_a, run_b, probe), as_json=as_json, out=sys.stdout)


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
    from sft.convert import column_map
    from sft.convert import convert as run
    from sft.trackers.console import printable

    wishes = {"format": flags["format_name"], "max_rows": flags["max_rows"]}
    rows = SourceConfig.model_validate({"path": source, "columns": column_map(columns), **wishes})
    done = run(rows, shape, out, on_bad_row=on_bad_row, force=flags["force"])  # type: ignore[arg-type]
    click.echo(printable(done.account()))


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
    any size: interrupted, the same command goes on where it was. Steps run in the order above.
    """
    from rich.console import Console as RichConsole

    from sft.convert import column_map
    from sft.curate.stream.options import load_curate_config
    from sft.curate.stream.run import curate as run
    from sft.curate.stream.summary import render, sentences
    from sft.trackers.console import Console, printable

    switches = {name: flags.pop(name) or None for name in ("quality", "dry_run")}
    checks = flags.pop("drop")
    given = {
        "data": list(data) or None,
        "columns": column_map(columns) or None,
        "drop": [name.strip() for name in checks.split(",")] if checks else None,
        "decontaminate": list(flags.pop("decontaminate")) or None,
    }
    wishes = load_curate_config({**flags, **switches, **given}, config)
    with Console() as show:
        summary = run(wishes, show.progress, show.note)
    RichConsole(highlight=False).print(render(summary))
    for sentence in sentences(summary):
        click.echo(printable(sentence))


COMMANDS = (check, curate, augment, compare, convert)
