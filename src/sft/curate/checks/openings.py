"""How answers begin and end: fillers such as "Sure!", and sentences that many answers share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from sft.curate.corpus import Corpus, Turn
from sft.curate.finding import DataFinding, count, example_finding, finding, quoted, share
from sft.curate.remedies import cap_openers, strip_openers
from sft.texts.near_duplicates import words
from sft.texts.openers import FILLERS, HEAD, LEAD_INS, read_opener

# A filler is reported above this share of the answers, and any other opener that a mark ends.
FILLER_SHARE, OPENING_SHARE, MIN_ROWS = 0.01, 0.02, 5
PLAIN_SHARE = 0.10  # of three words without a mark, as for `data.opener_share`
# Half of the least share, so that it also holds for the rows that are left when some go to
# validation, which the opener may not begin.
FIX_SHARE = 0.005
# A prompt word explains an opening that so many of its answers have, if it is that much rarer in
# the other prompts: "story" explains "Once upon a time".
EXPLAINED, LIFT, OTHERS = 0.5, 3.0, 0.1
MIN_SENTENCE, BOILERPLATE_SHARE = 6, 0.01
_SENTENCE = re.compile(r"[^.!?\u3002\uff01\uff1f\n]+[.!?\u3002\uff01\uff1f]*")


def openers(corpus: Corpus) -> list[DataFinding]:
    """Openers that many answers share although their prompts do not ask for them.

    Fillers above 1 % of the answers; other openers of up to six words before a mark above 2 %,
    unless a word of the prompt explains them; three words without a mark from 10 %. A fix is named
    if the opener is not found again in what it leaves.
    """
    shared = _shared(corpus)
    fixes = _fixes(corpus) if shared else {}
    total = sum(bool(turn.answer.strip()) for turn in corpus.turns)
    return [
        one
        for phrase, users in shared.items()
        for one in example_finding(
            corpus,
            "openers",
            "warning",
            [(turn.row, turn.answer) for turn in users],
            f"begin with {quoted(phrase)}, whatever the prompt asks",
            _opener_fix(phrase, len(corpus.train), fixes),
            noun="answer",
            total=total,
        )
    ]


def _shared(corpus: Corpus) -> dict[str, list[Turn]]:
    """The answers that begin with each opener that is reported."""
    turns = [turn for turn in corpus.turns if turn.answer.strip()]
    prompts = _PromptWords(turns)
    marked: dict[str, list[Turn]] = {}
    plain: dict[str, list[Turn]] = {}
    for turn in turns:
        found = read_opener(turn.answer)
        # "As an AI" is what `refusals` looks for.
        if found.clause and found.clause not in LEAD_INS and not found.clause.startswith("as a"):
            marked.setdefault(found.clause, []).append(turn)
        elif _is_plain(found.phrase, turn.answer):
            plain.setdefault(found.phrase, []).append(turn)
    shared = {
        phrase: users
        for phrase, users in _most_used(marked)
        if len(users) >= MIN_ROWS
        and len(users) > len(turns) * (FILLER_SHARE if phrase in FILLERS else OPENING_SHARE)
        and (phrase in FILLERS or not prompts.explain(users))
    }
    for phrase, users in _most_used(plain):
        enough = len(users) >= max(MIN_ROWS, PLAIN_SHARE * len(turns))
        if enough and not prompts.explain(users):
            shared.setdefault(phrase, users)
    return shared


def _is_plain(phrase: str, answer: str) -> bool:
    """Whether an answer begins with three words and goes on: no keys of JSON, no code."""
    letters = "".join(phrase.split()).replace("'", "")
    begin = " ".join(answer[:HEAD].lower().replace("\u2019", "'").split())
    three = letters.isalpha() and (phrase.count(" ") == 2 or not phrase.isascii())
    return three and begin.startswith(phrase) and len(begin) > len(phrase)


def _most_used(groups: dict[str, list[Turn]]) -> list[tuple[str, list[Turn]]]:
    return sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))


def _fixes(corpus: Corpus) -> dict[str, tuple[set[str], int]]:
    """For each remedy, tried out: the openers that are still reported, and how many rows stay."""
    tried = {"strip": strip_openers, "drop": cap_openers}
    results = {}
    for name, remedy in tried.items():
        rows, _ = remedy(corpus.train, FIX_SHARE)
        results[name] = set(_shared(Corpus(rows))), len(rows)
    return results


class _PromptWords:
    """How many prompts have each word."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._total = len(turns)
        self._counts = Counter(word for turn in turns for word in set(words(turn.prompt)))

    def explain(self, users: Sequence[Turn]) -> bool:
        """Whether most of these prompts share a word that the others rarely have."""
        num_others = self._total - len(users)
        if num_others < OTHERS * self._total:
            return False  # too few to compare with
        inside = Counter(word for turn in users for word in set(words(turn.prompt)))
        return any(
            number >= EXPLAINED * len(users)
            and number / len(users) >= LIFT * ((self._counts[word] - number) / max(num_others, 1))
            for word, number in inside.items()
        )


