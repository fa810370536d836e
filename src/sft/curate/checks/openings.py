"""How answers begin and end: fillers such as "Sure!", and sentences that many answers share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from sft.curate.checks.messages import count, finding, place, quoted, share
from sft.curate.corpus import Corpus, Turn
from sft.curate.finding import DataFinding
from sft.curate.strip import CONTENT, FILLERS
from sft.texts.near_duplicates import words
from sft.texts.openers import opener

# A filler is reported from this share of the answers on, and any other opening that a mark ends.
FILLER_SHARE, OPENING_SHARE, MIN_ROWS = 0.01, 0.02, 5
PLAIN_SHARE = 0.10  # of three words without a mark, as for `data.opener_share`
# A prompt word explains an opening that so many of its answers have, if it is that much rarer in
# the other prompts: "story" explains "Once upon a time".
EXPLAINED, LIFT, OTHERS = 0.5, 3.0, 0.1
MIN_SENTENCE, BOILERPLATE_SHARE = 6, 0.01
_WORD = r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*"
_OPENING = re.compile(
    rf"\s*({_WORD}(?:\s+{_WORD}){{0,5}}?)\s*([!,.:;\u2013\u2014\uff01\uff0c]|\s-\s)"
)
_THREE_WORDS = re.compile(rf"\s*{_WORD}\s+{_WORD}\s+{_WORD}\s")
_PHRASES = FILLERS | frozenset(
    (
        *("great question", "good question", "great", "no problem", "i'd be happy to help"),
        *("i'd be happy to", "i'd be glad to help", "i can help with that", "happy to help"),
        *("of course i can help you with that", "thank you for your question", "i understand"),
        *("yes of course",),
    )
)
_SENTENCE = re.compile(r"[^.!?\u3002\uff01\uff1f\n]+[.!?\u3002\uff01\uff1f]*")


def openers(corpus: Corpus) -> list[DataFinding]:
    """Openings that many answers share although their prompts do not ask for them.

    Fillers from 1 % of the answers on; other openings of up to six words before a mark from 2 %,
    unless a word of the prompt explains them; three words without a mark from 10 %.
    """
    turns = [turn for turn in corpus.turns if turn.answer.strip()]
    by_phrase: dict[str, list[Turn]] = {}
    for turn in turns:
        phrase = _phrase(turn.answer)
        if phrase:
            by_phrase.setdefault(phrase, []).append(turn)
    prompts = _PromptWords(turns)
    found = []
    for phrase, users in sorted(by_phrase.items(), key=lambda item: (-len(item[1]), item[0])):
        if len(users) >= _least(phrase, len(turns)) and not (
            phrase not in _PHRASES and prompts.explain(users)
        ):
            found.append(_opener_finding(corpus, phrase, users, len(turns)))
    return found + _plain(corpus, turns, prompts, by_phrase)


def _phrase(answer: str) -> str:
    """The words before the first mark, or "" where it begins otherwise; yes and no are content."""
    match = _OPENING.match(answer[:120])
    if not match or len(answer.strip()) <= match.end() + 1:
        return ""
    phrase = " ".join(match[1].lower().replace("\u2019", "'").split())
    # A word or two before a colon name a field of the answer.
    if match[2] in ":\uff1a" and phrase.count(" ") < 2 and phrase not in _PHRASES:
        return ""
    # Yes and no are content, and "as an AI" is what `refusals` looks for.
    return "" if phrase.split()[0] in CONTENT or phrase.startswith("as a") else phrase


def _least(phrase: str, total: int) -> float:
    return max(MIN_ROWS, total * (FILLER_SHARE if phrase in _PHRASES else OPENING_SHARE))


class _PromptWords:
    """How many prompts have each word."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._total = len(turns)
        self._counts = Counter(word for turn in turns for word in set(words(turn.prompt)))

    def explain(self, users: Sequence[Turn]) -> bool:
        """Whether most of these prompts share a word that the others rarely have."""
        inside = Counter(word for turn in users for word in set(words(turn.prompt)))
        num_others = self._total - len(users)
        if num_others < OTHERS * self._total:
            return False  # too few to compare with
        for word, number in inside.items():
            if number < EXPLAINED * len(users):
                continue
            outside = (self._counts[word] - number) / max(num_others, 1)
            if number / len(users) >= LIFT * outside:
                return True
        return False


def _opener_finding(corpus: Corpus, phrase: str, users: Sequence[Turn], total: int) -> DataFinding:
    first = users[0]
    return finding(
        corpus,
        "openers",
        "warning",
        (turn.row for turn in users),
        f"{count(len(users), 'answer')} ({share(len(users), total)}) begin with {quoted(phrase)}, "
        f"whatever the prompt asks; {place(corpus, first.row)}: {quoted(first.answer, 60)}",
        "data.openers: strip, or sft curate DATA --cap-openers 0.01 --out FILE",
    )


def _plain(
    corpus: Corpus, turns: Sequence[Turn], prompts: _PromptWords, seen: Iterable[str]
) -> list[DataFinding]:
    """Three words that begin a tenth of the answers, if no opening above is why."""
    by_words: dict[str, list[Turn]] = {}
    for turn in turns:
        # Not the keys of JSON, nor code.
        if _THREE_WORDS.match(turn.answer):
            by_words.setdefault(opener(turn.answer), []).append(turn)
    known = tuple(seen)
    found = []
    for phrase, users in sorted(by_words.items(), key=lambda item: (-len(item[1]), item[0])):
        enough = len(users) >= max(MIN_ROWS, PLAIN_SHARE * len(turns))
        if (
            enough
            and not any(phrase.startswith(one) for one in known)
            and not prompts.explain(users)
        ):
            found.append(_opener_finding(corpus, phrase, users, len(turns)))
    return found


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
