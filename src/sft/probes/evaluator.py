"""One evaluation: score every probe, and complete a few prompts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from sft.data.tokenize import Example, last_turn
from sft.disk import disk_errors
from sft.errors import CheckpointError
from sft.model.forward import Forward
from sft.probes.base_logits import BaseLogits, runs
from sft.probes.first_token import Openings
from sft.probes.generate import generate
from sft.probes.pack import Probe
from sft.probes.val_loss import Score, score_examples, summarize
from sft.runs.metrics import with_derived

Progress = Callable[[str, int, int], None]

OPENING_PROBES = ("val", "usage", "usage_drift")
WITH_ACCURACY = ("val", "usage", "test")
SAMPLED_PROBES = ("usage", "usage_drift", "val")  # the first of these that there is


class EvaluationStopped(Exception):
    """The user asked to stop before the evaluation was complete; nothing of it counts."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores per probe, and the seconds they took."""

    scores: dict[str, list[Score]]
    seconds: float

    def metrics(self) -> dict[str, float]:
        """The evaluation's part of a record of `metrics.jsonl`."""
        metrics: dict[str, float] = {}
        for probe, scores in self.scores.items():
            summary = summarize(scores, probe)
            names = ("loss", "accuracy") if probe in WITH_ACCURACY else ("loss",)
            metrics |= {f"{probe}_{name}": summary[f"{probe}_{name}"] for name in names}
        if "retain" in self.scores:
            retained = self.scores["retain"]
            tokens = sum(score.tokens for score in retained)
            metrics["retain_kl"] = sum(score.more.get("kl", 0.0) for score in retained) / tokens
        return with_derived(metrics)


