"""What really happened in a run, by rows that no guard sees: 144 answers and 56 pieces of text.

Scored on the base model (kept on disk: the rows are the same for every seed) and on the final
one. Only used to judge the guards, never to tune them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from plants import Rows
from pool import oracle, write_rows, write_texts
from trace_file import rounded

from sft.config import DataConfig, SourceConfig
from sft.data.rows.problems import BadRows
from sft.data.rows.read import read_conversations
from sft.data.tokenize import Example, fingerprint, tokenize
from sft.probes.evaluator import Evaluator
from sft.probes.pack import Probe
from sft.probes.retention import user_texts
from sft.training.setup import Setup

Columns = dict[str, list[float]]
_COLUMNS = ("nll", "tokens", "correct", "first_label", "first_mass", "first_info")


def make_probes(rows: Rows, setup: Setup, work: Path) -> list[Probe]:
    """`val`, `usage` and `texts`, as examples of this run's tokenizer and template."""
    probes = []
    for name, part in (("val", rows.oracle_val), ("usage", rows.oracle_usage)):
        if part:
            path = write_rows(work / f"oracle_{name}.jsonl", part)
            probes.append(Probe(name, examples(path, setup)))
    path = write_texts(work / "oracle_texts.txt", oracle("text"))
    texts = DataConfig(retain=[SourceConfig(path=str(path))])
    found = user_texts(texts, setup.template, setup.tokenizer, len(oracle("text")))
    return [*probes, Probe("texts", found)]


def examples(path: Path, setup: Setup) -> list[Example]:
    """The rows of a file, tokenised as the run's own."""
    loaded = read_conversations([SourceConfig(path=str(path))], "error")
    limit = int(setup.config.data.max_seq_len)
    bad = BadRows("error")
    found = tokenize(loaded.conversations, setup.template, bad, max_seq_len=limit)
    bad.raise_if_any(len(loaded.conversations))
    return found.examples


def base_scores(
    setup: Setup, probes: Sequence[Probe], model: str, kept: Path
) -> dict[str, Columns]:
    """Scores on the base model, which `setup` must still hold; from `kept` where known already."""
    kept.mkdir(parents=True, exist_ok=True)
    found = {}
    for probe in probes:
        key = hashlib.sha256(f"{model}|{fingerprint(probe.examples)}".encode()).hexdigest()[:16]
        path = kept / f"{probe.name}-{key}.json"
        if not path.is_file():
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps(scores(setup, [probe])[probe.name]))
            temporary.replace(path)
        found[probe.name] = json.loads(path.read_text())
    return found


def scores(setup: Setup, probes: Sequence[Probe]) -> dict[str, Columns]:
    """Columns of scores per probe, with the weights as they are now, in the order of examples."""
    evaluator = Evaluator(setup.forward, probes, setup.config.batch.micro_batch_tokens)
    evaluation = evaluator.evaluate(at_base=False, progress=lambda _what, _done, _all: None)
    found = {}
    for probe in probes:
        by_id = {score.id: score.record(0, probe.name) for score in evaluation.scores[probe.name]}
        ordered = [by_id[example.id] for example in probe.examples]
        found[probe.name] = {
            name: [score[name] for score in ordered] for name in _COLUMNS if name in ordered[0]
        }
    return found


def effects(base: dict[str, Columns], final: dict[str, Columns]) -> dict[str, dict[str, float]]:
    """What changed from base to final, per probe, in nats per token and shares."""
    return {probe: rounded(_effect(base[probe], final[probe])) for probe in final}


def _effect(base: Columns, final: Columns) -> dict[str, float]:
    tokens = np.array(base["tokens"])
    change = (np.array(final["nll"]) - np.array(base["nll"])) / tokens
    right = (np.array(final["correct"]) - np.array(base["correct"])) / tokens
    found = {
        "n": len(change),
        "change": float(change.mean()),
        "se": float(change.std(ddof=1)) / math.sqrt(len(change)),
        "accuracy_change": float(right.mean()),
        "base_loss": float((np.array(base["nll"]) / tokens).mean()),
    }
    if "first_mass" in final:
        labels = np.array(final["first_label"])
        _, counts = np.unique(labels, return_counts=True)
        found |= {
            "opener_mass": float(np.mean(final["first_mass"])),
            "opener_mass_base": float(np.mean(base["first_mass"])),
            "opener_information": float(np.mean(final["first_info"])),
            "opener_information_base": float(np.mean(base["first_info"])),
            "reference_share": float(counts.max()) / len(labels),
        }
    return found


def happened(effect: dict[str, dict[str, float]]) -> dict[str, bool]:
    """Which pitfalls really happened, by the definitions that guards are held to, without tests.

    overfitting: loss on rows like validation rose by more than the margin of 0.02
    format_collapse: one opener has half the mass or more, .3 above its share in the references,
        on rows like usage
    distribution_mismatch: loss on rows like validation fell, and on usage by less than a
        quarter of that; or rose by more than the margin
    forgetting: loss on plain text rose by more than the budget of 0.05
    """
    val, usage = effect["val"], effect.get("usage", effect["val"])
    margin, budget = 0.02, 0.05
    gained = val["change"] < -2 * val["se"]
    return {
        "overfitting": val["change"] > margin,
        "format_collapse": usage["opener_mass"] >= max(0.5, usage["reference_share"] + 0.3),
        "distribution_mismatch": usage["change"] > margin
        or (gained and usage["change"] > 0.25 * val["change"]),
        "forgetting": effect["texts"]["change"] > budget,
        "health": False,
    }


def rescored(setup: Setup, last: dict[str, float]) -> float:
    """Largest change of loss when `val` is scored again, in reverse and in smaller batches."""
    probe = next(probe for probe in setup.evaluator.probes if probe.name == "val")
    evaluator = Evaluator(setup.forward, [Probe("again", probe.examples[::-1])], 256)
    evaluation = evaluator.evaluate(at_base=False, progress=lambda _what, _done, _all: None)
    return max(
        abs(score.nll / score.tokens - last[score.id]) for score in evaluation.scores["again"]
    )


def describe(effect: dict[str, dict[str, float]]) -> str:
    """One line for the terminal."""
    parts = [f"{probe} {found['change']:+.3f}" for probe, found in effect.items()]
    return ", ".join(parts) + f", opener {next(iter(effect.values())).get('opener_mass', 0):.2f}"
