"""Answers that stop in mid-sentence, as those of a length limit do."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sft.curate.corpus import Corpus
from sft.curate.finding import DataFinding, count, finding, place, quoted_end, share, verb, word_set

_END = re.compile(
    r"[.!?:;\u2026\u3002\uff01\uff1f\u0964\u06d4\"'\u2019\u201d\u00bb`)\]}>*_~|=+/\\]$"
)
# Words that no English, German, French, Spanish or Italian sentence ends with, hardly ever.
_OPEN = word_set(
    """a an the and or but nor of to in for with from by at as into onto upon than that which who
    whose because although while whereas if unless until since between among via per is are was
    were be been being has have had having will would could should can may might must shall do does
    their its our your my his these those such including like very more most so when where how
    der das und oder aber von zu mit für auf bei als dass weil wenn ein eine einen
    le la les un une des du de et ou mais que qui dans pour avec sur
    el los las y o pero en con por para es il lo gli e ma che di da"""
)
# Prepositions and pronouns that may well end a sentence ("the one I live in", "I hope so").
_SOMETIMES = word_set(
    "in to of for with from by at as on so more most like that have has had do does is are was"
    " were be will would can could should may might must between until who when where how"
    " these those such"
)
_LIST = re.compile(r"\s*(?:[-*\u2022+>#|]|\(?\d{1,3}[.):]|\(?[a-zA-Z][.)])\s*")
# "2. Information: people read", an item of a list with a name and a text.
_LABELLED = re.compile(_LIST.pattern + r"[^.!?:]{2,50}:\s+\w")
# Words that begin a sentence and are none.
_FIRST = word_set(
    """any each some it they we he she there here however additionally overall finally moreover
    furthermore therefore then next first second third lastly also another most many"""
)
# Words of sentences that titles do without.
_CLAUSE = word_set(
    """i you he she we they it that because is are was were has have had can could will would need
    should must do does did not ist sind hat nicht wird est sont es son"""
)
# An operator that lacks its other side.
_OPERATOR = re.compile(r"[\w)]\s+[+*/=<\u00d7\u00f7-]$")
_SIGNATURE = re.compile(r"\b(?:regards|sincerely|yours|cheers|love|truly|thanks),?\s*$", re.I)
_CODE = re.compile(r"^\s*(?:```|[{}<>$#/@]|.*[;{}=<>\\|]\s*$|(?:def|class|return|import|SELECT)\b)")
_WORDS = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_SENTENCES = re.compile(r"[.!?]['\")\u201d]?\s+[A-Z\u00c0-\u00de\"'\u201c(]")
# "... to invent it." - Alan Kay, and signatures.
_ATTRIBUTION = re.compile(
    r"(?:^|\s)[-\u2013\u2014~]\s*[A-Z][\w.'\u2019]*(?:\s+[A-Z(][\w.'\u2019)]*){0,4}$"
)
MIN_ANSWER = 6  # words; shorter ones are labels, titles, values
LONG_LINE, MEDIUM_LINE, SHORT_LINE = 10, 6, 4  # words of a line of prose
TITLE = 14  # words; an only line without a verb that is shorter may be a title
LEADING = 3  # words of a line whose last one leads on
VERSES = 4
MIN_PROSE = 10  # answers in prose that tell what is usual
ENDED = 0.8  # share of like lines, or of answers, that end as sentences do


def cut_answers(corpus: Corpus) -> list[DataFinding]:
    """Answers without an end: open code fences, last words that lead on, and unfinished prose.

    Prose is unfinished when its last line has no final mark although the lines before, the
    sentences on the line, or the other answers of the data have one. Lists, code, labels, numbers
    and verses end without a mark and are left alone.
    """
    turns = [turn for turn in corpus.turns if turn.answer.strip()]
    prose = [t for t in turns if _is_prose(_last_line(t.answer), LONG_LINE)]
    ended = sum(bool(_END.search(t.answer.rstrip())) for t in prose)
    usual = len(prose) >= MIN_PROSE and ended >= ENDED * len(prose)
    bare = len(prose) >= MIN_PROSE and ended < (1 - ENDED) * len(prose)
    cut = [turn for turn in turns if is_cut(turn.answer, usual, bare)]
    if not cut:
        return []
    message = (
        f"{count(len(cut), 'answer')} ({share(len(cut), len(turns))}) {verb(len(cut), 'stop')} in "
        f"mid-sentence, which teaches the model to stop there; {place(corpus, cut[0].row)} ends: "
        f"{quoted_end(cut[0].answer, 80)}"
    )
    fix = "sft curate DATA --drop cut_answers --out FILE"
    return [finding(corpus, "cut_answers", "warning", (turn.row for turn in cut), message, fix)]


def is_cut(answer: str, usual: bool = True, bare: bool = False) -> bool:
    """Whether an answer stops in mid-sentence; `usual` says that other answers end with a mark.

    With `bare` hardly any does, so that only what is open or leads on is cut.
    """
    text = answer.rstrip()
    if text.count("```") % 2 or ("<html" in text and "</html" not in text):
        return True
    lines = [line for line in text.split("\n") if line.strip()]
    last = lines[-1] if lines else ""
    num_words = len(_WORDS.findall(text))
    if num_words < MIN_ANSWER or "```" in text[-3:]:
        return False
    if _OPERATOR.search(last) or (text[-1] in ",(" and not _CODE.match(last)):
        return True
    if len(lines) > 1 and lines[-2].strip()[0] + lines[-2].strip()[-1] + last[0] == "|||":
        return text[-1] != "|"
    if _END.search(text) or text[-1].isdigit() or not text[-1].isalpha():
        return False
    if "#" in last.split()[-1] or "/" in last.split()[-1] or _CODE.match(last):
        return False
    if _ATTRIBUTION.search(last) or any(_SIGNATURE.search(line) for line in lines[-4:-1]):
        return False
    if last.count("(") > last.count(")") or last.count('"') % 2:
        return True
    if (
        len(lines) > 1
        and last.strip().lower() in _OPEN | _FIRST
        and _END.search(lines[-2].rstrip())
    ):
        return True
    return _leads_on(last, usual) or (not bare and _unfinished(lines, usual))


def _leads_on(last: str, usual: bool) -> bool:
    """Whether the last word cannot end a sentence, or hardly ever where sentences have marks."""
    all_words = _WORDS.findall(last)
    word = all_words[-1].lower() if all_words else ""
    if word not in _OPEN or not last.rstrip().endswith(all_words[-1]) or all_words[-1].isupper():
        return False
    if word not in _SOMETIMES:
        return True
    return usual and len(all_words) >= LEADING + bool(_LIST.match(last))


def _unfinished(lines: Sequence[str], usual: bool) -> bool:
    """Whether the last line is prose that lacks its final mark."""
    last = lines[-1]
    if _SENTENCES.search(_without_label(last)) and _is_prose(last, MEDIUM_LINE):
        return True
    listed = bool(_LIST.match(last))
    alike = [line for line in lines[:-1] if bool(_LIST.match(line)) == listed]
    prose = [line for line in alike if _is_prose(line, MEDIUM_LINE)]
    if prose:
        # The first of two lists may be of another kind, so that only the latest lines count.
        ended = [bool(_END.search(line.rstrip())) for line in prose[-5:]]
        if sum(ended) < ENDED * len(ended):
            return False
        return _cut_item(last, prose) if listed else _begins_sentence(last)
    if not listed and len(alike) >= VERSES and _is_prose(last, SHORT_LINE):
        return all(line.rstrip()[-1] in ".,;:!?\u2014" for line in alike)
    title = len(lines) == 1 and _CLAUSE.isdisjoint(_WORDS.findall(last.lower()))
    return usual and not listed and _is_prose(last, TITLE if title else LONG_LINE)


def _cut_item(last: str, others: Sequence[str]) -> bool:
    """Whether an item of a list lacks the mark that the other items have."""
    if "`" in last:
        return False
    labelled = _LABELLED.match(last) and _LABELLED.match(others[-1])
    return len(others) > 1 or bool(labelled) or _is_prose(last, LONG_LINE)


def _begins_sentence(last: str) -> bool:
    """Whether a line is the beginning of a sentence, and no title, name or signature."""
    all_words = _WORDS.findall(last)
    if not all_words or not last[0].isupper() or _SIGNATURE.search(last):
        return False
    lower = sum(word[0].islower() for word in all_words[1:])
    return len(all_words) > 1 and lower >= 0.5 * len(all_words[1:])


def _without_label(line: str) -> str:
    match = _LIST.match(line)
    return line[match.end() :] if match else line


def _is_prose(line: str, least: int) -> bool:
    """Words in lower case mostly, so many at least: no title, no code, no list of names."""
    all_words = _WORDS.findall(_without_label(line))
    if len(all_words) < least or _CODE.match(line):
        return False
    return bool(sum(word[0].islower() for word in all_words) >= 0.6 * len(all_words))


def _last_line(text: str) -> str:
    return text.rstrip().rsplit("\n", 1)[-1]