class Evaluator:
    """Scores the probe pack. The first evaluation, at step 0, is the base model's."""

    def __init__(
        self,
        forward: Forward,
        probes: Sequence[Probe],
        micro_batch_tokens: int,
    ) -> None:
        self._forward = forward
        self.probes = list(probes)
        self.base = BaseLogits()
        self._micro_batch_tokens = micro_batch_tokens

    def save_base(self, path: Path) -> None:
        """Keep what the base model predicted: once it is trained, no one can ask it again."""
        path.parent.mkdir(exist_ok=True)
        with disk_errors(path):
            self.base.save(path)

    def load_base(self, path: Path) -> None:
        """What `save_base` wrote, when a run is continued.

        Raises:
            CheckpointError: it is gone or damaged, and there are probes to compare with it.
        """
        compared = [probe for probe in self.probes if probe.examples and _needs_base(probe)]
        if not compared:
            return
        try:
            self.base = BaseLogits.load(path)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path}: what the base model predicted cannot be read ({error}); "
                "restore the file, or choose another --run"
            ) from None

    def evaluate(
        self,
        *,
        at_base: bool,
        progress: Progress,
        probes: Sequence[str] = (),
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> Evaluation:
        """Score all probes, or those named.

        Raises:
            EvaluationStopped: the user asked to stop.
        """
        started = time.perf_counter()
        if at_base:
            self.base.clear()
        chosen = [p for p in self.probes if p.examples and (not probes or p.name in probes)]
        total = sum(len(probe.examples) for probe in chosen)
        scores: dict[str, list[Score]] = {}
        for probe in chosen:
            before = sum(map(len, scores.values()))

            def on_done(done: int, before: int = before) -> None:
                progress("evaluating", before + done, total)

            scores[probe.name] = self._score(probe, at_base, stop_requested, on_done)
            if len(scores[probe.name]) < len(probe.examples):
                raise EvaluationStopped
        return Evaluation(scores, seconds=time.perf_counter() - started)

    @property
    def sampled_probe(self) -> Probe | None:
        """The probe whose prompts are completed; None where there are no prompts of users."""
        by_name = {probe.name: probe for probe in self.probes if probe.examples}
        return next((by_name[name] for name in SAMPLED_PROBES if name in by_name), None)

    def _score(
        self,
        probe: Probe,
        at_base: bool,
        stop_requested: Callable[[], bool],
        on_done: Callable[[int], None],
    ) -> list[Score]:
        observers: list[Any] = []
        if probe.name in OPENING_PROBES and probe.openings:
            observers.append(Openings(self.base, probe.name, at_base=at_base))
        if probe.name == "retain":
            observers.append(_Divergence(self.base, probe.name, at_base=at_base))
        if probe.surface:
            observers.append(_Surface(probe.surface))

        def observe(*seen: Any) -> None:
            for observer in observers:
                observer.observe(*seen)

        scores = []
        for score in score_examples(
            self._forward,
            probe.examples,
            self._micro_batch_tokens,
            stop_requested=stop_requested,
            observe=observe if observers else None,
        ):
            scores.append(score)
            on_done(len(scores))
        more: dict[str, dict[str, float]] = {}
        for observer in observers:
            for name, columns in observer.measures(probe.examples).items():
                more.setdefault(name, {}).update(columns)
        return [replace(score, more=more.get(score.id, {})) for score in scores]


def _needs_base(probe: Probe) -> bool:
    """Is the probe compared with what the base model predicted?"""
    return probe.name == "retain" or (probe.name in OPENING_PROBES and probe.openings)


class _Divergence:
    """`kl`: KL(base || now), summed over all supervised tokens of an example."""

    def __init__(self, base: BaseLogits, probe: str, *, at_base: bool) -> None:
        self._base = base
        self._probe = probe
        self._at_base = at_base
        self._sums: dict[str, float] = {}

    def observe(
        self, names: Sequence[str], places: Sequence[int], logits: torch.Tensor, _nll: torch.Tensor
    ) -> None:
        log_probs = logits.float().log_softmax(-1)
        for name, part in runs(names):
            key, kl = f"{self._probe}/{name}", 0.0
            if self._at_base:
                self._base.remember(key, log_probs[part])
            else:
                rows = self._base.divergence(key, places[part.start], log_probs[part])
                kl = float(rows.double().sum())
            self._sums[name] = self._sums.get(name, 0.0) + kl

    def measures(self, _examples: Sequence[Example]) -> dict[str, dict[str, float]]:
        return {name: {"kl": value} for name, value in self._sums.items()}


class _Surface:
    """`surface_nll` and `surface_tokens`: the share of boilerplate in an example's nll."""

    def __init__(self, masks: Mapping[str, NDArray[np.bool_]]) -> None:
        self._masks = masks
        self._sums: dict[str, dict[str, float]] = {
            name: {"surface_nll": 0.0, "surface_tokens": float(mask.sum())}
            for name, mask in masks.items()
        }

    def observe(
        self, names: Sequence[str], places: Sequence[int], _logits: torch.Tensor, nll: torch.Tensor
    ) -> None:
        for name, place, value in zip(names, places, nll.tolist(), strict=True):
            if self._masks[name][place]:
                self._sums[name]["surface_nll"] += value

    def measures(self, _examples: Sequence[Example]) -> dict[str, dict[str, float]]:
        return self._sums


def complete_prompts(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    *,
    step: int,
    probe: str,
    stop_ids: Sequence[int],
    max_new_tokens: int,
) -> list[dict[str, Any]]:
    """Greedy completions of the last turn of `examples`, as lines of `samples.jsonl`."""
    turns = [last_turn(example) for example in examples]
    completions = generate(
        model,
        [prompt for prompt, _ in turns],
        max_new_tokens=max_new_tokens,
        stop_ids=stop_ids,
    )
    return [
        {
            "step": step,
            "probe": probe,
            "id": example.id,
            "prompt": tokenizer.decode(prompt),
            "answer": tokenizer.decode(completion.ids, skip_special_tokens=True),
            "reference": tokenizer.decode(reference, skip_special_tokens=True),
            "stop_reason": completion.stop_reason,
            "tokens": len(completion.ids),
        }
        for example, (prompt, reference), completion in zip(
            examples, turns, completions, strict=True
        )
    ]
