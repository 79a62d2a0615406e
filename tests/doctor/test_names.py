"""Paths that nearly exist, and labels that look like several tags; all expected values by hand."""

import os
import unicodedata
from pathlib import Path

import pytest

from audiotag_jax.doctor.names import describe_tag_lists, near_names, propose_change


def test_near_names_finds_similar_names():
    decomposed = unicodedata.normalize("NFD", "Café")
    files = [Path("d/A.WAV"), Path(f"d/{decomposed}.wav"), Path("d/b.flac"), Path("d/e/c.wav"), Path("d/f.wav")]
    missing = {
        name: Path("d", name) for name in ("a.wav", "Café.wav", "B.wav", "c.wav", "f", "other.wav", "1.5", "1.6.wav")
    }
    assert near_names(missing, files) == {
        "a.wav": files[0],
        "Café.wav": files[1],
        "B.wav": files[2],
        "c.wav": files[3],
        "f": files[4],
    }
    assert near_names({"a": Path("d/a.wav")}, [Path("d/a.flac"), Path("d/a.Wav")]) == {"a": Path("d/a.Wav")}


def test_names_that_are_not_utf8_are_compared_as_latin1():
    file = Path(os.fsdecode(b"d/caf\xe9.wav"))
    assert near_names({"café.wav": Path("d/Café.wav")}, [file]) == {"café.wav": file}


def test_the_same_stem_elsewhere_is_the_last_resort():
    files = [Path("d/x/a.flac"), Path("d/b.ogg")]
    assert near_names({"a": Path("d/a"), "b.wav": Path("d/y/b.wav")}, files) == {"a": files[0], "b.wav": files[1]}


@pytest.mark.parametrize(
    ("pairs", "instructions"),
    [
        ({"dog/0": "dog/0.wav", "rain/1": "rain/1.wav"}, "append '.wav'"),
        ({"dog/0.mp3": "dog/0.wav", "rain/1.mp3": "rain/1.wav"}, "replace '.mp3' by '.wav'"),
        ({"0.wav": "audio/0.wav", "1.wav": "audio/1.wav"}, "put 'audio/' before them"),
        ({"C:/me/0.wav": "0.wav", "C:/me/1.wav": "1.wav"}, "remove 'C:/me/' from the beginning"),
        (
            {"old/a/0": "new/a/0.wav", "old/a/1": "new/a/1.wav"},
            "replace 'old/' at the beginning by 'new/', append '.wav'",
        ),
        ({"a/0.wav": "A/0.wav", "b/1.wav": "B/1.wav"}, "write them in the case"),
    ],
)
def test_a_change_that_all_paths_need_is_proposed(pairs, instructions):
    assert instructions in propose_change(pairs, len(pairs))
    assert propose_change(pairs, 3) == ""  # nothing explains the third


def test_no_change_is_proposed_for_single_or_different_ones():
    assert propose_change({"0": "0.wav"}, 1) == ""
    assert propose_change({"0": "0.wav", "1.wav": "audio/1.wav"}, 2) == ""
    assert propose_change({}, 0) == ""


def test_labels_that_look_like_several_tags():
    (line,) = describe_tag_lists(["dog", "dog;loud", "rain;loud"])
    assert line.startswith("SEVERAL TAGS? 2 of 3 labels have ';' between words that other labels have too, such as")
    assert "'dog;loud'" in line
    assert len(list(describe_tag_lists(["a,b", "b,c", "a|c", "d|c"]))) == 2
    assert list(describe_tag_lists(["Dog, big", "Cat, big"])) == []  # what all labels have is no tag
    assert list(describe_tag_lists(["Dog, small", "Cat", "Door; slam"])) == []
