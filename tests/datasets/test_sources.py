"""Clip sources: real tables if they are available, small written ones for layouts and errors."""

import csv
import os
from collections import Counter
from pathlib import Path

import pytest

from audiotag_jax.datasets import sources
from audiotag_jax.datasets.fsdkaggle2018 import submission_order
from audiotag_jax.datasets.prepare import prepare
from audiotag_jax.datasets.records import Clip, ClipSource, check_recordings, validate
from audiotag_jax.datasets.sources import MULTI_LABEL_SOURCES, open_source
from audiotag_jax.runtime.errors import UserError
from configs import log_db

SHARED = Path(os.environ.get("AUDIOTAG_SHARED", Path(__file__).parents[3] / "shared"))


def shared(name):
    folder = SHARED / "data" / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set AUDIOTAG_SHARED")
    return folder


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def by_id(source):
    return {clip.id: clip for clip in source.clips}


def fails(match, name, path, **options):
    """Checks that opening raises a UserError of one or two lines that matches."""
    with pytest.raises(UserError, match=match) as caught:
        open_source(name, path, **{"download": False, "num_folds": 2, **options})
    assert 1 <= len(str(caught.value).splitlines()) <= 2


# --- FSDKaggle2018


def test_fsdkaggle2018_counts_of_the_real_tables():
    root = shared("fsdkaggle2018")
    source = open_source("fsdkaggle2018", root, download=False)
    counts = Counter((clip.split, clip.verified, clip.label is None) for clip in source.clips)
    assert counts == {
        ("train", True, False): 3710,
        ("train", False, False): 5763,
        ("test", True, False): 1600,
        ("test", False, True): 7800,
    }
    assert len(source.classes) == 41
    assert list(source.classes) == sorted(source.classes)
    assert {clip.fold for clip in source.clips if clip.split == "train"} == {0, 1, 2, 3, 4}
    assert {clip.fold for clip in source.clips if clip.split == "test"} == {-1}
    clips = by_id(source)
    assert (clips["00044347.wav"].label, clips["00044347.wav"].verified) == ("Hi-hat", False)
    assert (clips["001ca53d.wav"].label, clips["001ca53d.wav"].verified) == ("Saxophone", True)
    assert {"0b0427e2.wav", "6ea0099f.wav", "b39975f5.wav"} <= set(clips)
    with (root / "sample_submission.csv").open(newline="") as file:
        assert submission_order(root) == tuple(row["fname"] for row in csv.DictReader(file))
    assert set(submission_order(root)) == {clip.id for clip in source.clips if clip.split == "test"}


TRAIN = "fname,label,manually_verified\nb.wav,Bark,1\na.wav,Flute,0\nd.wav,Bark,1\nc.wav,Flute,1\n"
TEST = "fname,label,usage\nz.wav,Flute,Public\ny.wav,Bark,Private\n"


def test_fsdkaggle2018_kaggle_layout_without_test_labels(tmp_path):
    write(tmp_path / "train.csv", TRAIN)
    write(tmp_path / "sample_submission.csv", "fname,label\nz.wav,Bark\nx.wav,Bark\ny.wav,Bark\n")
    (tmp_path / "audio_test").mkdir()
    source = open_source("fsdkaggle2018", tmp_path, num_folds=2)
    assert [clip.id for clip in source.clips] == ["x.wav", "y.wav", "z.wav", "a.wav", "b.wav", "c.wav", "d.wav"]
    assert by_id(source)["a.wav"].path == str(tmp_path / "audio_train" / "a.wav")
    assert by_id(source)["x.wav"].path == str(tmp_path / "audio_test" / "x.wav")
    assert all(clip.label is None for clip in source.clips if clip.split == "test")
    assert submission_order(tmp_path) == ("z.wav", "x.wav", "y.wav")


def test_fsdkaggle2018_test_clips_from_the_folder(tmp_path):
    write(tmp_path / "train.csv", TRAIN)
    for name in ("n.wav", "m.wav", ".hidden.wav", "notes.txt"):
        write(tmp_path / "audio_test" / name, "")
    assert submission_order(tmp_path) == ("m.wav", "n.wav")
    source = open_source("fsdkaggle2018", tmp_path, num_folds=2)
    assert [clip.id for clip in source.clips if clip.split == "test"] == ["m.wav", "n.wav"]


