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
from sft.data.rows.problems import BadRow, BadRows
from sft.data.template.chat_template import ChatTemplate
from sft.data.token_store import (
    META,
    NotStorable,
    StoreDamaged,
    StoreWriter,
    TokenStore,
    read_meta,
)
from sft.data.tokenize import RowFate, Tokenized
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
        folder = self.entry(parts)
        if folder.exists():
            try:
                store = TokenStore(folder)
                tokenized, bad = _from_meta(store)
            except StoreDamaged as error:
                self.damaged(folder, error)
            else:
                self.hit(folder, parts, files)
                for row in bad:
                    bad_rows.add(row.origin, row.reason)
                return tokenized
        else:
            self.miss(parts, files)
        listed, counted = len(bad_rows.rows), bad_rows.count
        tokenized = make()
        bad = bad_rows.rows[listed:]
        if bad_rows.count - counted > len(bad) or (bad and bad_rows.policy == "error"):
            return tokenized  # not all are listed; or nothing will be trained on
        meta = _to_meta(tokenized, bad) | {"parts": parts, _FILES: dict(files)}
        return self._store(folder, tokenized, meta)

    def parts(self, rows: str, template: ChatTemplate, options: TokenOptions) -> dict[str, str]:
        """What the key is made of, each as a digest."""
        return {
            "rows": rows,
            "template": _digest([template.facts.sha256, template.facts.tools_by]),
            "tokenizer": self.tokenizer,
            "settings": _digest([json.dumps(asdict(options), sort_keys=True)]),
            "code": code_fingerprint(),
        }

    def entry(self, parts: Mapping[str, str]) -> Path:
        """The folder of the entry with these parts."""
        return self.folder / _digest([json.dumps(parts, sort_keys=True)])[:_KEY_LENGTH]

    def writer(self, folder: Path) -> StoreWriter:
        """A writer of what `publish` makes the entry at `folder`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        unfinished = self.folder / f"{TMP_PREFIX}{os.getpid()}-{folder.name}"
        remove_path(unfinished)  # of a process that had our number
        return StoreWriter(unfinished)

    def publish(self, writer: StoreWriter, folder: Path, meta: Mapping[str, Any]) -> None:
        """Make what was written the entry at `folder`, all at once; then keep to the limit."""
        writer.close(meta)
        try:
            os.rename(writer.folder, folder)
        except OSError:
            if not folder.exists():
                raise
            remove_path(writer.folder)  # another process was faster, with the same bytes
        self._prune(folder)

    def _store(self, folder: Path, tokenized: Tokenized, meta: Mapping[str, Any]) -> Tokenized:
        """What the new entry at `folder` has; what was given where it cannot be stored."""
        writer = None
        try:
            writer = self.writer(folder)
            writer.add(tokenized.examples)
            self.publish(writer, folder, meta)
            return _from_meta(TokenStore(folder))[0]
        except (OSError, NotStorable, StoreDamaged) as error:
            self.remarks.append(f"token cache: not kept ({error})")
            if writer:
                remove_path(writer.folder)
            return tokenized

    def damaged(self, folder: Path, error: StoreDamaged) -> None:
        """Remove an entry that is not as it was written, and say so."""
        self.remarks.append(f"token cache: a damaged entry is made again ({error})")
        remove_path(folder)

    def miss(self, parts: Mapping[str, str], files: Mapping[str, str]) -> None:
        """Say why there is no entry."""
        self.remarks.append(f"tokenised rows: cache miss, because {self._why(parts, files)}")

    def hit(self, folder: Path, parts: Mapping[str, str], files: Mapping[str, str]) -> None:
        """Say why an entry is used, and note that it was."""
        with suppress(OSError):  # of another user, or on a disk that is read-only
            os.utime(folder / META)  # used last
        many = f"{len(files):,} file{'s' if len(files) != 1 else ''}"
        digests = ", ".join(f"{name} {parts[name][:6]}" for name in ("template", "tokenizer"))
        self.remarks.append(
            f"tokenised rows: cache hit, because data ({many}), {digests}, the settings and code "
            f"{parts['code'][:6]} are the same"
        )

    def _why(self, parts: Mapping[str, str], files: Mapping[str, str]) -> str:
        """What differs from the most similar entry of the same files."""
        nearest: tuple[int, float, dict[str, Any]] | None = None
        for folder in self.entries():
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
        return _and([_changed(name, before[_FILES], files) for name in changed]) + " changed"

    def entries(self) -> list[Path]:
        """The folders of all entries."""
        try:
            return [path for path in sorted(self.folder.iterdir()) if _KEY.fullmatch(path.name)]
        except OSError:
            return []

    def _prune(self, newest: Path) -> None:
        """Remove the entries that were used longest ago, until all fit into the limit."""
        ages: list[tuple[float, int, Path]] = []
        for folder in self.entries():
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


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1] if words else "nothing"]))


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


def _to_meta(tokenized: Tokenized, bad: Sequence[BadRow]) -> dict[str, Any]:
    return {
        "fates": [[f.origin.source, f.origin.line, f.status, f.reason] for f in tokenized.fates],
        "bad": [[row.origin.source, row.origin.line, row.reason] for row in bad],
        "num_text_specials": tokenized.num_text_specials,
        "num_split": tokenized.num_split,
    }


def _from_meta(store: TokenStore) -> tuple[Tokenized, list[BadRow]]:
    """Raises `StoreDamaged` when what `_to_meta` wrote is not there."""
    try:
        meta = store.meta
        fates = [RowFate(Origin(f, line), status, why) for f, line, status, why in meta["fates"]]
        bad = [BadRow(Origin(f, line), why) for f, line, why in meta["bad"]]
        specials, split = int(meta["num_text_specials"]), int(meta["num_split"])
    except (KeyError, TypeError, ValueError) as error:
        raise StoreDamaged(f"{META} lacks what is needed ({error})") from None
    return Tokenized(store.examples(), fates, specials, split), bad
