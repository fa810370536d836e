"""How much a row resembles usage: training, `sft curate --toward` and the drawn rows agree."""

import numpy as np
import pytest

from curating import pair, run, write
from sft.config import SourceConfig
from sft.curate.usage_weights import effective_rows, importance
from sft.data.rows.prompts import read_prompts
from sft.data.rows.read import read_conversations

COOKING = ["bake", "bread", "oven", "salt", "dough", "flour", "recipe", "boil"]
LEGAL = ["contract", "clause", "court", "liable", "tenant", "lease", "law", "sue"]


@pytest.fixture
def files(tmp_path):
    """Rows of which a quarter is legal, and legal usage prompts."""
    rng = np.random.default_rng(2)

    def prompt(words):
        return " ".join(rng.choice(words, 7))

    rows = [pair(prompt(LEGAL if i % 4 == 0 else COOKING), f"answer {i}") for i in range(160)]
    usage = [{"instruction": prompt(LEGAL), "output": ""} for _ in range(30)]
    return write(tmp_path / "rows.jsonl", rows), write(tmp_path / "usage.jsonl", usage)


def trained_weights(rows, usage):
    """The weights of `data.usage_weighting`."""
    sources = [SourceConfig.model_validate(str(path)) for path in (rows, usage)]
    conversations = read_conversations([sources[0]], "error").conversations
    prompts = read_prompts([sources[1]]).conversations
    return np.array([*importance(conversations, prompts, True).values()])


def test_training_weighs_rows_as_curate_writes_them(files, tmp_path):
    rows, usage = files
    weights = trained_weights(rows, usage)
    curated = run(rows, tmp_path, toward=str(usage))
    written = [row["row_weight"] for row in curated.rows]
    assert written == pytest.approx(weights, rel=1e-5)
    assert curated.summary["effective_rows"] == pytest.approx(effective_rows(weights))
    assert weights[::4].mean() > 5 * weights.mean(where=np.arange(160) % 4 > 0)


def test_the_rows_that_are_drawn_are_those_with_large_weights(files, tmp_path):
    rows, usage = files
    weights = trained_weights(rows, usage)
    drawn = run(rows, tmp_path, toward=str(usage), mode="select", select=30)
    indices = [int(row["output"].split()[1]) for row in drawn.rows]
    assert weights[indices].min() > np.median(weights)


def test_rows_that_weigh_themselves_are_weighed_alike(files, tmp_path):
    """A file that `--toward` wrote is trained on as its rows would be with the setting."""
    rows, usage = files
    weights = trained_weights(rows, usage)
    run(rows, tmp_path, toward=str(usage))
    source = SourceConfig(path=str(tmp_path / "out.jsonl"))
    conversations = read_conversations([source], "error").conversations
    assert [*importance(conversations, [], False).values()] == pytest.approx(weights, rel=1e-5)
