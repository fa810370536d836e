"""A name in a table, in a user's file, or in an installed package, and all that may be wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sft.config.plugins import check_named, fingerprint_of, load_named
from sft.errors import ConfigError

KINDS: dict[str, Any] = {"double": "sft.errors:did_you_mean", "triple": 3}
GROUP = "sft.tests"


def test_a_registered_name_is_what_the_table_says() -> None:
    """A text in the table is imported on use."""
    from sft.errors import did_you_mean

    assert load_named("triple", GROUP, KINDS) == 3
    assert load_named("double", GROUP, KINDS) is did_you_mean
    assert fingerprint_of("triple", GROUP, KINDS) is None


def test_a_file_of_the_users_is_run_once_until_it_changes(tmp_path: Path) -> None:
    """The fingerprint changes with the file."""
    file = tmp_path / "mine.py"
    file.write_text("class Lion:\n    pass\n")
    spec = f"{file}:Lion"
    first, before = load_named(spec, GROUP, KINDS), fingerprint_of(spec, GROUP, KINDS)
    assert load_named(spec, GROUP, KINDS) is first and first.__name__ == "Lion"
    file.write_text("class Lion:\n    speed = 2\n")
    assert load_named(spec, GROUP, KINDS).speed == 2
    assert fingerprint_of(spec, GROUP, KINDS) != before


def test_an_entry_point_of_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in its group; its fingerprint is package and version."""
    (tmp_path / "zoo.py").write_text("ANSWER = 42\nimport_error = 1\n")
    info = tmp_path / "zoo-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nlion = zoo:ANSWER\ngone = zoo:GONE\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_named("lion", GROUP, KINDS) == 42
    assert fingerprint_of("lion", GROUP, KINDS) == "zoo 1.5"
    with pytest.raises(ConfigError, match="entry point zoo:GONE of"):
        load_named("gone", GROUP, KINDS)
    with pytest.raises(ConfigError, match="Did you mean 'lion'"):
        load_named("lionn", GROUP, KINDS)


@pytest.mark.parametrize(
    ("text", "spec", "problem"),
    [
        ("", "tripple", "'tripple' is not one of double, triple. Did you mean 'triple'?"),
        ("", "gone.py:Lion", "gone.py cannot be read: No such file or directory."),
        ("Lion = 1\n", "mine.py:Loin", "defines no 'Loin'. Did you mean 'Lion'?"),
        ("x = 1\ny = x / 0\n", "mine.py:x", "mine.py:2: ZeroDivisionError"),
        ("x = 1\nif:\n", "mine.py:x", "mine.py:2: SyntaxError"),
        ("import nothing_of_this_name\n", "mine.py:x", "mine.py:1: ModuleNotFoundError"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    text: str, spec: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the nearest name, or the file and the line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(problem)):
        check_named(spec, GROUP, KINDS)
        load_named(spec, GROUP, KINDS)
