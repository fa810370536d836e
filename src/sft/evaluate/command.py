"""`sft eval` and `sft chat`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click


@click.command(name="eval")
@click.argument("run", type=click.Path())
@click.option("--data", multiple=True, required=True, help="Rows with answers; repeatable.")
@click.option("--task", default="auto", show_default=True, help="auto, json, exact or overlap.")
@click.option("--max-rows", type=click.IntRange(1), help="Use so many rows, evenly spaced.")
@click.option("--max-new-tokens", type=click.IntRange(1), help="Longest answer to generate.")
def eval_run(
    run: str, data: Sequence[str], task: str, max_rows: int | None, max_new_tokens: int | None
) -> None:
    """Compare the base model with the trained one of RUN on held-out rows."""
    from rich.console import Console as RichConsole

    from sft.config import SourceConfig
    from sft.evaluate.before_after import evaluate as compare
    from sft.evaluate.before_after import render
    from sft.runs.run_dir import RunDir
    from sft.terminal.console import Console
    from sft.training.attempt import report

    with Console() as show:
        result = compare(
            run,
            [SourceConfig.model_validate(path) for path in data],
            task=task,
            max_rows=max_rows,
            max_new_tokens=max_new_tokens,
            on_progress=show.progress,
        )
    RichConsole(highlight=False).print(render(result))
    report(RunDir(run), show)  # which takes up what was found
    click.echo(f"model: {RunDir(run).model}")
    click.echo(f'next:  sft chat {run}    or    sft chat {run} "a prompt of yours"')


@click.command()
@click.argument("run", type=click.Path())
@click.argument("prompt", required=False)
@click.option("--system", help="System message.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=512, show_default=True)
@click.option("--temperature", type=click.FloatRange(0), default=0.0, show_default=True)
@click.option("--top-p", type=click.FloatRange(0, 1), default=1.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def chat(run: str, prompt: str | None, **options: Any) -> None:
    """Talk to the model of RUN; with PROMPT, print one answer and stop."""
    from sft.evaluate.chat import chat as talk

    talk(run, prompt, out=sys.stdout, err=sys.stderr, **options)