@pytest.mark.parametrize("table", ["test_post_competition.csv", "test_post_competition_scoring_clips.csv"])
def test_fsdkaggle2018_zenodo_layout(tmp_path, table):
    write(tmp_path / "FSDKaggle2018.meta" / "train_post_competition.csv", TRAIN)
    write(tmp_path / "FSDKaggle2018.meta" / table, TEST + "x.wav,None,Ignored\nw.wav,Flute,Ignored\n")
    (tmp_path / "FSDKaggle2018.audio_train").mkdir()
    (tmp_path / "FSDKaggle2018.audio_test").mkdir()
    clips = by_id(open_source("fsdkaggle2018", tmp_path, num_folds=2))
    assert clips["a.wav"].path == str(tmp_path / "FSDKaggle2018.audio_train" / "a.wav")
    assert clips["z.wav"].path == str(tmp_path / "FSDKaggle2018.audio_test" / "z.wav")
    assert [(clips[f"{n}.wav"].label, clips[f"{n}.wav"].verified) for n in "wxyz"] == [
        (None, False),
        (None, False),
        ("Bark", True),
        ("Flute", True),
    ]
    assert submission_order(tmp_path) == ("w.wav", "x.wav", "y.wav", "z.wav")


def test_fsdkaggle2018_test_clips_include_the_unscored_ones_of_the_submission(tmp_path):
    write(tmp_path / "train.csv", TRAIN)
    write(tmp_path / "test_post_competition_scoring_clips.csv", TEST)
    write(tmp_path / "sample_submission.csv", "fname,label\nz.wav,Bark\nx.wav,Bark\ny.wav,Bark\n")
    clips = by_id(open_source("fsdkaggle2018", tmp_path, num_folds=2))
    assert (clips["x.wav"].label, clips["z.wav"].label) == (None, "Flute")


def test_fsdkaggle2018_errors(tmp_path):
    fails("no folder .*nowhere", "fsdkaggle2018", tmp_path / "nowhere")
    fails("train.csv", "fsdkaggle2018", tmp_path)
    write(tmp_path / "train.csv", "name,label\na.wav,Bark\n")
    fails(r"lacks the columns fname, manually_verified.*\nExpected.*manually_verified", "fsdkaggle2018", tmp_path)
    write(tmp_path / "train.csv", TRAIN.replace(",0", ",maybe"))
    fails("'a.wav' has manually_verified 'maybe'", "fsdkaggle2018", tmp_path)
    write(tmp_path / "train.csv", TRAIN + "a.wav,Bark,1\n")
    fails("duplicate clip id a.wav", "fsdkaggle2018", tmp_path)
    write(tmp_path / "train.csv", TRAIN + "e.wav,,1\n")
    fails("'e.wav' is a training clip without a label", "fsdkaggle2018", tmp_path)
    write(tmp_path / "train.csv", TRAIN)
    write(tmp_path / "test_post_competition.csv", TEST.replace("Flute", "Piano"))
    fails("'z.wav' has label 'Piano'.*Bark, Flute", "fsdkaggle2018", tmp_path)
    write(tmp_path / "test_post_competition.csv", TEST + "z.wav,Bark,Public\n")
    fails("duplicate", "fsdkaggle2018", tmp_path)
    write(tmp_path / "test_post_competition.csv", TEST + "b.wav,Bark,Public\n")
    fails("duplicate clip id b.wav", "fsdkaggle2018", tmp_path)
    write(tmp_path / "test_post_competition.csv", TEST)
    write(tmp_path / "sample_submission.csv", "fname,label\nz.wav,Bark\ny.wav,Bark\nz.wav,Bark\n")
    fails("sample_submission.csv has duplicate rows", "fsdkaggle2018", tmp_path)
    write(tmp_path / "test_post_competition.csv", "fname,label\nz.wav,Bark\n")
    (tmp_path / "sample_submission.csv").unlink()
    fails("lacks the column usage", "fsdkaggle2018", tmp_path)


