"""`CheckReport`: all that `sft check` found, as plain data for the terminal, the page and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sft.curate.finding import DataFinding
from sft.data.lengths import Lengths
from sft.data.template.pieces import Piece
from sft.runs.account import AccountLine


@dataclass(frozen=True, slots=True)
class RowView:
    """One row as the model sees it. `serving` compares its prompt with what is sent when serving.

    `serving` is empty when they are equal token by token, else it says where they differ; None
    when they were not compared.
    """

    id: str
    num_tokens: int
    num_trained: int
    pieces: tuple[Piece, ...]
    serving: str | None = None


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was found. Parts that were not measured are None or empty, and `notes` says why.

    `facts` are lines for a table (name, value): template, stop token, steps, epochs. `estimate` is
    the same for time, memory and disk. `topics` are instruction clusters: name, rows, share,
    example places. `usage` is the part `usage` of `preflight.json`. `suspicious` are rows with
    the reason and the figures, the most suspicious first. `checks` names the checks that ran,
    those that found nothing included.
    """

    title: str
    num_rows: int
    account: tuple[AccountLine, ...]
    findings: tuple[DataFinding, ...]
    lengths: Lengths | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    estimate: Mapping[str, str] = field(default_factory=dict)
    diversity: Mapping[str, str] = field(default_factory=dict)
    topics: tuple[Mapping[str, Any], ...] = ()
    usage: Mapping[str, Any] | None = None
    suspicious: tuple[Mapping[str, Any], ...] | None = None
    views: tuple[RowView, ...] = ()
    notes: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
