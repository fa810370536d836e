"""The command line. Every command calls a function of the Python API and adds nothing to it.

Imports of torch and transformers happen inside the commands, so that `sft --help` is instant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

import click

from sft.augment.command import augment
from sft.check.command import check
from sft.curate.command import curate
from sft.dashboard.command import watch
from sft.data.command import convert
from sft.errors import SFTError
from sft.evaluate.command import chat, eval_run
from sft.remedies.command import blend
from sft.report.command import guards, report
from sft.runs.command import compare, export_metrics, runs
from sft.trackers.command import track
from sft.training.command import train
from sft.training.interrupt import pressed, remember_ctrl_c

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="sft", prog_name="sft")
def cli() -> None:
    """Supervised fine-tuning that is right by construction, watched, and fast."""


# Each command lives in the room that does its work; they are listed here in this order.
for _command in (
    train,
    eval_run,
    guards,
    blend,
    chat,
    check,
    curate,
    augment,
    compare,
    convert,
    watch,
    runs,
    report,
    export_metrics,
    track,
):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, or the code of the error's class (see `sft.errors`)."""
    # Large activations in huge pages: fewer page faults. Read when torch is first imported.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    remember_ctrl_c()
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
