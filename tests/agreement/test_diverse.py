"""Which rows differ most: `data.select_rows` and `sft curate --select` choose the same."""

import json
import random

import pytest

from curating import pair, run, text, write
from sft.config import SourceConfig, load_config
from sft.curate import diverse_rows
from sft.curate.remedies import choose_rows
from sft.data.rows.read import read_conversations


def trained_rows(path, k, seed):
    """The lines that `data.select_rows` leaves."""
    rows = read_conversations([SourceConfig(path=str(path))], "error").conversations
    config = load_config({"data": {"train": [str(path)], "select_rows": k}}).data
    kept, changed = choose_rows(rows, [], config=config, seed=seed)
    lines = [row.origin.line for row in kept]
    assert sorted([*lines, *(origin.line for origin, _ in changed)]) == list(
        range(1, len(rows) + 1)
    )
    return lines


@pytest.mark.parametrize("exact_rows", [1_000, 50])  # by all terms, or from blocks
@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("k", [1, 20, 90, 500])
def test_training_chooses_the_rows_that_curate_keeps(tmp_path, monkeypatch, k, seed, exact_rows):
    monkeypatch.setattr(diverse_rows, "EXACT_ROWS", exact_rows)
    monkeypatch.setattr(diverse_rows, "BLOCK_ROWS", 40)
    rng = random.Random(1)
    topics = [text(rng, 8) for _ in range(12)]
    rows = [pair(f"{rng.choice(topics)} {text(rng, 3)}", f"answer {i}") for i in range(120)]
    source = write(tmp_path / "rows.jsonl", rows)
    kept = run(source, tmp_path, select=k, seed=seed)
    lines = trained_rows(source, k, seed)
    assert [json.dumps(row) for row in kept.rows] == [json.dumps(rows[i - 1]) for i in lines]
    assert len(lines) == min(k, 120)
