"""Vectors of recordings and of a data set: those of the network, with ids and times; the two files agree."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import random_runs
import soundfile

from audiotag_jax.audio.crop import crop_loudest
from audiotag_jax.audio.decode import load_audio
from audiotag_jax.inference import embed
from audiotag_jax.inference.tagger import load_tagger
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.settings import parse_settings
from audiotag_jax.spectral.front_end import normalize, to_images

RATE_HZ, LENGTH = random_runs.RATE_HZ, random_runs.LENGTH


@pytest.fixture(scope="module")
def workdir(folder, tmp_path_factory) -> Path:
    return random_runs.make_run(random_runs.tiny_config(folder), tmp_path_factory.mktemp("runs") / "run")


def read(out: Path) -> dict[str, np.ndarray]:
    with np.load(out / embed.NPZ) as saved:
        return dict(saved)


def test_recordings(workdir, tmp_path, capsys):
    noise = (0.1 * np.random.default_rng(0).standard_normal(3 * LENGTH)).astype(np.float32)
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    soundfile.write(sounds / "long.wav", np.concatenate([noise, np.zeros(LENGTH)]), RATE_HZ, subtype="FLOAT")
    soundfile.write(sounds / "short.wav", noise[:500], RATE_HZ, subtype="FLOAT")
    (sounds / "text.wav").write_text("no sound")
    embed.run(workdir, [str(sounds)], out=tmp_path / "out")
    assert "log_db: the network of fold 0, windows of" in capsys.readouterr().out
    found = read(tmp_path / "out")
    assert [Path(name).name for name in found["ids"]] == ["long.wav"] * 3 + [
        "short.wav"
    ]  # the silent window is left out
    np.testing.assert_allclose(found["start_s"], np.array([0, 1, 2, 0]) * LENGTH / RATE_HZ)
    np.testing.assert_allclose(found["end_s"], np.array([LENGTH, 2 * LENGTH, 3 * LENGTH, 500]) / RATE_HZ)
    tagger = load_tagger(workdir)
    waveforms = np.stack([*noise.reshape(3, LENGTH), crop_loudest(noise[:500], LENGTH, RATE_HZ // 2)])
    images = np.asarray(to_images(jnp.asarray(waveforms), tagger.front_end)).astype(np.float16).astype(np.float32)
    body = {kind: {"body": tree["body"]} for kind, tree in load_tagger(workdir, (0,)).variables.items()}
    variables = {kind: _first(tree["body"]) for kind, tree in body.items()}
    features = tagger.network.body.apply(variables, normalize(images, tagger.front_end), train=False)
    np.testing.assert_allclose(found["embeddings"], np.asarray(features).mean((1, 2)), rtol=1e-3, atol=1e-5)
    about = json.loads(str(found["about"]))
    assert (about["network"], about["fold"], about["window_s"]) == ("log_db", 0, LENGTH / RATE_HZ)
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(tmp_path / "out" / embed.PARQUET)
    assert table.column_names == ["ids", "start_s", "end_s", "embeddings"]
    assert table["ids"].to_pylist() == found["ids"].tolist() and json.loads(table.schema.metadata[b"about"]) == about
    np.testing.assert_array_equal(np.array(table["embeddings"].to_pylist(), np.float32), found["embeddings"])


def test_a_truncated_recording_is_noted(workdir, tmp_path, capsys):
    sound = tmp_path / "cut.wav"
    soundfile.write(sound, 0.1 * np.random.default_rng(0).standard_normal(3 * LENGTH), RATE_HZ, subtype="FLOAT")
    sound.write_bytes(sound.read_bytes()[: -4 * LENGTH])
    embed.run(workdir, [str(sound)], out=tmp_path / "out")
    printed = capsys.readouterr().out
    assert f"note: {sound}: truncated: " in printed and printed.count("note: ") == 1
    assert len(read(tmp_path / "out")["ids"]) == 2


def _first(tree):
    return {name: _first(leaf) if isinstance(leaf, dict) else leaf[0] for name, leaf in tree.items()}


def test_a_data_set(folder, workdir, tmp_path):
    """With the weights of another run: by id the vectors that the run's own recordings have."""
    config = random_runs.tiny_config(folder)
    config.model.init_from = str(workdir / "fold_1")
    embed.run(tmp_path / "run", settings=parse_settings(config))
    found = read(tmp_path / "run" / "embedded")
    with np.load(workdir / "fold_0" / "predictions.npz") as saved:
        assert set(saved["ids"]) < set(found["ids"]) and len(found["ids"]) == random_runs.NUM_CLIPS
    recordings = [load_audio(folder / name, RATE_HZ)[0] for name in found["ids"]]
    clips = np.stack([crop_loudest(each, LENGTH, RATE_HZ // 2) for each in recordings])
    expected = load_tagger(workdir).embeddings(clips, fold=1)
    np.testing.assert_allclose(found["embeddings"], expected, rtol=1e-3, atol=1e-5)
    assert found["labels"].tolist() == [random_runs.CLASSES[int(name[:2]) % 4] for name in found["ids"]]
    assert set(found["folds"]) == {0, 1} and set(found["splits"]) == {"train"}


def test_what_cannot_be_embedded(folder, workdir, tmp_path):
    with pytest.raises(UserError, match="needs --audio, or --config"):
        embed.run(workdir)
    with pytest.raises(UserError, match="the network is random"):
        embed.run(workdir, settings=parse_settings(random_runs.tiny_config(folder)))
    with pytest.raises(UserError, match="There is no fold 7; log_db has 0, 1"):
        embed.run(workdir, [str(folder)], fold=7)
    soundfile.write(tmp_path / "silent.wav", np.zeros(500), RATE_HZ)
    with pytest.raises(UserError, match="There is no window to embed"):
        embed.run(workdir, [str(tmp_path / "silent.wav")], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
