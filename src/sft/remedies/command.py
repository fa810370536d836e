"""`sft blend`."""

from __future__ import annotations

import click


@click.command()
@click.argument("run", type=click.Path())
@click.option("--budget", type=float, help="Largest rise of retain loss; default: the run's own.")
@click.option("--to", "target", type=click.Path(), help="Where the model goes; RUN/model-blend.")
def blend(run: str, budget: float | None, target: str | None) -> None:
    """Mix the base model back into the tuned one of RUN, against forgetting.

    Tries several shares, and keeps the largest gain on the task within the forgetting budget.
    """
    from rich.console import Console as RichConsole

    from sft.remedies.blend_run import blend as mix
    from sft.remedies.blend_run import render
    from sft.runs.run_dir import RunDir
    from sft.terminal.console import Console
    from sft.training.attempt import report

    with Console() as show:
        result = mix(run, budget=budget, to=target, on_progress=show.progress)
    RichConsole(highlight=False).print(render(result))
    report(RunDir(run), show)
    click.echo(result.model_dir)
