"""Personal data: found by pattern and check digit, and never shown."""

import pytest

from sft.curate.checks.personal_data import iban, luhn, masked, personal_data
from sft.curate.corpus import Corpus

# Numbers that their makers publish for tests, and keys made of noise.
SECRETS = [
    "4242 4242 4242 4241",
    "DE89 3704 0044 0532 0130 00",
    "sk-" + "aB3dE5fG7hJ9kL1mN2pQ4rS6",
    "ghp_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1zA2",
    "AKIA" + "Z7QWERTY12345UIO",
    "eyJhbGciOiJI" + ".eyJzdWIiOiIx" + ".SflKxwRJSMeKKF2QT4",
    "-----BEGIN RSA PRIVATE KEY-----",
]


def found(rows, text):
    return personal_data(Corpus(rows(["Why so?"], [f"Note {text} down."])))


@pytest.mark.parametrize("secret", ["4111 1111 1111 1111", "5105-1051-0510-5100", *SECRETS[1:]])
def test_secrets_are_warned_of_and_not_shown(rows, secret):
    (one,) = found(rows, secret)
    assert one.severity == "warning"
    assert secret not in one.message
    assert secret[4:12] not in one.message


@pytest.mark.parametrize(
    "text", ["ann.lee@mail.org", "+49 30 901820 12", "(212) 736-5000", "93.184.216.34"]
)
def test_addresses_and_phones_are_mentioned(rows, text):
    assert [one.severity for one in found(rows, text)] == ["info"]


@pytest.mark.parametrize(
    "text",
    [
        SECRETS[0],  # a wrong check digit
        "DE88 3704 0044 0532 0130 00",
        "1234567890123456",
        "me@example.com",
        "boss@mail.example",
        "(555) 123-4567",
        "192.168.0.1",
        "127.0.0.1",
        "version 1.2.3.4.5",
        "3.141592653589793",
        "2024-01-15 and 1999-12-31",
        "sk-learn-is-a-library-for-learning",
        "AKIA" + "IOSFODNN7EXAMPLE",
        "48/2=24 and 48+24=72",
        "f(x)@g",
    ],
)
def test_what_evals_like_it_is_not(rows, text):
    assert found(rows, text) == []


def test_check_digits():
    assert luhn("4242424242424242")
    assert not luhn("4242424242424241")
    assert iban("GB82 WEST 1234 5698 7654 32")
    assert not iban("GB82 WEST 1234 5698 7654 33")


def test_masked():
    assert masked("ann.lee@mail.org") == "an********rg"
    assert masked("abc").count("*") >= 3
