"""Training rows that are also in what is held out: validation, test, usage prompts, benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sft.config import SourceConfig
from sft.curate.corpus import Corpus
from sft.curate.finding import DataFinding, Severity, count, finding, place, quoted, share, verb
from sft.data import repeats
from sft.data.repeats import Prompted, prompt_text
from sft.data.rows.conversation import Conversation
from sft.data.rows.prompts import read_prompts
from sft.errors import ConfigError
from sft.texts.near_duplicates import words
from sft.texts.shingles import Index, runs

# Runs of 13 words are those of GPT-3 (Brown et al. 2020, appendix C); half of the 8-grams of a
# benchmark's text is the rule of Tulu 3 (Lambert et al. 2024, section 3.2).
LONG, SHORT, HALF = 13, 8, 0.5
# So many texts of one benchmark share what is its form and not its content.
FORM = 3
MIN_TEXT = 5  # words; shorter benchmark texts, such as "yes", are not looked for


def leaks(corpus: Corpus) -> list[DataFinding]:
    """Training rows that repeat a held-out row; see `sft.data.repeats`.

    Usage rows are only measured on, so a leak there flatters the figures but selects nothing:
    a warning. So is one in the validation rows that were split off training: only a data set in
    which all rows resemble each other cannot be split without.
    """
    own = corpus.val_is_split_off
    sides: list[tuple[str, Sequence[Prompted], Severity]] = [
        ("validation", corpus.val, "warning" if own else "error"),
        ("test", corpus.test, "error"),
        ("usage", corpus.usage, "warning"),
    ]
    findings = []
    for name, held_out, severity in sides:
        pairs = repeats.leaks(corpus.train, held_out)
        if not pairs:
            continue
        rows, num_held = pairs.rows, len(pairs.held_out)
        first, number = next(iter(rows.items()))
        what = f"{name} {'prompt' if name == 'usage' else 'row'}"
        findings.append(
            finding(
                corpus,
                "leaks",
                severity,
                rows,
                f"{count(len(rows), 'training row')} {verb(len(rows), 'repeat')} "
                f"{count(num_held, what)} of {len(held_out):,} "
                f"({share(num_held, len(held_out))}), so {name} figures are too good; "
                f"{place(corpus, first)} repeats line {held_out[number].origin.line}: "
                f"{quoted(prompt_text(held_out[number]), 60)}",
                _leak_fix(name, own),
            )
        )
    return findings


def _leak_fix(name: str, own: bool) -> str:
    if name == "validation" and own:
        return "data.deduplicate: true leaves them out of training"
    keep = "" if name == "usage" else f"; keep the {name} rows as they are"
    return f"sft curate DATA --decontaminate HELD_OUT --out FILE takes them out of training{keep}"


@dataclass(frozen=True, slots=True)
class Contaminated:
    """A training row that holds the text `text` (by number) of `benchmark`, or half of it."""

    benchmark: str
    text: int
    share: float  # of its word 8-grams


def contaminated_rows(
    texts: Sequence[str], benchmarks: Mapping[str, Sequence[str]]
) -> dict[int, Contaminated]:
    """Index of each text that holds a benchmark's text -> what it holds.

    It holds one when they share half of the benchmark text's word 8-grams or a run of 13 words.
    A text of fewer than 8 words must be there as a whole. What three texts of a benchmark have
    in common is its form and does not count.
    """
    if not benchmarks:
        return {}
    known = Benchmarks(benchmarks)
    hits = enumerate(known.find(words(text)) for text in texts)
    return {i: hit for i, hit in hits if hit}


class Benchmarks:
    """Benchmark texts made ready to be looked for in many rows; see `contaminated_rows`."""

    def __init__(self, benchmarks: Mapping[str, Sequence[str]]) -> None:
        self._indexes = {
            name: _indexes(list(dict.fromkeys(texts))) for name, texts in benchmarks.items()
        }
        # What holds a text holds five words in a row of it, so that most rows are done with that.
        every = [words(text) for texts in benchmarks.values() for text in texts]
        self._runs = set().union(*(runs(parts, MIN_TEXT) for parts in every))

    def find(self, parts: Sequence[str]) -> Contaminated | None:
        """The text that a row of these words holds, of the first benchmark it holds one of."""
        if self._runs.isdisjoint(runs(parts, MIN_TEXT)):
            return None
        for name, by_length in self._indexes.items():
            for index, numbers, least in by_length:
                hit = index.best(parts) if len(parts) >= index.length else None
                if hit and hit.contained >= least:
                    return Contaminated(name, numbers[hit.text], hit.contained)
        return None


def _indexes(texts: Sequence[str]) -> list[tuple[Index, list[int], float]]:
    """Index, numbers of its texts, and share of the runs that must be there; by length."""
    lengths = [len(words(text)) for text in texts]
    built = []
    short: dict[int, list[int]] = {}
    for number, length in enumerate(lengths):
        if MIN_TEXT <= length < SHORT:
            short.setdefault(length, []).append(number)
    for length, numbers in short.items():
        built.append((Index([texts[i] for i in numbers], length), numbers, 1.0))
    long = [i for i, length in enumerate(lengths) if length >= SHORT]
    if long:
        built.append((Index([texts[i] for i in long], SHORT, FORM), long, HALF))
        longest = [i for i in long if lengths[i] >= LONG]
        built.append((Index([texts[i] for i in longest], LONG, FORM), longest, 0.0))
    return built


def contamination(corpus: Corpus) -> list[DataFinding]:
    """Training rows that hold text of a benchmark; see `contaminated_rows` for the rule."""
    hits = contaminated_rows(corpus.texts, corpus.benchmarks)
    findings = []
    for name in corpus.benchmarks:
        rows = {i: hit for i, hit in hits.items() if hit.benchmark == name}
        if not rows:
            continue
        first, hit = next(iter(rows.items()))
        texts = list(dict.fromkeys(corpus.benchmarks[name]))
        num_texts = len({one.text for one in rows.values()})
        findings.append(
            finding(
                corpus,
                "contamination",
                "error",
                rows,
                f"{count(len(rows), 'training row')} {verb(len(rows), 'hold')} the text "
                f"of {num_texts:,} of "
                f"{count(len(texts), 'question')} of {quoted(name, 60)} (half of its word 8-grams, "
                f"or 13 words in a row), so a score on it means little; {place(corpus, first)}: "
                f"{quoted(texts[hit.text], 70)}",
                "sft curate DATA --decontaminate FILE --out FILE",
            )
        )
    return findings


def read_benchmarks(paths: Sequence[str]) -> dict[str, list[str]]:
    """The texts of each file by its name without ending: prompts, or lines.

    A `.txt` file has one text a line; any other is read like training data, answers optional.

    Raises:
        ConfigError, DataError: a file cannot be read.
    """
    return {Path(path).stem: benchmark_texts(path, "--benchmark") for path in paths}


def held_out_rows(path: str) -> list[Conversation]:
    """The rows of one file, for those that repeat one to be left out; none of a `.txt` file."""
    if Path(path).suffix.lower() == ".txt":
        return []
    return read_prompts([SourceConfig.model_validate(path)]).conversations


def benchmark_texts(path: str, flag: str) -> list[str]:
    """The texts of one file, as above; `flag` is what it was given by, for errors."""
    if Path(path).suffix.lower() != ".txt":
        return [prompt_text(row) for row in held_out_rows(path)]
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{flag} {path}: cannot be read ({error})") from None
    return [line for line in text.splitlines() if line.strip()]