def test_fsdkaggle2018_is_downloaded_only_if_missing(tmp_path, monkeypatch):
    calls = []

    def download(path):
        calls.append(path)
        write(Path(path) / "train.csv", TRAIN)

    monkeypatch.setattr(sources, "download_fsdkaggle2018", download)
    path = tmp_path / "data"
    fails("no folder", "fsdkaggle2018", path)
    assert len(open_source("fsdkaggle2018", path, num_folds=2).clips) == 4
    assert len(open_source("fsdkaggle2018", path, num_folds=2).clips) == 4
    assert calls == [path]
    (path / ".download").mkdir()  # left by an interrupted download
    open_source("fsdkaggle2018", path, num_folds=2)
    assert calls == [path, path]
    for name in ("audio_train", "FSDKaggle2018.audio_test"):  # then the user copies the rest
        (path / name).mkdir()
    open_source("fsdkaggle2018", path, num_folds=2)
    assert calls == [path, path]


# --- ESC


def test_esc_folds_are_taken_as_published(tmp_path):
    """Even if they separate a recording of two classes, as for four of ESC-50's; its name is kept for studies."""
    rows = "2-134049-A-6.wav,2,hen,134049\n3-134049-A-1.wav,3,rooster,134049\n1-7-A-1.wav,1,rooster,7\n"
    write(tmp_path / "meta" / "esc50.csv", "filename,fold,category,src_file\n" + rows)
    clips = open_source("esc50", tmp_path).clips
    assert [(clip.fold, clip.recording) for clip in clips] == [(0, "7"), (1, "134049"), (2, "134049")]


def test_esc10_counts_of_the_real_table():
    root = shared("esc10")
    source = open_source("esc10", root)
    assert Counter(clip.fold for clip in source.clips) == dict.fromkeys(range(5), 80)
    assert set(Counter(clip.label for clip in source.clips).values()) == {40}
    assert len(source.classes) == 10
    assert all(Path(clip.path).is_file() and clip.verified and clip.split == "train" for clip in source.clips)
    assert all(clip.fold == int(clip.id[0]) - 1 for clip in source.clips)  # the file name starts with the fold
    assert all(clip.recording == clip.id.split("-")[1] for clip in source.clips)  # and then names the recording
    fails("esc50.csv.*\n.*https://github.com/karolpiczak/ESC-50", "esc50", root)


ESC = (
    "filename,fold,target,category,esc10,src_file,take\n"
    "1-1-A-0.wav,1,0,dog,True,1,A\n2-2-A-0.wav,2,0,dog,True,2,A\n1-3-A-1.wav,1,1,rooster,True,3,A\n"
    "1-4-A-2.wav,1,2,pig,False,4,A\n"
)


def test_esc10_inside_esc50(tmp_path):
    write(tmp_path / "meta" / "esc50.csv", ESC)
    full, small = open_source("esc50", tmp_path), open_source("esc10", tmp_path)
    assert full.classes == ("dog", "pig", "rooster")
    assert small.classes == ("dog", "rooster")
    assert [clip.id for clip in small.clips] == ["1-1-A-0.wav", "1-3-A-1.wav", "2-2-A-0.wav"]
    assert full.clips[0].path == str(tmp_path / "audio" / "1-1-A-0.wav")


def test_esc_errors(tmp_path):
    fails("https://github.com/karolpiczak/ESC-50", "esc10", tmp_path / "nowhere")
    write(tmp_path / "meta" / "esc50.csv", ESC.replace(",1,1,", ",6,1,"))
    fails("'1-3-A-1.wav' is in fold 6", "esc50", tmp_path)
    write(tmp_path / "meta" / "esc50.csv", ESC.replace("fold", "part"))
    fails("lacks the column fold", "esc50", tmp_path)
    write(tmp_path / "meta" / "esc50.csv", ESC.replace("True", "False"))
    fails("empty table", "esc10", tmp_path)


# --- users' own data


def test_folder_per_label(tmp_path):
    for name in ("dog/a.wav", "dog/b.FLAC", "dog/deep/c.mp3", "cat/a.ogg", "cat/b.Aiff", "cat/.d.wav", "cat/notes.txt"):
        write(tmp_path / name, "")
    for name in ("loose.wav", ".cache/a.wav", "dog/.trash/a.wav", "empty/readme.md"):
        write(tmp_path / name, "")
    source = open_source("folder", tmp_path, num_folds=2)
    assert source.classes == ("cat", "dog")
    assert [clip.id for clip in source.clips] == [
        "cat/a.ogg",
        "cat/b.Aiff",
        "dog/a.wav",
        "dog/b.FLAC",
        "dog/deep/c.mp3",
    ]
    assert all(clip.path == str(tmp_path / clip.id) for clip in source.clips)
    assert all(clip.label == clip.id.split("/")[0] and clip.verified for clip in source.clips)
    assert {clip.fold for clip in source.clips} == {0, 1}


