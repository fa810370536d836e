"""The `retain` probe: what the base model could do, measured on its own texts and on the user's.

Texts sampled from the base model need no data from anywhere, and the rise of their nll is an
unbiased estimate of KL(base || now) over whole sequences.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from sft.config import DataConfig, SourceConfig
from sft.data.rows.conversation import Origin
from sft.data.rows.files import open_text
from sft.data.rows.lines import decode_line, numbered_lines
from sft.data.rows.problems import BadRows
from sft.data.rows.read import read_conversations
from sft.data.template.chat_template import ChatTemplate
from sft.data.tokenize import Example, continuation, tokenize
from sft.disk import remove_path, write_text
from sft.errors import DataError
from sft.probes.generate import continuations
from sft.runs.run_dir import RunDir
from sft.runs.store import read_records

SAMPLE_TOKENS = 40
TEXT_TOKENS = 64
_SHORTEST_TEXT = 16  # tokens; headings and blank lines measure nothing
_SENTINEL = "\ue0f5"


def opening_ids(template: ChatTemplate, tokenizer: Any) -> list[int]:
    """What stands before the user's first words: all that the base model is given to go on.

    Where a template needs more than a user message to render, the start token alone.
    """
    text = ""
    with suppress(DataError):
        text = template.render([{"role": "user", "content": _SENTINEL}]).partition(_SENTINEL)[0]
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    start = next((i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None), 0)
    return ids or [start]


def sampled(
    model: PreTrainedModel,
    template: ChatTemplate,
    tokenizer: Any,
    num: int,
    *,
    seed: int,
    name: str,
    num_tokens: int = SAMPLE_TOKENS,
) -> list[Example]:
    """`num` texts of `num_tokens` tokens, sampled at temperature 1 and scored token by token."""
    opening = opening_ids(template, tokenizer)
    written = continuations(model, [opening] * num, num_tokens, seed, stop_ids=(), batch=32)
    return [
        continuation(f"{name}:{i}", Origin(name, i), opening, ids, _num_bytes(tokenizer, ids))
        for i, ids in enumerate(written, start=1)
        if ids
    ]


def user_texts(
    config: DataConfig, template: ChatTemplate, tokenizer: Any, num: int
) -> list[Example]:
    """At most `num` examples from `data.retain`, evenly spaced: pieces of text, or whole rows."""
    texts = [source for source in config.retain if Path(source.path).suffix.lower() == ".txt"]
    rows = [source for source in config.retain if source not in texts]
    examples = [piece for source in texts for piece in _pieces(source, tokenizer)]
    if rows:
        loaded = read_conversations(rows, config.on_bad_row)
        examples += tokenize(
            loaded.conversations,
            template,
            BadRows("skip"),
            max_seq_len=int(config.max_seq_len),
        ).examples
    if config.retain and not examples:
        paths = ", ".join(source.path for source in config.retain)
        raise DataError(f"data.retain: {paths}: no text of {_SHORTEST_TEXT} tokens or more")
    many = len(examples)
    return [examples[i * many // num] for i in range(num)] if many > num else examples


def _pieces(source: SourceConfig, tokenizer: Any) -> list[Example]:
    """Paragraphs of a text file, each cut to `TEXT_TOKENS` tokens."""
    path = Path(source.path).expanduser()
    pieces = []
    for number, line in _lines(path):
        ids = tokenizer(line.strip(), add_special_tokens=False)["input_ids"][:TEXT_TOKENS]
        if len(ids) >= _SHORTEST_TEXT:
            origin = Origin(str(path), number)
            size = _num_bytes(tokenizer, ids[1:])
            pieces.append(continuation(str(origin), origin, ids[:1], ids[1:], size))
    return pieces


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with open_text(path) as file:
            for number, line in numbered_lines(file):
                try:
                    yield number, decode_line(line)
                except DataError as error:
                    raise DataError(f"{path}:{number}: {error}") from None
    except DataError as error:
        raise DataError(f"data.retain: {error}") from None


def _num_bytes(tokenizer: Any, ids: Sequence[int]) -> int:
    return len(tokenizer.decode(list(ids)).encode())


def save_texts(path: Path, examples: Sequence[Example]) -> None:
    """Keep a probe in the run folder: it cannot be drawn again once the model has changed."""
    lines = [
        json.dumps(
            {
                "id": e.id,
                "source": e.origin.source,
                "line": e.origin.line,
                "num_bytes": e.num_bytes,
                "input_ids": e.input_ids.tolist(),
                "labels": e.labels.tolist(),
            }
        )
        for e in examples
    ]
    path.parent.mkdir(exist_ok=True)
    write_text(path, "".join(line + "\n" for line in lines))


def load_texts(path: Path) -> list[Example]:
    """What `save_texts` wrote; nothing when there is no such file."""
    return [_example(row) for row in read_records(path)]


class BaseTexts:
    """Texts that the base model wrote for a run: those in its folder, else written now.

    A run that goes on cannot have them written again. What an attempt left that failed before the
    run had a `config.yaml` may be of other data, and is not used.
    """

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._new: dict[Path, list[Example]] = {}

    def get(self, path: Path, generate: Callable[[], list[Example]]) -> list[Example]:
        """The texts of the file `path`, or those that `generate` gives, kept for `write`."""
        if self.run.config.exists() and (saved := load_texts(path)):
            return saved
        self._new[path] = generate()
        return self._new[path]

    def write(self) -> None:
        """Write what was generated; of a new run, nothing else of this kind stays."""
        if not self.run.config.exists():
            for path in (self.run.preflight, self.run.retain, self.run.replay, self.run.drift):
                remove_path(path)
        for path, examples in self._new.items():
            if examples:
                save_texts(path, examples)


def _example(row: Mapping[str, Any]) -> Example:
    labels = np.array(row["labels"], dtype=np.int64)
    return Example(
        id=row["id"],
        origin=Origin(row["source"], row["line"]),
        source=0,
        input_ids=np.array(row["input_ids"], dtype=np.int64),
        labels=labels,
        weights=(labels >= 0).astype(np.float32),
        num_bytes=row["num_bytes"],
    )
