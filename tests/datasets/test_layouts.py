"""Layouts of a user's folder, labels that are spelled in several ways, names of folds, and what is left out."""

import os
import unicodedata

import pytest

from audiotag_jax.audio import files
from audiotag_jax.datasets import contents, prepare
from audiotag_jax.datasets.folds import number_folds
from audiotag_jax.datasets.records import Clip, ClipSource, check_recordings
from audiotag_jax.datasets.sources import open_source
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.settings import parse_settings
from configs import log_db


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def opened(root, **options):
    return open_source("folder", root, **{"num_folds": 2, **options})


def places(source):
    return {clip.id: (clip.label, clip.split, clip.fold) for clip in source.clips}


def fails(root, match, **options):
    with pytest.raises(UserError, match=match) as caught:
        opened(root, **options)
    assert len(str(caught.value).splitlines()) <= 2


def test_folders_of_splits(tmp_path):
    make(tmp_path, "Train/dog/a.wav", "Train/dog/b.wav", "Train/rain/c.wav", "Train/rain/d.wav")
    make(tmp_path, "test/dog/a.wav", "test/unknown.wav")
    source = opened(tmp_path)
    assert source.classes == ("dog", "rain")
    found = places(source)
    assert found["test/dog/a.wav"] == ("dog", "test", -1)
    assert found["test/unknown.wav"] == (None, "test", -1)
    assert {fold for _, split, fold in found.values() if split == "train"} == {0, 1}
    make(tmp_path, "Train/loose.wav")
    fails(tmp_path, r"Train has recordings outside a label's folder, such as loose\.wav.*\n.*Train/LABEL/\*\.wav")


def test_a_test_folder_with_an_unknown_label_is_an_error(tmp_path):
    make(tmp_path, "train/dog/a.wav", "train/rain/b.wav", "test/cow/c.wav")
    fails(tmp_path, "'test/cow/c.wav' has label 'cow', which is not among the 2 classes")


def test_a_label_may_be_named_train(tmp_path):
    make(tmp_path, "train/a.wav", "bus/b.wav")
    assert opened(tmp_path).classes == ("bus", "train")


def test_a_third_part_is_refused(tmp_path):
    make(tmp_path, "train/dog/a.wav", "val/dog/b.wav", "test/dog/c.wav")
    fails(tmp_path, r"folders test, train, val: folds are made .*\n.*Move val into .*columns split and fold")


@pytest.mark.parametrize("second", ["test", "val"])
def test_labels_beside_folders_of_splits_are_refused(tmp_path, second):
    """They would make the splits classes."""
    make(tmp_path, "train/dog/a.wav", f"{second}/dog/b.wav", "cow/c.wav")
    fails(
        tmp_path, rf"folders of splits \({min('train', second)}, .*\) and others beside them \(cow\)\.\n.*and split\."
    )


def test_folders_of_folds(tmp_path):
    make(tmp_path, *(f"fold{fold}/{label}/{fold}.wav" for fold in (2, 3, 10) for label in ("dog", "rain")))
    make(tmp_path, "test/dog/t.wav")
    source = opened(tmp_path)
    assert source.classes == ("dog", "rain")
    assert source.fold_names == ("2", "3", "10")
    assert places(source)["fold10/dog/10.wav"] == ("dog", "train", 2)
    assert places(source)["test/dog/t.wav"] == ("dog", "test", -1)
    make(tmp_path, "extra/e.wav")
    fails(tmp_path, r"folders of folds \(fold10, fold2, fold3\) and others beside them \(extra\)")


def test_folders_of_folds_without_labels_are_refused(tmp_path):
    make(tmp_path, "fold1/a.wav", "fold2/b.wav")
    fails(tmp_path, r"fold1 has recordings outside a label's folder.*\n.*columns path, label and fold")


def test_the_folder_above_that_of_the_labels(tmp_path):
    make(tmp_path, "sounds/dog/a.wav", "sounds/rain/b.wav")
    fails(tmp_path, r"one label, 'sounds'; at least 2 distinct.*\n.*such as .*/sounds")
    make(tmp_path / "splits", "train/dog/a.wav")  # where no folder has the name of the label
    fails(tmp_path / "splits", r"one label, 'dog'; at least 2 distinct.*\nAdd recordings of a second label")


def test_what_is_left_out_is_counted_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(files.ffmpeg, "is_installed", lambda: False)
    make(tmp_path, "dog/a.wav", "rain/b.wav", "loose.wav", "rain/notes.txt")
    make(tmp_path, "bell/1.m4a", "bell/2.m4a", "bell/3.webm")
    (tmp_path / "empty").mkdir()
    notes = opened(tmp_path).notes
    assert notes == (
        f"left out in {tmp_path}: 4 files of other types (2 .m4a, 1 .webm, 1 .txt); some can be decoded with PyAV: "
        "pip install av",
        "left out: 1 sound file in no label's folder: loose.wav",
        "left out: folder bell has no file of a known type (2 .m4a, 1 .webm); PyAV decodes some: pip install av",
    )


