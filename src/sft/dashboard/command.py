"""`sft watch`."""

from __future__ import annotations

from collections.abc import Sequence

import click


@click.command()
@click.argument("runs", nargs=-1, type=click.Path(), metavar="[RUNS]...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="[default: 8765, or the next free one]")
@click.option("--open", "open_page", is_flag=True, help="Open the page in a browser.")
@click.option("--for-pid", type=int, hidden=True, help="End some time after this process.")
def watch(
    runs: Sequence[str], host: str, port: int | None, open_page: bool, for_pid: int | None
) -> None:
    """Show RUNS as a live page: curves, guards, samples, data, and comparisons.

    RUNS are run folders, or folders that hold them (default: runs); new ones appear by themselves.
    Needs neither torch nor a graphics card. Any --host but this machine's own asks for a token.
    """
    from sft.dashboard.serve import watch as run

    run(runs, host, port, open_page=open_page, for_pid=for_pid)
