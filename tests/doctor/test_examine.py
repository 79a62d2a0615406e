"""The audit of folders with known faults and of real ones, and its Markdown, rendered."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
import soundfile

from audiotag_jax.audio.files import printable
from audiotag_jax.doctor import examine
from audiotag_jax.doctor.names import describe_misspelt, misspelt_labels
from audiotag_jax.doctor.report import FEWEST, code, escape, format_report
from audiotag_jax.evaluation import decision
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.settings import parse_settings
from configs import log_db

RATE_HZ = 22050


def settings(path, source="folder", **fields):
    config = log_db.get_config("folder")
    config.dataset.update({"source": source, "path": str(path), "num_folds": 2, "num_threads": 2, **fields})
    return parse_settings(config)


def noise(seed, num_samples=RATE_HZ // 2):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, num_samples)


def write(path, samples, rate_hz=RATE_HZ):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate_hz)


def write_table(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns.split(","), *rows])


def run(path, workdir, *args, **fields):
    examine.run(settings(path, *args, **fields), workdir)
    report = json.loads((workdir / "doctor.json").read_text(), parse_constant=pytest.fail)  # no NaN in it
    return report, (workdir / "doctor.md").read_text()


def snapshot(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in (folder, *folder.rglob("*"))}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """Returns the audit of a folder with each kind of problem."""
    root = tmp_path_factory.mktemp("faulty") / "sounds"
    rows = [(f"good{n}.wav", "xyz"[n % 3], n % 2, "train", int(n < 4)) for n in range(12)]
    for n, (name, *_) in enumerate(rows):
        write(root / name, noise(n))
    write(root / "same0.flac", np.round(noise(100) * 32767) / 32768)
    write(root / "same1.wav", np.round(noise(100) * 32767) / 32768)
    write(root / "twin0.wav", noise(101))
    write(root / "twin1.wav", noise(101))
    write(root / "silent.wav", np.zeros(RATE_HZ))
    write(root / "clipped.wav", np.clip(10 * noise(102), -1, 1))
    write(root / "CASE.WAV", noise(103))
    write(root / "deep" / "extra.ogg", noise(104))
    (root / "empty.wav").touch()
    (root / "broken.wav").write_bytes(b"RIFF\x10\x00\x00\x00WAVEjunk")
    rows += [
        ("same0.flac", "x", 0, "train", 1),
        ("same1.wav", "y", 1, "train", 1),
        ("twin0.wav", "x", 0, "train", 1),
        ("twin1.wav", "x", 0, "test", 1),
        ("silent.wav", "x", 0, "train", 1),
        ("clipped.wav", "y", 0, "train", 0),
        ("case.wav", "z", 0, "train", 1),
        ("gone.wav", "x", 0, "train", 1),
        ("empty.wav", "y", 0, "train", 1),
        ("broken.wav", "", 0, "test", 1),
        ("only.wav", "rare", 1, "train", 1),
    ]
    write_table(root / "clips.csv", "path,label,fold,split,verified", rows)
    before = snapshot(root)
    report, text = run(root, root.parent / "work", table="clips.csv")
    assert snapshot(root) == before  # the folder is unchanged
    return report, text


def test_every_problem_is_listed(faulty):
    report, _ = faulty
    problems = report["problems"]
    assert {kind: sorted(clips) for kind, clips in problems.items()} == {
        "missing": ["case.wav", "gone.wav", "only.wav"],
        "empty": ["empty.wav"],
        "unreadable": ["broken.wav"],
        "silent": ["silent.wav"],
        "clipped": ["clipped.wav"],
    }
    assert problems["missing"] == {"case.wav": "but CASE.WAV exists", "gone.wav": "", "only.wav": ""}
    assert report["num_recordings"] == {"train": 21, "test": 2}
    assert report["num_lost"] == {"train": 4, "test": 1}
    assert report["extra_files"] == ["CASE.WAV", "deep/extra.ogg"]
    assert [group["ids"] for group in report["duplicates"]] == [["same0.flac", "same1.wav"], ["twin0.wav", "twin1.wav"]]
    assert report["takes"] is None


def test_labels_and_folds_are_counted(faulty):
    report, _ = faulty
    assert report["labels"]["x"] == {"verified": 6, "unverified": 2, "test": 1, "lost": 1, "folds": [6, 2]}
    assert report["labels"]["rare"] == {"verified": 1, "unverified": 0, "test": 0, "lost": 1, "folds": [0, 1]}
    assert report["fold_sizes"] == [13, 8]
    assert report["num_unlabelled_test"] == 1
    assert report["absent"] == [{"label": "rare", "folds": [0]}]
    assert report["largest_deviation"] == {"label": "x", "fold": 0, "count": 6, "even_share": 4.0}
    assert report["formats"]["rates_hz"] == {str(RATE_HZ): 18}
    assert report["formats"]["channels"] == {"1": 18}
    assert report["formats"]["duration_s"] == {"min": 0.5, "median": 0.5, "max": 1.0, "total": 9.5}


def test_the_summary_comes_first(faulty):
    report, text = faulty
    summary = "\n".join(report["verdict"])
    for line in (
        "5 recordings of 23 cannot be used: 3 missing, 1 empty, 1 unreadable.",
        "LEFT OUT of training: 4 of 21 recordings.",
        "SILENCE instead of 1 of 2 test recordings.",
        "1 missing file may exist under a similar name",
        "NOTHING LEFT of label 'rare'",
        "LEAK: identical sounds both in training and in test, 1 group",
        "LEAK: identical training sounds in different folds, 1 group",
        "CONTRADICTION: identical sounds with different labels, 1 group.",
        "ABSENT from at least one fold: 'rare'.",
        "Used, but check them: 1 silent, 1 clipped.",
        "Not used: 2 sound files of the folder that no clip refers to.",
    ):
        assert line in summary
    assert text.index("## Verdict") < text.index("LEAK") < text.index("## Missing")


def test_clean_data_has_one_line_of_summary(tmp_path, capsys):
    for n in range(8):
        write(tmp_path / "sounds" / "ab"[n % 2] / f"{n}.wav", noise(n))
    report, _ = run(tmp_path / "sounds", tmp_path / "work")
    assert report["verdict"] == ["All 8 recordings can be read."]
    assert report["problems"] == {}
    out = capsys.readouterr().out.splitlines()
    assert out == ["All 8 recordings can be read.", f"report: {tmp_path / 'work' / 'doctor.md'}"]
    again, _ = run(tmp_path / "sounds", tmp_path / "work")
    assert again == report
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["doctor.json", "doctor.md"]


def test_paths_that_are_all_wrong_in_the_same_way(tmp_path):
    root = tmp_path / "sounds"
    rows = [(f"{n}", "ab"[n % 2], n // 2 % 2) for n in range(8)]
    for name, *_ in rows:
        write(root / "audio" / f"{name}.wav", noise(int(name)))
    write_table(root / "clips.csv", "path,label,fold", rows)
    report, _ = run(root, tmp_path / "work", table="clips.csv")
    assert report["verdict"][0].startswith("NO AUDIO: all 8 recordings")
    assert report["verdict"][1] == (
        "Training would stop. 8 of 8 missing files exist under paths that differ in the same way ('0' is "
        "'audio/0.wav'): in the table, put 'audio/' before them, append '.wav'."
    )


def test_what_a_folder_leaves_out_and_odd_labels_are_in_the_summary(tmp_path):
    root = tmp_path / "sounds"
    for n, label in enumerate(("dog,loud", "dog,loud", "rain,loud", "rain,loud", "Dog", "Dog", "dog", "dog")):
        write(root / label / f"{n}.wav", noise(n))
    (root / "rain,loud" / "notes.txt").touch()
    (root / "dog" / "loop").symlink_to("..")
    os.mkfifo(root / "dog" / "pipe.wav")
    report, text = run(root, tmp_path / "work")
    assert report["verdict"][1:] == [
        f"left out in {root}: 1 file of other types (1 .txt)",
        f"left out in {root}: 1 link to a folder around it: dog/loop",
        f"left out in {root}: 1 named pipe, or the like: dog/pipe.wav",
        "labels 'Dog', 'dog' differ only in case: they are different classes",
        "SEVERAL TAGS? 2 of 4 labels have ',' between words that other labels have too, such as 'dog,loud': each such "
        "list is one class of its own. config.dataset.label_separator=',' makes them several tags of a clip listed in "
        "a table.",
    ]
    assert "SEVERAL TAGS" in text


def test_audioset_s_names_are_no_lists_and_segments_without_a_file_are_counted(tmp_path):
    names = ("Speech", "Male speech, man speaking", "Speech, babble")
    rows = [(k, f"/m/{k}", name) for k, name in enumerate(names)]
    write_table(tmp_path / "class_labels_indices.csv", "index,mid,display_name", rows)
    segments = [(f"video{n:06d}", 0, 10, f"/m/{n % 3},/m/{(n + 1) % 3}") for n in range(6)]
    write_table(tmp_path / "balanced_train_segments.csv", "# YTID,start,end,mids", segments)
    for n in range(4):
        write(tmp_path / f"Yvideo{n:06d}.wav", noise(n))
    report = examine.examine(settings(tmp_path, "audioset").dataset)
    assert report["table_error"] == ""
    assert report["notes"] == ["AudioSet, left out: balanced_train_segments.csv: 2 of 6 segments have no file"]
    assert report["num_recordings"]["train"] == 4 and not report["extra_files"]


def test_folds_have_the_names_of_the_data(tmp_path):
    for n in range(8):
        write(tmp_path / "sounds" / f"fold{'37'[n % 2]}" / "ab"[n // 2 % 2] / f"{n}.wav", noise(n))
    report, text = run(tmp_path / "sounds", tmp_path / "work")
    assert report["fold_names"] == ["3", "7"]
    assert "| fold 3 | fold 7 |" in text


def test_files_are_audited_in_spite_of_a_bad_table(tmp_path):
    root = tmp_path / "sounds"
    write(root / "a.wav", noise(0))
    write(root / "b.wav", noise(0))
    write(root / ".hidden.wav", noise(0))
    (root / "c.wav").touch()
    (root / "folder.wav").mkdir()
    write_table(root / "clips.csv", "path,label", [("a.wav", "x"), ("a.wav", "y")])
    report, text = run(root, tmp_path / "work", table="clips.csv")
    assert "duplicate clip id a.wav" in report["table_error"]
    assert "duplicate clip id a.wav" in report["verdict"][0]
    assert report["num_recordings"] == {"unlisted": 3}
    assert list(report["problems"]["empty"]) == ["c.wav"]
    assert report["duplicates"][0]["ids"] == ["a.wav", "b.wav"]
    assert not any("LEFT OUT" in line for line in report["verdict"])
    assert "## Labels" not in text
    assert examine.run(settings(root, table="clips.csv"), tmp_path / "work") is False


def test_whether_training_could_begin_is_told(tmp_path):
    for n in range(4):
        write(tmp_path / "sounds" / "xy"[n % 2] / f"{n}.wav", noise(n))
    assert examine.run(settings(tmp_path / "sounds"), tmp_path / "work") is True
    write_table(tmp_path / "t.csv", "path,label", [("gone0.wav", "x"), ("gone1.wav", "y"), ("gone2.wav", "y")])
    assert examine.run(settings(tmp_path / "sounds", table=str(tmp_path / "t.csv")), tmp_path / "work") is False
    for path in tmp_path.glob("sounds/*/*.wav"):
        path.write_bytes(b"")
    assert examine.run(settings(tmp_path / "sounds"), tmp_path / "work") is False


def test_one_fold_that_can_be_used_stops_training(tmp_path):
    rows = [(f"{n}.wav", "xy"[n % 2], n // 4) for n in range(8)]
    for n, (name, *_) in enumerate(rows):
        write(tmp_path / "sounds" / name, noise(n))
        if n >= 4:
            (tmp_path / "sounds" / name).write_bytes(b"")
    write_table(tmp_path / "sounds" / "clips.csv", "path,label,fold", rows)
    given = settings(tmp_path / "sounds", table="clips.csv")
    assert examine.run(given, tmp_path / "work") is False
    verdict = json.loads((tmp_path / "work" / "doctor.json").read_text())["verdict"]
    assert "ONE FOLD: only fold 0 has usable recordings; training would stop." in verdict


def test_labels_that_are_nearly_others_are_named():
    counts = {"rain": 30, "rian": 1, "rai": 2, "dog": 10, "dgo": 1, "cat": 10, "car": 10, "hat": 2}
    counts |= {"Acoustic guitar": 40, "Acustic guitr": 1, "cow": 1, "ow": 1, "how": 10}
    counts |= {
        "type I": 50,
        "type II": 1,
        "note D#": 1,
        "note C#": 50,
        "male singing": 50,
        "female singing": 2,
        "dog2": 1,
    }
    found = {("rian", "rain"), ("rai", "rain"), ("dgo", "dog"), ("Acustic guitr", "Acoustic guitar")}
    assert set(misspelt_labels(counts)) == found
    assert misspelt_labels({"xy": 1, "xz": 100, "train": 1, "trains": 9, "take 1": 1, "take 12": 50}) == []


def test_a_misspelt_label_and_a_low_rate_are_reported(tmp_path):
    for n in range(12):
        write(tmp_path / "sounds" / "rain" / f"{n}.wav", noise(n))
    write(tmp_path / "sounds" / "rian" / "a.wav", noise(99))
    report, _ = run(tmp_path / "sounds", tmp_path / "work", sample_rate_hz=2 * RATE_HZ)
    assert (
        "MISSPELT? 'rian' (1 clip) is nearly 'rain' (12 clips); as it is, it is a class of its own."
        in report["verdict"]
    )
    below = f"below the {2 * RATE_HZ} Hz of config.dataset.sample_rate_hz, the lowest {RATE_HZ} Hz."
    assert f"LOW RATE: 13 recordings {below}" in report["verdict"]
    assert not any("Used, but check" in line for line in report["verdict"])
    many = list(describe_misspelt({"abcdef": 100} | {f"abcde{letter}": 1 for letter in "ghijklm"}))
    assert len(many) == 6 and many[-1] == "MISSPELT? 2 more labels"


def test_without_a_table_or_sound_files_an_error_is_raised(tmp_path):
    for path, source, message in (
        (tmp_path / "nowhere", "folder", "no folder"),
        (tmp_path, "folder", "No recordings under"),
        (tmp_path, "esc10", "ESC-10 is missing"),
        (tmp_path / "nowhere", "fsdkaggle2018", "FSDKaggle2018 is missing"),
        (tmp_path, "fsdkaggle2018", "no training table"),
        (tmp_path, "demo", "demo's sounds are not in"),
        (tmp_path, "esc", "Unknown clip source 'esc'; choose from"),
    ):
        with pytest.raises(UserError, match=message):
            examine.run(settings(path, source), tmp_path / "work")
    assert list(tmp_path.iterdir()) == []  # neither data nor a report


def test_clips_of_one_recording_in_different_folds(tmp_path):
    names = ["1-17-A-0.wav", "2-17-B-0.wav", "1-18-A-1.wav", "1-18-B-1.wav", "2-19-A-1.wav"]
    for n, name in enumerate(names):
        write(tmp_path / "audio" / name, noise(n))
    rows = [(name, name[0], "dog" if name.endswith("0.wav") else "rain", "True", name[2:4]) for name in names]
    write_table(tmp_path / "meta" / "esc10.csv", "filename,fold,category,esc10,src_file", rows)
    report, text = run(tmp_path, tmp_path / "work", "esc10")
    assert [(group["ids"], group["crosses_folds"]) for group in report["takes"]] == [
        (["1-17-A-0.wav", "2-17-B-0.wav"], True),
        (["1-18-A-1.wav", "1-18-B-1.wav"], False),
    ]
    leak = "LEAK: clips of one recording in different folds, or in training and test, 1 group"
    assert any(leak in line for line in report["verdict"])
    assert "1-17-A-0.wav" in text
    assert "1-18-A-1.wav" not in text


def test_clips_of_one_recording_in_training_and_test(tmp_path):
    for n in range(5):
        write(tmp_path / f"{n}.wav", noise(n))
    rows = [
        (f"{n}.wav", "ab"[n % 2], "test" if n == 4 else "train", "same" if n in (0, 4) else str(n)) for n in range(5)
    ]
    write_table(tmp_path / "clips.csv", "path,label,split,recording", rows)
    report, text = run(tmp_path, tmp_path / "work", "folder", table="clips.csv")
    assert any("LEAK: clips of one recording" in line for line in report["verdict"])
    assert "share a fold" not in text and "4.wav" in text


def test_a_data_set_without_audio_is_summarized_in_one_line(tmp_path, shared_data):
    """Audits the challenge's tables without its 18,873 recordings."""
    report, text = run(shared_data / "fsdkaggle2018", tmp_path, "fsdkaggle2018", num_folds=5)
    assert "NO AUDIO: all 18873 recordings of the tables are missing" in report["verdict"][0]
    assert len(report["problems"]["missing"]) == 18873
    assert text.count("\n") < 100
    assert sum(label["verified"] for label in report["labels"].values()) == 3710
    assert sum(label["unverified"] for label in report["labels"].values()) == 5763
    assert sum(label["test"] for label in report["labels"].values()) == 1600
    assert report["num_unlabelled_test"] == 7800
    assert abs(report["largest_deviation"]["count"] - report["largest_deviation"]["even_share"]) < 2


