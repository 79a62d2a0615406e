"""The records that every clip source yields, and the checks that every source must pass."""

from collections import Counter
from dataclasses import dataclass, field

from audiotag_jax.evaluation.submission import check_classes
from audiotag_jax.evaluation.task import MULTI_LABEL, SINGLE_LABEL
from audiotag_jax.runtime.errors import UserError

SPLITS = ("train", "test")
LEFT_OUT, SILENCE, KEPT = "left out", "kept as silence", "kept"  # what became of a recording with a problem


@dataclass(frozen=True)
class Clip:
    """One sound file: `label` is None where the clip is not scored, `fold` is -1 for test clips.

    `recording` names the recording it was cut from, if several clips may share one; else it is empty. Of a source whose
    clips have any number of labels, `labels` has those of the clip, sorted, or is None where it is not scored, and
    `label` is None.
    """

    id: str
    path: str
    label: str | None
    fold: int
    split: str
    verified: bool
    recording: str = ""
    labels: tuple[str, ...] | None = None

    @property
    def all_labels(self) -> tuple[str, ...]:
        """The label, or all of them; empty without any."""
        if self.labels is not None:
            return self.labels
        return () if self.label is None else (self.label,)


@dataclass(frozen=True)
class ClipSource:
    """The classes, in the order of the logits, and the clips, sorted by split and id.

    `fold_names` are what the data call the folds 0, 1, …; without them the numbers are their names. `notes` are lines
    for the user: what was left out, and labels that look like mistakes. `task` is single_label or multi_label.
    """

    name: str
    classes: tuple[str, ...]
    clips: tuple[Clip, ...]
    fold_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)
    task: str = SINGLE_LABEL.name

    def __post_init__(self):
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "clips", tuple(sorted(self.clips, key=lambda clip: (clip.split, clip.id))))

    def clips_of(self, split: str) -> list[Clip]:
        """Returns the clips of a split, in their order."""
        return [clip for clip in self.clips if clip.split == split]


def train_classes(clips: list[Clip]) -> tuple[str, ...]:
    """Returns the sorted labels of the training clips, the classes of sources that list none."""
    return tuple(sorted({label for clip in clips if clip.split == "train" for label in clip.all_labels}))


def validate(source: ClipSource) -> ClipSource:
    """Returns `source` unchanged, or raises UserError: no clips, a duplicate id, a bad label, split or fold."""
    name = source.name
    train = [clip for clip in source.clips if clip.split == "train"]
    if not source.clips:
        raise UserError(f"{name}: empty table, no clips.")
    if not train:
        raise UserError(f"{name}: no training clips, only {len(source.clips)} test clips.")
    duplicates = sorted(key for key, count in Counter(clip.id for clip in source.clips).items() if count > 1)
    if duplicates:
        given = sorted({" and ".join(clip.all_labels) or "none" for clip in source.clips if clip.id == duplicates[0]})
        labels = f" (labels {', '.join(given)})" if len(given) > 1 else ""
        raise UserError(f"{name}: duplicate clip id {_some(duplicates)}{labels}; every clip must be listed once.")
    if twice := sorted(each for each, count in Counter(source.classes).items() if count > 1):
        raise UserError(f"{name}: class {_some(twice)} is listed more than once.")
    if len(source.classes) < 2:
        raise UserError(f"{name}: at least 2 distinct classes are needed, found {_some(source.classes) or 'none'}.")
    odd = [label for label in source.classes if label != label.strip() or not label.isprintable()]
    if odd:
        raise UserError(f"{name}: label {odd[0]!r} has blanks at its ends or characters that cannot be printed.")
    if len(train) < len(source.clips) and not is_multi_label(source):  # test clips: the run ends with a submission
        check_classes(source.classes)
    classes = frozenset(source.classes)
    for clip in source.clips:
        _validate_clip(source, classes, clip)
    folds = sorted({clip.fold for clip in train})
    if len(folds) < 2:
        raise UserError(f"{name}: all training clips are in a single fold; at least 2 folds are needed.")
    if folds != list(range(len(folds))):
        raise UserError(f"{name}: folds must be numbered 0 to {len(folds) - 1} without gaps, found {_some(folds)}.")
    return source


def is_multi_label(source: ClipSource) -> bool:
    """Returns whether a clip may have any number of labels."""
    return source.task == MULTI_LABEL.name


def is_labelled(clip: Clip) -> bool:
    """Returns whether the labels of a clip are known; that it has none of the classes may be known, too."""
    return clip.label is not None or clip.labels is not None


def fold_name(source: ClipSource, fold: int) -> str:
    """Returns what the data call a fold."""
    return source.fold_names[fold] if source.fold_names else str(fold)


def check_recordings(source: ClipSource) -> ClipSource:
    """Returns `source` unchanged, or raises UserError if the clips of a recording are in several folds.

    For users' own tables: official folds are used as published (ESC-50's separate four recordings of two classes).
    """
    fold_of: dict[str, int] = {}
    for clip in source.clips:
        if clip.recording and fold_of.setdefault(clip.recording, clip.fold) != clip.fold:
            folds = (fold_of[clip.recording], clip.fold)
            places = [f"fold {fold_name(source, fold)}" if fold >= 0 else "the test set" for fold in folds]
            raise UserError(
                f"{source.name}: recording '{clip.recording}' has clips in {' and '.join(places)}, so one "
                "would be trained on and the other scored; put all of them in one fold."
            )
    return source


def _validate_clip(source: ClipSource, classes: frozenset[str], clip: Clip) -> None:
    where = f"{source.name}: clip '{clip.id}'"
    if not clip.id:
        raise UserError(f"{source.name}: a clip with label '{clip.label}' has no file name.")
    if clip.split not in SPLITS:
        raise UserError(f"{where} has split '{clip.split}'; choose from {', '.join(SPLITS)}.")
    if clip.split == "train" and (clip.labels if is_multi_label(source) else clip.label) is None:
        raise UserError(f"{where} is a training clip without a label; only test clips may have none.")
    unknown = next((label for label in clip.all_labels if label not in classes), None)
    if unknown is not None:
        raise UserError(
            f"{where} has label '{unknown}', which is not among the {len(source.classes)} classes "
            f"({_some(source.classes)}).\nCorrect the label in the table, or leave it empty for an unscored test clip."
        )
    if clip.split == "train" and clip.fold < 0:
        raise UserError(f"{where} is a training clip without a fold.")
    if clip.split == "test" and clip.fold != -1:
        raise UserError(f"{where} is a test clip in fold {clip.fold}; only training clips have folds.")


def _some(values, limit: int = 5) -> str:
    """Returns the first few values as text, and how many more there are."""
    shown = ", ".join(str(value) for value in values[:limit])
    return shown + (f", and {len(values) - limit} more" if len(values) > limit else "")
