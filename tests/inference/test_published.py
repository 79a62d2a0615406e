"""YAMNet as a tagger: the published model's own scores and embeddings, and a command on a recording."""

import csv

import numpy as np
import pytest

from audiotag_jax.inference import predict
from audiotag_jax.inference.published import load_yamnet_tagger, open_tagger
from audiotag_jax.runtime.errors import UserError


def test_scores_embeddings_and_tags_of_the_published_model(shared_data, tmp_path):
    """The reference is that of the int8 model of which the weights were made: its rounding is what differs."""
    folder = shared_data / "yamnet"
    tagger = load_yamnet_tagger(str(folder))
    with np.load(folder / "reference.npz") as reference:
        scores, embeddings = (np.asarray(f(reference["waveforms"])) for f in (tagger.probabilities, tagger.embeddings))
        differences = np.abs(scores - reference["scores"])
        assert differences.max() < 0.06 and differences.mean() < 4e-4
        assert np.corrcoef(embeddings.ravel(), reference["embeddings"].ravel())[0, 1] > 0.9995
    dog = shared_data / "esc10" / "audio" / "1-100032-A-0.ogg"
    predict.run(tmp_path, [str(dog)], out=tmp_path / "tags", tagger=str(folder))
    (row,) = csv.DictReader((tmp_path / "tags" / "predictions.csv").open(newline=""))
    assert "Dog" in (row["tag_1"], row["tag_2"], row["tag_3"]) and int(row["windows"]) == 10


def test_a_tagger_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="--tagger .*: There is no file .*nothing; name YAMNet's weights"):
        open_tagger(tmp_path, str(tmp_path / "nothing"))
    (tmp_path / "yamnet.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="yamnet_class_map.csv is missing"):
        open_tagger(tmp_path, str(tmp_path))
