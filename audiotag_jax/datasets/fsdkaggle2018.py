"""FSDKaggle2018 (Fonseca et al., DCASE 2018), in the layout of the Kaggle competition or of the Zenodo release."""

from pathlib import Path

from audiotag_jax.datasets.folds import stratified_folds
from audiotag_jax.datasets.records import Clip, ClipSource, train_classes, validate
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.tables import parse_flag, read_table

META_DIR = "FSDKaggle2018.meta"
TRAIN_TABLES = ("train_post_competition.csv", "train.csv")
TEST_TABLES = ("test_post_competition.csv", "test_post_competition_scoring_clips.csv")
SUBMISSION_TABLE = "sample_submission.csv"


def open_fsdkaggle2018(path: str | Path, num_folds: int = 5, seed: int = 0) -> ClipSource:
    """Lists the training clips with stratified folds and the test clips, by file name.

    Test labels come from a post-competition table if their usage is Public or Private; other test clips have no
    label. Without that table the test clips are those of the sample submission, or of the audio folder.
    """
    root = Path(path)
    if not root.is_dir():
        raise UserError(
            f"FSDKaggle2018 is missing: there is no folder {root}.\n"
            "Set --config.dataset.path to its folder, or download it from Zenodo with --config.dataset.download=True."
        )
    train_table = _find_table(root, TRAIN_TABLES)
    if train_table is None:
        raise UserError(
            f"{root} has no training table of FSDKaggle2018: train.csv (Kaggle) or {META_DIR}/{TRAIN_TABLES[0]} "
            "(Zenodo).\nSet config.dataset.path to the folder with the tables and the audio folders."
        )
    clips = _train_clips(train_table, _audio_dir(root, "audio_train"), num_folds, seed) + _test_clips(root)
    return validate(ClipSource("fsdkaggle2018", train_classes(clips), tuple(clips)))


def submission_order(path: str | Path) -> tuple[str, ...]:
    """Returns the test clip ids in the order of the sample submission if there is one, else sorted."""
    table = _find_table(Path(path), (SUBMISSION_TABLE,))
    if table is None:
        return tuple(sorted(_test_labels(Path(path))))
    return _submission_ids(table)


def test_usage(path: str | Path) -> dict[str, str]:
    """Returns the challenge's leaderboard, "Public" or "Private", by id of the scored test clips; {} without a table.

    Padding clips ("Ignored") are left out. Raises UserError on a bad post-competition table.
    """
    table = _find_table(Path(path), TEST_TABLES)
    return {row["fname"]: row["usage"] for row in _test_rows(table) if _scored_label(row)} if table else {}


def is_complete(path: str | Path) -> bool:
    """Returns whether a training table and both audio folders exist, in either layout."""
    root = Path(path)
    has_audio = all(_audio_dir(root, name).is_dir() for name in ("audio_train", "audio_test"))
    return has_audio and _find_table(root, TRAIN_TABLES) is not None


def _train_clips(table: Path, audio_dir: Path, num_folds: int, seed: int) -> list[Clip]:
    rows = read_table(table, ("fname", "label", "manually_verified"))
    ids = [row["fname"] for row in rows]
    verified = [parse_flag(row["manually_verified"], table, "manually_verified", row["fname"]) for row in rows]
    folds = stratified_folds(ids, [row["label"] for row in rows], verified, num_folds, seed)
    return [
        Clip(row["fname"], str(audio_dir / row["fname"]), row["label"] or None, folds[row["fname"]], "train", checked)
        for row, checked in zip(rows, verified, strict=True)
    ]


def _test_clips(root: Path) -> list[Clip]:
    audio_dir = _audio_dir(root, "audio_test")
    return [
        Clip(name, str(audio_dir / name), label, -1, "test", label is not None)
        for name, label in _test_labels(root).items()
    ]


def _test_labels(root: Path) -> dict[str, str | None]:
    """Returns every test clip's label by id, None if it is not scored."""
    scored, submission = _find_table(root, TEST_TABLES), _find_table(root, (SUBMISSION_TABLE,))
    labels = {}
    if submission is not None:  # Zenodo's table lists only the 1,600 scored clips, a submission needs all
        labels.update(dict.fromkeys(_submission_ids(submission)))
    if scored is not None:
        labels.update((row["fname"], _scored_label(row)) for row in _test_rows(scored))
    if scored is None and submission is None:
        labels.update((file.name, None) for file in sorted(_audio_dir(root, "audio_test").glob("[!.]*.wav")))
    return labels


def _test_rows(table: Path) -> list[dict[str, str]]:
    rows = read_table(table, ("fname", "label", "usage"))
    if len({row["fname"] for row in rows}) < len(rows):
        raise UserError(f"{table} has duplicate rows: every fname must be listed once.")
    return rows


def _submission_ids(table: Path) -> tuple[str, ...]:
    ids = tuple(row["fname"] for row in read_table(table, ("fname",)))
    if len(set(ids)) < len(ids):
        raise UserError(f"{table} has duplicate rows: every fname must be listed once.")
    return ids


def _scored_label(row: dict[str, str]) -> str | None:
    return row["label"] if row["usage"] in ("Public", "Private") and row["label"] not in ("", "None") else None


def _find_table(root: Path, names: tuple[str, ...]) -> Path | None:
    candidates = (folder / name for folder in (root, root / META_DIR) for name in names)
    return next((table for table in candidates if table.is_file()), None)


def _audio_dir(root: Path, name: str) -> Path:
    """Returns Kaggle's or Zenodo's folder; Kaggle's if neither exists, since sources read no audio."""
    zenodo = root / f"FSDKaggle2018.{name}"
    return zenodo if zenodo.is_dir() and not (root / name).is_dir() else root / name
