"""Rows of three domains from a small grammar, for machines without the public data sets."""

from __future__ import annotations

from itertools import product

_THINGS = {
    "river": ("water", "the mountains", "boats"),
    "library": ("books", "the old town", "readers"),
    "orchard": ("apples", "the valley", "bees"),
    "harbour": ("ships", "the coast", "sailors"),
    "bakery": ("bread", "the main square", "early customers"),
    "observatory": ("telescopes", "a dark hill", "astronomers"),
    "museum": ("paintings", "the city centre", "visitors"),
    "desert": ("sand", "the dry south", "lizards"),
    "kitchen": ("pans", "the ground floor", "cooks"),
    "forest": ("trees", "the north", "deer"),
    "workshop": ("tools", "a back yard", "carpenters"),
    "theatre": ("stages", "the high street", "actors"),
    "farm": ("wheat", "the plain", "cows"),
    "airport": ("runways", "the edge of town", "pilots"),
    "school": ("desks", "a quiet street", "pupils"),
    "garden": ("roses", "the sunny side", "butterflies"),
    "lighthouse": ("lamps", "a lonely cliff", "seabirds"),
    "market": ("stalls", "the old bridge", "farmers"),
    "glacier": ("ice", "the high passes", "climbers"),
    "bank": ("safes", "the business district", "clerks"),
}
_ASKED = (
    ("What is a {thing} known for?", "It is known for its {has} and for the {who} it attracts."),
    ("Describe a {thing} briefly.", "{Has} fill every corner of {where}, loved by {who}."),
    ("Write a headline about a {thing}.", "Local {who} celebrate the {thing} near {where}."),
    ("Where would you build a {thing}?", "Close to {where}, so that {who} can reach it on foot."),
    ("Name a danger for a {thing}.", "A storm from {where} could ruin the {has} overnight."),
    ("Give a tip to someone who visits a {thing}.", "Go early, look at the {has}, ask the {who}."),
    ("Who would miss the {thing} if it closed?", "Above all the {who}, but also all of {where}."),
    ("Write a question about a {thing}.", "Why do {who} care so much about {has}?"),
    ("Compare a {thing} with a dream.", "Both fade: {has} in the morning, {who} by the evening."),
    ("Suggest a name for a {thing}.", "Call it The Silent {Has}, as {where} is never loud."),
    ("How old can a {thing} become?", "Centuries, if {who} keep repairing whatever holds {has}."),
    ("What sound belongs to a {thing}?", "The sound of {who} moving {has} towards {where}."),
    ("Explain a {thing} to a child.", "Imagine many {has} and happy {who} in one place."),
    ("State a rule for a {thing}.", "Nobody may touch the {has} before the {who} arrive."),
    ("What colour suits a {thing}?", "Green, because {where} is green when {who} come in spring."),
    ("Write a short rhyme on a {thing}.", "By {where} we go, where the {has} all glow."),
    ("Criticise a {thing}.", "Too many {who}, too little {has}, and far from {where}."),
    ("Why study a {thing}?", "It shows how {who} depend on {has} more than they admit."),
    ("Invent a proverb about a {thing}.", "He who counts {has} forgets the {who}."),
    ("When is a {thing} busiest?", "At noon, once the {who} return from {where}."),
    ("What does a {thing} cost?", "Less than the {has} in it, says everyone from {where}."),
    ("Plan a morning at a {thing}.", "First greet the {who}, then sketch the {has}."),
)
_NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gia", "Hugo", "Iris", "Jon")
_GOODS = ("pens", "eggs", "marbles", "stamps", "coins", "cards", "shells", "nuts")
_SUMS = (
    ("{name} has {a} {good} and buys {b} more. How many {good} does {name} have now?", "+"),
    ("{name} had {c} {good} and gave away {b} of them. How many {good} are left?", "-"),
    ("{name} fills {a} boxes with {b} {good} each. How many {good} are in the boxes?", "*"),
)
_SAID = (
    "The {thing} stood close to {where} for most of the century, and its {has} were famous.",
    "In the spring of that year the {who} returned to the {thing} with a petition.",
    "Most of the {has} had been lost when the {thing} was rebuilt after the great fire.",
    "Its critics wrote that {where} deserved better, while the {who} defended every detail.",
    "A second {thing} was planned but never finished, for the {has} proved too costly.",
)


def general() -> list[dict[str, str]]:
    """440 questions about places, with answers."""
    rows = []
    for (thing, (has, where, who)), (ask, answer) in product(_THINGS.items(), _ASKED):
        words = {"thing": thing, "has": has, "Has": has.capitalize(), "where": where, "who": who}
        rows.append({"prompt": ask.format(**words), "completion": answer.format(**words)})
    return rows


def maths() -> list[dict[str, str]]:
    """720 sums in words, with the calculation and the result."""
    rows = []
    for (name, good), (text, sign), k in product(product(_NAMES, _GOODS), _SUMS, range(3)):
        a = 3 + (len(good) * 7 + ord(name[0]) + 11 * k) % 17
        b = 2 + (len(good) + ord(name[-1]) + 5 * k) % 9
        c = a + b
        first, result = {"+": (a, a + b), "-": (c, c - b), "*": (a, a * b)}[sign]
        question = text.format(name=name, good=good, a=a, b=b, c=c)
        working = f"{name} has {first}{sign}{b} = <<{first}{sign}{b}={result}>>{result} {good}."
        rows.append({"prompt": question, "completion": f"{working}\n#### {result}"})
    return rows


def texts() -> list[dict[str, str]]:
    """200 pairs of sentences of plain prose."""
    rows = []
    for (thing, (has, where, who)), i, j in product(_THINGS.items(), range(5), (1, 2)):
        pair = f"{_SAID[i]} {_SAID[(i + j) % 5]}"
        rows.append({"text": pair.format(thing=thing, has=has, where=where, who=who)})
    return rows
