"""What the data checks find of faults that were planted into real rows, and what they find else.

    python benchmarks/check_planted.py alpaca_en_demo.json [--seeds 300 301 302]

DATA is a JSON list of rows with `instruction`, `input` and `output`. For each seed 100 rows are
held out for validation and faults are planted into the others. What a check says of the rows
before anything is planted are natural faults: they are counted apart, neither right nor wrong.
Thresholds were tuned on seeds below 300; the table is made of seeds 300 to 309.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sft.curate.checks import run_checks
from sft.curate.corpus import Corpus
from sft.data.rows.conversation import Conversation, Message, Origin

HERE = Path(__file__).parent
NUM_VAL = 100
NEAR_SHARE, NUM_LEAKS, NUM_CONFLICTS, NUM_OPENERS, NUM_CUT, NUM_SWAPPED = 0.05, 20, 10, 30, 15, 8
OPENER = "Sure! "
KINDS = ("near_duplicates", "leaks", "conflicts", "openers", "cut_answers", "wrong_roles")
# Fillers that one word of an answer is changed into, and sentences that are appended.
OTHER_WORDS = ("several", "modern", "useful", "green", "quickly", "different", "small", "certain")
SENTENCES = (
    "I hope this helps.",
    "Let me know if you have questions.",
    "This is only one way to do it.",
)


def row(prompt: str, answer: str, origin: Origin) -> Conversation:
    return Conversation((Message("user", prompt), Message("assistant", answer, weight=1.0)), origin)


def read(path: Path) -> list[Conversation]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    prompts = ["\n\n".join(filter(None, (r["instruction"], r["input"]))) for r in rows]
    return [
        row(prompt, r["output"], Origin("rows", line))
        for line, (prompt, r) in enumerate(zip(prompts, rows, strict=True), start=1)
    ]


def texts(one: Conversation) -> tuple[str, str]:
    return one.messages[0].content, one.messages[1].content


# Ways to say almost the same; each gets prompt, answer and a generator of chance.


def swap_words(prompt: str, answer: str, rng: random.Random) -> tuple[str, str]:
    """Two neighbouring words of the answer change places; in long answers that happens twice."""
    parts = re.split(r"(\s+)", answer)
    for _ in range(1 if len(parts) < 160 else 2):
        words = [i for i in range(0, len(parts) - 2, 2)]
        if words:
            i = rng.choice(words)
            parts[i], parts[i + 2] = parts[i + 2], parts[i]
    return prompt, "".join(parts)


def case_and_marks(prompt: str, answer: str, rng: random.Random) -> tuple[str, str]:
    """Other case in the prompt, other marks in the answer."""
    prompt = rng.choice((prompt.upper, prompt.lower))()
    answer = answer.replace(",", "").replace(";", ",")
    return prompt.rstrip(".?!:"), answer.rstrip(".") + "!"


def append_sentence(prompt: str, answer: str, rng: random.Random) -> tuple[str, str]:
    return prompt, f"{answer} {rng.choice(SENTENCES)}"


def one_word(prompt: str, answer: str, rng: random.Random) -> tuple[str, str]:
    """One word of the prompt or of the answer is another."""
    side = rng.randrange(2)
    parts = re.split(r"(\s+)", (prompt, answer)[side])
    parts[rng.randrange(0, len(parts), 2)] = rng.choice(OTHER_WORDS)
    changed = "".join(parts)
    return (changed, answer) if side == 0 else (prompt, changed)


NEAR_WAYS: dict[str, Callable[[str, str, random.Random], tuple[str, str]]] = {
    "words swapped": swap_words,
    "case and marks": case_and_marks,
    "sentence appended": append_sentence,
    "one word changed": one_word,
}


def other_answer(prompt: str, answer: str, rng: random.Random, others: list[str]) -> str:
    """An answer that contradicts: the number or yes/no turned around, or that of another row."""
    numbers = list(re.finditer(r"\d+", answer))
    if len(answer.split()) <= 12 and numbers:
        last = numbers[-1]
        return f"{answer[: last.start()]}{int(last[0]) + rng.randint(1, 9)}{answer[last.end() :]}"
    for yes, no in (("Yes", "No"), ("No", "Yes"), ("True", "False"), ("False", "True")):
        if re.match(rf"{yes}\b", answer):
            return no + answer[len(yes) :]
    return rng.choice(others)


def cut(answer: str, rng: random.Random) -> str:
    """The answer up to a word in its second half that does not end a sentence or a line."""
    spaces = [m.start() for m in re.finditer(r" ", answer)]
    inside = [
        at
        for at in spaces
        if 0.4 * len(answer) < at < 0.9 * len(answer)
        and answer[at - 1] not in ".!?:;|*`\n"
        and not re.search(r"(?:^|\n)\s*(?:\d+[.)]|[-*])?$", answer[:at])
    ]
    return answer[: rng.choice(inside)] if inside else ""


@dataclass
class Planted:
    """Rows with faults. `rows[kind]` are places; `pairs` place of a copy -> that of its source."""

    train: list[Conversation]
    val: list[Conversation]
    rows: dict[str, set[str]] = field(default_factory=lambda: {kind: set() for kind in KINDS})
    partner: dict[str, str] = field(default_factory=dict)
    ways: dict[str, str] = field(default_factory=dict)


def plant(rows: list[Conversation], seed: int) -> tuple[Planted, Corpus]:
    """Rows with faults planted, and the same rows without."""
    rng = random.Random(seed)
    shuffled = rng.sample(rows, len(rows))
    val, train = shuffled[:NUM_VAL], shuffled[NUM_VAL:]
    clean = Corpus(list(train), list(val))
    made = Planted(train, val)
    free = rng.sample(range(len(train)), len(train))  # every row gets one fault at most
    answers = [texts(one)[1] for one in train]
    copies: list[Conversation] = []

    def place(kind: str, way: str) -> Origin:
        origin = Origin(f"planted {kind}", len(copies) + 1)
        made.rows[kind].add(str(origin))
        made.ways[str(origin)] = way
        return origin

    for number in range(round(NEAR_SHARE * len(rows))):
        source = train[free.pop()]
        way = list(NEAR_WAYS)[number % len(NEAR_WAYS)]
        origin = place("near_duplicates", way)
        copies.append(row(*NEAR_WAYS[way](*texts(source), rng), origin))
        made.partner[str(origin)] = str(source.origin)
    for number, source in enumerate(rng.sample(val, NUM_LEAKS)):
        way = "exact" if number % 2 == 0 else list(NEAR_WAYS)[number // 2 % len(NEAR_WAYS)]
        said = texts(source) if way == "exact" else NEAR_WAYS[way](*texts(source), rng)
        copies.append(row(*said, place("leaks", way)))
    for _ in range(NUM_CONFLICTS):
        source = train[free.pop()]
        prompt, answer = texts(source)
        other = other_answer(prompt, answer, rng, answers)
        way = "answer of another row" if other in answers else "number or yes/no"
        origin = place("conflicts", way)
        copies.append(row(prompt, other, origin))
        made.rows["conflicts"].add(str(source.origin))
        made.ways[str(source.origin)] = way
    change(made, free, "openers", NUM_OPENERS, lambda p, a: (p, OPENER + a))
    change(made, free, "wrong_roles", NUM_SWAPPED, lambda p, a: (a, p))
    change(made, free, "cut_answers", NUM_CUT, lambda p, a: (p, cut(a, rng)))
    made.train = rng.sample(train + copies, len(train) + len(copies))
    return made, clean


def change(
    made: Planted,
    free: list[int],
    kind: str,
    number: int,
    edit: Callable[[str, str], tuple[str, str]],
) -> None:
    """Edit so many rows in place; a row whose answer would become empty is passed over."""
    while len(made.rows[kind]) < number:
        index = free.pop()
        source = made.train[index]
        prompt, answer = edit(*texts(source))
        if answer and (kind != "cut_answers" or len(texts(source)[1].split()) >= 20):
            made.train[index] = row(prompt, answer, source.origin)
            made.rows[kind].add(str(source.origin))
            way = cut_in(texts(source)[1], answer) if kind == "cut_answers" else kind
            made.ways[str(source.origin)] = way


def cut_in(answer: str, cut_off: str) -> str:
    """Whether a cut is in a line of prose, or where a line may end without a mark."""
    line = answer[cut_off.rfind("\n") + 1 :].partition("\n")[0].strip()
    prose = len(line.split()) >= 8 and line[-1:] in ".!?" and line[:1] not in "-*|#<{"
    return "in a line of prose" if prose else "in a list, verse, table or code"


def flagged(corpus: Corpus) -> dict[str, set[str]]:
    """Check -> rows it warns of. Openers: those of the planted one only."""
    found: dict[str, set[str]] = {}
    for one in run_checks(corpus):
        if one.severity != "info":
            found.setdefault(one.check, set()).update(one.rows)
    return found


def score(rows: list[Conversation], seed: int) -> dict[str, Any]:
    made, clean = plant(rows, seed)
    natural = flagged(clean)
    started = time.perf_counter()
    found = flagged(Corpus(made.train, made.val))
    seconds = time.perf_counter() - started
    everything = planted_or_alike(made)
    # Rows that begin with the planted opener anyway, too few to be reported before.
    natural["openers"] = natural.get("openers", set()) | {
        str(one.origin) for one in rows if texts(one)[1].startswith(OPENER.strip(" !"))
    }
    result: dict[str, Any] = {"seed": seed, "seconds": round(seconds, 2), "checks": {}}
    for kind in KINDS:
        said = found.get(kind, set())
        planted = made.rows[kind]
        right, hits = judged(kind, said, found, made)
        rest = said - right
        before = natural.get(kind, set())
        other = {one for one in rest if one in everything and one not in before}
        wrong = rest - before - other
        missed = planted - hits
        result["checks"][kind] = {
            "planted": len(planted),
            "found": len(hits),
            "natural": len(rest & before),
            "other_faults": sorted(other),
            "false": sorted(wrong),
            "missed": sorted(f"{one} ({made.ways[one]})" for one in missed),
            "right": len(right),
            "ways": dict(Counter(made.ways[one] for one in planted)),
        }
    return result


def planted_or_alike(made: Planted) -> set[str]:
    """Places of planted rows, of their sources, and of rows with the prompt or answer of either."""
    planted = set().union(*made.rows.values(), made.partner.values())
    sides = {side for one in made.train if str(one.origin) in planted for side in normal(one)}
    return planted | {str(one.origin) for one in made.train if not sides.isdisjoint(normal(one))}


def normal(one: Conversation) -> tuple[str, str]:
    prompt, answer = texts(one)
    return " ".join(prompt.lower().split()), " ".join(answer.lower().split())


def judged(
    kind: str, said: set[str], found: dict[str, set[str]], made: Planted
) -> tuple[set[str], set[str]]:
    """What of `said` is planted, and which planted faults were found."""
    planted = made.rows[kind]
    if kind != "near_duplicates":
        return said & planted, said & planted
    # Of a pair the later row is named; a change of case alone is an exact copy.
    copies = said | found.get("duplicates", set())
    near = planted | set(made.partner.values())
    sources = {normal(one) for one in made.train if str(one.origin) in near}
    right = {str(one.origin) for one in made.train if normal(one) in sources} & said
    hits = {one for one in planted if one in copies or made.partner[one] in copies}
    return right, hits


def table(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    lines = []
    for kind in KINDS:
        checks = [result["checks"][kind] for result in results]
        total = Counter()
        for one in checks:
            for name in ("planted", "found", "natural", "right"):
                total[name] += one[name]
            total["other"] += len(one["other_faults"])
            total["false"] += len(one["false"])
        lines.append(
            {
                "check": kind,
                "planted": total["planted"],
                "found": total["found"],
                "recall": round(total["found"] / total["planted"], 4),
                "false": total["false"],
                "precision": round(total["right"] / max(1, total["right"] + total["false"]), 4),
                "natural": total["natural"],
                "of_another_kind": total["other"],
                "ways": by_way(checks),
            }
        )
    return lines


def by_way(checks: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Way of planting -> how many were planted and found."""
    planted: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for one in checks:
        planted.update(one["ways"])
        missed.update(m[m.rindex("(") + 1 : -1] for m in one["missed"])
    return {
        way: {"planted": number, "found": number - missed[way]}
        for way, number in sorted(planted.items())
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="JSON list in Alpaca's shape")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(300, 310)))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "check_planted.json")
    args = parser.parse_args()
    rows = read(args.data)
    results = [score(rows, seed) for seed in args.seeds]
    lines = table(results)
    print(f"{'check':16} planted found recall false precision natural other")
    for one in lines:
        other = one["of_another_kind"]
        print(
            f"{one['check']:16} {one['planted']:7} {one['found']:5} {one['recall']:6.1%} "
            f"{one['false']:5} {one['precision']:9.1%} {one['natural']:7} {other:5}"
        )
    for one in lines:
        for way, got in one["ways"].items():
            print(f"{one['check']:16} {way:32} {got['found']:4} of {got['planted']}")
    written = {
        "date": date.today().isoformat(),
        "data": args.data.name,
        "rows": len(rows),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("sft", "numpy", "scikit-learn")},
        },
        "table": lines,
        "seeds": results,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
