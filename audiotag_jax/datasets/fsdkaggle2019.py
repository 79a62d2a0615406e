"""FSDKaggle2019 (Fonseca et al., DCASE 2019), in the layout of the Kaggle competition or of the Zenodo release.

80 classes, several labels a clip: 4,970 curated training clips, whose labels people have checked, 19,815 noisy ones,
and 4,481 test clips. The score of the challenge is lwlrap. Columns, by the release's FSDKaggle2019.doc/README.md:
fname, labels, then freesound_id (curated and test clips) or flickr_video_URL (noisy ones), and license; of test clips
also usage (Public or Private). Kaggle's tables have fname and labels alone.
"""

from pathlib import Path

from audiotag_jax.datasets.folds import multi_label_folds
from audiotag_jax.datasets.records import Clip, ClipSource, train_classes, validate
from audiotag_jax.evaluation.task import MULTI_LABEL
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.tables import read_table

URL = "https://doi.org/10.5281/zenodo.3612637"
META_DIR = "FSDKaggle2019.meta"
CURATED, NOISY = "train_curated", "train_noisy"
# Curated clips that "have a wrong label, due to a bug in the file renaming process" (same README): not verified here.
WRONG_LABELS = ("f76181c4.wav", "77b925c2.wav", "6a1f682a.wav", "c7db12aa.wav", "7752cc8a.wav")
TEST_TABLE, SUBMISSION_TABLE = "test_post_competition.csv", "sample_submission.csv"


def open_fsdkaggle2019(path: str | Path, num_folds: int = 5, seed: int = 0) -> ClipSource:
    """Lists the curated clips (verified but for five), the noisy ones where their table is there, and the test clips.

    Folds spread every label evenly; clips of one Flickr video share a fold. Without a table of their labels, the test
    clips are those of the sample submission. Raises UserError where the curated table is missing or a table is bad.
    """
    root = Path(path)
    if _train_table(root, CURATED) is None:
        raise UserError(
            f"FSDKaggle2019 is missing: {root} has neither {CURATED}.csv (Kaggle) nor "
            f"{META_DIR}/{CURATED}_post_competition.csv (Zenodo).\n"
            f"Get it from {URL}, unpack it (the noisy part is a split archive: zip -s 0 joins it), and set "
            "config.dataset.path to its folder."
        )
    train = _train_clips(root, num_folds, seed)
    clips = (*train, *_test_clips(root))
    return validate(ClipSource("fsdkaggle2019", _classes(root, train), clips, task=MULTI_LABEL.name))


def submission_order(path: str | Path) -> tuple[str, ...]:
    """Returns the test clip ids in the order of the sample submission if there is one, else sorted."""
    table = _find(Path(path), SUBMISSION_TABLE)
    if table is None:
        return tuple(sorted(clip.id for clip in _test_clips(Path(path))))
    return tuple(row["fname"] for row in read_table(table, ("fname",)))


def _train_clips(root: Path, num_folds: int, seed: int) -> list[Clip]:
    clips = []
    for name in (CURATED, NOISY):
        table = _train_table(root, name)
        for row in read_table(table, ("fname", "labels")) if table else ():
            path = str(_audio_dir(root, name) / row["fname"])
            video = row.get("flickr_video_URL", "")
            verified = name == CURATED and row["fname"] not in WRONG_LABELS
            clips.append(Clip(row["fname"], path, None, -1, "train", verified, video, _labels(row["labels"])))
    ids, labels = [clip.id for clip in clips], [clip.all_labels for clip in clips]
    folds = multi_label_folds(ids, labels, num_folds, seed, [clip.recording for clip in clips])
    return [
        Clip(clip.id, clip.path, None, folds[clip.id], "train", clip.verified, clip.recording, clip.labels)
        for clip in clips
    ]


def _test_clips(root: Path) -> list[Clip]:
    scored, submission = _find(root, TEST_TABLE), _find(root, SUBMISSION_TABLE)
    labels: dict[str, tuple[str, ...] | None] = {}
    if submission is not None:
        labels.update((row["fname"], None) for row in read_table(submission, ("fname",)))
    if scored is not None:
        labels.update((row["fname"], _labels(row["labels"])) for row in read_table(scored, ("fname", "labels")))
    folder = _audio_dir(root, "test")
    return [Clip(name, str(folder / name), None, -1, "test", own is not None, "", own) for name, own in labels.items()]


def _classes(root: Path, train: list[Clip]) -> tuple[str, ...]:
    """Returns the classes in the order of the sample submission's columns; sorted if there is no such table."""
    classes, table = train_classes(train), _find(root, SUBMISSION_TABLE)
    if table is None:
        return classes
    columns = tuple(column for column in read_table(table, ("fname",))[0] if column != "fname")
    if set(columns) != set(classes):
        odd = sorted(set(columns) ^ set(classes))
        raise UserError(f"{table}: its columns and the labels of the training clips differ in {odd[0]!r}.")
    return columns


def _labels(text: str) -> tuple[str, ...]:
    return tuple(sorted(set(text.split(",")) - {""}))


def _train_table(root: Path, name: str) -> Path | None:
    return _find(root, f"{name}_post_competition.csv") or _find(root, f"{name}.csv")


def _find(root: Path, name: str) -> Path | None:
    return next((folder / name for folder in (root, root / META_DIR) if (folder / name).is_file()), None)


def _audio_dir(root: Path, name: str) -> Path:
    zenodo = root / f"FSDKaggle2019.audio_{name}"
    return zenodo if zenodo.is_dir() and not (root / name).is_dir() else root / name
