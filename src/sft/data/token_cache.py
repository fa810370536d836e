"""Tokenised rows are kept, and used again when all that decided them is the same.

The key of an entry is the SHA-256 of

    rows       every conversation in order: text, roles, weights, tools, place, source
    template   the chat template, and how tools are shown
    tokenizer  its whole `tokenizer.json`, special tokens, versions of the libraries
    settings   max_seq_len, overflow, prompt_weight
    code       the Python files of `sft.data`

so a changed file, split, remedy or column map is another entry, and no setting has to be listed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sft.data.parallel import TokenOptions
from sft.data.rows.conversation import Conversation, Origin
from sft.data.rows.problems import BadRows
from sft.data.template.chat_template import ChatTemplate
from sft.data.token_store import (
    META,
    NotStorable,
    StoreDamaged,
    StoreWriter,
    TokenStore,
    read_meta,
)
from sft.data.tokenize import Example, RowFate, Tokenized
from sft.disk import TMP_PREFIX, format_bytes, remove_path

CACHED_FROM = 2_000  # rows; fewer are tokenised in a second or two
LIMIT_BYTES = 20_000_000_000
_STALE_SECONDS = 86_400
_KEY_LENGTH = 32
_KEY = re.compile(f"[0-9a-f]{{{_KEY_LENGTH}}}")
_FILES = "files"  # not part of the key: the rows are; it only explains what changed


@dataclass(slots=True)
class TokenCache:
    """The entries in `folder`. `remarks` is what there is to say about each use of it.

    `tokenizer` is the fingerprint of the tokenizer (see `tokenizer_fingerprint`).
    """

    folder: Path
    tokenizer: str
    limit_bytes: int = LIMIT_BYTES
    remarks: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, setting: str, default: Path, tokenizer: Any) -> TokenCache | None:
        """The cache that `data.cache` asks for: a folder, `auto` (`default`), or none."""
        if setting == "off":
            return None
        folder = default if setting == "auto" else Path(setting).expanduser()
        return cls(folder, tokenizer_fingerprint(tokenizer))

    def tokenized(
        self,
        rows: Sequence[Conversation],
        template: ChatTemplate,
        bad_rows: BadRows,
        options: TokenOptions,
        files: Mapping[str, str],
        make: Callable[[], Tokenized],
    ) -> Tokenized:
        """What `make` returns and adds to `bad_rows`, from an entry where there is one."""
        parts = self.parts(rows_fingerprint(rows), template, options)
        if store := self.find(parts, files):
            for source, line, reason in store.meta["bad"]:
                bad_rows.add(Origin(source, line), reason)
            return _from_store(store)
        listed, counted = len(bad_rows.rows), bad_rows.count
        tokenized = make()
        bad = bad_rows.rows[listed:]
        if bad_rows.count - counted > len(bad) or (bad and bad_rows.policy == "error"):
            return tokenized  # not all are listed; or nothing will be trained on
        meta = {
            "fates": fates_record(tokenized.fates),
            "bad": [[row.origin.source, row.origin.line, row.reason] for row in bad],
            "num_text_specials": tokenized.num_text_specials,
            "num_split": tokenized.num_split,
        }
        try:
            return _from_store(self.save(parts, files, [tokenized.examples], lambda: meta))
        except (OSError, NotStorable, StoreDamaged) as error:
            self.remarks.append(f"token cache: not kept ({error})")
            return tokenized

    def parts(self, rows: str, template: ChatTemplate, options: TokenOptions) -> dict[str, str]:
        """What the key is made of, each as a digest."""
        return {
            "rows": rows,
            "template": _digest([template.facts.sha256, template.facts.tools_by]),
            "tokenizer": self.tokenizer,
            "settings": _digest([json.dumps(asdict(options), sort_keys=True)]),
            "code": code_fingerprint(),
        }

    def find(self, parts: Mapping[str, str], files: Mapping[str, str]) -> TokenStore | None:
        """The entry with these parts, if there is one; `remarks` say why, or why not.

        One that is not as it was written is removed.
        """
        folder = self._entry(parts)
        if not folder.exists():
            self.remarks.append(f"tokenised rows: cache miss, because {self._why(parts, files)}")
            return None
        try:
            store = TokenStore(folder)
        except StoreDamaged as error:
            self.remarks.append(f"token cache: a damaged entry is made again ({error})")
            remove_path(folder)
            return None
        with suppress(OSError):  # of another user, or on a disk that is read-only
            os.utime(folder / META)  # used last
        many = f"{len(files):,} file{'s' if len(files) != 1 else ''}"
        digests = ", ".join(f"{name} {parts[name][:6]}" for name in ("template", "tokenizer"))
        self.remarks.append(
            f"tokenised rows: cache hit, because data ({many}), {digests}, the settings and code "
            f"{parts['code'][:6]} are the same"
        )
        return store

    def save(
        self,
        parts: Mapping[str, str],
        files: Mapping[str, str],
        chunks: Iterable[Sequence[Example]],
        meta: Callable[[], Mapping[str, Any]],
    ) -> TokenStore:
        """Make an entry of `chunks`, all at once, and of `meta` as it is after them.

        Raises:
            NotStorable: an example is more than ids and weights.
            OSError, StoreDamaged: it cannot be written, or not be read then.
        """
        folder = self._entry(parts)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        unfinished = self.folder / f"{TMP_PREFIX}{os.getpid()}-{folder.name}"
        remove_path(unfinished)  # of a process that had our number
        try:
            writer = StoreWriter(unfinished)
            for examples in chunks:
                writer.add(examples)
            writer.close({**meta(), "parts": parts, _FILES: dict(files)})
            try:
                os.rename(unfinished, folder)
            except OSError:  # another process was faster, with the same bytes
                if not folder.exists():
                    raise
        finally:
            remove_path(unfinished)
        self._prune(folder)
        return TokenStore(folder)

    def _entry(self, parts: Mapping[str, str]) -> Path:
        return self.folder / _digest([json.dumps(parts, sort_keys=True)])[:_KEY_LENGTH]

    def _why(self, parts: Mapping[str, str], files: Mapping[str, str]) -> str:
        """What differs from the most similar entry of the same files."""
        nearest: tuple[int, float, dict[str, Any]] | None = None
        for folder in self._entries():
            try:
                meta, used = read_meta(folder), (folder / META).stat().st_mtime
            except (OSError, StoreDamaged):
                continue
            if set(meta.get(_FILES, ())) != set(files):
                continue
            same = sum(meta["parts"].get(name) == value for name, value in parts.items())
            if nearest is None or (same, used) > nearest[:2]:
                nearest = (same, used, meta)
        if nearest is None:
            return "there is no entry for these files yet"
        before = nearest[2]
        changed = [name for name, value in parts.items() if before["parts"].get(name) != value]
        names = [_changed(name, before[_FILES], files) for name in changed] or ["nothing"]
        return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) + " changed"

    def _entries(self) -> list[Path]:
        try:
            return [path for path in sorted(self.folder.iterdir()) if _KEY.fullmatch(path.name)]
        except OSError:
            return []

    def _prune(self, newest: Path) -> None:
        """Remove the entries that were used longest ago, until all fit into the limit."""
        ages: list[tuple[float, int, Path]] = []
        for folder in self._entries():
            try:
                size = sum(file.stat().st_size for file in folder.iterdir())
                ages.append(((folder / META).stat().st_mtime, size, folder))
            except OSError:
                continue
        total = sum(size for _, size, _ in ages)
        removed = 0
        for _, size, folder in sorted(ages):
            if total > self.limit_bytes and folder != newest:
                remove_path(folder)
                total -= size
                removed += 1
        if removed:
            self.remarks.append(
                f"token cache: {removed:,} entries, the longest unused, were removed from "
                f"{self.folder} to stay below {format_bytes(self.limit_bytes)}"
            )

    def _sweep(self) -> None:
        """Remove what a process left that was killed while it wrote."""
        for path in self.folder.glob(TMP_PREFIX + "*"):
            try:
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    remove_path(path)
            except OSError:
                continue


def _changed(name: str, before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The words for a part that is not the same."""
    if name != "rows":
        return {"settings": "the settings", "code": "the code of sft"}.get(name, f"the {name}")
    files = [Path(path).name for path in now if before.get(path) != now[path]]
    return f"the data ({', '.join(files[:3])})" if files else "the choice of rows"


