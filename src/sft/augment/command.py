"""`sft augment`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from sft.config.flags import is_config_file


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
    from sft.augment.options import augment_settings, endpoint_settings
    from sft.augment.run import augment as run
    from sft.config import load_config, read_config
    from sft.terminal.console import Console

    is_config = len(data) == 1 and is_config_file(data[0])
    config = load_config(read_config(data[0]) if is_config else {"data": {"train": list(data)}})
    sources, on_bad_row = config.data.train, flags["on_bad_row"] or config.data.on_bad_row
    settings, endpoint = augment_settings(flags), endpoint_settings(flags)
    own_model, dry_run = flags["own_model"], flags["dry_run"]
    acceptance = load_config(read_config(accept_config)) if accept_config else None
    if acceptance:
        from sft.augment.accept import check_accept

        check_accept(acceptance, sources)
    with Console() as show:
        files = run(sources, out, settings, show, endpoint, own_model, on_bad_row, dry_run)
    if dry_run:
        return
    if acceptance is None:
        click.echo(files.out)
        return
    from sft.augment.accept import accept
    from sft.train import train
    from sft.training.finish import run_folder

    accepted, verdict = accept(acceptance, files, run_folder(acceptance), train)
    file = files.out if accepted else files.rejected
    click.secho(f"{verdict}; {file}", fg="green" if accepted else "yellow", err=True)
    click.echo(file)
