"""The command line. Every command calls a function of the Python API and adds nothing to it.

Imports of torch and transformers happen inside the commands, so that `sft --help` is instant.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from io import TextIOWrapper
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from sft.cli import data_commands, watching
from sft.cli.options import build_config, run_options
from sft.errors import SFTError

if TYPE_CHECKING:
    from sft.run_dir import RunDir
    from sft.trackers.console import Console

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="sft", prog_name="sft")
def cli() -> None:
    """Supervised fine-tuning that is right by construction, watched, and fast."""


@cli.command()
@click.argument("config", required=False)
@run_options
@click.option("--watch", is_flag=True, help="Show the run as a live page too; prints its address.")
@click.option("--quiet", is_flag=True, help="Show only warnings and the end.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def train(config: str | None, watch: bool, quiet: bool, as_json: bool, **flags: Any) -> None:
    """Train a model, or continue an interrupted run: the same command resumes it.

    CONFIG is a YAML file; flags win over it. Without one, --data says what to train on.
    """
    built = build_config(config, flags)
    from sft.trackers.console import Console
    from sft.train import train as run

    if pressed:  # and swallowed by a library that was being imported
        raise KeyboardInterrupt
    show = Console(quiet=quiet)
    summary = run(built, show, on_open=_show_page) if watch else run(built, show)
    click.echo(json.dumps(asdict(summary)) if as_json else summary.model_dir)


def _show_page(run: RunDir, show: Console) -> None:
    from sft.dashboard.command import start_watching

    show.note(f"watch: {start_watching(run.path)}", "bold")


@cli.command(name="eval")
@click.argument("run", type=click.Path())
@click.option("--data", multiple=True, required=True, help="Rows with answers; repeatable.")
@click.option("--task", default="auto", show_default=True, help="auto, json, exact or overlap.")
@click.option("--max-rows", type=click.IntRange(1), help="Use so many rows, evenly spaced.")
@click.option("--max-new-tokens", type=click.IntRange(1), help="Longest answer to generate.")
def evaluate(
    run: str, data: Sequence[str], task: str, max_rows: int | None, max_new_tokens: int | None
) -> None:
    """Compare the base model with the trained one of RUN on held-out rows."""
    from rich.console import Console as RichConsole

    from sft.attempt import report
    from sft.config import SourceConfig
    from sft.evaluate.before_after import evaluate as compare
    from sft.evaluate.before_after import render
    from sft.run_dir import RunDir
    from sft.trackers.console import Console

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


@cli.command()
@click.argument("run", type=click.Path())
@click.option("--all", "every", is_flag=True, help="Every signal, also those that pass.")
@click.option("--json", "as_json", is_flag=True, help="Findings of all looks as JSON lines.")
@click.option(
    "--fail-on",
    type=click.Choice(["watch", "alarm"]),
    help="Exit with code 8 if any guard says this or worse after the last look.",
)
def guards(run: str, **options: Any) -> None:
    """Judge the records of RUN again: overfitting, format collapse, mismatch, forgetting.

    Reads the run folder only; needs neither the model nor torch.
    """
    from sft.verdicts import show_guards

    show_guards(run, out=sys.stdout, **options)


@cli.command()
@click.argument("run", type=click.Path())
@click.option("--budget", type=float, help="Largest rise of retain loss; default: the run's own.")
@click.option("--to", "target", type=click.Path(), help="Where the model goes; RUN/model-blend.")
def blend(run: str, budget: float | None, target: str | None) -> None:
    """Mix the base model back into the tuned one of RUN, against forgetting.

    Tries several shares, and keeps the largest gain on the task within the forgetting budget.
    """
    from rich.console import Console as RichConsole

    from sft.attempt import report
    from sft.blend import blend as mix
    from sft.blend import render
    from sft.run_dir import RunDir
    from sft.trackers.console import Console

    with Console() as show:
        result = mix(run, budget=budget, to=target, on_progress=show.progress)
    RichConsole(highlight=False).print(render(result))
    report(RunDir(run), show)
    click.echo(result.model_dir)


@cli.command()
@click.argument("run", type=click.Path())
@click.argument("prompt", required=False)
@click.option("--system", help="System message.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=512, show_default=True)
@click.option("--temperature", type=click.FloatRange(0), default=0.0, show_default=True)
@click.option("--top-p", type=click.FloatRange(0, 1), default=1.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def chat(run: str, prompt: str | None, **options: Any) -> None:
    """Talk to the model of RUN; with PROMPT, print one answer and stop."""
    from sft.chat import chat as talk

    talk(run, prompt, out=sys.stdout, err=sys.stderr, **options)


for _command in (*data_commands.COMMANDS, *watching.COMMANDS):
    cli.add_command(_command)


pressed: list[int] = []  # not empty any more once Ctrl-C was pressed


def _remember_ctrl_c() -> None:
    """Note that Ctrl-C was pressed; what it does stays the same."""
    pressed.clear()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        signal.default_int_handler(number, frame)

    in_main = threading.current_thread() is threading.main_thread()
    if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, on_interrupt)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, or the code of the error's class (see `sft.errors`)."""
    # Large activations in huge pages: fewer page faults. Read when torch is first imported.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    _remember_ctrl_c()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a locale without bars and boxes is no error
    try:
        cli(args=arguments, prog_name="sft", standalone_mode=False)
    except SFTError as error:
        try:
            click.secho(f"error: {error}", fg="red", err=True)
        except OSError:  # the terminal is gone; Python would fail once more on flushing it
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except Exception:
        # A library that was being imported may turn Ctrl-C into an error of its own.
        if not pressed:
            raise
        click.echo("stopped", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