def test_table_with_all_columns(tmp_path):
    text = (
        "\ufefffile, label ,fold,split,manually_verified,comment\r\n"
        'b.wav,"Dog, small",7,train,1,\r\n./a.wav,Cat,2,train,FALSE,x\r\n'
        'sub\\c.wav,Cat,7.0,train,true,"two\r\nlines"\r\n'
        "t.wav,,,test,1,\r\nu.wav,Cat,7,test,0,\r\n"
    )
    write(tmp_path / "clips.csv", text)
    source = open_source("folder", tmp_path, table="clips.csv")
    assert source.classes == ("Cat", "Dog, small")
    assert source.clips == (
        Clip("t.wav", str(tmp_path / "t.wav"), None, -1, "test", True),
        Clip("u.wav", str(tmp_path / "u.wav"), "Cat", -1, "test", False),
        Clip("a.wav", str(tmp_path / "a.wav"), "Cat", 0, "train", False),
        Clip("b.wav", str(tmp_path / "b.wav"), "Dog, small", 1, "train", True),
        Clip("sub/c.wav", str(tmp_path / "sub" / "c.wav"), "Cat", 1, "train", True),
    )


def test_clips_of_a_recording_share_a_fold(tmp_path):
    rows = [f"{n}.wav,{'ab'[n // 4 % 2]},{f'field {n // 4}' if n < 16 else ''}" for n in range(24)]
    write(tmp_path / "clips.csv", "path,label,recording\n" + "\n".join(rows) + "\n")
    clips = {clip.id: clip for clip in open_source("folder", tmp_path, table="clips.csv", num_folds=2).clips}
    assert clips["0.wav"].recording == "field 0" and clips["23.wav"].recording == ""
    assert all(clips[f"{n}.wav"].fold == clips[f"{n - n % 4}.wav"].fold for n in range(16))
    check_recordings(ClipSource("folder", ("a", "b"), tuple(clips.values())))


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("path,label,recording,fold\na.wav,x,r,0\nb.wav,y,r,1\n", "fold 0 and fold 1"),
        ("path,label,recording,split\na.wav,x,r,train\nb.wav,y,r,test\nc.wav,y,,train\n", "the test set and fold [01]"),
    ],
)
def test_a_recording_in_several_folds_raises_before_preparation(tmp_path, text, places):
    write(tmp_path / "clips.csv", text)
    config = log_db.get_config("folder")
    config.dataset.path, config.dataset.table, config.dataset.num_folds = str(tmp_path), "clips.csv", 2
    config.dataset.prepared_dir = str(tmp_path / "prepared")
    with pytest.raises(UserError, match=f"recording 'r' has clips in {places}, so "):
        prepare(config)
    assert not (tmp_path / "prepared").exists()


def test_paths_are_relative_to_the_table_or_to_the_folder(tmp_path):
    table = write(tmp_path / "tables" / "t.csv", "path,label\na.wav,x\nb.wav,y\nmissing.wav,y\n")
    write(tmp_path / "tables" / "a.wav", "")
    write(tmp_path / "audio" / "b.wav", "")
    clips = by_id(open_source("folder", tmp_path / "audio", table=str(table), num_folds=2))
    assert clips["a.wav"].path == str(tmp_path / "tables" / "a.wav")
    assert clips["b.wav"].path == str(tmp_path / "audio" / "b.wav")
    assert clips["missing.wav"].path == str(tmp_path / "tables" / "missing.wav")


