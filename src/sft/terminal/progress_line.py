"""The line that shows how a run goes: the progress of rich, with the columns that have room."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID
from rich.table import Table
from rich.text import Text

from sft.runs.metrics import METRICS, Metric
from sft.texts.safe import printable

BARS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 24
# The narrowest terminals with so many bars of a sparkline: fewer than eight are of no use.
_SPARK_FROM = ((150, 24), (130, 16), (72, 8))
BAR_FROM, _BAR_WIDTH = 120, 10  # columns
_GAP = 2  # columns between two
_MOST_MEANS = 960
_SPEED_OVER = 3600.0  # seconds over which the speed is taken: evaluations and checkpoints count
KNOWN_AFTER, KNOWN_AFTER_IF_SHORT, SHORT = 10, 3, 30  # steps before a time left is shown


def sparkline(values: Sequence[float], width: int = SPARK_WIDTH) -> str:
    """The values as bars, averaged into at most `width` of them."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    size = -(-len(finite) // width)
    means = [
        sum(finite[i : i + size]) / len(finite[i : i + size]) for i in range(0, len(finite), size)
    ]
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in means)


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def rough_duration(seconds: float) -> str:
    """`41 min`, `5 h 12 min`."""
    hours, minutes = divmod(max(1, round(seconds / 60)), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


class Curve:
    """All values so far as at most `_MOST_MEANS` means, each of equally many of them."""

    def __init__(self) -> None:
        self.means: list[float] = []
        self._each = 1
        self._open: list[float] = []

    def add(self, value: float) -> None:
        """One more value; what is not finite is left out."""
        if not math.isfinite(value):
            return
        self._open.append(value)
        if len(self._open) < self._each:
            return
        self.means.append(sum(self._open) / self._each)
        self._open.clear()
        if len(self.means) == _MOST_MEANS:
            pairs = zip(self.means[::2], self.means[1::2], strict=True)
            self.means = [(a + b) / 2 for a, b in pairs]
            self._each *= 2


class Field(ProgressColumn):
    """`label value`, of what the run last recorded; empty where that was not measured.

    Where there is no room for all columns, those of a high `rank` are left out.
    """

    def __init__(self, rank: int, label: str, value: Callable[[Task], str]) -> None:
        super().__init__()
        self.rank = rank
        self._label, self._value = label, value

    def render(self, task: Task) -> Text:
        """The label dim, the value plain."""
        value = self._value(task)
        label = f"{self._label} " if value and self._label else ""
        text = Text(no_wrap=True, overflow="ellipsis")
        return text.append(label, style="dim").append(value)


def _field(metric: Metric) -> Field:
    """The value of the newest step; a count has its unit behind it."""
    unit = f" {metric.label}" if metric.format == "count" else ""
    form = ",.0f" if unit else ".4f" if metric.unit.startswith("nats") else ".3g"

    def value(task: Task) -> str:
        number = task.fields["record"].get(metric.name)
        return "" if number is None else f"{number:{form}}{unit}"

    return Field(metric.live, "" if unit else metric.label, value)


def _loss(task: Task) -> str:
    """The newest, and all so far as a sparkline, which keeps its room while it grows."""
    width, losses = task.fields["spark_width"], task.fields["losses"].means
    bars = f" {sparkline(losses, width):<{width}}" if width else ""
    return f"{task.fields['record']['loss']:.4f}{bars}"


def _val_loss(task: Task) -> str:
    now = task.fields["evaluation"].get("val_loss")
    before = task.fields["evaluation_before"].get("val_loss")
    if now is None:
        return ""
    trend = "" if before is None or now == before else " ↓" if now < before else " ↑"
    return f"{now:.4f}{trend}"


def seconds_left(task: Task) -> float | None:
    """Seconds to the end; None while it is too early to tell, or over."""
    total = task.total or 0
    known = KNOWN_AFTER if total >= SHORT else KNOWN_AFTER_IF_SHORT
    if task.fields["num_steps"] < known or task.completed >= total or not task.speed:
        return None
    return (total - task.completed) / task.speed


def _time_left(task: Task) -> str:
    left = seconds_left(task)
    return "" if left is None else duration(left)


_FIELDS = (
    Field(0, "step", lambda task: f"{task.completed:,.0f}/{task.total or 0:,.0f}"),
    Field(1, "loss", _loss),
    Field(3, "val", _val_loss),
    *(_field(m) for m in METRICS.values() if m.of == "step" and m.live and m.name != "loss"),
    Field(2, "ETA", _time_left),
)
_BAR = BarColumn(_BAR_WIDTH)


class ProgressLine(Progress):
    """One line: what is being done before and between steps, or how the steps go."""

    def __init__(self, console: Console) -> None:
        super().__init__(
            console=console,
            auto_refresh=False,
            transient=True,
            # Rich would take standard output, too, where that is a file.
            redirect_stdout=False,
            redirect_stderr=False,
            speed_estimate_period=_SPEED_OVER,
            get_time=lambda: time.monotonic(),
        )
        self.phase = ""
        self._id = TaskID(0)
        self.add_task("", total=0)
        self.begin(0)

    def begin(self, num_steps: int) -> None:
        """Training begins, of `num_steps` in the whole run."""
        self.reset(
            self._id,
            total=num_steps,
            record={},
            losses=Curve(),
            evaluation={},
            evaluation_before={},
            num_steps=0,
            spark_width=0,
        )

    @property
    def task(self) -> Task:
        """The steps, and in its fields what they recorded."""
        return self._tasks[self._id]

    def step(self, record: Mapping[str, Any]) -> None:
        """One more step."""
        fields = self.task.fields
        fields["losses"].add(record["loss"])
        seen = fields["num_steps"] + 1
        self.update(self._id, completed=record["step"], record=record, num_steps=seen)

    def evaluate(self, record: Mapping[str, Any]) -> None:
        """One more evaluation."""
        before = self.task.fields["evaluation"]
        self.update(self._id, evaluation=record, evaluation_before=before)

    def get_renderables(self) -> Iterable[RenderableType]:
        """What is drawn."""
        if not self._tasks:  # rich asks while it is being made
            return
        task = self.task
        if task.fields.get("record") and not self.phase:
            yield self._fitted(task)
            return
        text = printable(self.phase)
        if task.fields.get("record") and not task.finished:
            text = f"{_FIELDS[0].render(task)}  {text}"
        yield Text(text, style="dim", no_wrap=True, overflow="ellipsis")

    def _fitted(self, task: Task) -> RenderableType:
        """As many fields as there is room for; a line never breaks."""
        width = self.console.width
        task.fields["spark_width"] = next((n for least, n in _SPARK_FROM if width >= least), 0)
        room = width - (_BAR_WIDTH + _GAP if width >= BAR_FROM else 0)
        cells = {field: text for field in _FIELDS if (text := field.render(task)).plain}
        while len(cells) > 1 and sum(t.cell_len + _GAP for t in cells.values()) - _GAP > room:
            del cells[max(cells, key=lambda field: field.rank)]
        step, *others = cells.values()
        row = Table.grid(padding=(0, _GAP, 0, 0), pad_edge=False)
        row.add_row(step, *([_BAR.render(task)] if width >= BAR_FROM else []), *others)
        return row

    def plain(self) -> str:
        """The line for a log: all there is, but no bar."""
        self.task.fields["spark_width"] = SPARK_WIDTH
        cells = [field.render(self.task).plain.rstrip() for field in _FIELDS]
        return (" " * _GAP).join(filter(None, cells))
