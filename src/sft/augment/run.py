"""`sft augment`: read rows, make new ones, write them with a ledger and a summary."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from sft.augment.ask import MODEL_WAYS, Request, Writer
from sft.augment.budget import Estimate
from sft.augment.cache import Cache
from sft.augment.endpoint import Endpoint, EndpointSettings
from sft.augment.make import (
    AugmentSettings,
    Wanted,
    counts,
    make_rows,
    requests_for,
    wanted_rows,
)
from sft.config import SourceConfig
from sft.data.rows.conversation import Conversation
from sft.data.rows.read import Loaded, read_conversations
from sft.disk import disk_errors, write_json, write_text
from sft.errors import ConfigError, DataError
from sft.terminal.console import Console
from sft.texts.safe import printable


class Files:
    """The file of new rows, and those beside it."""

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out).expanduser()
        self.ledger = self._beside("ledger.jsonl")  # one line for each row that was wanted
        self.summary = self._beside("summary.json")  # what was asked for, made, dropped and paid
        self.cache = self._beside("cache.jsonl")  # answers of models
        self.rejected = self._beside("rejected.jsonl")  # new rows, training on which did not help

    def _beside(self, name: str) -> Path:
        return self.out.with_name(f"{self.out.stem}.{name}")


def augment(
    sources: Sequence[SourceConfig],
    out: str | Path,
    settings: AugmentSettings,
    show: Console,
    endpoint: EndpointSettings | None = None,
    own_model: str | None = None,
    on_bad_row: Literal["error", "skip"] = "error",
    dry_run: bool = False,
) -> Files:
    """Write new rows to `out`, and a ledger and a summary beside it. Reads all rows first.

    What needs a model is written by an endpoint, a model on this machine, or both. With `dry_run`
    nothing is asked and nothing written: counts and cost are shown.

    Raises:
        SFTError: what was asked for cannot be done; nothing at `out` was changed.
    """
    files = Files(out)
    check_out(files, sources)
    check_models(settings, endpoint, own_model)
    loaded = _read(sources, on_bad_row, show)
    rows = loaded.conversations
    wanted = _wanted(rows, settings, show)
    with Cache(files.cache) as cache:
        writers: dict[str, Writer] = {}
        bill, expected = None, None
        if endpoint:
            asked = Endpoint(endpoint, cache, lambda n, total: show.progress("asking", n, total))
            expected = _show_estimate(asked, endpoint.budget, wanted, show)
            writers["paraphrase"], bill = asked, asked.bill
        if dry_run:
            return files
        own = [way for way in settings.ways if way in MODEL_WAYS and way not in writers]
        if own and own_model:
            from sft.augment.own_model import OwnModel

            writers |= dict.fromkeys(own, OwnModel(own_model, cache, show.progress))
        new_rows, ledger = make_rows(rows, wanted, settings, writers)
    by_way = counts(ledger)
    show.table(result_table(by_way))
    if bill:
        show.note(bill.sentence())
    summary = {
        "num_rows": len(rows),
        "num_new": len(new_rows),
        "ways": by_way,
        "files": dict(loaded.files),
        "settings": asdict(settings),
        "endpoint": endpoint.address if endpoint else None,
        "endpoint_model": endpoint.model if endpoint else None,
        "own_model": own_model,
        "accepted": None,
        "paid": bill.record() if bill else None,
        "estimate": asdict(expected) if expected else None,
    }
    _write(files, new_rows, ledger, summary)
    return files


def _read(
    sources: Sequence[SourceConfig], on_bad_row: Literal["error", "skip"], show: Console
) -> Loaded:
    show.progress("reading")
    hint = "Correct them, or leave them out with --on-bad-row skip"
    loaded = read_conversations(sources, on_bad_row, hint)
    if loaded.num_bad:
        show.warn(f"{loaded.num_bad:,} rows cannot be used and are left out")
    return loaded


def _wanted(rows: Sequence[Conversation], settings: AugmentSettings, show: Console) -> list[Wanted]:
    wanted = wanted_rows(rows, settings)
    if not wanted:
        raise DataError("no row can be augmented: all are plain texts, or augmented already")
    ways = Counter(want.way for want in wanted)
    shares = ", ".join(f"{way} {number:,}" for way, number in ways.items())
    show.note(f"{len(rows):,} rows read; {len(wanted):,} new rows wanted: {shares}")
    return wanted


def check_out(files: Files, sources: Sequence[SourceConfig]) -> None:
    """Raise `ConfigError` where writing would destroy rows, or put other files among them."""
    out = files.out
    if out.suffix != ".jsonl":
        raise ConfigError(f"--out: the name must end in .jsonl, found {out.name!r}")
    if not out.parent.is_dir():
        raise ConfigError(f"--out: there is no folder {out.parent}")
    where = out.resolve()
    for source in sources:
        path = Path(source.path).expanduser()
        if path.is_file() and path.resolve() == where:
            raise ConfigError(f"--out: {out} is the file that rows are read from")
        if path.is_dir() and where.is_relative_to(path.resolve()):
            raise ConfigError(
                f"--out: {out} lies in {path}, whose files are all read as rows; choose a file "
                "elsewhere"
            )
    if out.exists() and not files.summary.exists():
        raise ConfigError(
            f"--out: {out} exists and was not written by sft augment (no {files.summary.name} "
            "beside it); choose another name"
        )


def check_models(
    settings: AugmentSettings, endpoint: EndpointSettings | None, own_model: str | None
) -> None:
    """Raise `ConfigError` where a way needs a model and none was given, or the other way round."""
    if "paraphrase" in settings.ways and not (endpoint or own_model):
        raise ConfigError("--way paraphrase: needs a model; give --endpoint URL or --own-model")
    if "self_answer" in settings.ways and not own_model:
        raise ConfigError(
            "--way self_answer: the answers are those of the model that will be trained; give "
            "--own-model, such as --own-model starter"
        )
    if endpoint is None:
        return
    if "paraphrase" not in settings.ways:
        raise ConfigError("--endpoint: is asked for paraphrases only; add --way paraphrase")
    endpoint.api_key()  # raises where the address or the key will not do
    if endpoint.budget is not None and endpoint.prices is None:
        raise ConfigError("--budget: needs --price-per-million IN,OUT to know what requests cost")


def _show_estimate(
    endpoint: Endpoint, budget: float | None, wanted: Sequence[Wanted], show: Console
) -> Estimate:
    """What asking the endpoint will take, shown before anything is asked."""
    asked = requests_for("paraphrase", wanted).values()
    expected = endpoint.estimate([request for request in asked if isinstance(request, Request)])
    show.note(f"estimate: {expected.sentence()}")
    if budget is not None and (expected.dollars or 0.0) > budget:
        show.warn(f"the budget of ${budget:g} ends it before that")
    return expected


def _write(
    files: Files,
    new_rows: Sequence[Mapping[str, Any]],
    ledger: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
) -> None:
    """The ledger and the summary always, the rows when there are any."""
    with disk_errors(files.out):
        write_text(files.ledger, _lines(ledger))
        write_json(files.summary, summary)
        files.rejected.unlink(missing_ok=True)
        if new_rows:
            write_text(files.out, _lines(new_rows))
        else:
            files.out.unlink(missing_ok=True)
    if not new_rows:
        raise DataError(f"no new row could be made; {files.ledger} says why for each")


def _lines(records: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def result_table(by_way: Mapping[str, Mapping[str, Any]]) -> Table:
    """By way: wanted, made, dropped and why."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("way", no_wrap=True)
    for name in ("wanted", "made", "dropped"):
        table.add_column(name, justify="right")
    table.add_column("why", overflow="fold")
    for way, numbers in by_way.items():
        reasons = [f"{printable(why)}: {number:,}" for why, number in numbers["dropped"].items()]
        table.add_row(
            way,
            f"{numbers['wanted']:,}",
            f"{numbers['made']:,}",
            f"{numbers['wanted'] - numbers['made']:,}",
            Text("\n".join(reasons[:6] + (["..."] if len(reasons) > 6 else []))),
        )
    return table