def test_tables_and_folders_agree_on_folds(tmp_path):
    names = [f"{label}/{n}.wav" for label in "xy" for n in range(20)]
    for name in names:
        write(tmp_path / name, "")
    rows = "".join(f"{name},{name[0]}\n" for name in reversed(names))
    write(tmp_path / "t.csv", "path,label\n" + rows)
    listed, tabled = open_source("folder", tmp_path), open_source("folder", tmp_path, table="t.csv")
    assert listed == tabled
    assert open_source("folder", tmp_path, seed=1) != listed


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "lacks the column label"),
        ("path,label\n", "empty table"),
        ("path;label\na.wav;x\n", "lacks the column label.*\nThe columns seem to be separated by ';'"),
        ("path,category|type\na.wav,x\n", "lacks the column label.*\nExpected a comma-separated header"),
        ("name,label\na.wav,x\n", "path, filename, fname or file"),
        ("path,label,label\na.wav,x,y\n", "column label more than once"),
        ("path,label\na.wav,x,y\n", r"line 2: the row has 3 values, the header 2 columns \(a value with a comma needs"),
        ("path,label\na.wav\n", r"line 2: the row has 1 value, the header 2 columns\.$"),
        ('path,label\na.wav,"x\nb.wav,y\n', "not a valid CSV"),
        ("path,label\n,x\n", "has no file name"),
        ("path,label\na.wav,x\na.wav,y\nb.wav,y\n", r"duplicate clip id a.wav \(labels x, y\); every"),
        ("path,label\na.wav,x\na.wav,x\nb.wav,y\n", "duplicate clip id a.wav; every"),
        ("path,label\na.wav,x\n./a.wav,y\n", "duplicate clip id a.wav"),
        ("path,label\na.wav,x\nb.wav,x\n", "at least 2 distinct classes"),
        ("path,label\na.wav,x\nb.wav,\nc.wav,y\n", "'b.wav' is a training clip without a label"),
        ("path,label,split\na.wav,x,train\nb.wav,y,train\nc.wav,z,test\n", "'c.wav' has label 'z'.*x, y"),
        ("path,label,split\na.wav,x,train\nb.wav,y,valid\n", "split 'valid'; choose from train, test"),
        ("path,label,split\na.wav,x,test\nb.wav,y,test\n", "no training clips"),
        ("path,label,fold\na.wav,x,1\nb.wav,y,1\n", "single fold"),
        ("path,label,fold\na.wav,x,1\nb.wav,y,\n", "'b.wav' has fold ''"),
        ("path,label,fold\na.wav,x,1\nb.wav,y,1.5\n", "'b.wav' has fold '1.5'"),
        ("path,label,fold\na.wav,x,1\nb.wav,y,nan\n", "'b.wav' has fold 'nan'"),
        ("path,label,fold\na.wav,x,1\nb.wav,y,-1\n", "fold -1 in a training row"),
        ("path,label,recordings\na.wav,x,r\nb.wav,y,r\n", "unknown column 'recordings'; rename it to 'recording'"),
        ("path,label,Fold\na.wav,x,1\nb.wav,y,2\n", "unknown column 'Fold'; rename it to 'fold'"),
        ("path,label,verified\na.wav,x,1\nb.wav,y,perhaps\n", "'b.wav' has verified 'perhaps'"),
    ],
)
def test_bad_tables_raise(tmp_path, text, match):
    write(tmp_path / "clips.csv", text)
    fails(match, "folder", tmp_path, table="clips.csv")


def test_other_bad_inputs_raise(tmp_path):
    (tmp_path / "latin1.csv").write_bytes("path,label\ncafé.wav,x\n".encode("latin-1"))
    fails("not UTF-8", "folder", tmp_path, table="latin1.csv")
    (tmp_path / "utf16.csv").write_bytes("path,label\na.wav,x\n".encode("utf-16"))
    fails("not UTF-8", "folder", tmp_path, table="utf16.csv")
    fails("no table .*nothing.csv", "folder", tmp_path, table="nothing.csv")
    fails("No recordings under", "folder", tmp_path)
    fails("no folder .*nowhere", "folder", tmp_path / "nowhere")
    write(tmp_path / "x" / "a.wav", "")
    write(tmp_path / "y" / "b.wav", "")
    fails("Too few training clips, 2, for 3 folds", "folder", tmp_path, num_folds=3)
    fails("single fold", "folder", tmp_path, num_folds=1)
    fails(
        "Unknown clip source 'esc'; choose from fsdkaggle2018, fsdkaggle2019, fsd50k, audioset, urbansound8k, ",
        "esc",
        tmp_path,
    )
    fails("only 'folder' takes one", "esc50", tmp_path, table="t.csv")


