"""What is wrong with the text of the data: checks, each a pure function of a `Corpus`.

No check needs torch, a model or the network, and none depends on chance or on time.
"""

from __future__ import annotations

from collections.abc import Callable

from sft.curate.checks.answers import echo, empty, refusals, repetition
from sft.curate.checks.conflicts import conflicts
from sft.curate.checks.copies import duplicates, near_duplicates
from sft.curate.checks.cut_answers import cut_answers
from sft.curate.checks.encoding import encoding, special_text
from sft.curate.checks.languages import languages
from sft.curate.checks.leaks import contamination, leaks
from sft.curate.checks.openings import boilerplate, openers
from sft.curate.checks.personal_data import personal_data
from sft.curate.checks.roles import wrong_roles
from sft.curate.checks.text_lengths import lengths_text
from sft.curate.corpus import Corpus
from sft.curate.finding import DataFinding, worst_first

Check = Callable[[Corpus], list[DataFinding]]

CHECKS: dict[str, Check] = {
    "duplicates": duplicates,
    "near_duplicates": near_duplicates,
    "leaks": leaks,
    "contamination": contamination,
    "conflicts": conflicts,
    "empty": empty,
    "echo": echo,
    "repetition": repetition,
    "refusals": refusals,
    "boilerplate": boilerplate,
    "openers": openers,
    "cut_answers": cut_answers,
    "wrong_roles": wrong_roles,
    "encoding": encoding,
    "special_text": special_text,
    "languages": languages,
    "personal_data": personal_data,
    "lengths_text": lengths_text,
}


def run_checks(corpus: Corpus, progress: Callable[[str], None] | None = None) -> list[DataFinding]:
    """What all checks find, the worst first, and of equal severity the most rows first.

    `progress` is called with the name of each check before it runs.
    """
    findings: list[DataFinding] = []
    for name, check in CHECKS.items():
        if progress:
            progress(name)
        findings += check(corpus)
    return worst_first(findings)
