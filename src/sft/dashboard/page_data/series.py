"""Lines for charts: metrics of steps, thinned and smoothed, and those of evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from sft.dashboard.page_data.query import between, choice, decimal
from sft.runs.metrics import panels
from sft.runs.run_dir import RunDir
from sft.runs.series import AXES, MAX_SMOOTH, Axis, eval_names, series_of

_MOST_NAMES = 64


def main_metrics() -> list[str]:
    """The metrics of steps that have a chart of their own."""
    charts = panels().values()
    return [metrics[0].name for metrics in charts if metrics[0].of == "step"]


def series(run: RunDir, query: Mapping[str, str]) -> dict[str, Any]:
    """The metrics `names` (comma-separated) over `x`, from `from` to `to`.

    Without names, the main metrics of steps and all of evaluations. `width` is that of the chart in
    points, `smooth` the weight of what came before (0 to 0.999).

    Raises:
        ConfigError: `x` is no axis, or a number is none.
    """
    recorded = series_of(run)
    x = cast(Axis, choice(query, "x", list(AXES)))
    low, high = decimal(query, "from"), decimal(query, "to")
    width = int(between(query, "width", 1200, 10, 5000))
    smooth = between(query, "smooth", 0.0, 0.0, MAX_SMOOTH)
    of_steps, of_evals = set(recorded.names("steps")), eval_names(recorded)
    asked = [name for name in query.get("names", "").split(",") if name][:_MOST_NAMES]
    lines = asked or [name for name in main_metrics() if name in of_steps]
    points = [name for name in of_evals if name in asked or not asked]
    return {
        "x": x,
        "total": recorded.num_steps,
        "series": {
            name: recorded.points(name, x, low, high, width, smooth).record()
            for name in lines
            if name in of_steps or name not in of_evals
        },
        "evaluations": {
            name: _bare(recorded.points(name, x, low, high, width, of="evaluations").record())
            for name in points
        },
    }


def _bare(record: dict[str, Any]) -> dict[str, Any]:
    return {name: values for name, values in record.items() if name != "smooth"}
