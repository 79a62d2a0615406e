"""Preparing by Apache Beam: the records of the local way, whatever the runner; it needs an environment of its own."""

import importlib.util

import numpy as np
import pytest
from test_builders import CLIPS, IMAGES, data_source, make_source

from audiotag_jax.datasets import builders, prepare
from audiotag_jax.datasets.beam import download_config, user_error_in
from audiotag_jax.datasets.index import read_index
from audiotag_jax.datasets.prepare import prepare_clips, prepare_spectrograms
from audiotag_jax.datasets.prepared import read_metadata
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.settings import parse_settings
from audiotag_jax.settings.variants import get_config

HAS_BEAM = importlib.util.find_spec("apache_beam") is not None
needs_beam = pytest.mark.skipif(not HAS_BEAM, reason="Apache Beam is not installed (requirements-beam.txt)")


@needs_beam
def test_beam_writes_the_records_of_the_local_way(tmp_path, monkeypatch):
    """More than ten shards, whose order TFDS confuses, and two splits, which it would put into one pipeline."""
    monkeypatch.setattr(builders, "SHARD_CLIPS", 2)
    source = make_source(tmp_path / "sounds", num_train=23, num_test=3)
    (tmp_path / "sounds" / "train_05.wav").write_bytes(b"")
    made = []
    for name, runner in (("alone", ""), ("beam", "DirectRunner")):
        how = download_config(runner, "--direct_num_workers=2 --direct_running_mode=multi_processing")
        monkeypatch.setattr("audiotag_jax.datasets.prepare.download_config", lambda *_, how=how: how)
        clips = prepare_clips(source, CLIPS, tmp_path / name, 1, dataset=settings_of(tmp_path / "sounds"))
        made.append((clips, prepare_spectrograms(clips, IMAGES, tmp_path / name, how)))
    for alone, beam in zip(*made, strict=True):
        assert sorted(path.name for path in alone.iterdir()) == sorted(path.name for path in beam.iterdir())
        assert read_index(alone).equals(read_index(beam))
        assert read_metadata(alone) == read_metadata(beam)
        assert len(read_metadata(beam)["problems"]) == 1
        for split, number in (("train", 22), ("test", 3)):
            pairs = list(zip(data_source(alone, split), data_source(beam, split), strict=True))
            assert len(pairs) == number
            for expected, record in pairs:
                assert expected.keys() == record.keys()
                assert all(np.array_equal(expected[field], record[field]) for field in expected)


def settings_of(path):
    config = get_config("log_db", "folder")
    config.dataset.path = str(path)
    return parse_settings(config.to_dict()).dataset


@needs_beam
@pytest.mark.parametrize("options", ["", "--direct_num_workers=2 --direct_running_mode=multi_processing"])
def test_an_error_of_a_clip_is_one_line_from_any_worker(tmp_path, monkeypatch, options):
    source = make_source(tmp_path / "sounds", num_train=5, num_test=1)
    path = tmp_path / "sounds" / "train_02.wav"
    sounds = prepare.content_hashes({clip.path for clip in source.clips}, tmp_path / "alone", 1)
    path.write_bytes(b"")
    how = download_config("DirectRunner", options)
    monkeypatch.setattr("audiotag_jax.datasets.prepare.download_config", lambda *_: how)
    monkeypatch.setattr("audiotag_jax.datasets.prepare.content_hashes", lambda *_: sounds)
    with pytest.raises(UserError) as caught:
        prepare_clips(source, CLIPS, tmp_path / "beam", 1, dataset=settings_of(tmp_path / "sounds"))
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{path} cannot be read any more, or was changed") and second.endswith("is left out).")


def test_a_user_error_is_found_in_the_text_of_a_worker():
    text = "Traceback …\naudiotag_jax.runtime.errors.UserError: a.wav cannot be read.\nRun again. [while running 'W']\n"
    assert str(user_error_in(RuntimeError(text))) == "a.wav cannot be read.\nRun again."
    assert str(user_error_in(UserError("a.wav cannot be read. [while running 'W']"))) == "a.wav cannot be read."
    assert user_error_in(RuntimeError("No space left on device [while running 'W']")) is None


@needs_beam
def test_an_unknown_runner_is_one_line():
    with pytest.raises(UserError, match=r"^config.dataset.beam_runner: .*NoSuchRunner[^\n]*$"):
        download_config("NoSuchRunner", "")


@pytest.mark.skipif(HAS_BEAM, reason="Apache Beam is installed")
def test_without_beam_the_message_names_the_requirements():
    with pytest.raises(UserError, match=r"needs Apache Beam.*requirements-beam\.txt"):
        download_config("DirectRunner", "")


def test_without_a_runner_nothing_of_beam_is_needed():
    assert download_config("", "--anything").beam_runner is None
