"""`sft augment`: read rows, make new ones, write them with a ledger and a summary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from sft.augment.ask import MODEL_WAYS, Request, Writer
from sft.augment.budget import Bill, Estimate, Prices, estimate
from sft.augment.cache import Cache
from sft.augment.endpoint import Endpoint, EndpointSettings
from sft.augment.make import (
    AugmentSettings,
    Results,
    Wanted,
    make_rows,
    requests_for,
    wanted_rows,
)
from sft.config import SourceConfig
from sft.data.rows.problems import BadRows
from sft.data.rows.read import Loaded, read_conversations
from sft.disk import disk_errors, write_json, write_text
from sft.errors import ConfigError, DataError
from sft.terminal.console import Console
from sft.texts.safe import printable


@dataclass(frozen=True, slots=True)
class Models:
    """Who writes what needs a model: an endpoint, a model on this machine, or both."""

    endpoint: EndpointSettings | None = None
    prices: Prices = field(default_factory=Prices)
    budget: float | None = None  # US dollars
    own: str | None = None


@dataclass(frozen=True, slots=True)
class Files:
    """The file of new rows, and those beside it."""

    out: Path

    def _beside(self, name: str) -> Path:
        return self.out.with_name(f"{self.out.stem}.{name}")

    @property
    def ledger(self) -> Path:
        """One line for each row that was wanted."""
        return self._beside("ledger.jsonl")

    @property
    def summary(self) -> Path:
        """What was asked for, made, dropped and paid."""
        return self._beside("summary.json")

    @property
    def cache(self) -> Path:
        """Answers of models."""
        return self._beside("cache.jsonl")

    @property
    def rejected(self) -> Path:
        """The new rows, when training on them did not help."""
        return self._beside("rejected.jsonl")


def augment(
    sources: Sequence[SourceConfig],
    out: str | Path,
    settings: AugmentSettings,
    models: Models,
    show: Console,
    *,
    on_bad_row: str = "error",
    dry_run: bool = False,
) -> Files:
    """Write new rows to `out`, and a ledger and a summary beside it. Reads all rows first.

    With `dry_run` nothing is asked and nothing written: counts and cost are shown.

    Raises:
        SFTError: what was asked for cannot be done; nothing at `out` was changed.
    """
    files = Files(Path(out).expanduser())
    check_out(files, sources)
    check_models(settings, models)
    show.progress("reading")
    loaded = _read(sources, on_bad_row, show)
    rows = loaded.conversations
    wanted = wanted_rows(rows, settings)
    if not wanted:
        raise DataError("no row can be augmented: all are plain texts, or augmented already")
    show.note(f"{len(rows):,} rows read; {len(wanted):,} new rows wanted: {_shares(wanted)}")
    bill = Bill(models.prices, models.budget)
    # A dry run reads a cache that is there, and makes none.
    cached = not MODEL_WAYS.keys().isdisjoint(settings.ways)
    cached = cached and (not dry_run or files.cache.exists())
    with Cache(files.cache) if cached else nullcontext() as cache:
        expected = _show_estimate(wanted, models, cache, bill, show)
        if dry_run:
            return files
        writers = _writers(settings, models, cache, bill, show) if cache else {}
        results = make_rows(rows, wanted, settings, writers)
    show.table(result_table(results))
    if models.endpoint:
        show.note(bill.sentence())
    summary = _summary(loaded, settings, models, bill, results)
    summary["estimate"] = asdict(expected) if expected else None
    _write(files, results, summary)
    return files


def _read(sources: Sequence[SourceConfig], on_bad_row: str, show: Console) -> Loaded:
    """All rows; those that cannot be used raise, or are left out with a note."""
    loaded = read_conversations(sources, "skip")
    if loaded.num_bad and on_bad_row == "error":
        bad = BadRows("error")
        for row in loaded.bad_rows:
            bad.add(row.origin, row.reason)
        bad.raise_if_any(
            len(loaded.conversations) + loaded.num_bad,
            "Correct them, or leave them out with --on-bad-row skip",
        )
    if loaded.num_bad:
        show.note(f"{loaded.num_bad:,} rows cannot be used and are left out", level="warning")
    return loaded


def _shares(wanted: Sequence[Wanted]) -> str:
    ways = [want.way for want in wanted]
    return ", ".join(f"{way} {ways.count(way):,}" for way in dict.fromkeys(ways)) or "none"


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


def check_models(settings: AugmentSettings, models: Models) -> None:
    """Raise `ConfigError` where a way needs a model and none was given, or the other way round."""
    if "paraphrase" in settings.ways and not (models.endpoint or models.own):
        raise ConfigError("--way paraphrase: needs a model; give --endpoint URL or --own-model")
    if "self_answer" in settings.ways and not models.own:
        raise ConfigError(
            "--way self_answer: the answers are those of the model that will be trained; give "
            "--own-model, such as --own-model starter"
        )
    if models.endpoint:
        if "paraphrase" not in settings.ways:
            raise ConfigError("--endpoint: is asked for paraphrases only; add --way paraphrase")
        models.endpoint.api_key()  # raises where the address or the key will not do
    if models.budget is not None and (models.prices.sent is None or models.prices.received is None):
        raise ConfigError("--budget: needs --price-per-million IN,OUT to know what requests cost")


def _show_estimate(
    wanted: Sequence[Wanted], models: Models, cache: Cache | None, bill: Bill, show: Console
) -> Estimate | None:
    """What asking the endpoint will take, shown before anything is asked."""
    if not models.endpoint:
        return None
    asked = [
        request
        for i, request in requests_for(wanted).items()
        if wanted[i].way == "paraphrase" and isinstance(request, Request)
    ]
    new = asked
    if cache:
        endpoint = Endpoint(models.endpoint, cache, bill)
        new = [request for request in asked if not cache.get(endpoint.key_of(request))]
    expected = estimate(new, len(asked) - len(new), models.prices)
    show.note(f"estimate: {expected.sentence()}")
    if models.budget is not None and (expected.dollars or 0.0) > models.budget:
        show.note(f"the budget of ${models.budget:g} ends it before that", level="warning")
    return expected


def _writers(
    settings: AugmentSettings, models: Models, cache: Cache, bill: Bill, show: Console
) -> Mapping[str, Writer]:
    """Who writes, by way."""
    writers: dict[str, Writer] = {}
    if "paraphrase" in settings.ways and models.endpoint:
        writers["paraphrase"] = Endpoint(
            models.endpoint,
            cache,
            bill,
            lambda done, total: show.progress("asking", done, total),
        )
    missing = [way for way in settings.ways if way in MODEL_WAYS and way not in writers]
    if missing and models.own:
        from sft.augment.own_model import OwnModel

        own = OwnModel(models.own, cache, show.progress)
        writers |= dict.fromkeys(missing, own)
    return writers


def _summary(
    loaded: Loaded, settings: AugmentSettings, models: Models, bill: Bill, results: Results
) -> dict[str, Any]:
    paid = {
        "requests": bill.num_requests,
        "tokens_sent": bill.sent,
        "tokens_received": bill.received,
        "answers_without_usage": bill.num_guessed,
        "dollars": bill.dollars,
    }
    return {
        "num_rows": len(loaded.conversations),
        "num_new": len(results.rows),
        "ways": results.counts(),
        "files": dict(loaded.files),
        "settings": asdict(settings),
        "endpoint": models.endpoint.address if models.endpoint else None,
        "endpoint_model": models.endpoint.model if models.endpoint else None,
        "own_model": models.own,
        "accepted": None,
        "paid": paid if models.endpoint else None,
    }


def _write(files: Files, results: Results, summary: Mapping[str, Any]) -> None:
    """The ledger and the summary always, the rows when there are any."""
    with disk_errors(files.out):
        write_text(files.ledger, _lines(results.ledger))
        write_json(files.summary, summary)
        files.rejected.unlink(missing_ok=True)
        if results.rows:
            write_text(files.out, _lines([row.record() for row in results.rows]))
        else:
            files.out.unlink(missing_ok=True)
    if not results.rows:
        raise DataError(f"no new row could be made; {files.ledger} says why for each")


def _lines(records: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def result_table(results: Results) -> Table:
    """By way: wanted, made, dropped and why."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("way", no_wrap=True)
    for name in ("wanted", "made", "dropped"):
        table.add_column(name, justify="right")
    table.add_column("why", overflow="fold")
    for way, counts in results.counts().items():
        reasons = [f"{printable(why)}: {number:,}" for why, number in counts["dropped"].items()]
        table.add_row(
            way,
            f"{counts['wanted']:,}",
            f"{counts['made']:,}",
            f"{counts['wanted'] - counts['made']:,}",
            Text("\n".join(reasons[:6] + (["..."] if len(reasons) > 6 else []))),
        )
    return table