def test_validate_raises_on_invalid_clips():
    def source(**changes):
        first = {"id": "a", "path": "a", "label": "x", "fold": 0, "split": "train", "verified": True, **changes}
        return ClipSource("own", ("x", "y"), (Clip(**first), Clip("b", "b", "y", 1, "train", True)))

    assert validate(source()) == source()
    for changes, match in (
        ({"fold": -1}, "'a' is a training clip without a fold"),
        ({"fold": 2}, "without gaps"),
        ({"split": "test"}, "'a' is a test clip in fold 0"),
        ({"split": "dev"}, "split 'dev'"),
        ({"label": "z"}, "label 'z'"),
    ):
        with pytest.raises(UserError, match=match):
            validate(source(**changes))
    with pytest.raises(UserError, match="empty table"):
        validate(ClipSource("own", ("x", "y"), ()))


# --- UrbanSound8K

URBANSOUND8K = (
    "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
    "100032-3-0-0.wav,100032,0.0,0.317551,1,2,3,dog_bark\n"
    "7-8-0-1.wav,7,4.5,8.5,2,1,8,siren\n7-8-0-0.wav,7,0.5,4.5,2,1,8,siren\n9-8-0-0.wav,9,0.5,4.5,2,10,8,siren\n"
)


def test_urbansound8k(tmp_path):
    write(tmp_path / "metadata" / "UrbanSound8K.csv", URBANSOUND8K)
    source = open_source("urbansound8k", tmp_path)
    assert source.classes == ("dog_bark", "siren") and source.fold_names == ("1", "2", "10")
    assert [(clip.id, clip.fold) for clip in source.clips] == [
        ("100032-3-0-0.wav", 1),
        ("7-8-0-0.wav", 0),
        ("7-8-0-1.wav", 0),
        ("9-8-0-0.wav", 2),
    ]
    assert source.clips[0].path == str(tmp_path / "audio" / "fold2" / "100032-3-0-0.wav")
    assert [clip.recording for clip in source.clips] == ["100032", "7", "7", "9"]
    assert all(clip.verified and clip.split == "train" for clip in source.clips)


def test_urbansound8k_errors(tmp_path):
    fails("UrbanSound8K is missing.*\nGet it from https://doi.org", "urbansound8k", tmp_path)
    table = tmp_path / "metadata" / "UrbanSound8K.csv"
    write(table, URBANSOUND8K.replace(",fold,", ",part,"))
    fails("lacks the column fold", "urbansound8k", tmp_path)
    write(table, URBANSOUND8K.replace("1,2,3,dog_bark", "1,two,3,dog_bark"))
    fails("'100032-3-0-0.wav' is in fold two", "urbansound8k", tmp_path)
    write(table, URBANSOUND8K.replace("1,2,3,dog_bark", "1,11,3,dog_bark"))
    fails("is in fold 11; the official folds are 1 to 10", "urbansound8k", tmp_path)


# --- AudioSet

