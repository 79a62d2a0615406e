"""Forest plots of a page: places in percent of the width, so that they fill any screen without a script."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from audiotag_jax.evaluation import metrics
from audiotag_jax.study.charts import signed
from audiotag_jax.study.pictures import round_ticks
from audiotag_jax.study.verdict import is_real

_MARGIN = 0.04  # of the width, beyond the farthest limits
_TICKS = 8


def forest(differences: Sequence[Mapping], metric: metrics.Metric, limits: tuple[float, float]) -> dict[str, Any]:
    """What the macro `forest` draws of paired differences as `study_scores` gives them, on a scale of these limits."""
    low, high = limits

    def place(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}"

    rows = []
    for each in differences:
        value, least, most = (signed(each[key], 3) for key in ("value", "low", "high"))
        places = {key: place(each[key]) for key in ("low", "value", "high")}
        rows.append({"name": each["variant"], "text": f"{value} [{least}, {most}]", "sure": is_real(each), **places})
    left, right = ("← better", "worse →") if metric.lower_is_better else ("← worse", "better →")
    return {
        "title": f"difference in {metric.label_in_text} to {differences[0]['baseline']}",
        "rows": rows,
        "zero": place(0.0),
        "ticks": [(f"{tick:g}".replace("-", "−"), place(tick)) for tick in round_ticks(low, high, _TICKS)],
        "left": left,
        "right": right,
    }


def shared_limits(differences: Sequence[Mapping]) -> dict[str, tuple[float, float]]:
    """By metric the limits of a scale for all these differences, 0 among them."""
    found = {}
    for name in dict.fromkeys(each["score"] for each in differences):
        values = [each[key] for each in differences if each["score"] == name for key in ("low", "value", "high")]
        low, high = min(0.0, *values), max(0.0, *values)
        margin = _MARGIN * (high - low) or 0.01
        found[name] = (float(np.float64(low - margin)), float(np.float64(high + margin)))
    return found
