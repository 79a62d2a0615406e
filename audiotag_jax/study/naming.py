"""Names of the parts of a report: its blocks of clips, its metrics, its p values."""

from collections.abc import Sequence

from audiotag_jax.evaluation import metrics
from audiotag_jax.evaluation.intervals import LEVEL


def blocks(scores: dict) -> list[tuple[str, str]]:
    """The parts and choices of clips that the rows cover, in their order."""
    return list(dict.fromkeys((row["part"], row["clips"]) for row in scores["rows"]))


def single_rows(scores: dict) -> list[dict]:
    """The rows of the variants by themselves."""
    return [row for row in scores["rows"] if row["kind"] == "single"]


def block_name(part: str, clips: str, num_clips: int) -> str:
    """Such as "Held-out clips, all 400" or "Test clips, the 301 Public ones"."""
    whose = "Held-out clips" if part == "held out" else "Test clips"
    words = [part.title()] if part in ("public", "private") else []
    words += ["verified"] if clips == "verified" else []
    return f"{whose}, the {num_clips:,} {' '.join(words)} ones" if words else f"{whose}, all {num_clips:,}"


def resampled(scores: dict) -> str:
    """What the bootstrap draws: "recordings" where any gave several clips, else "clips"."""
    several = any(row["num_recordings"] < row["num_clips"] for row in scores["rows"])
    return "recordings" if several else "clips"


def metric_named(name: str) -> metrics.Metric:
    """The metric of that name."""
    return next(each for each in metrics.METRICS if each.name == name)


def p_text(p: float) -> str:
    """p to three places, "< 0.001" below that, and "< 0.05" where rounding would hide that it is."""
    if p < 0.001:
        return "< 0.001"
    return "< 0.05" if p < LEVEL <= round(p, 3) else f"{p:.3f}"


def listed(names: Sequence[str]) -> str:
    """Such as "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