AUDIOSET_CLASSES = (
    'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/t/dd00071,"Domestic sounds, home sounds"\n2,/m/0bt9lr,"Dog"\n'
)
AUDIOSET_TRAIN = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=7, num_segs=8, num_unique_labels=3, num_positive_labels=9
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/m/0bt9lr"
Y0123456789, 0.000, 10.000, "/m/09x0r"
_a-b_c-d_e-, 50.000, 60.000, "/t/dd00071"
twosegments, 0.000, 10.000, "/m/0bt9lr"
twosegments, 30.000, 40.000, "/m/09x0r"
elsewhere01, 5.000, 15.000, "/m/09x0r"
notdownload, 0.000, 10.000, "/m/09x0r"
"""
AUDIOSET_EVAL = '# YTID, start_seconds, end_seconds, positive_labels\neval0000001,20,30,"/m/0bt9lr,/t/dd00071"\n'


@pytest.fixture
def audioset(tmp_path):
    write(tmp_path / "class_labels_indices.csv", AUDIOSET_CLASSES)
    write(tmp_path / "balanced_train_segments.csv", AUDIOSET_TRAIN)
    write(tmp_path / "metadata" / "eval_segments.csv", AUDIOSET_EVAL)
    for name in (
        "a/--PJHxphWEs_30.000_40.000.wav",
        "a/Y0123456789.wav",
        "Y_a-b_c-d_e-.flac",
        "b/twosegments_0_10.wav",
        "b/twosegments_30000_40000.ogg",
        "elsewhere01_70.wav",
        "eval/Yeval0000001_20.wav",
        "other.wav",
    ):
        write(tmp_path / name, "")
    return tmp_path


def test_audioset_lists_the_segments_that_have_a_file(audioset):
    source = open_source("audioset", audioset, num_folds=2)
    assert source.task == "multi_label"
    assert "audioset" in MULTI_LABEL_SOURCES
    assert source.classes == ("Speech", "Domestic sounds, home sounds", "Dog")  # in the order of their table
    assert {clip.id: str(Path(clip.path).relative_to(audioset)) for clip in source.clips} == {
        "--PJHxphWEs_30": "a/--PJHxphWEs_30.000_40.000.wav",
        "Y0123456789_0": "a/Y0123456789.wav",
        "_a-b_c-d_e-_50": "Y_a-b_c-d_e-.flac",
        "twosegments_0": "b/twosegments_0_10.wav",
        "twosegments_30": "b/twosegments_30000_40000.ogg",
        "eval0000001_20": "eval/Yeval0000001_20.wav",
    }
    clips = by_id(source)
    assert clips["--PJHxphWEs_30"].labels == ("Dog", "Speech")
    assert clips["eval0000001_20"].split == "test"
    assert clips["eval0000001_20"].labels == ("Dog", "Domestic sounds, home sounds")
    assert clips["twosegments_0"].fold == clips["twosegments_30"].fold  # of one video
    assert source.notes == ("AudioSet, left out: balanced_train_segments.csv: 2 of 7 segments have no file",)
    more = AUDIOSET_TRAIN.splitlines()[2] + '\nelsewhere01,70,80,"/m/09x0r"\n'
    write(audioset / "unbalanced_train_segments.csv", more)
    assert by_id(open_source("audioset", audioset, num_folds=2))["elsewhere01_70"].split == "train"


def test_audioset_errors(audioset):
    table = audioset / "balanced_train_segments.csv"
    for row, match in (
        ('abcdefghijk,0,10,"/m/unknown"', "line 1: label '/m/unknown' is not in class_labels_indices.csv"),
        ("abcdefghijk,0,10,/m/09x0r,/m/0bt9lr", "line 1: 5 values; a row has a video, its start, its end and mids"),
        ("abcdefghijk,soon,10,/m/09x0r", "line 1: start 'soon' is not a number of seconds"),
        ('abcdefghijk,0,10,"/m/09x0r', "not a valid CSV table"),
        ("abcdefghijk,0,10,/m/09x0r", "No training segment of AudioSet has a file below"),
    ):
        write(table, row + "\n")
        fails(match, "audioset", audioset)
    write(table, AUDIOSET_TRAIN + AUDIOSET_TRAIN)
    fails("duplicate clip id --PJHxphWEs_30", "audioset", audioset)
    table.unlink()
    fails("has no balanced_train_segments.csv.\nGet the tables from https://research", "audioset", audioset)
    (audioset / "class_labels_indices.csv").unlink()
    fails("has no class_labels_indices.csv", "audioset", audioset)


def test_starts_of_segments_are_exact(tmp_path):
    """1.001 s times 1,000 is not 1001, and starts that differ after six digits are two segments."""
    write(tmp_path / "class_labels_indices.csv", AUDIOSET_CLASSES)
    starts, header = (1.001, 1000.123, 1000.124), AUDIOSET_TRAIN.splitlines()[2]
    rows = "".join(f'segment0001,{start},{start + 1},"/m/09x0r"\n' for start in starts)
    write(tmp_path / "balanced_train_segments.csv", f'{header}\n{rows}other000001,0,1,"/m/0bt9lr"\n')
    for name in ("segment0001_1001.wav", "segment0001_1000123.wav", "segment0001_1000124.wav", "other000001_0.wav"):
        write(tmp_path / name, "")
    ids = set(by_id(open_source("audioset", tmp_path, num_folds=2)))
    assert ids == {"segment0001_1.001", "segment0001_1000.123", "segment0001_1000.124", "other000001_0"}


def test_folds_named_by_long_numbers_stay_apart(tmp_path):
    names = ("12345678901234567", "12345678901234568", "007")
    rows = "".join(f"{n}.wav,{'xy'[n % 2]},{name}\n" for n, name in enumerate(names))
    write(tmp_path / "t.csv", "path,label,fold\n" + rows)
    assert open_source("folder", tmp_path, table="t.csv").fold_names == ("7", *names[:2])