def rows_fingerprint(rows: Iterable[Conversation]) -> str:
    """sha256 over everything that `rows` are, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(row).encode("utf-8", "surrogatepass"))  # of all fields, new ones too
        digest.update(b"\n")
    return digest.hexdigest()


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """sha256 of all that decides which ids a text becomes."""
    packages = ("transformers", "tokenizers", "jinja2")
    return _digest(
        [
            type(tokenizer).__name__,
            tokenizer.backend_tokenizer.to_str(),
            repr(tokenizer.special_tokens_map),
            *(version(package) for package in packages),
        ]
    )


@cache
def code_fingerprint() -> str:
    """sha256 of the Python files of this folder, which turn conversations into examples."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return _digest([version("sft"), *(file.read_text(encoding="utf-8") for file in files)])


def _digest(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()


def _from_store(store: TokenStore) -> Tokenized:
    meta = store.meta
    fates = fates_of(meta["fates"])
    return Tokenized(store.examples(), fates, meta["num_text_specials"], meta["num_split"])


def fates_record(fates: Iterable[RowFate]) -> list[list[Any]]:
    """`fates` for the JSON of an entry."""
    return [[f.origin.source, f.origin.line, f.status, f.reason] for f in fates]


def fates_of(record: Iterable[Sequence[Any]]) -> list[RowFate]:
    """What `fates_record` was made of."""
    return [RowFate(Origin(file, line), status, why) for file, line, status, why in record]