def test_real_recordings(tmp_path, shared_data):
    """Audits part of ESC-10, and a copy of one recording as FLAC in another fold."""
    esc = shared_data / "esc10"
    with (esc / "meta" / "esc10.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[::20]
    (tmp_path / "audio").mkdir()
    for row in rows:
        shutil.copy(esc / "audio" / row["filename"], tmp_path / "audio")
    copied = rows[0] | {"filename": "copy.flac", "fold": "5"}
    samples, rate_hz = soundfile.read(esc / "audio" / rows[0]["filename"], dtype="float32")
    quiet = np.round(samples * 2**14) / 2**15  # within range, on the grid of 16 bits
    soundfile.write(tmp_path / "audio" / copied["filename"], quiet, rate_hz)
    soundfile.write(tmp_path / "audio" / "copy.wav", quiet, rate_hz)
    rows += [copied, copied | {"filename": "copy.wav", "fold": "1"}]
    write_table(tmp_path / "meta" / "esc10.csv", ",".join(rows[0]), [row.values() for row in rows])
    report, _ = run(tmp_path, tmp_path / "work", "esc10")
    assert report["num_lost"] == {}
    assert [group["ids"] for group in report["duplicates"]] == [["copy.flac", "copy.wav"]]
    assert report["duplicates"][0]["crosses_folds"]
    assert report["formats"]["duration_s"]["median"] == pytest.approx(5.0, abs=0.01)


SPECIAL_NAMES = [
    "a|b.wav",
    "`rm`.wav",
    "``x` .wav",
    "<b>.wav",
    "a\nb.wav",
    "*_[x](y)_*.wav",
    " lead.wav",
    "\\|.wav",
    "é&amp;.wav",
]


def test_file_names_are_escaped_in_markdown():
    markdown_it = pytest.importorskip("markdown_it")
    reader = markdown_it.MarkdownIt("gfm-like", {"linkify": False})

    def inline(text):
        (token,) = [token for token in reader.parse(text) if token.type == "inline"]
        return token.children

    for name in SPECIAL_NAMES:
        (token,) = inline(f"- {code(name)}")
        assert (token.type, token.content) == ("code_inline", printable(name))
        token = inline(f"- x {escape(name)}")
        assert {part.type for part in token} <= {"text", "text_special"}
        assert "".join(part.content for part in token) == f"x {printable(name)}"


def test_a_report_with_special_characters_renders_correctly(tmp_path):
    markdown_it = pytest.importorskip("markdown_it")
    root = tmp_path / "sounds"
    rows = [(name, label, fold) for name in SPECIAL_NAMES if "\\" not in name for label, fold in [("a|`b`<i>", 0)]]
    rows += [("other.wav", "b*c*", 1)]
    write(root / "there.wav", noise(0))
    shutil.copy(root / "there.wav", root / os.fsdecode(b"latin\xe9.wav"))  # a name that is not UTF-8
    write_table(root / "clips.csv", "path,label,fold", rows)
    report, text = run(root, tmp_path / "work", table="clips.csv")
    assert len(report["extra_files"]) == 2
    html = markdown_it.MarkdownIt("gfm-like", {"linkify": False}).render(text)
    assert html.count("<table>") == 1
    assert "<b>" not in html
    assert "<i>" not in html
    assert "<em>b" not in html
    cells = [line for line in html.splitlines() if line.startswith("<td>")]
    assert cells[0] == "<td><code>a|`b`&lt;i&gt;</code></td>"
    assert len(cells) == 2 * (5 + 2)
    assert r"<code>latin\udce9.wav</code>" in html


def test_long_lists_are_shortened_only_in_the_markdown(tmp_path):
    for n in range(60):
        write(tmp_path / "sounds" / "ab"[n % 2] / f"{n:02}.wav", noise(n, 100))
    report, text = run(tmp_path / "sounds", tmp_path / "work")
    assert len(report["problems"]["too_short"]) == 60
    assert "… and 40 more, in `doctor.json`" in text
    assert format_report(report) == text


def test_lists_of_labels_that_cannot_be_learned(tmp_path):
    lists = ["dog;puppy", "dog;puppy", "dog", "rain;wet", "rain;wet", "", "dog;rain;wet"]
    root = tmp_path / "sounds"
    for n, _ in enumerate(lists):
        write(root / f"{n}.wav", noise(n))
    rows = [("path", "label", "fold"), *((f"{n}.wav", label, n % 2) for n, label in enumerate(lists))]
    with (root / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    fields = {"table": "clips.csv", "label_separator": ";"}
    report, text = run(root, tmp_path / "work", **fields)
    assert report["inseparable"] == [["rain", "wet"]] and report["implied"] == [["puppy", "dog"]]
    assert report["unlabelled"] == ["5.wav"] and report["rare"] == ["dog", "puppy", "rain", "wet"]
    assert "INSEPARABLE: 'rain' and 'wet' are labels of the very same training clips" in "\n".join(report["verdict"])
    assert any(line.startswith("RARE: 4 labels with fewer than 20 training clips") for line in report["verdict"])
    assert "Labels whose clips all have another one too:\n\n- `puppy`: `dog`" in text
    assert "Training clips without a label:\n\n- `5.wav`" in text and FEWEST == decision.FEWEST
