"""Personal data and secrets in the text, shown in messages with all but their ends hidden."""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Callable

from sft.curate.corpus import Corpus
from sft.curate.finding import MAX_QUOTE, DataFinding, Severity, example_finding

# Names that are reserved for examples (RFC 2606 and 6761).
_RESERVED = re.compile(
    r"(?:^|[.@])(?:example\.(?:com|org|net|edu)|example|test|invalid|localhost|local)$", re.I
)
_EMAIL = re.compile(r"\b[\w.+-]{1,64}@(?:[a-zA-Z0-9-]{1,63}\.)+[a-zA-Z]{2,24}\b")
_PHONE = re.compile(
    r"(?<![\w.+/-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]?\d{2,4}){2,3}"
    r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[-.]\d{3}[-.]\d{4})(?![\w/-]|\.\d)"
)
_CARD = re.compile(r"(?<![\w.-])(?:\d[ -]?){12,18}\d(?![\w-]|\.\d)")
_ISSUERS = re.compile(
    r"4\d{12}(?:\d{3})?|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|6(?:011|5\d\d)\d{12}"
)
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_ACCOUNT = re.compile(r"\b[A-Z]{2}\d{2}[ A-Z0-9]{10}")
_IP = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_SECRETS = re.compile(
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"  # AWS
    r"|\bsk-(?:proj-|ant-)?[A-Za-z0-9_-]{20,}"  # OpenAI, Anthropic
    r"|\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_\w{22,}\b"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}"  # Slack
    r"|\bAIza[0-9A-Za-z_-]{35}\b|\bhf_[A-Za-z0-9]{30,}\b"  # Google, Hugging Face
    r"|-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"  # JSON web token
)


def luhn(digits: str) -> bool:
    """Whether the check digit of a card number is right (ISO/IEC 7812-1)."""
    doubled = [int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits))]
    return sum(n - 9 if n > 9 else n for n in doubled) % 10 == 0


def iban(text: str) -> bool:
    """Whether the check digits of an account number are right (ISO 13616: 1 modulo 97)."""
    code = text.replace(" ", "")
    if not 15 <= len(code) <= 34:
        return False
    return int("".join(str(int(c, 36)) for c in code[4:] + code[:4])) % 97 == 1


def _card(text: str) -> bool:
    digits = re.sub(r"[ -]", "", text)
    return bool(_ISSUERS.fullmatch(digits)) and len(set(digits)) > 1 and luhn(digits)


def _phone(text: str) -> bool:
    """Not 555-0100 and its neighbours, which no one has; 7 to 15 digits (E.164)."""
    digits = re.sub(r"\D", "", text)
    return 7 <= len(digits) <= 15 and "555" not in digits[:7] and len(set(digits)) > 2


def _address(text: str) -> bool:
    """A public IPv4 address; most of four small numbers are versions, and 8.8.8.8 is nobody's."""
    try:
        return ipaddress.IPv4Address(text).is_global and len(set(text.split("."))) > 2
    except ValueError:
        return False


def _secret(text: str) -> bool:
    """Not the keys of manuals; random keys have digits and letters."""
    if text.startswith("-----"):
        return True
    tail = text.upper()
    made_up = "EXAMPLE" in tail or "XXXX" in tail or "YOUR" in tail
    return not made_up and bool(re.search(r"\d", text)) and len(set(text)) > 8


# Most texts have none of these marks of a kind, and finding that out is fast.
_KEYS = re.compile(r"AKIA|ASIA|sk-|gh[pousr]_|github_pat_|xox|AIza|hf_|PRIVATE KEY|eyJ")
_NUMBERS = re.compile(r"\d[\d ().-]{5,}\d")

# Kind -> a fast test of the text, the pattern, whether a match is real, and the severity.
_KINDS: dict[str, tuple[re.Pattern[str], re.Pattern[str], Callable[[str], bool], Severity]] = {
    "key or password token": (_KEYS, _SECRETS, _secret, "warning"),
    "card number": (_NUMBERS, _CARD, _card, "warning"),
    "bank account number": (_ACCOUNT, _IBAN, iban, "warning"),
    "e-mail address": (re.compile("@"), _EMAIL, lambda text: not _RESERVED.search(text), "info"),
    "phone number": (_NUMBERS, _PHONE, _phone, "info"),
    "public IP address": (_NUMBERS, _IP, _address, "info"),
}


def personal_data(corpus: Corpus) -> list[DataFinding]:
    """Keys, card and account numbers (warnings), e-mail and IP addresses, phone numbers (info).

    Numbers are checked by their check digits, and names reserved for examples do not count.
    Whether a person is behind an address cannot be told.
    """
    findings = []
    for kind, (mark, pattern, is_real, severity) in _KINDS.items():
        examples = []
        for row, _, text in corpus.contents:
            if mark.search(text):
                real = (m.group() for m in pattern.finditer(text) if is_real(m.group()))
                examples += [(row, masked(first)) for first in itertools.islice(real, 1)]
        findings += example_finding(
            corpus,
            "personal_data",
            severity,
            examples,
            f"with {'an' if kind[0] == 'e' else 'a'} {kind}",
            "replace it, or sft curate DATA --drop personal_data --out FILE",
            limit=MAX_QUOTE,
        )
    return findings


def masked(text: str) -> str:
    """The first two and last two characters of a secret, and stars for what is between."""
    return f"{text[:2]}{'*' * min(8, max(3, len(text) - 4))}{text[-2:]}"