def _opener_fix(phrase: str, total: int, fixes: dict[str, tuple[set[str], int]]) -> str:
    """The remedy that takes the opener away without taking most rows."""
    for name, (left, num_rows) in fixes.items():
        if phrase not in left and 2 * num_rows >= total:
            gone = "" if num_rows == total else f" ({total - num_rows:,} of {total:,} rows go)"
            return (
                f"data.openers: {name} with data.opener_share: {FIX_SHARE}, or sft curate DATA "
                f"--cap-openers {FIX_SHARE} --openers {name} --out FILE{gone}"
            )
    return ""  # only writing the answers anew helps


def boilerplate(corpus: Corpus) -> list[DataFinding]:
    """First and last sentences of six words or more that 1 % of the rows share, five at least."""
    sides: dict[tuple[str, str], dict[int, Turn]] = {}
    for turn in corpus.turns:
        for side, sentence in _edges(turn.answer):
            key = " ".join(words(sentence))
            sides.setdefault((side, key), {}).setdefault(turn.row, turn)
    least = max(MIN_ROWS, BOILERPLATE_SHARE * len(corpus.train))
    prompts = _PromptWords(corpus.turns)
    shared: dict[str, list[tuple[int, Turn, dict[int, Turn]]]] = {"begin": [], "end": []}
    for (side, _), rows in sides.items():
        # Copies of a row are found by `duplicates`; what the prompt asks for is no boilerplate.
        number = len({corpus.keys[row] for row in rows}) if len(rows) >= least else 0
        if number >= least and not prompts.explain(list(rows.values())):
            shared[side].append((-len(rows), next(iter(rows.values())), rows))
    return [_boilerplate_finding(corpus, side, found) for side, found in shared.items() if found]


def _boilerplate_finding(
    corpus: Corpus, side: str, found: list[tuple[int, Turn, dict[int, Turn]]]
) -> DataFinding:
    number, turn, _ = min(found, key=lambda one: (one[0], one[1].row))
    rows = {row for _, _, having in found for row in having}
    total = len(corpus.train)
    what = "with the same sentence" if len(found) == 1 else f"with one of {len(found):,} sentences"
    most = "" if len(found) == 1 else f", {-number:,} of them"
    return finding(
        corpus,
        "boilerplate",
        "warning",
        rows,
        f"{count(len(rows))} ({share(len(rows), total)}) have an answer that {side}s {what} that "
        f"their prompts do not ask for{most}: {quoted(dict(_edges(turn.answer))[side])}",
        "remove the sentence if it says nothing, or leave the rows out: "
        "sft curate DATA --drop boilerplate --out FILE",
    )


def _edges(answer: str) -> list[tuple[str, str]]:
    """The first and the last sentence, where they are long enough to be more than a label."""
    text = answer.strip()
    head, tail = text[:400], text[-400:]
    first = next(iter(_SENTENCE.findall(head)), "")
    last = next(iter(_SENTENCE.findall(tail)[::-1]), "")
    found = [("begin", first.strip())]
    if last.strip() != first.strip() or len(text) > 400:
        found.append(("end", last.strip()))
    return [(side, one) for side, one in found if len(one.split()) >= MIN_SENTENCE]
