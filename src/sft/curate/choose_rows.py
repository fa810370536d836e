"""The data remedies a config asks for, applied in order to the rows to train on."""

from __future__ import annotations

from collections.abc import Sequence

from sft.config import DataConfig
from sft.curate.diverse_rows import select_diverse
from sft.curate.remedies import Remedied, cap_openers, dedupe, without_leaks
from sft.curate.strip import strip_openers
from sft.data.rows.conversation import Conversation, Origin


def choose_rows(
    rows: Sequence[Conversation], val: Sequence[Conversation], *, config: DataConfig, seed: int
) -> Remedied:
    """Rows to train on, and origin and reason of each that was changed or left out.

    Near-duplicates go first, of each other and of `val`, then openers, then the choice of the most
    different rows.
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
    if config.openers == "strip":
        apply(strip_openers(kept, config.opener_share))
    elif config.openers == "drop":
        apply(cap_openers(kept, config.opener_share))
    if config.select_rows is not None:
        apply(select_diverse(kept, config.select_rows, seed))
    return kept, changed
