"""Which language a text is written in: by its script, and in Latin script by common words.

Coarse on purpose. It is used to tell that prompts are in another language than the training
data, over many of them, which needs no model and no dependency.
"""

from __future__ import annotations

from collections import Counter

from sft.texts.near_duplicates import words

# First and last character of each range. Japanese is what has kana, whatever else it has.
_SCRIPTS = {
    "Japanese": ("\u3040", "\u30ff"),
    "Chinese": ("\u3400", "\u9fff"),
    "Korean": ("\uac00", "\ud7af"),
    "Cyrillic": ("\u0400", "\u052f"),
    "Greek": ("\u0370", "\u03ff"),
    "Arabic": ("\u0600", "\u06ff"),
    "Hebrew": ("\u0590", "\u05ff"),
    "Devanagari": ("\u0900", "\u097f"),
    "Thai": ("\u0e00", "\u0e7f"),
}
_COMMON = {
    "English": "the of and to in is that it for you with on are this be what how as from or have"
    " an by your can my which at about would should following each many",
    "German": "der die das und ist nicht ein eine zu den von mit sich auf für wie was ich es im",
    "French": "le la les des et est une un du que pour dans qui ne pas sur au avec vous je",
    "Spanish": "el la los las y es una un del que para en por con como se su qué más lo",
    "Portuguese": "o os as e é uma um do da que para em por com não como se são mais ao",
    "Italian": "il la gli di e è una un del della che per in con non come si sono più lo",
    "Dutch": "de het een en is van niet dat in op te voor met zijn die wat hoe ik je er",
    "Polish": "i w nie na się z do to jest że jak co o po za dla czy od ale przez",
    "Swedish": "och att det är en ett som på för inte med av den till har jag hur vad om de",
}
_LATIN = {language: frozenset(common.split()) for language, common in _COMMON.items()}
_BY_WORD = {
    word: tuple(name for name, common in _LATIN.items() if word in common)
    for common in _LATIN.values()
    for word in common
}
STOP_WORDS = frozenset().union(*_LATIN.values())
UNKNOWN = "unknown"
MAX_CHARACTERS = 1_000  # are enough to tell
_SURE_WORDS = 80
_SURROUNDING = ".,;:!?\"'()[]*\u2018\u2019\u201c\u201d\u00ab\u00bb\u00bf\u00a1"


def language(text: str) -> str:
    """The language or script of a text; `unknown` when too few words tell."""
    text = text[:MAX_CHARACTERS]
    letters = [character for character in text if character.isalpha()]
    found = Counter(_script(letter) for letter in letters)
    if found["Japanese"] > len(letters) / 10:
        return "Japanese"
    if letters:
        script, count = found.most_common(1)[0]
        if script != "Latin" and count > len(letters) / 2:
            return script
    seen = words(text)
    hits = {name: sum(word in common for word in seen) for name, common in _LATIN.items()}
    best, second = sorted(hits, key=lambda name: -hits[name])[:2]
    return best if hits[best] >= 2 and hits[best] > hits[second] else UNKNOWN


def surely(text: str) -> str:
    """The language of a text when there is little doubt, and "" otherwise.

    In Latin script 15 words at least of which a fifth are common in the language, twice as many
    as in any other, and three different ones. In others the script tells.
    """
    text = text[:MAX_CHARACTERS]
    if not text.isascii() and (found := language(text)) not in (UNKNOWN, *_LATIN):
        return found
    seen = text.lower().split()[:_SURE_WORDS]
    hits: Counter[str] = Counter()
    different: dict[str, set[str]] = {}
    for word in seen:
        word = word.strip(_SURROUNDING)
        for name in _BY_WORD.get(word, ()):
            hits[name] += 1
            different.setdefault(name, set()).add(word)
    ranked = hits.most_common(2)
    if len(seen) < 15 or not ranked or ranked[0][1] < 0.2 * len(seen):
        return ""
    name, number = ranked[0]
    clear = len(ranked) == 1 or number >= 2 * ranked[1][1]
    return name if clear and len(different[name]) >= 3 else ""


def _script(letter: str) -> str:
    if letter < "\u0370":
        return "Latin"
    for name, (first, last) in _SCRIPTS.items():
        if first <= letter <= last:
            return name
    return "Latin"
