"""The flags of the modes that take options in place of settings: predict, embed, export and compare."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.paths import check_path, check_written_path

if TYPE_CHECKING:
    from audiotag_jax.settings.settings import Settings

TAGGER = flags.DEFINE_string(
    "tagger", "", "predict, embed: in place of --workdir's run, yamnet (downloaded), its weights, or another run"
)
_FOLD = flags.DEFINE_integer("fold", None, "embed: fold whose network is used; by default the first", lower_bound=0)
AUDIO = flags.DEFINE_multi_string("audio", [], "predict, embed: a recording or a folder of them; may be given again")
_TOP = flags.DEFINE_integer("top", 3, "predict: tags a recording", lower_bound=1)
_THRESHOLD = flags.DEFINE_float(
    "threshold",
    None,
    "predict: least probability of a tag, else it is none of these; by default 0, with several labels by class",
    0.0,
    1.0,
)
_HOP_S = flags.DEFINE_float(
    "hop_s",
    0.0,
    "predict, embed: seconds from window to window; 0: a clip's length, with --events a quarter, of yamnet less",
    lower_bound=0.0,
)
_OUT = flags.DEFINE_string(
    "out", None, "predict, embed, export: folder of what is written; by default in the work directory"
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "predict, embed: replace what an earlier call wrote")
_FORMAT = flags.DEFINE_list("format", [], "predict: also audacity (label tracks), raven (selection tables), or both")
_EVENTS = flags.DEFINE_bool(
    "events", False, "predict: also when tags sound: onsets and offsets, as the flags below set"
)
_ON = flags.DEFINE_float(
    "on_threshold", None, "predict: probability that an event reaches; by default 0.5, or the class's own", 0.0, 1.0
)
_OFF = flags.DEFINE_float(
    "off_threshold", None, "predict: probability below which an event ends; by default half of --on_threshold", 0.0, 1.0
)
_SMOOTH = flags.DEFINE_integer("smooth_windows", None, "predict: windows smoothed together", lower_bound=1)
_SMOOTHING = flags.DEFINE_enum("smoothing", None, ["median", "mean"], "predict: how; by default by the median")
_MIN_DURATION_S = flags.DEFINE_float("min_duration_s", None, "predict: shortest event", lower_bound=0.0)
_MIN_GAP_S = flags.DEFINE_float("min_gap_s", None, "predict: shortest gap between events of a tag", lower_bound=0.0)
_REFERENCE = flags.DEFINE_string(
    "reference", None, "predict: CSV of file, onset_s, offset_s and label, to compare events with"
)
_COLLARS_S = flags.DEFINE_list(
    "collar_s", None, "predict: how far onsets may differ from those of --reference; by default 0.2,0.5"
)

_RUNS = flags.DEFINE_multi_string("runs", [], "compare: work directories, as [NAME=]DIR[,…]; may be given again")
_PREDICTIONS = flags.DEFINE_multi_string(
    "predictions", [], "compare: [NAME=]FILE, .npz or .csv, or a data set's folder in a study; may be given again"
)
_LABELS = flags.DEFINE_string("labels", None, "compare: CSV of id and label, in place of those of the runs")
_BASELINE = flags.DEFINE_string("baseline", "", "compare: what the others are compared with; by default the first")
_AVERAGE = flags.DEFINE_multi_string("average", [], "compare: NAME+NAME to be averaged; may be given again")
_SCORE = flags.DEFINE_string("score", "", "compare: that the report begins with, such as accuracy")


def check_paths(rest: Sequence[str] = ()) -> None:
    """Raises UserError for an empty path, as from an unset variable, and for one that is not local.

    `rest` are the arguments without a flag, which are recordings.
    """
    if _OUT.value is not None:
        check_written_path("--out", _OUT.value)
    for path in (*AUDIO.value, *rest):
        check_path("--audio", path)
    for flag in (_LABELS, _REFERENCE):
        if flag.value is not None:
            check_path(f"--{flag.name}", flag.value)


def _listed(names: str) -> list[str]:
    """Splits a list at its commas, unless it is the path of a folder with commas in its name."""
    with contextlib.suppress(OSError):  # of a list that is too long for a path
        if Path(names).exists():
            return [names]
    return names.split(",")


def options(mode: str, argv: list[str], settings: "Settings | None") -> dict:
    """Returns the keyword arguments of the `run` of a mode that takes no settings."""
    if mode == "report":
        return {}
    if mode == "compare":
        return {
            "runs": [one for each in _RUNS.value for one in _listed(each)],
            "predictions": _PREDICTIONS.value,
            "labels": Path(_LABELS.value) if _LABELS.value else None,
            "baseline": _BASELINE.value,
            "averages": _AVERAGE.value,
            "score": _SCORE.value,
        }
    found: dict[str, Any] = {"out": Path(_OUT.value) if _OUT.value else None}
    if mode in ("predict", "embed"):
        found |= {"audio": [*AUDIO.value, *argv[1:]], "hop_s": _HOP_S.value, "tagger": TAGGER.value}
        found |= {"overwrite": _OVERWRITE.value}
    if mode == "predict":
        found |= {"top": _TOP.value, "threshold": _THRESHOLD.value, "formats": _FORMAT.value, **_event_options()}
    if mode == "embed":
        found |= {"fold": _FOLD.value, "settings": settings}
    return found


def _event_options() -> dict:
    """Returns the options of events; none without any of their flags."""
    given: dict[str, Any] = {
        flag.name: flag.value for flag in (_ON, _OFF, _SMOOTH, _SMOOTHING, _MIN_DURATION_S, _MIN_GAP_S)
    }
    given = {name: value for name, value in given.items() if value is not None}
    if _COLLARS_S.value and not _REFERENCE.value:
        raise UserError("--collar_s is how far events may differ from those of --reference: name that table, too.")
    if not (given or _EVENTS.value or _REFERENCE.value):
        return {}
    from audiotag_jax.inference.events import EventOptions  # it loads JAX, which --help does not need

    try:
        events = EventOptions(**given)
    except ValueError as error:
        raise UserError(f"Events: {error}.") from error
    found: dict[str, Any] = {"events": events, "reference": Path(_REFERENCE.value) if _REFERENCE.value else None}
    if _COLLARS_S.value is not None:
        try:
            found["collars_s"] = [float(each) for each in _COLLARS_S.value]
        except ValueError as error:
            raise UserError(f"--collar_s={','.join(_COLLARS_S.value)}: numbers of seconds are needed.") from error
    return found