def test_preparing_logs_the_notes_once(tmp_path, capsys):
    make(tmp_path, "dog/a.wav", "rain/b.wav", "rain/notes.txt")
    config = log_db.get_config("folder")
    config.dataset.update({"path": str(tmp_path), "num_folds": 2})
    dataset = parse_settings(config).dataset
    for _ in range(2):
        prepare.clip_source(dataset)
    assert capsys.readouterr().out == f"left out in {tmp_path}: 1 file of other types (1 .txt)\n"


def test_labels_in_two_unicode_forms_are_one_class(tmp_path):
    decomposed = unicodedata.normalize("NFD", "Café")
    make(tmp_path, "Café/a.wav", f"{decomposed}/b.wav", "rain/c.wav", "Rain/d.wav")
    source = opened(tmp_path)
    assert source.classes == ("Café", "Rain", "rain")
    assert source.notes == (
        "label 'Café': written in 2 Unicode forms, taken as one",
        "labels 'Rain', 'rain' differ only in case: they are different classes",
    )


def test_a_label_in_one_unicode_form_stays_as_it_is(tmp_path):
    decomposed = unicodedata.normalize("NFD", "Café")
    make(tmp_path, f"{decomposed}/b.wav", "rain/c.wav")
    assert opened(tmp_path).classes == (decomposed, "rain")


def test_labels_that_a_submission_spells_alike_are_refused_with_test_clips(tmp_path):
    rows = "a.wav,acoustic guitar,train\nb.wav,acoustic_guitar,train\n"
    (tmp_path / "t.csv").write_text(f"path,label,split\n{rows}")
    assert len(opened(tmp_path, table="t.csv").classes) == 2
    (tmp_path / "t.csv").write_text(f"path,label,split\n{rows}c.wav,,test\n")
    fails(tmp_path, r"'acoustic guitar' and 'acoustic_guitar' are the same in a submission.*\nRename", table="t.csv")


def test_fold_names_are_names(tmp_path):
    rows = [("a.wav", "x", "speaker 10"), ("b.wav", "y", "speaker 2"), ("c.wav", "x", "1_2"), ("d.wav", "x", "7.0")]
    (tmp_path / "t.csv").write_text("path,label,fold\n" + "".join(",".join(row) + "\n" for row in rows))
    source = opened(tmp_path, table="t.csv")
    assert source.fold_names == ("7", "1_2", "speaker 2", "speaker 10")
    assert [clip.fold for clip in source.clips] == [3, 2, 1, 0]


def test_numbered_folds_keep_their_numbers():
    folds, names = number_folds(dict(zip("abcd", ["3", "1", "10", "1"], strict=True)))
    assert folds == {"a": 1, "b": 0, "c": 2, "d": 0}
    assert names == ("1", "3", "10")


def test_esc_with_a_missing_fold(tmp_path):
    (tmp_path / "meta").mkdir()
    rows = "".join(f"{fold}-{n}.wav,{fold},{label}\n" for fold in (2, 3, 5) for n, label in enumerate(("dog", "hen")))
    (tmp_path / "meta/esc50.csv").write_text("filename,fold,category\n" + rows)
    source = open_source("esc50", tmp_path)
    assert source.fold_names == ("2", "3", "5")
    assert {clip.id: clip.fold for clip in source.clips}["5-0.wav"] == 2


def test_errors_name_folds_as_the_data_do():
    clips = (Clip("a", "a", "x", 0, "train", True, "r"), Clip("b", "b", "y", 1, "train", True, "r"))
    with pytest.raises(UserError, match="in fold 2 and fold B, so"):
        check_recordings(ClipSource("own", ("x", "y"), clips, ("2", "B")))


def test_blank_rows_and_empty_columns_of_spreadsheets(tmp_path):
    (tmp_path / "t.csv").write_text("path,label,,\na.wav,x,,\n\n,,,\nb.wav,y,,\n,,,\n , ,,\n")
    assert [clip.id for clip in opened(tmp_path, table="t.csv").clips] == ["a.wav", "b.wav"]
    (tmp_path / "t.csv").write_text("path,label\na.wav,x,\nb.wav,y,\n")
    assert [clip.id for clip in opened(tmp_path, table="t.csv").clips] == ["a.wav", "b.wav"]


@pytest.mark.parametrize(
    ("text", "line"), [("path,label\na.wav,x\nb\0.wav,y\n", 3), ("path,la\0bel\n", 1), ("path,label\na.wav,x\n\0\0", 3)]
)
def test_a_nul_in_a_table(tmp_path, text, line):
    (tmp_path / "t.csv").write_text(text)
    fails(tmp_path, f"line {line}: a NUL character", table="t.csv")


def test_file_names_that_are_not_utf8(tmp_path):
    make(tmp_path, "rain/b.wav", os.fsdecode(b"dog/caf\xe9.wav"), os.fsdecode(b"h\xfchner/c.wav"))
    source = opened(tmp_path)
    assert source.classes == ("dog", r"h\xfchner", "rain")
    assert [clip.id for clip in source.clips] == [r"dog/caf\xe9.wav", r"h\xfchner/c.wav", "rain/b.wav"]
    assert all(os.path.exists(clip.path) for clip in source.clips)  # noqa: PTH110


def test_a_named_pipe_is_not_hashed(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    pipe = str(tmp_path / "pipe.wav")
    assert contents.content_hashes([pipe], tmp_path / "prepared") == {pipe: ""}
