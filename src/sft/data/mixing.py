"""How often the rows of each source are seen: weights, temperature, and what comes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sft.config import SourceConfig
from sft.data.tokenize import Example


@dataclass(frozen=True, slots=True)
class Share:
    """What one source is of a run.

    `examples` and `tokens` count each once; `share` is its part of the examples that are seen,
    and `epochs` says how often each of its examples is seen in the run.
    """

    name: str
    examples: int
    tokens: int
    share: float
    epochs: float

    def line(self) -> str:
        """For the terminal."""
        return f"source {self.name}: {self.figures()}"

    def figures(self) -> str:
        """All but the name, as words."""
        return (
            f"{self.examples:,} examples, {self.tokens:,} tokens, "
            f"{self.share:.1%} of what is seen, {self.epochs:.2f} epochs"
        )

    def record(self) -> dict[str, Any]:
        """For `account.json`."""
        rounded = replace(self, share=round(self.share, 6), epochs=round(self.epochs, 6))
        record = asdict(rounded)
        return {"source": record.pop("name"), **record}


def source_names(sources: Sequence[SourceConfig]) -> list[str]:
    """A name for each source: its file or data set, longer or numbered where two are the same."""
    names = [Path(source.path).name or source.path for source in sources]
    twice = Counter(names)
    names = [
        source.path if twice[name] > 1 else name
        for source, name in zip(sources, names, strict=True)
    ]
    twice, seen = Counter(names), Counter[str]()
    for i, name in enumerate(names):
        seen[name] += 1
        if twice[name] > 1:
            names[i] = f"{name}#{seen[name]}"
    return names


def tempered(weights: Sequence[float], sizes: Sequence[int], temperature: float) -> list[float]:
    """Weights of the sources with which their shares are smoothed by `temperature`.

    `sizes` are the examples of each. The share of source i becomes proportional to
    weight_i * n_i^(1 / T), the sampling of multilingual BERT and of "Massively Multilingual NMT in
    the Wild" (arXiv 1907.05019): as it is at 1, equal for all when T is large. The size of an
    epoch stays what it was. At 1 the weights are returned as they are, to the last bit.
    """
    if temperature == 1:
        return list(weights)
    wanted = [w * n ** (1 / temperature) for w, n in zip(weights, sizes, strict=True)]
    total = sum(w * n for w, n in zip(weights, sizes, strict=True))
    scale = total / sum(wanted)
    return [
        scale * share / n if n else w for share, n, w in zip(wanted, sizes, weights, strict=True)
    ]


def source_weights(
    sources: Sequence[SourceConfig], examples: Iterable[Example], temperature: float
) -> list[float]:
    """How often each row of a source is seen in an epoch."""
    counts = Counter(example.source for example in examples)
    weights = [source.weight for source in sources]
    return tempered(weights, [counts[i] for i in range(len(sources))], temperature)


def shares(
    examples: Sequence[Example], weights: Sequence[float], names: Sequence[str], visits: float
) -> list[Share]:
    """What each source is of a run that sees `visits` examples; `weights` has one per example."""
    counts, tokens = Counter[int](), Counter[int]()
    mass: dict[int, float] = {}
    for example, weight in zip(examples, weights, strict=True):
        source = example.source
        counts[source] += 1
        tokens[source] += example.num_tokens
        mass[source] = mass.get(source, 0.0) + weight
    total = sum(mass.values())
    table = []
    for source in sorted({*range(len(names)), *counts}):
        share = mass.get(source, 0.0) / total
        epochs = share * visits / counts[source] if counts[source] else 0.0
        name = name_of(source, names)
        table.append(Share(name, counts[source], tokens[source], share, epochs))
    return table


def name_of(source: int, names: Sequence[str]) -> str:
    """A source beyond `names` holds the base model's own texts (`data.replay`)."""
    return names[source] if source < len(names) else "replay"


def by_source(names: Sequence[str], sums: Mapping[int, tuple[float, float]]) -> dict[str, float]:
    """Loss of each source that has any weight, from its summed weighted nll and summed weights."""
    return {
        name_of(source, names): nll / weight
        for source, (nll, weight) in sorted(sums.items())
        if weight
    }
