"""Plain text files: what stands between blank lines is a row, if the source is said to be text."""

import gzip
import io

import pytest

from sft.config import SourceConfig
from sft.data.rows.lines import text_rows
from sft.data.rows.problems import BadRows, RowError
from sft.data.rows.read import read_conversations
from sft.data.rows.sources import read_rows
from sft.errors import ConfigError, DataError


def rows(data):
    return [(line, str(row) if isinstance(row, RowError) else row["text"]) for line, row in data]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n \n\t\r\n", []),
        (b"a", [(1, "a")]),
        (b"a\nb\n\nc\n", [(1, "a\nb"), (4, "c")]),
        (b"\n\n a \r\nb\r\n\r\n\r\nc", [(3, " a \nb"), (7, "c")]),
        (b"\xef\xbb\xbfa\n", [(1, "a")]),
        ("é\u2028中\n".encode(), [(1, "é\u2028中")]),
        (b"a\n\xff\n\nb\n", [(1, "line 2, column 1: byte 0xFF is not UTF-8"), (4, "b")]),
        (
            b"\0\na\n\nb\n",
            [(1, "line 1, column 1: NUL byte (is this a text file in UTF-8?)"), (4, "b")],
        ),
    ],
)
def test_paragraphs(data, expected):
    assert rows(text_rows(io.BytesIO(data))) == expected


def test_a_text_without_an_end_is_one_unusable_row(monkeypatch):
    monkeypatch.setattr("sft.data.rows.lines.MAX_ROW_BYTES", 10)
    got = rows(text_rows(io.BytesIO(b"12345\n" * 3 + b"\nb\n")))
    assert got == [(1, "line 2, no blank line in 10 bytes; is this one text?"), (5, "b")]


def read(path, **options):
    source = SourceConfig.model_validate({"path": str(path), **options})
    return read_conversations([source], "error").conversations


def test_a_text_file_must_be_asked_for(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("One.\n\nTwo.\n")
    got = read(path, format="text")
    assert [(c.kind, c.messages[0].content, c.origin.line) for c in got] == [
        ("text", "One.", 1),
        ("text", "Two.", 3),
    ]
    with pytest.raises(ConfigError, match="plain text, which has no prompts and answers"):
        read(path)
    with pytest.raises(ConfigError, match=r"no such file. Did you mean 'book.txt'\?"):
        read(tmp_path / "bok.txt", format="text")


def test_a_folder_gives_its_text_files_only_when_asked(tmp_path):
    (tmp_path / "a.txt").write_text("One.\n")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"Two.\n"))
    (tmp_path / "c.jsonl").write_text('{"text": "Three."}\n')
    got = read(tmp_path, format="text")
    assert [c.messages[0].content for c in got] == ["One.", "Two.", "Three."]
    source = SourceConfig.model_validate(str(tmp_path))
    assert [row.values["text"] for row in read_rows(source, BadRows("error"), {})] == ["Three."]
    (tmp_path / "c.jsonl").unlink()
    with pytest.raises(DataError, match="the folder holds no"):
        read(tmp_path)
