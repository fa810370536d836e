"""The data remedies a config asks for, applied in order to the rows to train on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sft.config import DataConfig
from sft.curate.diverse_rows import select_diverse
from sft.curate.remedies import Remedied, cap_openers, dedupe, without_leaks
from sft.curate.strip import strip_openers
from sft.data.rows.conversation import Conversation, Origin


def choose_rows(
    rows: Sequence[Conversation],
    val: Sequence[Conversation],
    *,
    config: DataConfig,
    seed: int,
    note: Callable[[str], None] = lambda _text: None,
) -> Remedied:
    """Rows to train on, and origin and reason of each that was changed or left out.

    Near-duplicates go first, of each other and of `val`, then openers, then the choice of the most
    different rows. `note` is told how many rows `data.openers` changed.
    """
    kept: list[Conversation] = list(rows)
    changed: list[tuple[Origin, str]] = []

    def apply(done: Remedied) -> None:
        nonlocal kept
        kept, notes = done
        changed.extend(notes)

    if config.deduplicate:
        apply(dedupe(kept))
        apply(without_leaks(kept, val))
    if config.openers != "keep":
        remedy = strip_openers if config.openers == "strip" else cap_openers
        total, before = len(kept), len(changed)
        apply(remedy(kept, config.opener_share))
        note(_opener_note(config, len(changed) - before, total))
    if config.select_rows is not None:
        apply(select_diverse(kept, config.select_rows, seed))
    return kept, changed


def _opener_note(config: DataConfig, number: int, total: int) -> str:
    name = f"data.openers: {config.openers}"
    if not number:
        return (
            f"{name} changed none of the {total:,} training rows: no opener that it can take off "
            f"begins more than {config.opener_share:.3g} of the answers (data.opener_share)"
        )
    result = "stripped of their opener" if config.openers == "strip" else "left out"
    return f"{name}: {number:,} of {total:,} training rows were {result}"
