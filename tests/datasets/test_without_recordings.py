"""A complete prepared dataset stands for recordings that are not there, if it is clear which one."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import random_runs

from audiotag_jax.audio import decode
from audiotag_jax.datasets import prepare as preparing
from audiotag_jax.datasets import without_recordings
from audiotag_jax.datasets.index import FILE_NAME
from audiotag_jax.datasets.prepare import dataset_name, prepare, prepare_run_clips
from audiotag_jax.datasets.prepared import read_metadata
from audiotag_jax.datasets.without_recordings import has_no_files
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.files import write_json
from audiotag_jax.runtime.progress import log
from audiotag_jax.settings.settings import Settings, parse_settings


@pytest.fixture(scope="module")
def original(folder) -> Path:
    """Sounds, their table and the datasets made of them, in one folder."""
    prepare(parse_settings(random_runs.tiny_config(folder)))
    return folder.parent


@pytest.fixture(params=["folder", "recordings"])
def gone(request, original, tmp_path, monkeypatch) -> Settings:
    """Settings of a copy elsewhere, without its folder of sounds, or without sounds in it; paths are relative."""
    monkeypatch.chdir(shutil.copytree(original, tmp_path / "elsewhere"))
    monkeypatch.setattr(without_recordings, "log_once", log)
    if request.param == "folder":
        shutil.rmtree("sounds")
    else:
        for path in Path("sounds").glob("*.wav"):
            path.unlink()
    for path in Path("prepared").rglob("metadata.json"):  # as if it had been prepared by a command with that path
        metadata = read_metadata(path.parent)
        write_json(path, metadata | {"source": metadata["source"] | {"path": "sounds"}})
    config = random_runs.tiny_config(Path("sounds"))
    return parse_settings(config)


def folded(settings: Settings, **changes) -> Settings:
    return dataclasses.replace(settings, dataset=dataclasses.replace(settings.dataset, **changes))


def test_the_dataset_is_used_with_a_note(gone, original, capsys):
    expected = dataset_name(parse_settings(random_runs.tiny_config(original / "sounds")))
    capsys.readouterr()
    directory = prepare(gone)
    assert directory.parent.name == expected == dataset_name(gone)
    note, *_ = capsys.readouterr().out.splitlines()
    assert note.startswith("note: there are no recordings in sounds; using prepared/audiotag_clips/")


def test_other_images_are_computed_from_its_clips(gone):
    other = dataclasses.replace(gone, spectral=dataclasses.replace(gone.spectral, channels=("mel_db",)))
    assert read_metadata(prepare(other))["spectral"]["channels"] == ["mel_db"]


def test_another_table_or_assignment_of_folds_is_other_data(gone):
    for changes in ({"fold_seed": 1}, {"num_folds": 3}, {"sample_rate_hz": 5000}):
        with pytest.raises(UserError, match=r"There is no folder sounds|None of the 14 training recordings"):
            prepare(folded(gone, **changes))
    if not Path("sounds").exists():  # another folder of somebody's own is no match, whatever its folds
        with pytest.raises(UserError, match="There is no folder mine"):
            prepare(folded(gone, path="mine"))
        return
    table = Path("sounds/clips.csv")
    table.write_text(table.read_text().replace("rain", "bird", 1))
    with pytest.raises(UserError, match="None of the 14 training recordings"):
        prepare(gone)


def test_several_datasets_that_fit_are_listed_and_a_run_knows_its_own(gone, capsys):
    clips_dir = prepare_run_clips(gone)
    other = shutil.copytree(clips_dir, clips_dir.parents[1] / "0123456789abcdef" / clips_dir.name)
    with pytest.raises(UserError, match=r"2 prepared datasets fit them: .*\n.*move away the datasets") as caught:
        prepare_run_clips(gone)
    assert str(clips_dir) in str(caught.value) and str(other) in str(caught.value)
    names = {preparing._name_of_inputs(gone, directory): directory for directory in (clips_dir, other)}
    for name, directory in names.items():
        assert prepare_run_clips(gone, name) == directory


def test_of_another_version_of_the_decoder_if_there_is_no_other(gone, monkeypatch, capsys):
    clips_dir, images_dir = prepare_run_clips(gone), prepare(gone)
    capsys.readouterr()
    newest = decode.VERSION + 1
    monkeypatch.setattr(decode, "VERSION", newest)
    assert (prepare_run_clips(gone), prepare(gone)) == (clips_dir, images_dir)
    assert f"prepared from them by version {newest - 1} of the decoder (now {newest})" in capsys.readouterr().out
    other = shutil.copytree(clips_dir, clips_dir.parents[1] / "0123456789abcdef" / clips_dir.name)
    metadata = read_metadata(clips_dir)
    write_json(other / "metadata.json", metadata | {"versions": {"decoder": newest}})
    assert prepare_run_clips(gone) == other


def test_some_recordings_are_not_none(original, tmp_path, monkeypatch):
    """A lost recording is left out, as ever."""
    monkeypatch.chdir(shutil.copytree(original, tmp_path / "elsewhere"))
    Path("sounds/03.wav").unlink()
    directory = prepare_run_clips(parse_settings(random_runs.tiny_config(Path("sounds"))))
    assert [each["id"] for each in read_metadata(directory)["problems"]] == ["03.wav"]


def test_a_dataset_of_an_earlier_release_fits_its_table_or_its_run(gone):
    """It records neither where its clips come from nor versions, and has no index."""
    clips_dir = prepare_run_clips(gone)
    name = preparing._name_of_inputs(gone, clips_dir)
    old = {
        key: value for key, value in read_metadata(clips_dir).items() if key not in ("source", "versions", "provenance")
    }
    write_json(clips_dir / "metadata.json", old)
    (clips_dir / FILE_NAME).unlink()
    assert prepare_run_clips(gone, name) == clips_dir
    if Path("sounds").exists():
        assert prepare_run_clips(gone) == clips_dir
    else:
        with pytest.raises(UserError, match="There is no folder sounds"):
            prepare_run_clips(gone)


def test_nothing_is_downloaded_where_the_dataset_is_there(gone, monkeypatch):
    """FSDKaggle2018 would be."""
    clips_dir = prepare_run_clips(gone)
    metadata = read_metadata(clips_dir)
    write_json(clips_dir / "metadata.json", metadata | {"source": metadata["source"] | {"name": "fsdkaggle2018"}})
    monkeypatch.setattr("audiotag_jax.datasets.sources.download_fsdkaggle2018", None)
    assert prepare_run_clips(folded(gone, source="fsdkaggle2018", path="nowhere", download=True)) == clips_dir


@pytest.mark.parametrize(("left", "none"), [("README.md", True), (".hidden.wav", True), ("linked", False)])
def test_what_counts_as_recordings_of_a_folder_of_labels(tmp_path, left, none):
    """Links to the labels' folders do, as they do where the folder is listed."""
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    if left == "linked":
        (tmp_path / "elsewhere/dog").mkdir(parents=True)
        (tmp_path / "elsewhere/dog/a.wav").touch()
        (tmp_path / "elsewhere/dog/loop").symlink_to(tmp_path / "elsewhere")
        (sounds / left).symlink_to(tmp_path / "elsewhere")
    else:
        (sounds / left).touch()
    dataset = parse_settings(random_runs.tiny_config(sounds)).dataset
    assert has_no_files(dataclasses.replace(dataset, table="")) == none


def test_audioset_s_tables_alone_are_no_recordings(tmp_path):
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    (sounds / "balanced_train_segments.csv").touch()
    dataset = dataclasses.replace(parse_settings(random_runs.tiny_config(sounds)).dataset, source="audioset", table="")
    assert has_no_files(dataset)
    (sounds / "YTID.wav").touch()
    assert not has_no_files(dataset)


@pytest.mark.parametrize("folder_is_left", [True, False])
def test_a_table_elsewhere_decides_as_one_among_the_recordings_does(original, tmp_path, monkeypatch, folder_is_left):
    """An edited label is another data set, though the recordings are away."""
    monkeypatch.chdir(shutil.copytree(original, tmp_path / "elsewhere"))
    table = Path("clips.csv")
    shutil.move("sounds/clips.csv", table)
    config = random_runs.tiny_config(Path("sounds"))
    directory = prepare(parse_settings(config))
    if folder_is_left:
        for path in Path("sounds").glob("*.wav"):
            path.unlink()
    else:
        shutil.rmtree("sounds")
    assert prepare(parse_settings(config)) == directory
    table.write_text(table.read_text().replace("rain", "bird", 1))
    with pytest.raises(UserError, match="None of the 14 training recordings"):
        prepare(parse_settings(config))
