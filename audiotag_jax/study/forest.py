"""Forest plots of a page: places in percent of the width, so that they fill any screen without a script."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from audiotag_jax.evaluation import metrics
from audiotag_jax.study.charts import signed
from audiotag_jax.study.pictures import round_ticks
from audiotag_jax.study.verdict import is_real

_MARGIN = 0.04  # of the width, beyond the farthest limits
_TICKS = 8


def forest(differences: Sequence[Mapping], metric: metrics.Metric, limits: tuple[float, float]) -> dict[str, Any]:
    """Returns what the macro `forest` draws of the paired differences of `study_scores`, on a scale of these limits."""
    title = f"difference in {metric.label_in_text} to {differences[0]['baseline']}"
    rows = [(each["variant"], each, is_real(each)) for each in differences]
    return plot(rows, title, limits, lower_is_better=metric.lower_is_better)


def plot(
    rows: Sequence[tuple[str, Mapping, bool]], title: str, limits: tuple[float, float], *, lower_is_better: bool = False
) -> dict[str, Any]:
    """Returns what the macro draws of rows: a name, a mapping with `value`, `low`, `high`, and whether it is filled."""
    low, high = limits

    def place(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}"

    drawn = []
    for name, each, sure in rows:
        value, least, most = (signed(each[key], 3) for key in ("value", "low", "high"))
        places = {key: place(each[key]) for key in ("low", "value", "high")}
        drawn.append({"name": name, "text": f"{value} [{least}, {most}]", "sure": sure, **places})
    left, right = ("← better", "worse →") if lower_is_better else ("← worse", "better →")
    return {
        "title": title,
        "rows": drawn,
        "zero": place(0.0),
        "ticks": [(f"{tick:g}".replace("-", "−"), place(tick)) for tick in round_ticks(low, high, _TICKS)],
        "left": left,
        "right": right,
    }


def limits_of(differences: Iterable[Mapping]) -> tuple[float, float]:
    """Returns the limits (low, high) of a scale for all these differences, 0 among them."""
    values = [each[key] for each in differences for key in ("low", "value", "high")]
    low, high = min(0.0, *values), max(0.0, *values)
    margin = _MARGIN * (high - low) or 0.01
    return float(np.float64(low - margin)), float(np.float64(high + margin))


def shared_limits(differences: Sequence[Mapping]) -> dict[str, tuple[float, float]]:
    """Returns by metric the `limits_of` its differences."""
    names = dict.fromkeys(each["score"] for each in differences)
    return {name: limits_of(each for each in differences if each["score"] == name) for name in names}
